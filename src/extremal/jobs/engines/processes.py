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
from extremal.jobs.plan import Unit
from extremal.jobs.rows import failed_row
from extremal.jobs.worker import Row, Worker
from extremal.networks.memory import keep_freed_memory

AHEAD = 2  # units that a worker has: one that it explains, one that it decodes
DEATHS = 5  # of workers, after which the unit that they had is given up

Done = Iterator[tuple[Unit, list[Row]]]


def within(worker: Worker, units: Sequence[Unit], stop: threading.Event) -> Done:
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


def processes(options: Options, units: Sequence[Unit], stop: threading.Event, *, count: int, threads: int) -> Done:
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
    crew = _Crew(options, threads, deque(units))
    try:
        for _ in range(min(count, len(units))):
            crew.hire()
        while crew.hands and (crew.busy or not stop.is_set()):
            yield from crew.heard(stop)
    finally:
        crew.dismiss()


@dataclass(eq=False)
class _Hand:
    """A process and what it has to do."""

    number: int  # the lowest that no other has
    process: BaseProcess
    speaking: Connection
    units: deque[Unit] = field(default_factory=deque)  # the first is being explained


class _Crew:
    """The processes, the units that are left, and how often each ended a process."""

    def __init__(self, options: Options, threads: int, left: deque[Unit]) -> None:
        self.options, self.threads, self.left = options, threads, left
        self.hands: list[_Hand] = []
        self.deaths: Counter[str] = Counter()
        self._context = multiprocessing.get_context("spawn")  # a fork would take the threads' locks along

    @property
    def busy(self) -> bool:
        """Whether anything that was begun is not finished."""
        return any(hand.units for hand in self.hands)

    def hire(self) -> None:
        """One more process."""
        here, there = self._context.Pipe()
        taken = {hand.number for hand in self.hands}
        number = next(number for number in range(len(taken) + 1) if number not in taken)
        process = self._context.Process(
            target=_serve, args=(there, self.options, self.threads, number), name="extremal-worker", daemon=True
        )
        process.start()
        there.close()
        self.hands.append(_Hand(number, process, here))

    def heard(self, stop: threading.Event) -> Done:
        """Hand out work, wait for the next words of any process, and yield what is done."""
        if not stop.is_set():
            self.hand_out()
        for hand in [hand for hand in self.hands if not hand.units]:
            self._let_go(hand)  # nothing is left for it
        ready = wait([hand.speaking for hand in self.hands], timeout=0.5)
        for hand in [hand for hand in self.hands if hand.speaking in ready]:
            try:
                kind, words = hand.speaking.recv()
            except (EOFError, OSError):
                yield from self._died(hand, stop)
                continue
            if kind == "failed":
                raise ExtremalValueError(words)
            yield hand.units.popleft(), words

    def hand_out(self) -> None:
        """Give each process what it takes, as long as there is any."""
        for hand in self.hands:
            while self._takes(hand):
                self._give(hand)

    def _takes(self, hand: _Hand) -> bool:
        """Whether a process gets one more.

        A unit that was there when one died is done alone, so it alone is blamed; the last ones wait for whoever is idle
        first.
        """
        if not self.left or not hand.units:
            return bool(self.left)
        if len(hand.units) >= AHEAD or len(self.left) < len(self.hands):
            return False
        return not (self.deaths[self.left[0].name] or self.deaths[hand.units[0].name])

    def _give(self, hand: _Hand) -> None:
        unit = self.left.popleft()
        hand.units.append(unit)
        with suppress(OSError):  # it is dead, which `heard` finds next
            hand.speaking.send(unit)

    def _died(self, hand: _Hand, stop: threading.Event) -> Done:
        """Replace a process; its units go back to where they came from, but for one that ends every process."""
        self.hands.remove(hand)
        hand.speaking.close()
        hand.process.join()
        self.deaths.update(unit.name for unit in hand.units)
        for unit in [unit for unit in hand.units if self.deaths[unit.name] >= DEATHS]:
            hand.units.remove(unit)
            told = (
                f"{DEATHS} workers ended on its batch, the last with code {hand.process.exitcode}; run again with "
                "--retry, where memory is short with fewer --workers"
            )
            yield unit, failed_rows(unit, told)
        self.left.extendleft(reversed(hand.units))
        if self.left and not stop.is_set():
            self.hire()

    def _let_go(self, hand: _Hand) -> None:
        self.hands.remove(hand)
        hand.speaking.close()  # at which it ends by itself
        hand.process.join()

    def dismiss(self) -> None:
        """End all processes, whatever they do."""
        for hand in self.hands:
            hand.speaking.close()
            hand.process.kill()
            hand.process.join()
        self.hands.clear()


def failed_rows(unit: Unit, told: str) -> list[Row]:
    """The rows of a unit that came to nothing as a whole."""
    return [failed_row(item.key, item.path, None, told, 0.0) for item in unit.items]


def _serve(speaking: Connection, options: Options, threads: int, number: int) -> None:
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
