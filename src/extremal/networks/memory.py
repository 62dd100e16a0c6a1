"""Memory that a network needs for its gradient, its budget, and the reuse of freed memory."""

import ctypes
import sys
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.networks.devices import free_memory

CPU_BUDGET = 2**29  # bytes; more rows at once are not faster on a CPU, because its caches are small
OUT_OF_MEMORY_WORDS = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory")
GPU_MEMORY_FRACTION = 0.5  # of the device's free memory; kernels need memory of their own

_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -4, -1, -2  # parameters of glibc's mallopt


def activation_bytes(evaluate: Callable[[], object], parameters: Iterable[Tensor] = ()) -> int:
    """Count the bytes that an evaluation saves for its gradient, without tensors that exist anyway.

    >>> x = torch.zeros(1000, requires_grad=True)
    >>> activation_bytes(lambda: x.exp().sum())
    4000

    Args:
        evaluate: runs a forward pass, with gradient.
        parameters: parameters and buffers.
    """
    existing = {tensor.untyped_storage().data_ptr() for tensor in parameters if tensor.layout == torch.strided}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in existing:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # without its graph: a node that saves its own output would keep itself alive

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = evaluate()  # kept until all is counted, so that no storage is freed and reused
        total = sum(saved.values())
    del output
    return total


def default_budget(device: torch.device) -> float:
    """Return the bytes that a network may save for its gradient if the user sets no limit."""
    free = free_memory(device)
    return CPU_BUDGET if free is None else GPU_MEMORY_FRACTION * free


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that memory ran out; many allocators raise a plain RuntimeError.

    >>> is_out_of_memory(RuntimeError("x: can't allocate memory")), is_out_of_memory(KeyError("memory"))
    (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = " ".join(map(str, error.args)).lower() if isinstance(error, RuntimeError) else ""
    return any(words in text for words in OUT_OF_MEMORY_WORDS)


class RowLimit:
    """The number of rows that a network is evaluated on at once without gradient; halved whenever memory runs out."""

    def __init__(self) -> None:
        self.rows: int | None = None  # None: as many as a caller passes, while memory has not run out

    def evaluate(self, evaluate: Callable[[slice], Tensor], count: int) -> Tensor:
        """Return values (count,) of all rows, evaluated as many at once as fit.

        Args:
            evaluate: returns the values of a part of the rows.
            count: of the rows.
        """
        while True:
            size = count if self.rows is None else min(count, self.rows)
            try:
                if size == count:
                    return evaluate(slice(None))
                return torch.cat([evaluate(slice(first, first + size)) for first in range(0, count, size)])
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
            self.rows = max(1, size // 2)  # only here: the exception, gone by now, held tensors


def row_error(shape: tuple[int, ...] = ()) -> ExtremalValueError:
    """Return the error for a single row that does not fit into memory, of an input of a shape if it is known."""
    subject = f"an input of shape {shape}" if shape else "a single input"
    return ExtremalValueError(
        f"one evaluation of the network must fit in memory, {subject} does not; use a smaller input or a device with "
        "more memory"
    )


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for reuse by this process instead of returning it to the system.

    A network's tensors are freed and allocated again in every step; with glibc's defaults the system spends a third of
    a run on a CPU on this. The setting holds for the whole process until its end, so only programs call this function,
    never this library; the process then keeps the largest amount of memory it has used. Call it before the first
    evaluation.

    Returns:
        Whether the setting was changed; False if the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 2**26)])
