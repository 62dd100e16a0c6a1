"""Read a network's output as scores of classes: the one place that decides on which axis they lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError

SCORE_KEYS = ("logits", "out")  # under which outputs with several parts hold the scores of classes
BOX_KEYS = ("pred_boxes", "boxes")
TOKEN_LOGITS = "token_logits"  # of models of images and text


@dataclass(frozen=True, eq=False)
class ClassScores:
    """The scores of classes in a network's output, with how they were found in it."""

    scores: Tensor  # (B, classes)
    shape: tuple[int, ...]  # of the tensor that they were read from: (B, classes, *places)
    key: str  # of that tensor in the output; empty if the output is the tensor
    n_labels: int  # names of classes; 0 if there are none

    @property
    def places(self) -> tuple[int, ...]:
        """The places over which the scores are means; () if there are none."""
        return self.shape[2:]


def read_class_scores(output: object, name: str, labels: Sequence[str] = (), rows: int | None = None) -> ClassScores:
    """Read the scores of classes from a network's output: a tensor (B, classes), or (B, classes, *places).

    The tensor is the output itself, or its part `logits` or `out`. Scores of several places are averaged (paper,
    section 4). Of three axes, the second or the last may be the classes: it is the second only if the labels say so.

    >>> import torch
    >>> read_class_scores({"out": torch.zeros(1, 21, 8, 8)}, "toy").scores.shape
    torch.Size([1, 21])

    Args:
        output: of the network.
        name: of the network, for messages.
        labels: names of its classes; empty: unknown.
        rows: number of inputs that it was evaluated on; None: unknown.

    Raises:
        ExtremalTypeError: the output is that of a detector, or holds no floating tensor of scores.
        ExtremalValueError: the tensor has another shape or another number of rows, its classes lie on another axis than
            the second, or their number is not that of the labels.
    """
    is_of_anchors = find_anchor_predictions(output, len(labels)) is not None
    if is_of_anchors or is_detection(output):
        has_scores = is_of_anchors or not isinstance(output, list | tuple)
        raise ExtremalTypeError(
            f"a detector must be asked about a box, {name} returns boxes "
            f"{'with scores of classes for each' if has_scores else 'and no classes'}; "
            "pass scores.Box() as target, or --ask box"
        )
    if get_part(output, TOKEN_LOGITS) is not None:
        raise ExtremalTypeError(
            f"a model of images and text must be asked for an answer, {name} returns logits of tokens and no classes; "
            "pass scores.Answer(prompt=...) as target, or --ask answer with --prompt"
        )
    key, scores = find_scores(output)
    if not isinstance(scores, Tensor):
        keys = f" with keys {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
        raise ExtremalTypeError(
            f"a network must return a tensor (B, classes) or an output with logits, {name} returned a "
            f"{type(output).__name__}{keys}; pass a callable on the output as target, or wrap the network"
        )
    if scores.is_nested or scores.layout != torch.strided:
        raise ExtremalTypeError(f"a network must return dense scores, {name} did not; end it with .to_dense()")
    if not scores.is_floating_point():
        raise ExtremalTypeError(f"a network must return floating scores, {name} returned {scores.dtype}")
    shape = tuple(scores.shape)
    if scores.ndim < 2:
        raise ExtremalValueError(
            f"a network must return (B, classes), {name} returned shape {shape}; wrap it, e.g. to [:, None]"
        )
    if rows is not None and shape[0] != rows:
        raise ExtremalValueError(
            f"a network must return a row of scores for each input, (B, classes), {name} returned shape {shape} for "
            f"{rows} input{'s' if rows > 1 else ''}; keep the batch on axis 0"
        )
    _check_class_axis(shape, name, len(labels))
    return ClassScores(scores.flatten(2).mean(2) if scores.ndim > 2 else scores, shape, key, len(labels))


def find_scores(output: object) -> tuple[str, object]:
    """Return the part of an output that holds scores, with its key; the output itself, with "", if it has no parts.

    >>> import torch
    >>> find_scores({"aux": 1, "out": torch.zeros(1)}), find_scores([3])
    (('out', tensor([0.])), ('', [3]))
    """
    for key in SCORE_KEYS:
        part = get_part(output, key)
        if isinstance(part, Tensor):
            return key, part
    return "", output


def is_detection(output: object) -> bool:
    """Return whether an output is that of a detector: boxes of each input, or scores and boxes of queries."""
    if isinstance(output, list | tuple):
        return bool(output) and isinstance(output[0], Mapping) and "boxes" in output[0]
    return any(isinstance(get_part(output, key), Tensor) for key in BOX_KEYS) and find_scores(output)[0] != ""


def find_anchor_predictions(output: object, n_labels: int) -> Tensor | None:
    """Return predictions (B, 4 + classes, anchors) of boxes in an output, as YOLO's; None if it has none.

    >>> import torch
    >>> find_anchor_predictions((torch.zeros(1, 6, 20), []), n_labels=2).shape
    torch.Size([1, 6, 20])

    Args:
        output: the predictions, or a tuple or list that begins with them.
        n_labels: names of classes.
    """
    first = output[0] if isinstance(output, list | tuple) and output else output
    if not isinstance(first, Tensor) or not first.is_floating_point() or first.ndim != 3 or not n_labels:
        return None
    return first if first.shape[1] == 4 + n_labels else None


def check_labels(n_classes: int, name: str, n_labels: int) -> None:
    """Raise unless there are no class names, or one for each class.

    Raises:
        ExtremalValueError: their number differs.
    """
    if n_labels and n_labels != n_classes:
        raise ExtremalValueError(
            f"labels must name each class once, {name} returns scores of {n_classes} and has {n_labels} labels; "
            "pass Network(model, labels=...) with one name for each output, in their order"
        )


def _check_class_axis(shape: tuple[int, ...], name: str, n_labels: int) -> None:
    n_classes = shape[1]
    if not n_classes:
        raise ExtremalValueError(f"a network must return at least one class, {name} returned shape {shape}")
    if len(shape) == 3 and (n_labels != n_classes or n_labels == shape[2]):
        found = f"a class for each of {n_labels} labels" if n_labels else "no labels to tell which axis has the classes"
        raise ExtremalValueError(
            f"a network must return (B, classes), {name} returned {shape}, with {found}: its classes may lie on axis 1 "
            "or 2; wrap it to return one row of scores, e.g. lambda x: model(x)[:, 0] or model(x).mean(1), or pass a "
            "callable on the output as target"
        )
    if len(shape) > 3 and n_labels not in (0, n_classes) and n_labels == shape[-1]:
        raise ExtremalValueError(
            f"a network must return its classes on axis 1, {name} returned {shape} and has {n_labels} labels, the size "
            "of its last axis; wrap it, e.g. to model(x).movedim(-1, 1)"
        )
    check_labels(n_classes, name, n_labels)


def get_part(output: object, key: str) -> object:
    """Return the part of an output under a key or an attribute; None if it has none."""
    if isinstance(output, Mapping):
        return output.get(key)
    return None if isinstance(output, Tensor | list | tuple) else getattr(output, key, None)
