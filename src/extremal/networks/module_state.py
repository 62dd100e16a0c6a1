"""The state of a module: evaluation mode without parameter gradients inside a `with`, and everything restored after it.

Modules of any kind are supported: scripted, traced, frozen, exported and quantised ones too.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.file_checks import describe_error
from extremal.networks.weight_hash import to_plain

HOOKED_MARK = "_output_capturing_hooks_installed"  # of models of transformers, some of which hook parts at a first call


@contextmanager
def evaluation_state(model: nn.Module, name: str) -> Iterator[None]:
    """Put a model in evaluation mode without parameter gradients; on exit everything is restored.

    Training flags, `requires_grad`, parameters and buffers are restored, also after an exception or an interrupt.

    Args:
        model: a module.
        name: of the network, for messages.

    Raises:
        ExtremalValueError: it cannot be put in evaluation mode, or its weights do not exist yet.
    """
    check_weights(model, name)
    modules = list(model.modules())
    training = [(module, bool(module.training)) for module in modules if hasattr(module, "training")]
    modeless = [module for module in modules if not hasattr(module, "training")]  # of `torch.jit.freeze`
    parameters = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    hooked = [(module, set(module._forward_hooks)) for module in modules if hasattr(module, "_forward_hooks")]
    marked = {id(module) for module in modules if HOOKED_MARK in vars(module)}
    registered = [(entries, dict(entries)) for module in modules for entries in _find_entries(module)]
    try:
        _start_evaluation(model, name)
        for parameter, _ in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for entries, before in registered:
            _restore_entries(entries, before)
        _remove_captures(hooked, marked)
        for module, was_training in training:
            module.training = was_training
        for module in modeless:
            vars(module).pop("training", None)
        for parameter, needed in parameters:
            parameter.requires_grad_(needed)
        for buffer, value in buffers:
            if not _is_same(buffer, value):
                buffer.detach().copy_(value)


def check_weights(model: nn.Module, name: str) -> None:
    """Raise unless all weights exist, and can take part in the computation of a gradient.

    Raises:
        ExtremalValueError: some are created at the first call only, or were created in inference mode.
    """
    tensors = (*model.parameters(), *model.buffers())
    if any(nn.parameter.is_lazy(tensor) for tensor in tensors):
        raise ExtremalValueError(
            f"a network must have its weights, some of {name}'s are created at its first call; call it once on an "
            "input, e.g. model(x)"
        )
    if any(tensor.is_inference() for tensor in tensors):
        raise ExtremalValueError(
            f"a network must be built outside torch.inference_mode, {name}'s weights were created inside it, "
            "which disables gradients; build or load it outside"
        )


def _start_evaluation(model: nn.Module, name: str) -> None:
    try:
        model.eval()
    except (NotImplementedError, AttributeError):  # exported and frozen modules, whose mode is fixed
        for module in model.modules():
            if isinstance(module, torch.jit.ScriptModule) or not hasattr(module, "training"):
                continue
            with suppress(NotImplementedError, AttributeError):
                module.training = False
    except Exception as error:
        raise ExtremalValueError(
            f"a network must have an evaluation mode, {name}.eval() raised {describe_error(error)}; correct its eval "
            "or train method"
        ) from error


def _find_entries(module: nn.Module) -> tuple[dict[str, Any], ...]:
    """Return the dicts of a module's own parameters and buffers; none of scripted modules, which have no dicts."""
    return () if isinstance(module, torch.jit.ScriptModule) else (module._parameters, module._buffers)


def _restore_entries(entries: dict[str, Any], before: dict[str, Any]) -> None:
    """Register the same tensors under the same names again, if a network has replaced any."""
    if entries.keys() != before.keys() or any(entries[name] is not value for name, value in before.items()):
        entries.clear()
        entries.update(before)


def _remove_captures(hooked: list[tuple[nn.Module, set[int]]], marked: set[int]) -> None:
    """Remove hooks that transformers has installed in models meanwhile, with its mark of having done so.

    Args:
        hooked: modules with the identities of their hooks before.
        marked: identities of the modules that had the mark before.
    """
    new = [module for module, _ in hooked if HOOKED_MARK in vars(module) and id(module) not in marked]
    for module in new:
        delattr(module, HOOKED_MARK)
    for module, before in hooked if new else ():
        for key in set(module._forward_hooks) - before:
            del module._forward_hooks[key]


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Return whether two buffers have the same values."""
    a, b = to_plain(a), to_plain(b)
    return a.shape == b.shape and torch.equal(a, b)
