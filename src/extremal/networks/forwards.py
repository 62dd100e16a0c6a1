"""Replace the `forward` of modules inside a `with`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]
Forwards = dict[nn.Module, Forward]


@contextmanager
def patched_forwards(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Replace the `forward` of these modules; hooks are still called.

    On exit every module is as it was, also after an exception.

    >>> module = nn.ReLU()
    >>> with patched_forwards({module: lambda x: x + 1}):
    ...     module(1)
    2
    >>> "forward" in vars(module)
    False
    """
    previous = {module: vars(module)["forward"] for module in forwards if "forward" in vars(module)}
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module in forwards:
            vars(module).pop("forward", None)
            if module in previous:
                vars(module)["forward"] = previous[module]
