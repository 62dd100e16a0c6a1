"""Networks of `torch.compile`: a run evaluates the modules from which they were compiled.

A run evaluates batches of many sizes with and without gradients and with hooks, and each would be compiled by itself.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

_PREFIX = "_orig_mod."


def unwrap_compiled(module: nn.Module) -> nn.Module:
    """Return the module from which `torch.compile` made this one, or the module itself.

    >>> linear = nn.Linear(2, 2)
    >>> unwrap_compiled(torch.compile(linear)) is linear, unwrap_compiled(linear) is linear
    (True, True)
    """
    dynamo = sys.modules.get("torch._dynamo")  # not imported: nothing was compiled
    while dynamo is not None and isinstance(module, dynamo.OptimizedModule):
        module = module._modules["_orig_mod"]
    return module


def strip_compiled(name: str) -> str:
    """Return the name that a module or weight has in a network that is not compiled.

    >>> strip_compiled("_orig_mod.features._orig_mod.0"), strip_compiled("features._orig_mod")
    ('features.0', 'features')
    """
    return f"{name}.".replace(_PREFIX, "").removesuffix(".")


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Replace compiled modules inside a model by the original ones, and run compiled functions as they were written.

    On exit all are as before, also after an exception.

    >>> model = nn.Sequential(torch.compile(nn.Linear(2, 2)))
    >>> with uncompiled(model):
    ...     type(model[0]).__name__
    'Linear'
    >>> type(model[0]).__name__
    'OptimizedModule'
    """
    with ExitStack() as undo:
        undo.enter_context(_EAGER.entered())
        for module in list(model.modules()):
            for name, child in list(module._modules.items()):
                original = child if child is None else unwrap_compiled(child)
                if original is not child:
                    module._modules[name] = original
                    undo.callback(module._modules.__setitem__, name, child)
            compiled_call = vars(module).get("_compiled_call_impl")  # of `module.compile()`
            if compiled_call is not None:
                vars(module)["_compiled_call_impl"] = None
                undo.callback(vars(module).__setitem__, "_compiled_call_impl", compiled_call)
        yield


class _EagerStance:
    """The stance of the compiler, which belongs to the process: the last of several threads restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count, self._stance = 0, ExitStack()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Ignore `torch.compile` inside the `with`, if anything can be compiled at all."""
        if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):  # torch 2.6
            yield
            return
        with self._lock:
            if not self._count:
                self._stance.enter_context(torch.compiler.set_stance("force_eager"))
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
                if not self._count:
                    self._stance.close()


_EAGER = _EagerStance()
