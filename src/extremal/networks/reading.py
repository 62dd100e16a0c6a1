"""Describe how an input and an output of a network are understood, as runs understand them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from extremal.networks.class_scores import ClassScores, read_class_scores
from extremal.networks.configs import find_configs
from extremal.networks.network import Network
from extremal.networks.vision_language import PromptedInputs

ROUNDING = 1e-3  # by which probabilities may miss a sum of 1
MAX_ABSENT = 0.1  # mean probability of independent labels for inputs that show nothing
NO_GRADIENT = "; no gradient: black box"
MAX_LISTED_PARTS = 6  # of an output


class Head(StrEnum):
    """Kinds of outputs, by what they look like."""

    LOGITS = "logits"
    SINGLE = "log-odds of one class (a sigmoid)"
    PROBABILITIES = "probabilities, after a softmax"
    LABELS = "logits of independent labels (sigmoids)"
    LABEL_PROBABILITIES = "probabilities of independent labels, after sigmoids"


@dataclass(frozen=True)
class Reading:
    """The form of an input and of the output for it, as runs understand them."""

    input_shape: tuple[int, ...]  # (N, C, *S)
    low: float  # smallest value of the input
    high: float  # largest
    dtype: str
    device: str
    output: str  # the output in words: which tensor is read, its shape, and where its classes are
    head: Head | None  # what the outputs look like; None if they are no scores of classes
    gradient: bool = True  # False: a black box

    @property
    def sentences(self) -> tuple[str, str]:
        """The input and the output in words."""
        values = f"values {self.low:.3g} to {self.high:.3g}"
        return (
            f"input {self.input_shape}: batch on axis 0, channels on axis 1; {values}; {self.dtype} on {self.device}",
            f"output {self.output}" + (f"; {self.head}" if self.head else "") + ("" if self.gradient else NO_GRADIENT),
        )


def describe_reading(
    network: Network, x: Tensor, output: object, empty: Tensor | None = None, *, is_class: bool = True
) -> Reading:
    r"""Describe how an input x (N, C, *S) and a network's output for it are understood.

    Scores of classes are read as in runs (`read_class_scores`).

    >>> net = Network(torch.nn.Flatten(), labels=("cat", "dog"))
    >>> x = torch.tensor([[[2.0, -1.0]]])
    >>> print(*describe_reading(net, x, net.model(x)).sentences, sep="\n")
    input (1, 1, 2): batch on axis 0, channels on axis 1; values -1 to 2; torch.float32 on cpu
    output (1, 2): classes on axis 1; 2 labels; logits

    Args:
        network: evaluated.
        x: inputs.
        output: of the network for these.
        empty: its scores (E, classes) for inputs that show nothing; None: unknown.
        is_class: whether it is asked about classes; other queries read the output themselves.

    Raises:
        ExtremalValueError, ExtremalTypeError: as `read_class_scores`.
    """
    text, head = "", None
    if is_class:
        read = read_class_scores(output, network.name, network.labels, len(x))
        text, head = describe_class_scores(read), guess_head(read.scores, empty, is_multi_label(network))
    elif isinstance(network.inputs, PromptedInputs):
        text = f"{describe_output(output)}, {network.inputs.describe(x)}"
    else:
        text = describe_output(output)
    low, high = torch.aminmax(x)
    return Reading(tuple(x.shape), float(low), float(high), str(x.dtype), str(x.device), text, head, network.gradient)


def describe_class_scores(read: ClassScores) -> str:
    """Return where the scores of classes are: the key, the shape, the axis, the places, the number of labels."""
    places = f", means over {' × '.join(map(str, read.places))} places" if read.places else ""
    labels = f"{read.n_labels} labels" if read.n_labels else "no labels"
    return f"{f'{read.key!r} ' if read.key else ''}{read.shape}: classes on axis 1{places}; {labels}"


def describe_output(output: object) -> str:
    """Return the form of an output: shapes of tensors, keys and lengths of containers.

    >>> describe_output({"boxes": torch.zeros(2, 4), "more": [torch.zeros(3)]})
    'dict of boxes (2, 4), more: list of (3,)'
    """
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    parts: Iterable[str]
    if isinstance(output, Mapping):
        parts = [
            f"{key}{' ' if isinstance(part, Tensor) else ': '}{describe_output(part)}" for key, part in output.items()
        ]
    elif isinstance(output, list | tuple):
        parts = list(map(describe_output, output))
    else:
        return type(output).__name__
    more = ", …" if len(parts) > MAX_LISTED_PARTS else ""
    return f"{type(output).__name__} of {', '.join(parts[:MAX_LISTED_PARTS])}{more}"


def guess_head(scores: Tensor, empty: Tensor | None = None, multi_label: bool = False) -> Head:
    """Guess from outputs what they are: logits, probabilities, or those of independent labels.

    Labels look independent if none is likely for an input that shows nothing. Logits of a softmax have no such zero.

    >>> guess_head(torch.tensor([[0.75, 0.25]])), guess_head(torch.tensor([[-2.0]]))
    (<Head.PROBABILITIES: 'probabilities, after a softmax'>, <Head.SINGLE: 'log-odds of one class (a sigmoid)'>)

    Args:
        scores: (B, classes) for inputs.
        empty: (E, classes) for inputs that show nothing; None: unknown.
        multi_label: whether the network is known to have independent labels.
    """
    if scores.shape[1] == 1:
        return Head.SINGLE
    rows = scores if empty is None else torch.cat([scores, empty])
    if bool((rows >= 0).all()) and bool((rows <= 1 + ROUNDING).all()):
        is_softmax = bool(((rows.sum(1) - 1).abs() <= ROUNDING).all())
        if is_softmax:
            return Head.PROBABILITIES
        if bool((rows > 0).all()):
            return Head.LABEL_PROBABILITIES
    if multi_label:
        return Head.LABELS
    if empty is not None:
        chances = empty.sigmoid()
        if bool(((chances.amax(1) < 0.5) & (chances.mean(1) < MAX_ABSENT)).any()):
            return Head.LABELS
    return Head.LOGITS


def read_probabilities(scores: Tensor, head: Head) -> Tensor:
    """Return the probabilities (B, classes) that outputs (B, classes) of this kind state.

    >>> read_probabilities(torch.tensor([[0.75, 0.25]]), Head.PROBABILITIES).tolist()
    [[0.75, 0.25]]
    >>> read_probabilities(torch.tensor([[0.0, 0.0]]), Head.LOGITS).tolist()
    [[0.5, 0.5]]
    """
    if head in (Head.PROBABILITIES, Head.LABEL_PROBABILITIES):
        return scores
    return scores.softmax(1) if head is Head.LOGITS else scores.sigmoid()


def is_multi_label(network: Network) -> bool:
    """Return whether the configuration of a model of transformers says that its labels are independent."""
    kinds = [getattr(config, "problem_type", None) for config in find_configs(network.model)]
    return "multi_label_classification" in kinds
