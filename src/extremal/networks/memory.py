"""Memory: what a network holds for its gradient, how much of it there may be, and what becomes of freed memory."""

import ctypes
import sys
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

CPU_BUDGET = 2**29  # bytes; more rows at once are no faster on a processor, its caches are small
GPU_MEMORY_FRACTION = 0.5  # of the device's free memory: kernels need room of their own

_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -4, -1, -2  # names of glibc's mallopt


def activation_bytes(evaluate: Callable[[], object], parameters: Iterable[Tensor] = ()) -> int:
    """Bytes that an evaluation holds until its gradient is taken, without tensors that are held anyway.

    >>> x = torch.zeros(1000, requires_grad=True)
    >>> activation_bytes(lambda: x.exp().sum())
    4000

    Args:
        evaluate: runs forward, with gradient.
        parameters: parameters and buffers.
    """
    anyway = {tensor.untyped_storage().data_ptr() for tensor in parameters}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in anyway:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # with its graph, a node that saves its own output would hold itself for ever

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = evaluate()  # kept to the end of the block: no storage is given back and counted twice
        total = sum(held.values())
    del output
    return total


def default_budget(device: torch.device) -> float:
    """Bytes for what a network holds for its gradient, where the user sets none."""
    if device.type == "cuda":
        return GPU_MEMORY_FRACTION * torch.cuda.mem_get_info(device)[0]
    return CPU_BUDGET


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory for this process instead of handing it back to the system each time.

    A network's tensors are freed and wanted again in every step; with glibc's defaults the system's part of that is a
    third of a run on a processor. For the whole process and for good, so only a program calls it, never this library
    by itself; the process then stays at the most memory it had. Call it before the first evaluation.

    Returns:
        Whether there was something to tell: False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 2**26)])
