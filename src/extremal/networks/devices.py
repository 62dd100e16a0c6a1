"""Devices: the names that users give them, and those that this machine has."""

import re
from typing import TYPE_CHECKING, Union

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import describe_error, quote

if TYPE_CHECKING:  # `check_device_name` does not wait for torch
    import torch
    from torch import nn

AUTO = "auto"  # the fastest device of this machine
DEVICE_SYNTAX = "auto, cpu, cuda, cuda:N, mps or xpu"
_DEVICE_NAME = re.compile(r"cpu|mps|(cuda|xpu)(:[0-9]{1,3})?")

DeviceLike = Union[str, "torch.device"]


def check_device_name(device: DeviceLike) -> str:
    """Return the name of a device, whether this machine has it or not; torch is not imported.

    >>> check_device_name("cuda:1")
    'cuda:1'

    Raises:
        ExtremalValueError, ExtremalTypeError: it is not the name of a device.
    """
    if not isinstance(device, str) and type(device).__name__ != "device":
        raise ExtremalTypeError(f"device must be a name or a torch.device, got {type(device).__name__}; e.g. 'cuda'")
    name = str(device)
    if name != AUTO and not _DEVICE_NAME.fullmatch(name):
        raise ExtremalValueError(f"device must be {DEVICE_SYNTAX}, got {quote(name)}")
    return name


def list_devices() -> list[str]:
    """Return the names of the devices that this machine has, the fastest first; the last is `cpu`."""
    counts = {kind: count_devices(kind) for kind in ("cuda", "xpu", "mps")}
    indexed = [f"{kind}:{number}" for kind in ("cuda", "xpu") for number in range(counts[kind])]
    return [*indexed, *["mps"][: counts["mps"]], "cpu"]


def count_devices(kind: str) -> int:
    """Return how many devices of a kind (cuda, xpu, mps) torch can use here."""
    import torch

    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, kind)
    return int(module.device_count()) if module.is_available() else 0


def find_device(device: DeviceLike = AUTO, number: int = 0) -> "torch.device":
    """Return a device of this machine, with its index.

    >>> str(find_device("cpu"))
    'cpu'

    Args:
        device: its name; `auto` is the fastest.
        number: of a worker; those of `auto` are spread over all devices of the fastest kind.

    Raises:
        ExtremalValueError, ExtremalTypeError: it is not the name of a device, or this machine has none of this name,
            or it cannot be used, e.g. because other programs have all of its memory.
    """
    import torch

    name, present = check_device_name(device), list_devices()
    if name == AUTO:
        kind = present[0].partition(":")[0]
        alike = [other for other in present if other.partition(":")[0] == kind]
        name = alike[number % len(alike)]
    elif name in ("cuda", "xpu") and f"{name}:0" in present:
        name = f"{name}:{getattr(torch, name).current_device()}"
    if name not in present:
        raise ExtremalValueError(
            f"device must be one that this machine has, got {quote(name)}; there are: {', '.join(present)}"
        )
    found = torch.device(name)
    if name != "cpu":
        _check_usable(found, present)
    return found


def _check_usable(device: "torch.device", present: list[str]) -> None:
    """Raise unless a device takes a tensor."""
    import torch

    try:
        torch.ones(1, dtype=torch.float32, device=device)
    except RuntimeError as error:  # torch.OutOfMemoryError and torch.AcceleratorError are RuntimeErrors
        others = ", ".join(other for other in present if other != str(device))
        raise ExtremalValueError(
            f"device must have memory left, {device} cannot be used: {describe_error(error)}; end other programs on "
            f"it, or use one of: {others}"
        ) from None


def free_memory(device: "torch.device") -> int | None:
    """Return the bytes of a device that are free; None for the main memory, and if they are unknown."""
    import torch

    if device.type in ("cuda", "xpu"):
        return int(getattr(torch, device.type).mem_get_info(device)[0])
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return None


def describe_device(device: DeviceLike) -> str:
    """Return the name of a device and of its hardware, if torch knows it: `cuda:0 (NVIDIA H100 80GB HBM3)`."""
    import torch

    kind, _, index = str(device).partition(":")
    if kind not in ("cuda", "xpu"):
        return str(device)
    return f"{device} ({getattr(torch, kind).get_device_name(int(index or 0))})"


def move_module(model: "nn.Module", name: str, device: "torch.device") -> None:
    """Move a module to a device; if that fails, it stays where it was.

    Args:
        model: a module on one device.
        name: of the network, for messages.
        device: that this machine has.

    Raises:
        ExtremalValueError: the module does not fit on the device, or cannot be moved there.
    """
    before = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    if before <= {device}:
        return
    try:
        model.to(device)
    except Exception as error:  # modules of other libraries may raise anything
        if len(before) == 1:
            model.to(before.pop())
        free = free_memory(device)
        left = "" if free is None else f", which has {free / 2**30:.1f} GiB left"
        raise ExtremalValueError(
            f"a network must fit on its device, {name} could not be moved to {device}{left}: {describe_error(error)}; "
            f"use another one of: {', '.join(other for other in list_devices() if other != str(device))}"
        ) from error


def check_single_device(devices: list[str], name: str) -> None:
    """Raise unless the weights of a network are on one device, with their values."""
    if len(devices) > 1 or "meta" in devices:
        raise ExtremalValueError(
            f"a network must be on one device with its values, {name} is on {', '.join(devices)}; "
            "move it with .to(device), or load its weights"
        )
