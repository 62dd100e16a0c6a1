"""Queries about numbers that a network returns: a weighted sum of its classes, one of its outputs."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.network import Network
from extremal.networks.outputs import read_logits
from extremal.networks.run import Evaluator
from extremal.number_checks import format_no_whole, format_value, is_number, is_whole
from extremal.scores.query import BoundQuery, class_index, class_label

Key = str | int
MAX_WEIGHT = 1e15  # so that sums of float32 neither overflow nor vanish


@dataclass(frozen=True, eq=False)
class Classes:
    """Weighted sum of several classes: Σ_c w_c·y_c over the network's scores y.

    >>> from extremal import Network
    >>> x = torch.tensor([[[2.0, 0.5, 1.0]]])
    >>> with Network(torch.nn.Flatten(), labels=("cat", "dog", "car")).frozen() as run:
    ...     Classes({"cat": 1, 1: 2, "car": -1}).bind(run, x)(x, torch.tensor([0]))
    tensor([2.])

    Args:
        weights: weight of each class, given by index or name; 1e-15 to 1e15 in magnitude.
    """

    weights: Mapping[int | str, float]

    layer, depends_on_position = "", False

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping):
            raise ExtremalTypeError(
                f"weights must map classes to numbers, got {type(self.weights).__name__}; e.g. {{'cat': 1, 'dog': -1}}"
            )
        if not self.weights:
            raise ExtremalValueError("weights must name at least one class, got none; e.g. {'cat': 1, 'dog': -1}")
        for class_, weight in self.weights.items():
            if not is_number(weight):
                raise ExtremalTypeError(
                    f"weights must be numbers, got {format_value(weight)} for {class_label(class_)}; e.g. 1"
                )
            if weight == 0 or not -math.inf < weight < math.inf:
                raise ExtremalValueError(
                    f"weights must be finite and not 0, got {format_value(weight)} for {class_label(class_)}; "
                    "leave out classes that do not count"
                )
            if not 1 / MAX_WEIGHT <= abs(weight) <= MAX_WEIGHT:
                raise ExtremalValueError(
                    f"weights must lie between {1 / MAX_WEIGHT:g} and {MAX_WEIGHT:g} in magnitude, got "
                    f"{format_value(weight)} for {class_label(class_)}; divide all weights by the largest"
                )
        weights = {class_: float(weight) for class_, weight in self.weights.items()}
        object.__setattr__(self, "weights", weights)  # a copy: the caller may change theirs

    @property
    def name(self) -> str:
        """The sum as text, e.g. cat − 0.5·dog."""
        text = ""
        for class_, weight in self.weights.items():
            factor = "" if abs(weight) == 1 else f"{abs(weight):g}·"
            sign = ("−" if weight < 0 else "+") if not text else (" − " if weight < 0 else " + ")
            text += f"{sign if text or weight < 0 else ''}{factor}{class_label(class_)}"
        return text

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind the sum to a network and inputs; class names are looked up once."""
        indices = [class_index(run.network, class_) for class_ in self.weights]
        (index, count), *_ = Counter(indices).most_common(1)
        if count > 1:
            raise ExtremalValueError(
                f"weights must name every class once, got {run.network.label(index)} {count} times; sum its weights"
            )
        columns = torch.tensor(indices, device=x.device)
        weights = x.new_tensor(list(self.weights.values()))

        net = run.network

        def score_inputs(inputs: Tensor, input_index: Tensor) -> Tensor:
            output = read_logits(run.evaluate(inputs, input_index), net.name, net.labels, len(inputs))
            class_index(run.network, max(indices), output.shape[1])
            return (output.index_select(1, columns) * weights).sum(1)

        return score_inputs


@dataclass(frozen=True, eq=False)
class Output:
    """One number that the network returns for each input, e.g. of a regression or of one of several heads.

    >>> from extremal import Network
    >>> x = torch.tensor([[[2.0, 0.5, 1.0]]])
    >>> with Network(torch.nn.Flatten()).frozen() as run:
    ...     Output(1).bind(run, x)(x, torch.tensor([0]))
    tensor([0.5000])

    Args:
        index: of the numbers (B, K); 0 for a single number, (B,).
        key: selects the tensor if the network returns several: a key for a mapping, a position for a tuple or list;
            several of these from the outside in.
    """

    index: int = 0
    key: Key | tuple[Key, ...] = ()

    layer, depends_on_position = "", False

    def __post_init__(self) -> None:
        if not is_whole(self.index):
            raise ExtremalTypeError(
                f"the index of an output must be a whole number, got {format_no_whole(self.index)}; e.g. 0"
            )
        for key in self._keys:
            if not (isinstance(key, str) or is_whole(key)):
                raise ExtremalTypeError(
                    f"the key of an output must be a text or a whole number, got {format_value(key)}; e.g. 'logits'"
                )

    @property
    def name(self) -> str:
        """Key and index."""
        return " ".join(map(str, ("output", *self._keys, self.index)))

    @property
    def _keys(self) -> tuple[Key, ...]:
        return self.key if isinstance(self.key, tuple) else (self.key,)

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind the number to a network; the form of each output is checked."""
        return lambda inputs, input_index: self._select(run.evaluate(inputs, input_index), len(inputs), run.network)

    def _select(self, output: object, batch_size: int, network: Network) -> Tensor:
        for key in self._keys:
            output = _select_part(output, key, network)
        if not isinstance(output, Tensor) or not output.is_floating_point():
            kind = output.dtype if isinstance(output, Tensor) else f"a {type(output).__name__}"
            keys = _keys_of(output)
            hint = f" with {_keys_sentence(keys)}; choose with key" if keys else "; wrap the network"
            raise ExtremalTypeError(
                f"an output must be a floating tensor (B,) or (B, K), {network.name}'s is {kind}{hint}"
            )
        if output.ndim not in (1, 2) or len(output) != batch_size:
            raise ExtremalValueError(
                f"an output must be (B,) or (B, K) with B = {batch_size}, {network.name}'s is {tuple(output.shape)}; "
                "pass a callable on the output as target, or wrap the network"
            )
        columns = output.view(batch_size, -1)
        if not 0 <= self.index < columns.shape[1]:
            raise ExtremalValueError(
                f"the index of an output must lie in 0..{columns.shape[1] - 1} for {network.name}, got "
                f"{format_value(self.index)}"
            )
        return columns[:, self.index]


def _select_part(output: object, key: Key, network: Network) -> object:
    keys = _keys_of(output)
    if key not in keys:
        kind = f"a {type(output).__name__}" + (f" with {_keys_sentence(keys)}" if keys else "")
        raise ExtremalValueError(f"a key must exist in the output of {network.name}, got {key!r} for {kind}")
    return output[key]  # type: ignore[index]


def _keys_of(output: object) -> list[Key]:
    """Return the keys or positions of an output's parts; none if it has no parts."""
    if isinstance(output, Mapping):
        return list(output)
    return list(range(len(output))) if isinstance(output, tuple | list) else []


def _keys_sentence(keys: list[Key]) -> str:
    return f"the keys {', '.join(map(repr, keys))}"
