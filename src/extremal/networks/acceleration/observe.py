"""Which modules take the output of which, as it is, while a model answers."""

import sys
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

TOLERANCE = 1e-4  # of the largest score, by which the outputs may differ

Pair = tuple[nn.Module, nn.Module]
_State = tuple[int, int]


@dataclass(frozen=True)
class Observed:
    """What was seen while a model answered once."""

    pairs: list[Pair]  # of which the second module takes the first one's output, each called once
    changed: set[nn.Module]  # second ones whose output was changed in place later on
    output: object  # of the model


def observed(
    model: nn.Module,
    answer: Callable[[], object],
    first: Collection[nn.Module],
    second: Collection[nn.Module],
    *whole: str,
) -> Observed:
    """Watch modules at work, but for those that carry hooks.

    Something else may use the output of a pair's first module as well, which nothing here can see.

    Args:
        model: a network.
        answer: runs it on an example; called once.
        first: modules that make something.
        second: modules that may take it.
        whole: names of modules whose output is wanted as it is, and whose parts keep their names: none is the second of
            a pair or in it, and none has the output that is handed over.
    """
    made: dict[_State, tuple[nn.Module, Tensor]] = {}  # tensors are held, so that their identity stays their own
    given: list[tuple[nn.Module, Tensor, _State]] = []
    wanted: set[_State] = set()
    found: list[tuple[nn.Module, nn.Module, _State]] = []
    calls: Counter[nn.Module] = Counter()

    def makes(module: nn.Module, _: Any, output: Tensor) -> None:
        calls[module] += 1
        made[_state(output)] = module, output

    def takes(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[module] += 1
        if inputs and (state := _state(inputs[0])) in made:
            found.append((made[state][0], module, state))

    def gives(module: nn.Module, _: Any, output: Tensor) -> None:
        given.append((module, output, _state(output)))

    def asked(_: nn.Module, __: Any, output: object) -> None:
        wanted.add(_state(output))

    with ExitStack() as hooks:
        for module in filter(is_plain, model.modules()):
            if module in first:
                hooks.callback(module.register_forward_hook(makes).remove)
            elif module in second:
                hooks.callback(module.register_forward_pre_hook(takes).remove)
                hooks.callback(module.register_forward_hook(gives).remove)
        for layer in whole:
            hooks.callback(model.get_submodule(layer).register_forward_hook(asked).remove)
        output = answer()
    parts = {module for layer in whole for module in _around(model, layer)}
    pairs = [
        (maker, taker)
        for maker, taker, state in found
        if calls[maker] == calls[taker] == 1 and state not in wanted and taker not in parts
    ]
    return Observed(pairs, {module for module, tensor, state in given if _state(tensor) != state}, output)


def _state(output: object) -> _State:
    """Of which tensor, and how often something was done to it in place."""
    return id(output), output._version if isinstance(output, Tensor) else 0


def _around(model: nn.Module, layer: str) -> list[nn.Module]:
    """The modules that a layer is in, and itself."""
    return [module for name, module in model.named_modules() if f"{layer}.".startswith(f"{name}.")]


def is_from_timm(module: nn.Module, kind: str) -> bool:
    """Whether it is timm's layer of this name, no class made of it; where timm was not imported none is."""
    layers = sys.modules.get("timm.layers")
    return layers is not None and type(module) is getattr(layers, kind)


def is_plain(module: nn.Module) -> bool:
    """Whether nothing watches the module or computes its weights."""
    return not (is_watched(module) or nn.utils.parametrize.is_parametrized(module))


def is_watched(module: nn.Module) -> bool:
    """Whether it carries hooks of any kind."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def same_output(before: object, after: object) -> bool:
    """Whether two outputs are equal to rounding; only tensors, and what holds them, can be compared."""
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        if before.shape != after.shape or not before.numel():
            return before.shape == after.shape
        scale = before.abs().max().clamp_min(1e-6)
        return bool((before - after).abs().max() <= TOLERANCE * scale)
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(same_output(before[key], after[key]) for key in before)
    if isinstance(before, tuple | list) and isinstance(after, tuple | list):
        return len(before) == len(after) and all(map(same_output, before, after))
    return False
