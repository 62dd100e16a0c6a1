"""Questions of other kinds than the score of a class: what they are, and several of them in one batch.

A query is bound to a frozen network and its inputs once a run; what comes of that is asked of every perturbed input.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.network import Evaluates

if TYPE_CHECKING:
    from extremal.networks.network import Network
    from extremal.networks.split import Split

BoundQuery = Callable[[Tensor, Tensor], Tensor]  # inputs (B, C, *S), of which image each is (B,) int64 -> scores (B,)


@runtime_checkable
class Query(Protocol):
    """Immutable, with one verb; handed to `explain` as the target."""

    @property
    def name(self) -> str:
        """What is asked, in a few words: it stands where the name of a class stands."""
        ...

    @property
    def layer(self) -> str:
        """A module whose output must be as the network has it; empty where none is looked at."""
        ...

    @property
    def depends_on_position(self) -> bool:
        """Whether it is about a place in the input, so that the mirrored input asks something else."""
        ...

    def bind(self, run: "Evaluates", x: Tensor) -> BoundQuery:
        """The question about inputs x (N, C, *S), whole and unperturbed.

        `run.raw(inputs, images)` evaluates the network and counts it. What is changed about the network is to be put
        back by `run.undo`, an `ExitStack`.

        Raises:
            ExtremalValueError, ExtremalTypeError: it cannot be asked of this network or these inputs.
        """
        ...


class PerInput:
    """Another question about each input of a batch.

    Args:
        queries: one for each input.
    """

    def __init__(self, queries: Sequence[Query]) -> None:
        self.queries = tuple(queries)
        layers = {query.layer for query in queries} - {""}
        if len(layers) > 1:
            raise ExtremalValueError(
                f"the questions of one batch must look at one layer at most, got {', '.join(sorted(layers))}; "
                "ask in a batch for each layer"
            )
        self.layer = layers.pop() if layers else ""

    @property
    def depends_on_position(self) -> bool:
        """Whether any of them is."""
        return any(query.depends_on_position for query in self.queries)

    @property
    def name(self) -> str:
        """Of all of them."""
        return "; ".join(query.name for query in self.queries)

    @property
    def names(self) -> tuple[str, ...]:
        """(N,)."""
        return tuple(query.name for query in self.queries)

    def __len__(self) -> int:
        return len(self.queries)

    def bind(self, run: "Evaluates", x: Tensor) -> BoundQuery:
        """Each is bound to its own input."""
        asked = [query.bind(_SingleInput(run, n), x[n : n + 1]) for n, query in enumerate(self.queries)]

        def ask(inputs: Tensor, images: Tensor) -> Tensor:
            scores: Tensor | None = None
            for image in sorted(set(images.tolist())):
                rows = (images == image).nonzero()[:, 0]
                found = asked[image](inputs.index_select(0, rows), rows * 0)
                scores = found.new_empty(len(inputs)) if scores is None else scores
                scores = scores.index_copy(0, rows, found)
            assert scores is not None
            return scores

        return ask


class _SingleInput:
    """A frozen network about one of its inputs, which is number 0 to who asks.

    Args:
        run: about all of them.
        image: which.
    """

    def __init__(self, run: "Evaluates", image: int) -> None:
        self.run, self._image = run, image
        self.network, self.undo = run.network, run.undo

    def raw(self, inputs: Tensor, images: Tensor) -> object:
        """The output as the network gives it."""
        return self.run.raw(inputs, images + self._image)


class CallableQuery:
    """A callable on the network's raw output as a query.

    Args:
        score: output -> (B,).
    """

    layer, depends_on_position = "", False

    def __init__(self, score: Callable[[object], Tensor]) -> None:
        self._score = score

    @property
    def name(self) -> str:
        """The callable's own name."""
        return str(getattr(self._score, "__name__", type(self._score).__name__))

    def bind(self, run: "Evaluates", x: Tensor) -> BoundQuery:
        """The callable, its answer checked."""
        return lambda inputs, images: per_row(self._score(run.raw(inputs, images)), len(inputs), "target")


def per_row(scores: object, rows: int, what: str) -> Tensor:
    """The scores, one floating number an input.

    Raises:
        ExtremalTypeError, ExtremalValueError: they are not.
    """
    if not isinstance(scores, Tensor):
        raise ExtremalTypeError(f"a {what} callable must return a tensor (B,), got {type(scores).__name__}")
    if scores.shape != (rows,) or not scores.is_floating_point():
        raise ExtremalValueError(
            f"a {what} callable must return one floating score an input, shape ({rows},), "
            f"got {tuple(scores.shape)} {scores.dtype}"
        )
    return scores


def as_split(run: "Evaluates") -> "Split | None":
    """The split network, where it is asked from a layer on; None where it is whole."""
    from extremal.networks.split import Split  # it comes to this module by way of the terms

    if isinstance(run, _SingleInput):
        return as_split(run.run)
    return run if isinstance(run, Split) else None


def input_shape(run: "Evaluates", x: Tensor) -> tuple[int, ...]:
    """(C, *S) of the network's own inputs, also where x are activations at a layer."""
    made = as_split(run)
    return tuple((x if made is None else made.x).shape[1:])


def class_label(wanted: int | str) -> str:
    """A class in words, before it is known what network is asked."""
    return wanted if isinstance(wanted, str) else f"class {wanted}"


def class_index(network: "Network", wanted: int | str, classes: int | None = None, what: str = "a class") -> int:
    """The index of a class given by index or name.

    Args:
        network: for its class names.
        wanted: index or name.
        classes: how many there are; None: not known yet.
        what: stands for a class in messages.

    Raises:
        ExtremalValueError, ExtremalTypeError: there is no such class; of names near ones are offered.
    """
    if isinstance(wanted, bool) or not (isinstance(wanted, str) or hasattr(wanted, "__index__")):
        raise ExtremalTypeError(f"{what} must be given by its index or name, got {wanted!r}")
    index = network.index(wanted) if isinstance(wanted, str) else wanted.__index__()
    if index < 0 or (classes is not None and index >= classes):
        rule = "be at least 0" if classes is None else f"lie in 0..{classes - 1}"
        raise ExtremalValueError(f"{what} must {rule} for {network.name}, got {index}")
    return index
