"""Devices without hardware: their tensors report another device and refuse to be mixed with those of the CPU.

Inside `with fake_device()`, torch takes the device by its name, e.g. "cuda:0", also in threads that are started there;
several names are several devices, which refuse each other as well. Values are kept in main memory and computed by the
kernels of the CPU, so results are those of the CPU. As with a GPU, an operation of tensors of two devices raises a
RuntimeError unless one is a single number, and values must be copied to the CPU before Python can use them;
`FakeDevice.waits` counts all for which a program would wait: such copies in both directions, except those from pinned
memory, and results whose size depends on values.
"""

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from extremal.networks import devices

aten = torch.ops.aten
SIZED_BY_VALUES = ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "equal")
SOURCE = "/src/extremal/"
FREE_BYTES = 2**31


class DeviceTensor(Tensor):
    """A tensor of the fake device."""

    held: Tensor  # the values, on the CPU
    fake_device: torch.device

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device) -> "DeviceTensor":
        tensor: DeviceTensor = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",  # as the kernels of torch see it: they need no runtime for it
        )
        tensor.held, tensor.fake_device = held, device
        return tensor

    @property  # type: ignore[misc]
    def device(self) -> torch.device:
        return self.fake_device

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({self.held!r}, device={self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a tensor of the fake device was used outside of its `with`")


class FakeDevice(TorchDispatchMode):
    """Operations of tensors of the devices, in one thread.

    Attributes:
        waits: number of operations for which a program would wait for the device, by kind and line of the library.
    """

    def __init__(self, devices: list[torch.device], waits: Counter[str] | None = None) -> None:
        super().__init__()
        self.devices, self.waits = devices, Counter[str]() if waits is None else waits
        self._current = devices[0]  # of the last operation

    def find(self, device: Any) -> torch.device | None:
        """Return the fake device that is meant; None: a real one."""
        if device is None:
            return None
        device = torch.device(device)
        if device.type == "meta":  # as the kernels of torch see its tensors
            return self._current
        if device.type != self.devices[0].type:
            return None
        return device if device.index is not None else self.devices[0]

    def count(self, kind: str) -> None:
        """Count a wait, by its kind and the line of the library that caused it."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and SOURCE not in frame.f_code.co_filename:
            frame = frame.f_back
        place = "" if frame is None else f" in {frame.f_code.co_filename.rpartition(SOURCE)[2]}:{frame.f_lineno}"
        self.waits[f"{kind}{place}"] += 1

    def wrap(self, values: Any, device: torch.device) -> Any:
        return tree_map(lambda value: DeviceTensor(value, device) if _is_plain(value) else value, values)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        leaves = tree_leaves((args, kwargs))
        own = [leaf for leaf in leaves if isinstance(leaf, DeviceTensor)]
        if own:
            self._current = max(own, key=lambda leaf: leaf.ndim > 0).device
        device = self._current if own else None
        if kwargs.get("device") is not None:
            device = self.find(kwargs["device"])
            kwargs["device"] = "cpu"
        if own or device:
            self._check_devices(name, args, leaves, own)
            self._count(name, args, kwargs, leaves, own, device)
        if name == "_fused_sdp_choice" and own:
            return 0  # composed of other operations
        plain_args, plain_kwargs = tree_map(_unwrap, (args, kwargs))
        result = func(*plain_args, **plain_kwargs)
        written = {id(_unwrap(leaf)): leaf for leaf in leaves if isinstance(leaf, Tensor)}
        if _writes(func):
            return tree_map(lambda value: written.get(id(value), value), result)
        if name == "_to_copy" and isinstance(args[0], Tensor) and result is plain_args[0]:
            result = result.clone()
        return self.wrap(result, device) if device and name != "_local_scalar_dense" else result

    def _check_devices(self, name: str, args: Any, leaves: list[Any], own: list[Any]) -> None:
        """Raise if tensors of both devices are combined."""
        if name in ("_to_copy", "copy_") or not own:
            return
        allowed = tree_leaves(args[1]) if name in ("index", "index_put", "index_put_", "_index_put_impl_") else []
        free = {id(index) for index in allowed if _is_plain(index)}
        used = {str(x.device) for x in leaves if isinstance(x, Tensor) and x.ndim and id(x) not in free}
        if len(used | {str(self._current)}) > 1 and any(x.ndim for x in own):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, "
                f"{' and '.join(sorted(used, reverse=True))}! (in {name})"
            )

    def _count(self, name: str, args: Any, kwargs: Any, leaves: list[Any], own: list[Any], device: Any) -> None:
        if name == "_local_scalar_dense":
            self.count("value to Python")
        elif name in SIZED_BY_VALUES:
            self.count(name)
        elif name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            indices = [index for index in tree_leaves(args[1]) if isinstance(index, Tensor)]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self.count("bool index")
            if any(_is_plain(index) for index in indices):
                self.count("index from the CPU")
        elif name == "_to_copy":
            is_from_own = isinstance(args[0], DeviceTensor)
            if is_from_own and not device:
                self.count("to the CPU")
            elif not is_from_own and device and not (kwargs.get("non_blocking") and _is_pinned(args[0])):
                self.count("from the CPU")
        elif name == "copy_" and isinstance(args[0], DeviceTensor) != isinstance(args[1], DeviceTensor):
            self.count("copy between devices")


def _pin(tensor: Tensor) -> Tensor:
    """Return a copy that counts as pinned."""
    pinned = tensor.clone()
    pinned.counts_as_pinned = True  # type: ignore[attr-defined]
    return pinned


def _is_pinned(tensor: Tensor) -> bool:
    return getattr(tensor, "counts_as_pinned", False)


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, DeviceTensor)


def _unwrap(value: Any) -> Any:
    return value.held if isinstance(value, DeviceTensor) else value


def _writes(func: Any) -> bool:
    return any(argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments)


class _Functions(TorchFunctionMode):
    """Functions of torch that look for the device before anything is dispatched."""

    def __init__(self, fake: FakeDevice) -> None:
        super().__init__()
        self.fake = fake
        self._methods = {
            Tensor.untyped_storage: lambda x: x.held.untyped_storage(),
            Tensor.new_tensor: self._new_tensor,
            Tensor.tolist: lambda x: x.cpu().tolist(),
            Tensor.numpy: self._refuse,
            torch.as_tensor: lambda x, dtype=None, device=None: x.to(dtype or x.dtype),
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.to:
            return self._move(func, args, kwargs)
        if func is Tensor.pin_memory:
            return _pin(args[0])
        if args and isinstance(args[0], DeviceTensor):
            if func in self._methods:
                return self._methods[func](*args, **kwargs)
            if func in (Tensor.__getitem__, Tensor.__setitem__):
                args = (args[0], self._to_tensors(args[1], args[0].device), *args[2:])
        device = self.fake.find(kwargs.get("device"))
        return self._make(func, args, kwargs, device) if device else func(*args, **kwargs)

    def _make(self, func: Any, args: Any, kwargs: dict[str, Any], device: torch.device) -> Any:
        """Call a function with the device as an argument."""
        kwargs.pop("device")
        if any(isinstance(leaf, DeviceTensor) for leaf in tree_leaves(args)):
            return func(*args, **kwargs)
        needs_gradient = kwargs.pop("requires_grad", False)
        if func in (torch.tensor, torch.as_tensor):
            self.fake.count("from the CPU")
        result = self.fake.wrap(func(*args, **kwargs, device="cpu"), device)
        return result.requires_grad_() if needs_gradient else result

    def _new_tensor(self, tensor: Tensor, data: Any, **options: Any) -> Any:
        self.fake.count("from the CPU")
        return self.fake.wrap(torch.tensor(data, **{"dtype": tensor.dtype, **options}), tensor.device)

    def _refuse(self, tensor: Tensor, *_: Any, **__: Any) -> None:
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy. Use Tensor.cpu() to copy it")

    def _to_tensors(self, index: Any, device: torch.device) -> Any:
        """Return an index with lists of numbers as tensors of the device."""
        if isinstance(index, tuple):
            return tuple(self._to_tensors(part, device) for part in index)
        if isinstance(index, list):
            self.fake.count("list as index")
            return self.fake.wrap(torch.tensor(index), device)
        return index

    def _move(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensor, *rest = args
        other = rest[0] if rest else kwargs.get("other")
        if isinstance(other, Tensor):
            device, dtype, non_blocking, memory_format = other.device, other.dtype, kwargs.get("non_blocking"), None
        else:
            device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(
                *rest, **{name: value for name, value in kwargs.items() if name != "copy"}
            )
        device = tensor.device if device is None else device
        dtype = tensor.dtype if dtype is None else dtype
        own = self.fake.find(device)
        if not own and not isinstance(tensor, DeviceTensor):
            return func(*args, **kwargs)
        same = (own or torch.device(device)) == tensor.device and dtype == tensor.dtype
        if same and memory_format is None and not kwargs.get("copy"):
            return tensor
        options = {"dtype": dtype, "device": device, "non_blocking": bool(non_blocking)}
        return aten._to_copy.default(tensor, memory_format=memory_format, **options)


@contextmanager
def fake_device(*names: str) -> Iterator[FakeDevice]:
    """Add devices of one kind to this machine; without names `cuda:0`."""
    added = [torch.device(name) for name in names or ("cuda:0",)]
    real_count, real_run = devices.count_devices, threading.Thread.run

    def count(kind: str) -> int:
        return len(added) if kind == added[0].type else real_count(kind)

    def run_thread(thread: threading.Thread) -> None:
        inside = FakeDevice(added, fake.waits)
        with inside, _Functions(inside):
            real_run(thread)

    fake = FakeDevice(added)
    with (
        mock.patch.object(devices, "count_devices", count),
        mock.patch.object(devices, "free_memory", return_value=FREE_BYTES),
        mock.patch("extremal.networks.memory.free_memory", return_value=FREE_BYTES),
        mock.patch("extremal.networks.randomness.count_devices", real_count),  # it has no generator
        mock.patch.object(threading.Thread, "run", run_thread),  # modes of torch belong to a thread
        fake,
        _Functions(fake),
    ):
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # a module's parameters become `DeviceTensor`s
        try:
            yield fake
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(False)
