"""The score of a class as a query."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError
from extremal.networks.network import Evaluator, Network
from extremal.networks.outputs import read_logits
from extremal.scores.classes import Score
from extremal.scores.query import BoundQuery, class_index, class_label, per_row


class ClassQuery:
    """The score of a class: of one class for all inputs of a batch, of one for each, or of each input's top class.

    Args:
        classes: an index or a name; a sequence of these, one per input; None: the top class of each input.
        score: (output, classes) -> (B,), see `scores.SCORES`.
    """

    layer, depends_on_position = "", False
    classes: int | str | tuple[int | str, ...] | None

    def __init__(self, classes: int | str | Sequence[int | str] | None, score: Score) -> None:
        if isinstance(classes, list | tuple):
            self.classes = tuple(classes)
        elif classes is None or isinstance(classes, str) or hasattr(classes, "__index__"):
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
        return "; ".join(map(class_label, classes))

    def select(self, inputs: slice) -> "ClassQuery":
        """Return the query about some of the inputs."""
        classes = self.classes[inputs] if isinstance(self.classes, tuple) else self.classes
        return ClassQuery(classes, self.score)

    def resolve(self, network: Network, output: Tensor) -> tuple[int, ...]:
        """Return the class index of each input, (N,), given the network's scores of them (N, classes).

        Raises:
            ExtremalValueError, ExtremalTypeError: a class does not exist, or is not given by index or name.
        """
        count, n_classes = output.shape[:2]
        if self.classes is None:
            top: tuple[int, ...] = tuple(output.argmax(1).tolist())
            return top
        each = self.classes if isinstance(self.classes, tuple) else (self.classes,) * count
        return tuple(_resolve_class(network, entry, n_classes) for entry in each)

    def bind_classes(self, run: Evaluator, classes: Tensor) -> BoundQuery:
        """Return the scores of resolved classes (N,) as a function of perturbed inputs."""

        def ask(inputs: Tensor, images: Tensor) -> Tensor:
            output = read_logits(run.evaluate(inputs, images), run.network.name)
            return per_row(self.score(output, classes[images]), len(inputs), "score")

        return ask

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Resolve the classes for inputs x (N, C, *S), at the cost of one evaluation of each, and bind them."""
        images = torch.arange(len(x), device=x.device)
        classes = self.resolve(run.network, read_logits(run.evaluate(x, images), run.network.name))
        return self.bind_classes(run, torch.tensor(classes, device=x.device))


def _resolve_class(network: Network, target: Any, n_classes: int) -> int:
    if isinstance(target, bool) or not (isinstance(target, str) or hasattr(target, "__index__")):
        raise _wrong_type(target)
    return class_index(network, target, n_classes, "target")


def _wrong_type(target: object) -> ExtremalTypeError:
    return ExtremalTypeError(
        f"target must be a class index, a class name or a callable on the output, got {type(target).__name__}"
    )
