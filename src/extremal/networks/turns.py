"""Turns of threads: a network, and every part of it, is used by one thread at a time."""

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import nn

from extremal.errors import ExtremalValueError
from extremal.networks.interrupts import complete


@dataclass
class _Holder:
    """The thread that holds a part, and for which of its turns."""

    thread: int
    turns: set[object] = field(default_factory=set)


class _Turns:
    """Parts in use, by identity; its holder keeps a part alive."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders: dict[int, _Holder] = {}
        self._waiting: dict[int, Collection[int]] = {}  # thread: the parts that it waits for

    def take(self, parts: Collection[int], turn: object, name: str) -> None:
        """Take all parts for a turn at once, as soon as no other thread holds any of them."""
        thread = threading.get_ident()
        with self._changed:
            while self._find_blockers(parts, thread):
                self._check_cycle(parts, thread, name)
                self._waiting[thread] = parts
                try:
                    self._changed.wait()
                finally:
                    del self._waiting[thread]
            for part in parts:
                self._holders.setdefault(part, _Holder(thread)).turns.add(turn)

    def is_nested(self, part: int) -> bool:
        """Return whether the holder of a part has taken it for more than one turn."""
        return len(self._holders[part].turns) > 1

    def give_back(self, parts: Collection[int], turn: object) -> None:
        """Give back the parts that this thread holds for a turn, and wake the threads that wait."""
        thread = threading.get_ident()
        with self._changed:
            for part in parts:
                holder = self._holders.get(part)
                if holder is not None and holder.thread == thread:
                    holder.turns.discard(turn)
                    if not holder.turns:
                        del self._holders[part]
            self._changed.notify_all()

    def forget(self) -> None:
        """Begin anew in a forked process, which has none of the threads that hold parts."""
        self._changed, self._holders, self._waiting = threading.Condition(), {}, {}

    def _find_blockers(self, parts: Collection[int], thread: int) -> set[int]:
        """Return the other threads that hold any of the parts."""
        holders = (self._holders[part].thread for part in parts if part in self._holders)
        return {holder for holder in holders if holder != thread}

    def _check_cycle(self, parts: Collection[int], thread: int, name: str) -> None:
        """Raise if a thread that must give back a part waits for one of this thread's."""
        seen, pending = set[int](), self._find_blockers(parts, thread)
        while pending:
            other = pending.pop()
            seen.add(other)
            pending |= self._find_blockers(self._waiting.get(other, ()), other) - seen
        if thread in seen:
            raise ExtremalValueError(
                f"a network must not wait for itself, got {name} explained inside a callback while another thread, "
                "whose network is in use here, uses it; explain one network at a time in each thread"
            )


_TURNS = _Turns()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_TURNS.forget)


@contextmanager
def exclusive(model: nn.Module, name: str = "") -> Iterator[None]:
    """Wait until no other thread uses a module, its submodules or its weights, and use them alone; re-entrant.

    Networks that share a part, such as a backbone, wait for each other; others run at the same time. Only threads that
    use this function wait: calls of the module by other code do not.

    >>> model = nn.Linear(2, 2)
    >>> with exclusive(model), exclusive(nn.Sequential(model)):
    ...     pass

    Args:
        model: a module.
        name: of the network, for messages.

    Raises:
        ExtremalValueError: threads would wait for each other for ever.
    """
    turns, turn = _TURNS, object()
    taken = {id(model)}  # first, so that no other thread changes the parts while they are listed
    try:
        turns.take(taken, turn, name)
        if not turns.is_nested(id(model)):  # otherwise this thread holds all parts
            taken |= {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())}
            turns.take(taken, turn, name)
        yield
    finally:
        complete(lambda: turns.give_back(taken, turn))
