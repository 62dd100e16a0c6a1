"""Copies of a network on several devices, and threads that share the work among them."""

import copy
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import describe_error
from extremal.networks.callables import CallableModule
from extremal.networks.devices import AUTO, DeviceLike, find_device, list_devices
from extremal.networks.network import Network
from extremal.networks.turns import exclusive

W = TypeVar("W")
T = TypeVar("T")
R = TypeVar("R")
Devices = DeviceLike | Sequence[DeviceLike]  # as users pass them; `auto` is all of the fastest kind
CheckStop = Callable[[], None]  # ends the task of a thread if the work is to stop


class Stopped(BaseException):
    """Ends a thread whose work is no longer needed; a `BaseException`, so that no code takes it for a failure."""


def find_devices(devices: Devices) -> list[str]:
    """Return the names of devices that share work, each of them once.

    >>> find_devices("cpu")
    ['cpu']

    Args:
        devices: one or several; `auto` is all that there are of the fastest kind.

    Raises:
        ExtremalValueError, ExtremalTypeError: this machine has no such device, or one is listed twice.
    """
    if devices == AUTO:
        kind = list_devices()[0].partition(":")[0]
        return [name for name in list_devices() if name.partition(":")[0] == kind]
    listed = devices if isinstance(devices, Sequence) and not isinstance(devices, str) else [devices]
    names = [str(find_device(device)) for device in listed]
    if not names or len(set(names)) < len(names):
        raise ExtremalValueError(
            f"devices must be one or several different ones, got {', '.join(names) or 'none'}; e.g. 'auto' for all "
            "of the fastest kind"
        )
    return names


def find_shared_devices(network: Network, device: DeviceLike) -> list[str]:
    """Return the devices that share work about a network that was loaded by its name.

    Args:
        network: that was loaded.
        device: for which it was; if not `auto`, or if its own code chose another, it stays alone.
    """
    own = network.devices() or ["cpu"]
    shared = find_devices(AUTO) if device == AUTO and can_be_copied(network) else own
    return shared if own == shared[:1] else own


def can_be_copied(network: Network) -> bool:
    """Return whether a copy of the network would be independent: functions and black boxes keep what they use."""
    return network.gradient and not isinstance(network.model, CallableModule)


def replicate(network: Network, devices: Sequence[str]) -> list[Network]:
    """Return a network for each device: itself for the one it is on, and copies for the others.

    >>> import torch
    >>> network = Network(torch.nn.Linear(2, 2))
    >>> replicate(network, ["cpu"])[0] is network
    True

    Args:
        network: on one device; it stays there.
        devices: names of different devices that this machine has.

    Raises:
        ExtremalValueError: the network cannot be copied, or does not fit on a device.
    """
    own = network.devices() or ["cpu"]
    return [network if own == [name] else _copy_to(network, name) for name in devices]


def _copy_to(network: Network, device: str) -> Network:
    if not can_be_copied(network):
        raise ExtremalValueError(
            f"devices must be used with a module, which can be copied to each of them, {network.name} is a function; "
            "leave them out, or pass an nn.Module"
        )
    replica = copy.copy(network)
    try:
        with exclusive(network.model, network.name):
            replica.model = copy.deepcopy(network.model)
    except Exception as error:  # modules of other libraries may raise anything
        raise ExtremalTypeError(
            f"a network must be copied to share devices, {network.name} cannot be: {describe_error(error)}; leave "
            "devices out"
        ) from error
    return replica.to(device)


def share_work(
    workers: Sequence[W], tasks: Sequence[T], call: Callable[[W, T, CheckStop], R]
) -> Iterator[tuple[int, R]]:
    """Yield the index and the result of each task as it is finished; each worker is used by a thread of its own.

    If a task fails, or the caller stops, no further task is begun, and the others end when they call their last
    argument.

    >>> sorted(share_work([10, 20], ["a", "b", "c"], lambda worker, task, check: task * 2))
    [(0, 'aa'), (1, 'bb'), (2, 'cc')]

    Args:
        workers: e.g. networks on different devices.
        tasks: begun in order, each by the next worker that is free.
        call: worker, task, and a function to call now and then, which raises if the work is to stop.

    Raises:
        Exception: the first that a task raised.
    """
    work = _SharedWork(tasks, call)
    threads = [threading.Thread(target=work.run, args=(worker,), name="extremal-device") for worker in workers]
    try:
        for thread in threads:
            thread.start()
        for _ in tasks:
            yield work.take_result()
    finally:
        work.stopped.set()
        for thread in threads:
            if thread.ident is not None:  # it was started
                thread.join()


class _SharedWork(Generic[W, T, R]):
    """Tasks that threads take one after another, and their results."""

    def __init__(self, tasks: Sequence[T], call: Callable[[W, T, CheckStop], R]) -> None:
        self.stopped = threading.Event()
        self._pending, self._lock, self._call = iter(enumerate(tasks)), threading.Lock(), call
        self._results: queue.SimpleQueue[tuple[int, R] | BaseException] = queue.SimpleQueue()

    def run(self, worker: W) -> None:
        """Do tasks until none is left or the work is to stop."""
        try:
            while not self.stopped.is_set():
                with self._lock:
                    following = next(self._pending, None)
                if following is None:
                    return
                index, task = following
                self._results.put((index, self._call(worker, task, self._check_stop)))
        except Stopped:
            return
        except BaseException as error:  # raised by `take_result`
            self._results.put(error)

    def take_result(self) -> tuple[int, R]:
        """Wait for a result, and raise an error that a task raised."""
        result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def _check_stop(self) -> None:
        if self.stopped.is_set():
            raise Stopped
