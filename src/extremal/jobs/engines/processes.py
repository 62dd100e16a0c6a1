"""The local engine: worker processes, each with its own network.

A worker decodes its next unit while it explains the current one, and the caller writes rows while workers continue.
"""

import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote
from extremal.jobs.crashes import MAX_CRASHES, CrashTracker, UnitMode, build_abandoned_rows
from extremal.jobs.engines.in_process import (
    MIN_LOAD_TIMEOUT,
    POLL_INTERVAL,
    PREFETCH,
    Decoded,
    Results,
    decode_unit,
    explain_decoded,
    load_worker,
)
from extremal.jobs.plan import WorkUnit
from extremal.jobs.stop import StopRequest
from extremal.jobs.worker import WorkerConfig
from extremal.networks.memory import keep_freed_memory

END_TIMEOUT = 1.0  # s in which a process must end by itself
WORKER_NAME = "extremal-worker"


def end_unguarded_worker() -> None:
    """End a worker that starts a run.

    A worker imports the script that started it. If that script is not guarded, the import calls `run` again.
    """
    process = multiprocessing.current_process()
    if process.name == WORKER_NAME and getattr(process, "_inheriting", False):
        raise SystemExit(1)  # the process that started this one reports it


def check_can_start_workers() -> None:
    """Raise unless this process can start worker processes.

    Raises:
        ExtremalValueError: this process must not have children, or its script is not a file that they can import.
    """
    process = multiprocessing.current_process()
    main = sys.modules.get("__main__")
    script = None if getattr(main, "__spec__", None) else getattr(main, "__file__", None)
    if process.daemon:
        raise ExtremalValueError("workers must be started by a process that is not a daemon; pass workers=0")
    if script is not None and not os.path.exists(script):
        raise ExtremalValueError(
            f"workers must be able to import the script that starts them, {quote(script)} is not a file; save it to a "
            "file, or pass workers=0"
        )


def run_in_processes(
    config: WorkerConfig,
    units: Sequence[WorkUnit],
    stop: StopRequest,
    *,
    count: int,
    threads: int,
    unit_timeout: float | None = None,
) -> Results:
    """Run units in worker processes, each of which loads the network once.

    A process that crashes, or takes too long, is replaced and its units are run again by the rule of `crashes`.

    Args:
        config: of the workers.
        units: sent in order, finished in any order.
        stop: once it is set, units in progress are finished and no further unit is started; once it is urgent, units
            in progress are given up.
        count: of processes.
        threads: of each.
        unit_timeout: seconds that a unit may take; None: any time.

    Raises:
        ExtremalValueError: a process cannot start or load the network.
    """
    pool = _WorkerPool(config, threads, deque(units), count, unit_timeout)
    try:
        for _ in range(min(count, len(units))):
            pool.start_worker()
        while pool.workers and (pool.busy or not stop.is_set()) and not stop.is_urgent():
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
    is_ready: bool = False  # whether it has loaded the network
    since: float = field(default_factory=time.monotonic)  # when it was started, or its first unit was

    def is_overdue(self, unit_timeout: float) -> bool:
        """Return whether its unit, or loading the network, takes too long."""
        limit = unit_timeout if self.is_ready else max(unit_timeout, MIN_LOAD_TIMEOUT)
        is_waiting = self.is_ready and not self.units
        return not is_waiting and time.monotonic() - self.since > limit and not self.connection.poll()

    def end(self, kill: bool = True) -> None:
        """End the process, and wait for it."""
        self.connection.close()  # upon which the process ends, unless it hangs
        if kill:
            self.process.kill()
        self.process.join(END_TIMEOUT)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join(END_TIMEOUT)


class _WorkerPool:
    """Worker processes and the units that are still to be sent."""

    def __init__(
        self,
        config: WorkerConfig,
        threads: int,
        pending: deque[WorkUnit],
        count: int = 1,
        unit_timeout: float | None = None,
    ) -> None:
        self.config, self.threads, self.pending, self.unit_timeout = config, threads, pending, unit_timeout
        self.workers: list[_WorkerProcess] = []
        self.crashes = CrashTracker(MAX_CRASHES, count)
        self._has_loaded = False  # whether any worker has
        self._context = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads

    @property
    def busy(self) -> bool:
        """Whether a unit is in progress."""
        return any(worker.is_ready and worker.units for worker in self.workers)

    def start_worker(self) -> None:
        """Start another process.

        Raises:
            ExtremalValueError: it cannot be started, or too many crashed while loading the network.
        """
        refusal = self.crashes.load_started()
        if refusal:
            raise ExtremalValueError(refusal)
        connection, worker_connection = self._context.Pipe()
        used = {worker.number for worker in self.workers}
        number = next(number for number in range(len(used) + 1) if number not in used)
        process = self._context.Process(
            target=_worker_main,
            args=(worker_connection, self.config, self.threads, number),
            name=WORKER_NAME,
            daemon=True,
        )
        try:
            process.start()
        except OSError as error:
            raise ExtremalValueError(
                f"workers must be able to start, worker {number + 1} could not: {error.strerror or error}; use fewer "
                "workers"
            ) from None
        worker_connection.close()
        self.workers.append(_WorkerProcess(number, process, connection))

    def poll(self, stop: StopRequest) -> Results:
        """Send units, wait for the next message of any worker, and yield what is finished."""
        if not stop.is_set():
            self.dispatch()
        for worker in [worker for worker in self.workers if not worker.units]:
            self._retire(worker)  # no unit is left for it
        ready = wait([worker.connection for worker in self.workers], timeout=POLL_INTERVAL)
        for worker in [worker for worker in self.workers if worker.connection in ready]:
            try:
                kind, content = worker.connection.recv()
            except (EOFError, OSError):
                yield from self._on_crash(worker, stop)
                continue
            worker.since = time.monotonic()
            if kind == "failed":
                raise ExtremalValueError(content)
            if kind == "ready":
                worker.is_ready = self._has_loaded = True
                self.crashes.load_finished()
                continue
            unit = worker.units.popleft()
            self.crashes.finish(unit.name)
            yield unit, content
        if self.unit_timeout is not None:
            for worker in [worker for worker in self.workers if worker.is_overdue(self.unit_timeout)]:
                yield from self._on_timeout(worker, stop)

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
        if not worker.units and worker.is_ready:
            worker.since = time.monotonic()
        worker.units.append(unit)
        self.crashes.start(unit.name)
        with suppress(OSError):  # the worker has crashed, which `poll` finds next
            worker.connection.send(unit)

    def _on_crash(self, worker: _WorkerProcess, stop: StopRequest) -> Results:
        """Replace a worker that has ended; units that it had are to blame, unless it was still loading the network."""
        worker.end(kill=False)
        code = worker.process.exitcode
        if (
            not self._has_loaded and code is not None and code >= 0
        ):  # not killed: the next one would end in this way too
            raise ExtremalValueError(
                f"workers must be able to start, one ended with exit code {code} before it was ready; guard the entry "
                "point of the script by if __name__ == '__main__':, or pass workers=0"
            )
        yield from self._replace(worker, worker.units, stop, f", the last with exit code {code}")

    def _on_timeout(self, worker: _WorkerProcess, stop: StopRequest) -> Results:
        """Kill and replace a worker whose first unit takes too long."""
        worker.end()
        yield from self._replace(worker, list(worker.units)[:1], stop, unit_timeout=self.unit_timeout)

    def _replace(
        self,
        worker: _WorkerProcess,
        blamed: Sequence[WorkUnit],
        stop: StopRequest,
        detail: str = "",
        unit_timeout: float | None = None,
    ) -> Results:
        """Replace a worker that has ended; its units are pending again, except for one that is to be abandoned."""
        self.workers.remove(worker)
        for unit in list(worker.units):
            if not worker.is_ready or unit not in blamed:
                self.crashes.release(unit.name)
                continue
            self.crashes.crash(unit.name)
            if self.crashes.mode(unit.name) is UnitMode.ABANDONED:
                worker.units.remove(unit)
                yield unit, build_abandoned_rows(unit, detail, unit_timeout)
        self.pending.extendleft(reversed(worker.units))
        if self.pending and not stop.is_set():
            self.start_worker()

    def _retire(self, worker: _WorkerProcess) -> None:
        self.workers.remove(worker)
        worker.end(kill=False)

    def terminate(self) -> None:
        """Kill all processes."""
        for worker in self.workers:
            worker.process.kill()  # all first, so that they end at the same time
        for worker in self.workers:
            worker.end()
        self.workers.clear()


def _worker_main(connection: Connection, config: WorkerConfig, threads: int, number: int) -> None:
    """Explain units from a connection until its other end is closed."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)  # they reach the whole process group; the caller decides what is finished
    with suppress(OSError):
        os.dup2(2, 1)  # stdout belongs to the caller; a network that prints does so to stderr
    keep_freed_memory()  # the process belongs to the worker
    torch.set_num_threads(threads)
    worker = load_worker(config, number)
    if isinstance(worker, str):
        connection.send(("failed", worker))
        return
    connection.send(("ready", None))
    decoded: queue.Queue[tuple[WorkUnit, Decoded]] = queue.Queue(1)

    def decode() -> None:
        try:
            while True:
                unit = connection.recv()
                decoded.put((unit, decode_unit(worker, unit)))
        except (EOFError, OSError):
            os._exit(0)  # the caller is gone, or needs no further rows

    threading.Thread(target=decode, daemon=True).start()
    while True:
        connection.send(("rows", explain_decoded(worker, *decoded.get())))
