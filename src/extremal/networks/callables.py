"""Functions as networks: a module that calls a function, and owns the modules that this uses."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn

from extremal.errors import ExtremalTypeError
from extremal.networks.compiled import unwrap_compiled


class CallableModule(nn.Module):
    """A function x (B, C, *S) -> output as a module.

    Modules that the function uses become its parts: those that it is bound to, that it captures, or that are among its
    defaults, the arguments of a `functools.partial`, or the global variables that it names. They are put in evaluation
    mode during a run, and restored after it.

    >>> linear = nn.Linear(2, 2)
    >>> [type(part).__name__ for part in CallableModule(lambda x: linear(x) + 1).parts]
    ['Linear']
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self._call = call
        self.parts = nn.ModuleList(dict.fromkeys(find_modules(call)))

    def forward(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        return self._call(*args, **options)


def as_module(model: object) -> nn.Module:
    """Return a module, uncompiled, or a function as one.

    Raises:
        ExtremalTypeError: it is neither; for a class of modules, an object of it is asked for.
    """
    if isinstance(model, nn.Module):
        return unwrap_compiled(model)
    if isinstance(model, type):
        raise ExtremalTypeError(f"a network must be an object, got the class {model.__name__}; pass {model.__name__}()")
    if callable(model):
        return CallableModule(model)
    raise ExtremalTypeError(
        f"a network must be a torch.nn.Module or a function (B, C, *S) -> (B, classes), got {type(model).__name__}"
    )


def name_model(model: nn.Module) -> str:
    """Return the name of a module's class, or of a function.

    >>> name_model(nn.Linear(2, 2)), name_model(CallableModule(len))
    ('Linear', 'len')
    """
    call = model._call if isinstance(model, CallableModule) else model
    return str(getattr(call, "__name__", type(call).__name__))


def find_modules(call: object, depth: int = 2) -> Iterator[nn.Module]:
    """Yield the modules that a function uses, as far as they can be seen from outside.

    Args:
        call: a function, a bound method, a `functools.partial`, or another callable.
        depth: of functions inside functions.
    """
    for value in _find_values(call):
        if isinstance(value, nn.Module):
            yield value
        elif depth and callable(value) and not isinstance(value, type):
            yield from find_modules(value, depth - 1)


def _find_values(call: object) -> Iterator[object]:
    """Yield what a function is bound to, captures, or names."""
    if isinstance(call, partial):
        yield from (call.func, *call.args, *call.keywords.values())
    elif inspect.ismethod(call):
        yield from (call.__self__, call.__func__)
    elif inspect.isfunction(call):
        for cell in call.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # a variable without a value yet
                continue
        yield from (*(call.__defaults__ or ()), *(call.__kwdefaults__ or {}).values())
        yield from (call.__globals__[name] for name in call.__code__.co_names if name in call.__globals__)
    elif not isinstance(call, type) and not inspect.isbuiltin(call):
        yield from vars(call).values() if hasattr(call, "__dict__") else ()
        yield type(call).__dict__.get("__call__")
