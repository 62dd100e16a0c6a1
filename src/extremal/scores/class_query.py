"""The score of a class as a query."""

from collections.abc import Sequence

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError
from extremal.networks.network import Network
from extremal.networks.outputs import read_logits
from extremal.networks.run import Evaluator
from extremal.number_checks import is_whole
from extremal.scores.class_group import ClassGroup, ResolvedClass, encode_classes, resolve_class
from extremal.scores.classes import Score, logit, sigmoid, takes_groups
from extremal.scores.query import BoundQuery, class_label, per_row

Class = int | str | ClassGroup


class ClassQuery:
    """The score of a class: of one class for all inputs of a batch, of one for each, or of each input's top class.

    Args:
        classes: an index, a name or a group; a sequence of these, one per input, in which a list is a group; None: the
            top class of each input.
        score: (output, classes) -> (B,), see `scores.SCORES`.
    """

    layer, depends_on_position = "", False
    classes: Class | tuple[Class, ...] | None

    def __init__(self, classes: Class | Sequence[Class | Sequence[int | str]] | None, score: Score) -> None:
        if isinstance(classes, list | tuple):
            self.classes = tuple(ClassGroup(entry) if isinstance(entry, list | tuple) else entry for entry in classes)
        elif classes is None or isinstance(classes, str | ClassGroup | bool) or is_whole(classes):
            self.classes = classes  # type: ignore[assignment]
        else:
            raise _wrong_type(classes)
        self.score = score

    @property
    def count(self) -> int | None:
        """Number of inputs that the query is about; None if it applies to any number."""
        return len(self.classes) if isinstance(self.classes, tuple) else None

    @property
    def name(self) -> str:
        """The class, or the classes, in words."""
        if self.classes is None:
            return "the top class"
        classes = self.classes if isinstance(self.classes, tuple) else (self.classes,)
        return "; ".join(entry.name if isinstance(entry, ClassGroup) else class_label(entry) for entry in classes)

    def select(self, inputs: slice) -> "ClassQuery":
        """Return the query about some of the inputs."""
        classes = self.classes[inputs] if isinstance(self.classes, tuple) else self.classes
        return ClassQuery(classes, self.score)

    def resolve(self, network: Network, output: Tensor) -> tuple[ResolvedClass, ...]:
        """Return the class of each input, given the network's scores of them (N, classes): an index, or several.

        Raises:
            ExtremalValueError, ExtremalTypeError: a class does not exist, or is not given by index or name; a group is
                invalid, or the score does not take groups.
        """
        count, n_classes = output.shape[:2]
        if self.classes is None:
            top: tuple[int, ...] = tuple(output.argmax(1).tolist())
            return top
        each = self.classes if isinstance(self.classes, tuple) else (self.classes,) * count
        may_be_all = self.score in (logit, sigmoid)  # which compare a group with no other class
        resolved = tuple(_resolve(network, entry, n_classes, may_be_all=may_be_all) for entry in each)
        group = next((entry for entry in resolved if isinstance(entry, tuple)), None)
        if group is not None and not takes_groups(self.score):
            raise ExtremalTypeError(
                f"a score must take groups of classes to be asked about one, "
                f"{getattr(self.score, '__name__', type(self.score).__name__)} takes single classes only, got "
                f"{network.label(group)}; use score='margin', or mark a score that takes (B, classes) bool with "
                "scores.accept_groups"
            )
        return resolved

    def find_classes(self, network: Network, count: int) -> tuple[ResolvedClass, ...] | None:
        """Return the classes of `count` inputs as far as they are known without the network's scores; None: not.

        Raises:
            ExtremalValueError, ExtremalTypeError: as `resolve`.
        """
        if self.classes is None:
            return None
        each = self.classes if isinstance(self.classes, tuple) else (self.classes,) * count
        return tuple(_resolve(network, entry, None) for entry in each)

    def bind_classes(self, run: Evaluator, classes: Tensor) -> BoundQuery:
        """Return the scores of resolved classes, (N,) or (N, classes), as a function of perturbed inputs."""

        def ask(inputs: Tensor, images: Tensor) -> Tensor:
            output = _read_scores(run, inputs, images)
            return per_row(self.score(output, classes[images]), len(inputs), "score")

        return ask

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Resolve the classes for inputs x (N, C, *S), at the cost of one evaluation of each, and bind them."""
        images = torch.arange(len(x), device=x.device)
        output = _read_scores(run, x, images)
        return self.bind_classes(run, encode_classes(self.resolve(run.network, output), output))


def _read_scores(run: Evaluator, inputs: Tensor, images: Tensor) -> Tensor:
    net = run.network
    return read_logits(run.evaluate(inputs, images), net.name, net.labels, len(inputs))


def _resolve(network: Network, target: object, n_classes: int | None, *, may_be_all: bool = False) -> ResolvedClass:
    if not (isinstance(target, str | ClassGroup) or is_whole(target)):
        raise _wrong_type(target)
    return resolve_class(network, target, n_classes, may_be_all=may_be_all)


def _wrong_type(target: object) -> ExtremalTypeError:
    return ExtremalTypeError(
        f"target must be a class index, a class name or a callable on the output, got {type(target).__name__}"
    )
