"""The protocol of attribution methods: one signature, one kind of result, evaluations counted."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.area import cut
from extremal.networks.memory import is_out_of_memory
from extremal.networks.network import Network
from extremal.networks.run import Run
from extremal.scores.class_query import ClassQuery
from extremal.scores.classes import margin
from extremal.scores.target import Target, check_target_count, parse_target


@dataclass(frozen=True, eq=False)
class Maps:
    """Attribution maps of a batch, and their cost."""

    values: Tensor  # (N, 1, *S), a higher value is more evidence for the target
    evaluations: int  # of the network, forward or forward and backward, summed over the inputs


@dataclass(frozen=True, eq=False)
class AreaMasks:
    """Masks of a batch at exact areas, and their cost."""

    values: Tensor  # (N, A, 1, *S) bool
    evaluations: int  # of the network, as in `Maps`


class Method(Protocol):
    """An attribution method: immutable settings that are called as `method(network, x, target)`."""

    @property
    def name(self) -> str:
        """The short name, as `get_method` accepts it."""
        ...

    @property
    def smooth(self) -> float:
        """Standard deviation, in short sides, of the blur that its protocol applies for the pointing game."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        ...

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return the maps of prepared inputs (N, C, *S); the target is one class for all inputs, or one for each."""
        ...


@runtime_checkable
class MaskMethod(Protocol):
    """A method that finds a mask for each area, in place of one map of all places."""

    def find_masks(self, network: Network, x: Tensor, target: Target, areas: tuple[float, ...]) -> AreaMasks:
        """Return the masks of prepared inputs (N, C, *S), each of exactly its area."""
        ...


def compute_masks(method: Method, network: Network, x: Tensor, target: Target, areas: tuple[float, ...]) -> AreaMasks:
    """Return a method's own masks, or its maps cut to each area: the highest round(a·|Ω|) places.

    Args:
        method: any.
        network: that is asked.
        x: (N, C, *S), prepared.
        target: as for the method.
        areas: rising shares of places.

    Raises:
        ValueError: a map is not finite.
    """
    if isinstance(method, MaskMethod):
        return method.find_masks(network, x, target, areas)
    maps = method(network, x, target)
    if not bool(torch.isfinite(maps.values).all()):
        raise ValueError(f"a map must be finite, {method.name} gave NaN or infinite values")
    columns = maps.values.unsqueeze(1).expand(-1, len(areas), *maps.values.shape[1:])
    return AreaMasks(cut(columns, areas) > 0, maps.evaluations)


@dataclass(frozen=True)
class FieldSettings:
    """Base of methods whose settings are their fields."""

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


class ScoreModule(nn.Module):
    """A frozen network as a module from inputs to scores (B, classes), as other libraries expect it."""

    def __init__(self, run: Run) -> None:
        """Make the network's model a submodule."""
        super().__init__()
        self.model = run.network.model  # a submodule, so that other libraries find its layers
        self._run = run

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores; the run counts the evaluations."""
        return self._run(x)


Attribute = Callable[[ScoreModule, Tensor, list[int]], Tensor]  # scores, (B, C, *S), classes (B,) -> (B, 1, *S)


def attribute_in_batches(
    network: Network, x: Tensor, target: Target, attribute: Attribute, keep_layer: str = ""
) -> Maps:
    """Attribute inputs in batches that fit into memory; the network is frozen meanwhile and restored afterwards.

    Evaluations that prepare the network (`Run.accelerate`) are not counted: they are not part of the method.

    Args:
        network: any.
        x: (N, C, *S), prepared.
        target: a class index or name, or one for each input.
        attribute: computes the maps of one batch.
        keep_layer: name of a layer whose output must not be altered by acceleration.
    """
    with network.frozen() as run:
        x = x.detach().clone()
        run.accelerate(x, [keep_layer] if keep_layer else [])
        batch_size = run.max_batch_size(x)
        classes = resolve_classes(run, x, target)
        maps = list[Tensor]()
        with run.counted() as cost:
            while len(maps) < len(x):
                batch = slice(len(maps), len(maps) + batch_size)
                try:
                    maps += torch.split(attribute(ScoreModule(run), x[batch], classes[batch]).detach(), 1)
                    continue
                except (RuntimeError, MemoryError) as error:
                    if batch_size == 1 or not is_out_of_memory(error):
                        raise
                batch_size //= 2  # only here: the exception, gone by now, held tensors
        return Maps(torch.cat(maps), cost.forwards + cost.gradients)


def resolve_classes(run: Run, x: Tensor, target: Target) -> list[int]:
    """Return the class of each input, checked against one evaluation of the first input.

    Raises:
        ExtremalValueError, ExtremalTypeError: the class does not exist, or the target is not a class.
    """
    if target is None or (callable(target) and not isinstance(target, Tensor)):
        raise ExtremalTypeError(
            f"a method must be asked about a class index or name, got {type(target).__name__}; "
            "`explain` takes other targets"
        )
    with torch.no_grad():
        output = run(x[:1])
    query = parse_target(target, margin)
    if not isinstance(query, ClassQuery):
        raise ExtremalTypeError("a method must be asked about classes, got another query; `explain` takes these")
    check_target_count(query.count, len(x))
    classes = query.resolve(run.network, output.expand(len(x), -1))
    single = [entry for entry in classes if isinstance(entry, int)]
    group = next((entry for entry in classes if isinstance(entry, tuple)), None)
    if group is not None:
        raise ExtremalTypeError(
            f"a method must be asked about single classes, got the group {run.network.label(group)}; `explain` takes "
            "groups, and so do the methods mask-gradient, penalty, path and consensus"
        )
    return single


def max_abs_over_channels(values: Tensor) -> Tensor:
    """Return the largest magnitude over the channels (Simonyan et al., 2014, section 3.1): (B, C, *S) -> (B, 1, *S)."""
    return values.abs().amax(1, keepdim=True)


def check_unique(names: Iterable[str]) -> Sequence[str]:
    """Return the names of methods without spaces around them, once they are known to be distinct.

    Raises:
        ExtremalValueError: a name occurs twice, or there is none.
    """
    stripped = [name.strip() for name in names if name.strip()]
    if not stripped:
        raise ExtremalValueError("methods must name at least one, got none; e.g. grad-cam,path")
    duplicates = [name for name in stripped if stripped.count(name) > 1]
    if duplicates:
        raise ExtremalValueError(f"methods must be distinct, got {duplicates[0]} twice; leave one out")
    return stripped
