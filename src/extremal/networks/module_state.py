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
from extremal.networks.interrupts import complete
from extremal.networks.weight_hash import to_plain

HOOK_FIELDS = (
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs"),
    *("_forward_hooks_always_called", "_backward_pre_hooks", "_backward_hooks"),
)
HOOKED_MARK = "_output_capturing_hooks_installed"  # of models of transformers, some of which hook parts at a first call
OWN_FIELDS = ("training", "forward", HOOKED_MARK)  # which a module may have, or take from its class


@contextmanager
def evaluation_state(model: nn.Module, name: str) -> Iterator[None]:
    """Put a model in evaluation mode without parameter gradients; on exit everything is restored.

    Training flags, `requires_grad`, parameters, buffers and hooks are restored, also after an exception or interrupt.

    Args:
        model: a module.
        name: of the network, for messages.

    Raises:
        ExtremalValueError: it cannot be put in evaluation mode, or its weights do not exist yet.
    """
    check_weights(model, name)
    before = _ModuleState(model)
    try:
        _start_evaluation(model, name)
        for parameter, _ in before.parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        complete(before.restore)


class _ModuleState:
    """The state of a model before a run."""

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        self._training = [(module, bool(module.training)) for module in modules if hasattr(module, "training")]
        self.parameters = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self._buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
        self._entries = [(entries, dict(entries)) for module in modules for entries in _find_entries(module)]
        self._fields = [
            (fields, {name: fields[name] for name in OWN_FIELDS if name in fields}) for fields in map(vars, modules)
        ]
        plain = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
        self._children = [(module._modules, dict(module._modules)) for module in plain]

    def restore(self) -> None:
        """Make the model what it was."""
        for children, known in self._children:
            children.update(known)  # those that the network has added stay
        for fields, known in self._fields:
            for name in OWN_FIELDS:
                fields.pop(name, None)
            fields.update(known)
        for entries, before in self._entries:
            _restore_entries(entries, before)
        for module, was_training in self._training:
            module.training = was_training
        for parameter, needed in self.parameters:
            parameter.requires_grad_(needed)
        for buffer, value in self._buffers:
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


def _find_entries(module: nn.Module) -> list[dict[Any, Any]]:
    """Return the dicts of a module's own parameters, buffers and hooks; of scripted modules, those that they have."""
    names = HOOK_FIELDS if isinstance(module, torch.jit.ScriptModule) else ("_parameters", "_buffers", *HOOK_FIELDS)
    return [vars(module)[name] for name in names if name in vars(module)]


def _restore_entries(entries: dict[Any, Any], before: dict[Any, Any]) -> None:
    """Register the same tensors and hooks under the same names again, if any were replaced, added or removed."""
    if entries.keys() != before.keys() or any(entries[name] is not value for name, value in before.items()):
        entries.clear()
        entries.update(before)


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Return whether two buffers have the same values."""
    a, b = to_plain(a), to_plain(b)
    return a.shape == b.shape and torch.equal(a, b)
