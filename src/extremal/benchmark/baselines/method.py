"""What every attribution method is here: one signature, one answer, and its evaluations counted."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.network import Network, Run
from extremal.scores.class_query import ClassQuery
from extremal.scores.classes import margin
from extremal.scores.target import Target, parse_target


@dataclass(frozen=True, eq=False)
class Maps:
    """Where N answers come from, and what it took to find out."""

    values: Tensor  # (N, 1, *S), higher: the place speaks more for the target
    evaluations: int  # rows of the network, forward or forward and backward, all inputs together


class Method(Protocol):
    """Immutable settings with one verb: `method(network, x, target)`."""

    @property
    def name(self) -> str:
        """The short name, as `method_named` takes it."""
        ...

    @property
    def smooth(self) -> float:
        """Deviation of the Gaussian that its protocol puts over the map for the pointing game, in short sides."""
        ...

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        ...

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Maps of prepared inputs (N, C, *S): the target is a class for all of them, or one for each."""
        ...


class ScoreModule(nn.Module):
    """A frozen network as a module from inputs to scores (B, classes): what other libraries attribute."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.model = run.network.model  # a part of this module, so that others find the layers
        self._run = run

    def forward(self, x: Tensor) -> Tensor:
        """The scores, counted by the run."""
        return self._run(x)


Attribute = Callable[[ScoreModule, Tensor, list[int]], Tensor]  # scores, (B, C, *S), classes (B,) -> (B, 1, *S)


def attribute_in_batches(network: Network, x: Tensor, target: Target, attribute: Attribute, whole: str = "") -> Maps:
    """Attribute a batch a few inputs at a time with the network frozen; it comes back exactly as it was.

    The evaluations that make the network ready (`Run.accelerate`) are not the method's and not counted.

    Args:
        network: any.
        x: (N, C, *S), prepared.
        target: a class index or name, or one for each input.
        attribute: what one method does.
        whole: the name of a layer that must keep its output.
    """
    with network.frozen() as run:
        x = x.detach().clone()
        run.accelerate(x, [whole] if whole else [])
        rows = run.max_batch_size(x)
        classes = resolve_classes(run, x, target)
        run.forwards = run.gradients = 0
        parts = []
        for first in range(0, len(x), rows):
            here = slice(first, first + rows)
            parts.append(attribute(ScoreModule(run), x[here], classes[here]).detach())
        return Maps(torch.cat(parts), run.forwards + run.gradients)


def resolve_classes(run: Run, x: Tensor, target: Target) -> list[int]:
    """A class for each input; checked against one evaluation of the first.

    Raises:
        ExtremalValueError, ExtremalTypeError: no such class, or not a class at all.
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
    if query.count not in (None, len(x)):
        raise ExtremalValueError(f"target must be one class, or one for each of {len(x)} inputs, got {query.count}")
    return list(query.resolve(run.network, output.expand(len(x), -1)))


def max_abs_over_channels(values: Tensor) -> Tensor:
    """The largest magnitude over the channels (Simonyan et al., 2014, section 3.1): (B, C, *S) -> (B, 1, *S)."""
    return values.abs().amax(1, keepdim=True)


def named(name: str, methods: dict[str, Method]) -> Method:
    """One of these methods.

    Raises:
        ExtremalValueError: there is none of this name.
    """
    if name in methods:
        return methods[name]
    from difflib import get_close_matches

    near = get_close_matches(name, methods, n=2, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ExtremalValueError(f"a method must be one of {', '.join(methods)}, got {name!r}{hint}")


def check_unique(names: Iterable[str]) -> Sequence[str]:
    """Names of methods, each once.

    Raises:
        ExtremalValueError: one stands there twice, or there is none.
    """
    found = [name.strip() for name in names if name.strip()]
    if not found:
        raise ExtremalValueError("methods must name at least one, got none; e.g. grad-cam,path")
    twice = [name for name in found if found.count(name) > 1]
    if twice:
        raise ExtremalValueError(f"methods must be distinct, got {twice[0]} twice; leave one out")
    return found
