"""Observe pairs of modules during an evaluation: the second consumes the unchanged output of the first."""

import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

OUTPUT_TOLERANCE = 1e-4  # of the largest score, by which the outputs may differ

Pair = tuple[nn.Module, nn.Module]
_TensorState = tuple[int, int]


@dataclass(frozen=True)
class Observation:
    """Producers and consumers observed during one evaluation."""

    pairs: list[Pair]  # a producer and the consumer that takes its output, each called once
    overwritten: set[nn.Module]  # consumers whose output was changed in place later on
    output: object  # of the model


def observe(
    model: nn.Module,
    evaluate: Callable[[], object],
    producers: Collection[nn.Module],
    consumers: Collection[nn.Module],
    keep: Sequence[str] = (),
) -> Observation:
    """Observe producers and consumers during one evaluation, except those that carry hooks.

    Other code may use a producer's output as well, which cannot be observed here.

    Args:
        model: a network.
        evaluate: runs it on an example; called once.
        producers: modules that may be the first of a pair.
        consumers: modules that may be the second of a pair.
        keep: names of modules that must keep their output and their parts: no consumer is one of these or contains one,
            and no output passed from a producer to a consumer is the output of one.
    """
    produced: dict[_TensorState, tuple[nn.Module, Tensor]] = {}  # holds the tensors, so that their ids stay unique
    returned: list[tuple[nn.Module, Tensor, _TensorState]] = []
    kept: list[tuple[object, _TensorState]] = []
    candidates: list[tuple[nn.Module, nn.Module, _TensorState]] = []
    calls: Counter[nn.Module] = Counter()

    def record_production(module: nn.Module, _: Any, output: Tensor) -> None:
        calls[module] += 1
        produced[_state(output)] = module, output

    def record_consumption(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[module] += 1
        if inputs and (state := _state(inputs[0])) in produced:
            candidates.append((produced[state][0], module, state))

    def record_result(module: nn.Module, _: Any, output: Tensor) -> None:
        returned.append((module, output, _state(output)))

    def record_kept_output(_: nn.Module, __: Any, output: object) -> None:
        kept.append((output, _state(output)))  # held: the id of a tensor that is freed belongs to a later one

    with ExitStack() as hooks:
        for module in filter(is_unmodified, model.modules()):
            if module in producers:
                hooks.callback(module.register_forward_hook(record_production).remove)
            elif module in consumers:
                hooks.callback(module.register_forward_pre_hook(record_consumption).remove)
                hooks.callback(module.register_forward_hook(record_result).remove)
        for layer in keep:
            hooks.callback(model.get_submodule(layer).register_forward_hook(record_kept_output).remove)
        output = evaluate()
    kept_states = {state for _, state in kept}
    enclosing = {module for layer in keep for module in _ancestors(model, layer)}
    pairs = [
        (producer, consumer)
        for producer, consumer, state in candidates
        if calls[producer] == calls[consumer] == 1 and state not in kept_states and consumer not in enclosing
    ]
    return Observation(pairs, {module for module, tensor, state in returned if _state(tensor) != state}, output)


def _state(output: object) -> _TensorState:
    """Return the identity of a tensor and the number of in-place changes made to it."""
    return id(output), output._version if isinstance(output, Tensor) else 0


def _ancestors(model: nn.Module, layer: str) -> list[nn.Module]:
    """Return the modules that contain a layer, and the layer itself."""
    return [module for name, module in model.named_modules() if f"{layer}.".startswith(f"{name}.")]


def is_from_timm(module: nn.Module, kind: str) -> bool:
    """Return whether a module is timm's layer of this name, and not of a subclass."""
    layers = sys.modules.get("timm.layers")  # not imported: no module is timm's
    return layers is not None and type(module) is getattr(layers, kind)


def is_unmodified(module: nn.Module) -> bool:
    """Return whether a module has neither hooks nor parametrised weights, and may be observed."""
    return accepts_hooks(module) and not (has_hooks(module) or nn.utils.parametrize.is_parametrized(module))


def accepts_hooks(module: nn.Module) -> bool:
    """Return whether hooks can be registered; they cannot for modules of `torch.jit.script` and `torch.jit.load`."""
    return not isinstance(module, torch.jit._script.RecursiveScriptModule)


def has_hooks(module: nn.Module) -> bool:
    """Return whether a module carries hooks of any kind."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def outputs_match(before: object, after: object) -> bool:
    """Return whether two outputs are equal up to rounding; only tensors and containers of tensors can be."""
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        if before.shape != after.shape or not before.numel():
            return before.shape == after.shape
        scale = before.abs().max().clamp_min(1e-6)
        return bool((before - after).abs().max() <= OUTPUT_TOLERANCE * scale)
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(outputs_match(before[key], after[key]) for key in before)
    if isinstance(before, tuple | list) and isinstance(after, tuple | list):
        return len(before) == len(after) and all(map(outputs_match, before, after))
    return False
