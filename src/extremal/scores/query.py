"""Queries: what is asked of a network about an input.

A query is bound to a frozen network and its inputs once per run; the bound query scores every perturbed input.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.class_names import check_class_index
from extremal.networks.counting import EvaluationCount
from extremal.networks.network import Network
from extremal.networks.run import Evaluator
from extremal.networks.split import Split
from extremal.number_checks import format_value, is_whole

BoundQuery = Callable[[Tensor, Tensor], Tensor]  # inputs (B, C, *S), index of each one's original (B,) -> scores (B,)


@runtime_checkable
class Query(Protocol):
    """A query to a network; an immutable value that `explain` takes as its target."""

    @property
    def name(self) -> str:
        """A short description, shown in place of the name of a class."""
        ...

    @property
    def layer(self) -> str:
        """Name of a module whose unmodified output the query reads; empty if it reads none."""
        ...

    @property
    def depends_on_position(self) -> bool:
        """Whether the query is about a position in the input, so that mirroring changes it."""
        ...

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind the query to inputs x (N, C, *S), unperturbed.

        `run.evaluate(inputs, images)` evaluates the network and counts the evaluations. Changes to the network must be
        undone by `run.undo`, an `ExitStack`.

        Raises:
            ExtremalValueError, ExtremalTypeError: the query does not apply to this network or these inputs.
        """
        ...


class PerInput:
    """A query for each input of a batch.

    Args:
        queries: one per input.
    """

    def __init__(self, queries: Sequence[Query]) -> None:
        self.queries = tuple(queries)
        layers = {query.layer for query in queries} - {""}
        if len(layers) > 1:
            raise ExtremalValueError(
                f"the queries of one batch must read one layer at most, got {', '.join(sorted(layers))}; "
                "use a batch for each layer"
            )
        self.layer = layers.pop() if layers else ""

    @property
    def depends_on_position(self) -> bool:
        """Whether any of the queries is about a position."""
        return any(query.depends_on_position for query in self.queries)

    @property
    def name(self) -> str:
        """The names of all queries."""
        return "; ".join(query.name for query in self.queries)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each query: (N,)."""
        return tuple(query.name for query in self.queries)

    def __len__(self) -> int:
        return len(self.queries)

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind each query to its own input."""
        bound = [query.bind(_SingleInput(run, n), x[n : n + 1]) for n, query in enumerate(self.queries)]

        def ask(inputs: Tensor, images: Tensor) -> Tensor:
            scores: Tensor | None = None
            for image in sorted(set(images.tolist())):
                rows = (images == image).nonzero()[:, 0]
                part = bound[image](inputs.index_select(0, rows), rows * 0)
                scores = part.new_empty(len(inputs)) if scores is None else scores
                scores = scores.index_copy(0, rows, part)
            assert scores is not None
            return scores

        return ask


class _SingleInput:
    """A frozen network restricted to one of its inputs, which has the index 0.

    Args:
        run: of all inputs.
        image: index of the input.
    """

    def __init__(self, run: Evaluator, image: int) -> None:
        self.run, self._image = run, image
        self.network, self.undo = run.network, run.undo

    def evaluate(self, inputs: Tensor, images: Tensor) -> object:
        """Return the network's raw output."""
        return self.run.evaluate(inputs, images + self._image)

    def counted(self) -> AbstractContextManager[EvaluationCount]:
        """Count the evaluations made inside the `with`."""
        return self.run.counted()


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

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Return the callable with its result checked."""
        return lambda inputs, images: per_row(self._score(run.evaluate(inputs, images)), len(inputs), "target")


def per_row(scores: object, rows: int, what: str) -> Tensor:
    """Return the scores, after checking that there is one floating-point number per input.

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


def make_zeros(inputs: Tensor) -> Tensor:
    """Return zeros (B,) that depend on inputs (B, C, *S): scores to which they are added always have a gradient."""
    return inputs.flatten(1).sum(1) * 0


def as_split(run: Evaluator) -> Split | None:
    """Return the split network if the run evaluates it from a layer on; None if it evaluates all of it."""
    if isinstance(run, _SingleInput):
        return as_split(run.run)
    return run if isinstance(run, Split) else None


def input_shape(run: Evaluator, x: Tensor) -> tuple[int, ...]:
    """(C, *S) of the network's own inputs, also where x are activations at a layer."""
    made = as_split(run)
    return tuple((x if made is None else made.x).shape[1:])


def class_label(wanted: int | str) -> str:
    """Return a class in words, when its network is not known yet."""
    return wanted if isinstance(wanted, str) else f"class {wanted}"


def class_index(network: Network, wanted: int | str, classes: int | None = None, what: str = "a class") -> int:
    """Return the index of a class given by index or name.

    Args:
        network: for its class names.
        wanted: index or name.
        classes: how many there are; None: not known yet.
        what: name of the argument in messages.

    Raises:
        ExtremalValueError, ExtremalTypeError: there is no such class; of names near ones are offered.
    """
    if not (isinstance(wanted, str) or is_whole(wanted)):
        raise ExtremalTypeError(f"{what} must be given by its index or name, got {format_value(wanted)}; e.g. 0")
    index = network.index(wanted) if isinstance(wanted, str) else wanted.__index__()
    check_class_index(index, classes, network.name, what)
    return index
