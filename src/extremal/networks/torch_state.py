"""Modes of torch that a caller may have set: computations are made without them, and find them unchanged afterwards."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch.utils._device import DeviceContext

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def standard_modes() -> Iterator[None]:
    """Compute with gradients, outside of autocast and inference mode, with the CPU as default device.

    On exit the caller's modes hold again, also after an exception. Modes that belong to the whole process (the default
    dtype, deterministic algorithms, the number of threads) are not changed; no result depends on the default dtype.

    >>> with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), standard_modes():
    ...     torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
    (True, False)
    """
    with ExitStack() as modes:
        for device in _AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        if has_default_device():  # only then: a default device makes every call of torch slower
            modes.enter_context(torch.device("cpu"))
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        yield


def has_default_device() -> bool:
    """Return whether a default device is set, by `torch.set_default_device` or by `with torch.device(...)`."""
    stack: list[object] = torch.overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return any(isinstance(mode, DeviceContext) for mode in stack)


def in_standard_modes(function: F) -> F:
    """Decorate a function to run inside `standard_modes`.

    >>> @in_standard_modes
    ... def is_recording():
    ...     return torch.is_grad_enabled()
    >>> with torch.no_grad():
    ...     is_recording()
    True
    """

    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        with standard_modes():
            return function(*args, **options)

    return cast(F, run)
