"""Random states of torch, numpy and Python: seeded for a run, and restored after it."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extremal.networks.devices import count_devices
from extremal.networks.interrupts import complete

_DeviceStates = list[tuple[str, int, Tensor]]  # kind of device, its index, the state of its generator


def _read_device_states() -> _DeviceStates:
    states = [
        (kind, index, getattr(torch, kind).get_rng_state(index))
        for kind in ("cuda", "xpu")
        for index in range(count_devices(kind))
    ]
    return [*states, *(("mps", 0, torch.mps.get_rng_state()) for _ in range(count_devices("mps")))]


def _read_states() -> tuple[Any, Any, Tensor, _DeviceStates]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), _read_device_states()


def _write_states(states: tuple[Any, Any, Tensor, _DeviceStates]) -> None:
    of_python, of_numpy, of_cpu, of_devices = states
    random.setstate(of_python)
    np.random.set_state(of_numpy)
    torch.set_rng_state(of_cpu)
    for kind, index, state in of_devices:
        getattr(torch, kind).set_rng_state(state, *[] if kind == "mps" else [index])


class _SharedStates:
    """The random states belong to the process: of threads that run at once, the last one restores them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # held while the generators of the process are read, seeded or restored
        self._runs: dict[int, list[tuple[object, Any]]] = {}  # thread: its runs inside each other, the states before
        self._outside: Any = None  # the states before the first thread began

    def enter(self, thread: int, run: object, seed: int) -> None:
        """Seed torch for a run of a thread."""
        with self.lock:
            states = _read_states()
            if not self._runs:
                self._outside = states
            self._runs[thread] = [*self._runs.get(thread, ()), (run, states)]
            torch.manual_seed(seed)

    def leave(self, thread: int, run: object) -> None:
        """Restore the states at the end of a run; nothing if it has not begun, or has been left."""
        with self.lock:
            runs = self._runs.get(thread, [])
            if not runs or runs[-1][0] is not run:
                return
            if len(runs) > 1:
                _write_states(runs[-1][1])
            elif len(self._runs) == 1:
                _write_states(self._outside)
            if runs[:-1]:
                self._runs[thread] = runs[:-1]
            else:
                del self._runs[thread]


_SHARED_STATES = _SharedStates()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, and restore the random states of torch, numpy and Python on exit, also after an exception.

    If several threads are inside at once, the states are restored when the last one leaves.

    >>> before = torch.get_rng_state()
    >>> with seeded(0):
    ...     _ = torch.rand(3), random.random()
    >>> torch.equal(torch.get_rng_state(), before)
    True
    """
    thread, shared, run = threading.get_ident(), _SHARED_STATES, object()
    try:
        shared.enter(thread, run, seed)
        yield
    finally:
        complete(lambda: shared.leave(thread, run))


@contextmanager
def own_generator() -> Iterator[None]:
    """Let no other thread seed torch's generator of the CPU, and restore it on exit.

    >>> before = torch.get_rng_state()
    >>> with own_generator():
    ...     _ = torch.rand(3)
    >>> torch.equal(torch.get_rng_state(), before)
    True
    """
    with _SHARED_STATES.lock, torch.random.fork_rng([]):
        yield
