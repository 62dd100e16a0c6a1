"""The local engine: worker processes, each with its own network; or the calling process alone.

A worker decodes its next unit while it explains the current one, and the caller writes rows while workers continue.
"""

import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from extremal.errors import ExtremalValueError
from extremal.jobs.crashes import CrashTracker, UnitMode, build_abandoned_rows
from extremal.jobs.plan import WorkUnit
from extremal.jobs.rows import Row
from extremal.jobs.worker import Worker, WorkerConfig
from extremal.networks.memory import keep_freed_memory

PREFETCH = 2  # units of a worker: one that it explains, one that it decodes

Results = Iterator[tuple[WorkUnit, list[Row]]]


def run_in_process(worker: Worker, units: Sequence[WorkUnit], stop: threading.Event) -> Results:
    """Run units in this process; the next one is decoded in another thread.

    Args:
        worker: that explains.
        units: in order.
        stop: once it is set, no further unit is started.
    """
    with ThreadPoolExecutor(1, "extremal-decode") as decoder:
        decoding = [decoder.submit(worker.prepare, unit.items) for unit in units[:1]]
        for index, unit in enumerate(units):
            if stop.is_set():
                return
            decoded = decoding.pop().result()
            decoding += [decoder.submit(worker.prepare, following.items) for following in units[index + 1 : index + 2]]
            yield unit, worker.explain(decoded)


def run_in_processes(
    config: WorkerConfig, units: Sequence[WorkUnit], stop: threading.Event, *, count: int, threads: int
) -> Results:
    """Run units in worker processes, each of which loads the network once.

    A process that crashes is replaced and its units are run again by the rule of `crashes`.

    Args:
        config: of the workers.
        units: sent in order, finished in any order.
        stop: once it is set, units in progress are finished and no further unit is started.
        count: of processes.
        threads: of each.

    Raises:
        ExtremalValueError: a process cannot load the network.
    """
    pool = _WorkerPool(config, threads, deque(units))
    try:
        for _ in range(min(count, len(units))):
            pool.start_worker()
        while pool.workers and (pool.busy or not stop.is_set()):
            yield from pool.poll(stop)
    finally:
        pool.terminate()


@dataclass(eq=False)
class _WorkerProcess:
    """A process and the units that it has."""

    number: int  # the lowest that is free
    process: BaseProcess
    connection: Connection
    units: deque[WorkUnit] = field(default_factory=deque)  # the first is being explained


class _WorkerPool:
    """Worker processes and the units that are still to be sent."""

    def __init__(self, config: WorkerConfig, threads: int, pending: deque[WorkUnit]) -> None:
        self.config, self.threads, self.pending = config, threads, pending
        self.workers: list[_WorkerProcess] = []
        self.crashes = CrashTracker()
        self._context = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads

    @property
    def busy(self) -> bool:
        """Whether a unit is in progress."""
        return any(worker.units for worker in self.workers)

    def start_worker(self) -> None:
        """Start another process."""
        connection, worker_connection = self._context.Pipe()
        used = {worker.number for worker in self.workers}
        number = next(number for number in range(len(used) + 1) if number not in used)
        process = self._context.Process(
            target=_worker_main,
            args=(worker_connection, self.config, self.threads, number),
            name="extremal-worker",
            daemon=True,
        )
        process.start()
        worker_connection.close()
        self.workers.append(_WorkerProcess(number, process, connection))

    def poll(self, stop: threading.Event) -> Results:
        """Send units, wait for the next message of any worker, and yield what is finished."""
        if not stop.is_set():
            self.dispatch()
        for worker in [worker for worker in self.workers if not worker.units]:
            self._retire(worker)  # no unit is left for it
        ready = wait([worker.connection for worker in self.workers], timeout=0.5)
        for worker in [worker for worker in self.workers if worker.connection in ready]:
            try:
                kind, content = worker.connection.recv()
            except (EOFError, OSError):
                yield from self._on_crash(worker, stop)
                continue
            if kind == "failed":
                raise ExtremalValueError(content)
            unit = worker.units.popleft()
            self.crashes.finish(unit.name)
            yield unit, content

    def dispatch(self) -> None:
        """Send pending units to workers that have room."""
        for worker in self.workers:
            while self._has_room(worker):
                self._send(worker)

    def _has_room(self, worker: _WorkerProcess) -> bool:
        """Return whether a worker gets another unit.

        A unit with a crash is run alone, so that no other is blamed for the next one. The last units are not sent
        ahead, so that the first idle worker gets them.
        """
        if not self.pending or not worker.units:
            return bool(self.pending)
        if len(worker.units) >= PREFETCH or len(self.pending) < len(self.workers):
            return False
        modes = [self.crashes.mode(unit.name) for unit in (self.pending[0], worker.units[0])]
        return modes == [UnitMode.CONCURRENT, UnitMode.CONCURRENT]

    def _send(self, worker: _WorkerProcess) -> None:
        unit = self.pending.popleft()
        worker.units.append(unit)
        self.crashes.start(unit.name)
        with suppress(OSError):  # the worker has crashed, which `poll` finds next
            worker.connection.send(unit)

    def _on_crash(self, worker: _WorkerProcess, stop: threading.Event) -> Results:
        """Replace a worker; its units are pending again, except for one that is to be abandoned."""
        self.workers.remove(worker)
        worker.connection.close()
        worker.process.join()
        for unit in list(worker.units):
            self.crashes.crash(unit.name)
            if self.crashes.mode(unit.name) is UnitMode.ABANDONED:
                worker.units.remove(unit)
                yield unit, build_abandoned_rows(unit, f", the last with exit code {worker.process.exitcode}")
        self.pending.extendleft(reversed(worker.units))
        if self.pending and not stop.is_set():
            self.start_worker()

    def _retire(self, worker: _WorkerProcess) -> None:
        self.workers.remove(worker)
        worker.connection.close()  # upon which the process ends
        worker.process.join()

    def terminate(self) -> None:
        """Kill all processes."""
        for worker in self.workers:
            worker.connection.close()
            worker.process.kill()
            worker.process.join()
        self.workers.clear()


def _worker_main(connection: Connection, config: WorkerConfig, threads: int, number: int) -> None:
    """Explain units from a connection until its other end is closed."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)  # they reach the whole process group; the caller decides what is finished
    keep_freed_memory()  # the process belongs to the worker
    torch.set_num_threads(threads)
    try:
        worker = Worker(config, number=number)
    except Exception as error:
        connection.send(("failed", str(error)))
        return
    decoded: queue.Queue[Any] = queue.Queue(1)

    def decode() -> None:
        try:
            while True:
                decoded.put(worker.prepare(connection.recv().items))
        except (EOFError, OSError):
            os._exit(0)  # the caller is gone, or needs no further rows

    threading.Thread(target=decode, daemon=True).start()
    while True:
        connection.send(("rows", worker.explain(decoded.get())))
