"""Questions about numbers that a network returns: a weighted set of its classes, one of its outputs."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.network import Evaluates, Network
from extremal.networks.outputs import logits
from extremal.scores.query import BoundQuery, class_index, class_label

Key = str | int


@dataclass(frozen=True, eq=False)
class Classes:
    """Several classes at once: Σ_c w_c·y_c over the network's scores y.

    >>> from extremal import Network
    >>> x = torch.tensor([[[2.0, 0.5, 1.0]]])
    >>> with Network(torch.nn.Flatten(), labels=("cat", "dog", "car")).frozen() as run:
    ...     Classes({"cat": 1, 1: 2, "car": -1}).bind(run, x)(x, torch.tensor([0]))
    tensor([2.])

    Args:
        weights: of each class, given by index or name; finite and not 0.
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
        for wanted, weight in self.weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise ExtremalTypeError(f"weights must be numbers, got {weight!r} for {class_label(wanted)}; e.g. 1")
            if not math.isfinite(weight) or weight == 0:
                raise ExtremalValueError(
                    f"weights must be finite and not 0, got {weight:g} for {class_label(wanted)}; "
                    "leave out classes that do not count"
                )
        object.__setattr__(self, "weights", dict(self.weights))  # the caller's may change

    @property
    def name(self) -> str:
        """The sum in words, e.g. cat − 0.5·dog."""
        told = ""
        for wanted, weight in self.weights.items():
            size = "" if abs(weight) == 1 else f"{abs(weight):g}·"
            sign = ("−" if weight < 0 else "+") if not told else (" − " if weight < 0 else " + ")
            told += f"{sign if told or weight < 0 else ''}{size}{class_label(wanted)}"
        return told

    def bind(self, run: Evaluates, x: Tensor) -> BoundQuery:
        """The sum; names are looked up once."""
        indices = [class_index(run.network, wanted) for wanted in self.weights]
        (most, count), *_ = Counter(indices).most_common(1)
        if count > 1:
            raise ExtremalValueError(
                f"weights must name every class once, got {run.network.label(most)} {count} times; add its weights up"
            )
        columns = torch.tensor(indices, device=x.device)
        weights = x.new_tensor(list(self.weights.values()))

        def ask(inputs: Tensor, images: Tensor) -> Tensor:
            output = logits(run.raw(inputs, images), run.network.name)
            class_index(run.network, max(indices), output.shape[1])
            return (output.index_select(1, columns) * weights).sum(1)

        return ask


@dataclass(frozen=True, eq=False)
class Output:
    """One number that the network returns for each input: of a regression, or of one of several heads.

    >>> from extremal import Network
    >>> x = torch.tensor([[[2.0, 0.5, 1.0]]])
    >>> with Network(torch.nn.Flatten()).frozen() as run:
    ...     Output(1).bind(run, x)(x, torch.tensor([0]))
    tensor([0.5000])

    Args:
        index: which of the numbers (B, K); 0 where there is one, (B,).
        key: leads to the tensor where the network returns several, from the outside in: of mappings a key, of tuples
            and lists a position.
    """

    index: int = 0
    key: Key | tuple[Key, ...] = ()

    layer, depends_on_position = "", False

    @property
    def name(self) -> str:
        """Which one, in words."""
        return " ".join(map(str, ("output", *self._keys, self.index)))

    @property
    def _keys(self) -> tuple[Key, ...]:
        return self.key if isinstance(self.key, tuple) else (self.key,)

    def bind(self, run: Evaluates, x: Tensor) -> BoundQuery:
        """The number, the output's form checked each time."""
        return lambda inputs, images: self._one(run.raw(inputs, images), len(inputs), run.network)

    def _one(self, output: object, rows: int, network: Network) -> Tensor:
        for key in self._keys:
            output = _inside(output, key, network)
        if not isinstance(output, Tensor) or not output.is_floating_point():
            kind = output.dtype if isinstance(output, Tensor) else f"a {type(output).__name__}"
            keys = _keys_of(output)
            hint = f" with {_told(keys)}; choose with key" if keys else "; wrap the network"
            raise ExtremalTypeError(
                f"an output must be a floating tensor (B,) or (B, K), {network.name}'s is {kind}{hint}"
            )
        if output.ndim not in (1, 2) or len(output) != rows:
            raise ExtremalValueError(
                f"an output must be (B,) or (B, K) with B = {rows}, {network.name}'s is {tuple(output.shape)}; "
                "pass a callable on the output as target, or wrap the network"
            )
        columns = output.view(rows, -1)
        if isinstance(self.index, bool) or not hasattr(self.index, "__index__"):
            raise ExtremalTypeError(f"the index of an output must be a whole number, got {self.index!r}; e.g. 0")
        if not 0 <= self.index < columns.shape[1]:
            raise ExtremalValueError(
                f"the index of an output must lie in 0..{columns.shape[1] - 1} for {network.name}, got {self.index}"
            )
        return columns[:, self.index]


def _inside(output: object, key: Key, network: Network) -> object:
    keys = _keys_of(output)
    if key not in keys:
        kind = f"a {type(output).__name__}" + (f" with {_told(keys)}" if keys else "")
        raise ExtremalValueError(f"a key must lead into the output of {network.name}, got {key!r} into {kind}")
    return output[key]  # type: ignore[index]


def _keys_of(output: object) -> list[Key]:
    """What an output may be indexed by; nothing where it holds no others."""
    if isinstance(output, Mapping):
        return list(output)
    return list(range(len(output))) if isinstance(output, tuple | list) else []


def _told(keys: list[Key]) -> str:
    return f"the keys {', '.join(map(repr, keys))}"
