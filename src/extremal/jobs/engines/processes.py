"""The local engine: workers in processes of their own, each with a network; or the caller's own process.

A worker decodes its next unit while it explains one, and the caller writes rows while workers go on.
"""

import multiprocessing
import os
import queue
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from extremal.errors import ExtremalValueError
from extremal.explanations.options import Options
from extremal.jobs.plan import WorkUnit
from extremal.jobs.rows import failed_row
from extremal.jobs.worker import Row, Worker
from extremal.networks.memory import keep_freed_memory

PREFETCH = 2  # units that a worker has: one that it explains, one that it decodes
MAX_CRASHES = 5  # of workers, after which the unit that they had is given up

Results = Iterator[tuple[WorkUnit, list[Row]]]


def run_in_process(worker: Worker, units: Sequence[WorkUnit], stop: threading.Event) -> Results:
    """Work through units in this process; the next one is decoded meanwhile.

    Args:
        worker: that explains.
        units: in order.
        stop: once it is set, no more units are begun.
    """
    with ThreadPoolExecutor(1, "extremal-decode") as decoding:
        ahead = [decoding.submit(worker.prepare, unit.items) for unit in units[:1]]
        for index, unit in enumerate(units):
            if stop.is_set():
                return
            ready = ahead.pop().result()
            ahead += [decoding.submit(worker.prepare, later.items) for later in units[index + 1 : index + 2]]
            yield unit, worker.rows(ready)


def run_in_processes(options: Options, units: Sequence[WorkUnit], stop: threading.Event, *, count: int, threads: int) -> Results:
    """Work through units in processes, each of which loads the network once.

    A process that dies is replaced and its units are done again; a unit that ended `DEATHS` of them is given up, its
    rows say so.

    Args:
        options: what is asked.
        units: handed out in order, done in any.
        stop: once it is set, what was begun is finished and no more is begun.
        count: of processes.
        threads: of each.

    Raises:
        ExtremalValueError: a process cannot load the network.
    """
    crew = _WorkerPool(options, threads, deque(units))
    try:
        for _ in range(min(count, len(units))):
            crew.start_worker()
        while crew.workers and (crew.busy or not stop.is_set()):
            yield from crew.poll(stop)
    finally:
        crew.terminate()


@dataclass(eq=False)
class _WorkerProcess:
    """A process and what it has to do."""

    number: int  # the lowest that no other has
    process: BaseProcess
    connection: Connection
    units: deque[WorkUnit] = field(default_factory=deque)  # the first is being explained


class _WorkerPool:
    """The processes, the units that are left, and how often each ended a process."""

    def __init__(self, options: Options, threads: int, left: deque[WorkUnit]) -> None:
        self.options, self.threads, self.pending = options, threads, left
        self.workers: list[_WorkerProcess] = []
        self.deaths: Counter[str] = Counter()
        self._context = multiprocessing.get_context("spawn")  # a fork would take the threads' locks along

    @property
    def busy(self) -> bool:
        """Whether anything that was begun is not finished."""
        return any(hand.units for hand in self.workers)

    def start_worker(self) -> None:
        """One more process."""
        here, there = self._context.Pipe()
        taken = {hand.number for hand in self.workers}
        number = next(number for number in range(len(taken) + 1) if number not in taken)
        process = self._context.Process(
            target=_worker_main, args=(there, self.options, self.threads, number), name="extremal-worker", daemon=True
        )
        process.start()
        there.close()
        self.workers.append(_WorkerProcess(number, process, here))

    def poll(self, stop: threading.Event) -> Results:
        """Hand out work, wait for the next words of any process, and yield what is done."""
        if not stop.is_set():
            self.dispatch()
        for hand in [hand for hand in self.workers if not hand.units]:
            self._retire(hand)  # nothing is left for it
        ready = wait([hand.connection for hand in self.workers], timeout=0.5)
        for hand in [hand for hand in self.workers if hand.connection in ready]:
            try:
                kind, words = hand.connection.recv()
            except (EOFError, OSError):
                yield from self._on_crash(hand, stop)
                continue
            if kind == "failed":
                raise ExtremalValueError(words)
            yield hand.units.popleft(), words

    def dispatch(self) -> None:
        """Give each process what it takes, as long as there is any."""
        for hand in self.workers:
            while self._has_room(hand):
                self._send(hand)

    def _has_room(self, hand: _WorkerProcess) -> bool:
        """Whether a process gets one more.

        A unit that was there when one died is done alone, so it alone is blamed; the last ones wait for whoever is idle
        first.
        """
        if not self.pending or not hand.units:
            return bool(self.pending)
        if len(hand.units) >= PREFETCH or len(self.pending) < len(self.workers):
            return False
        return not (self.deaths[self.pending[0].name] or self.deaths[hand.units[0].name])

    def _send(self, hand: _WorkerProcess) -> None:
        unit = self.pending.popleft()
        hand.units.append(unit)
        with suppress(OSError):  # it is dead, which `heard` finds next
            hand.connection.send(unit)

    def _on_crash(self, hand: _WorkerProcess, stop: threading.Event) -> Results:
        """Replace a process; its units go back to where they came from, but for one that ends every process."""
        self.workers.remove(hand)
        hand.connection.close()
        hand.process.join()
        self.deaths.update(unit.name for unit in hand.units)
        for unit in [unit for unit in hand.units if self.deaths[unit.name] >= MAX_CRASHES]:
            hand.units.remove(unit)
            told = (
                f"{MAX_CRASHES} workers ended on its batch, the last with code {hand.process.exitcode}; run again with "
                "--retry, where memory is short with fewer --workers"
            )
            yield unit, failed_rows(unit, told)
        self.pending.extendleft(reversed(hand.units))
        if self.pending and not stop.is_set():
            self.start_worker()

    def _retire(self, hand: _WorkerProcess) -> None:
        self.workers.remove(hand)
        hand.connection.close()  # at which it ends by itself
        hand.process.join()

    def terminate(self) -> None:
        """End all processes, whatever they do."""
        for hand in self.workers:
            hand.connection.close()
            hand.process.kill()
            hand.process.join()
        self.workers.clear()


def failed_rows(unit: WorkUnit, told: str) -> list[Row]:
    """The rows of a unit that came to nothing as a whole."""
    return [failed_row(item.key, item.path, None, told, 0.0) for item in unit.items]


def _worker_main(speaking: Connection, options: Options, threads: int, number: int) -> None:
    """A process: units in, rows out, until the other side is gone."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # they reach the whole group; the caller decides what is still done
    keep_freed_memory()  # the process is the worker's own
    torch.set_num_threads(threads)
    try:
        worker = Worker(options, number=number)
    except Exception as error:
        speaking.send(("failed", str(error)))
        return
    ready: queue.Queue[Any] = queue.Queue(1)

    def decode() -> None:
        try:
            while True:
                ready.put(worker.prepare(speaking.recv().items))
        except (EOFError, OSError):
            os._exit(0)  # nobody wants what is being done

    threading.Thread(target=decode, daemon=True).start()
    while True:
        speaking.send(("rows", worker.rows(ready.get())))
