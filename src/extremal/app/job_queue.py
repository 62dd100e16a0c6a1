"""The line: jobs of several people, one at a time, first come, first served; each can be watched and called off.

>>> with Line() as line:
...     job = line.join("anna", lambda report: 6 * 7)
...     job.wait(), job.state
(42, <State.DONE: 'done'>)
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

from extremal.errors import ExtremalError, ExtremalValueError

Result = TypeVar("Result")


class State(Enum):
    """What has become of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Cancelled(Exception):  # no error: somebody wanted it so
    """Raised within a job that was called off, where it reports its progress."""


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    stage: str = ""  # what it does, e.g. sweep
    done: int = 0
    total: int = 0  # 0: not known
    shown: Any = None  # what there is to see so far


Report = Callable[[Progress], None]  # a job calls it often; it raises where the job is to end


@dataclass(eq=False)
class Job(Generic[Result]):
    """One person's job, in the line or out of it."""

    owner: str
    work: Callable[[Report], Result]
    state: State = State.WAITING
    progress: Progress = field(default_factory=Progress)
    result: Result | None = None
    error: str = ""  # for the person who waits: one sentence
    ended: threading.Event = field(default_factory=threading.Event)
    _off: threading.Event = field(default_factory=threading.Event)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.ended.is_set()

    def cancel(self) -> None:
        """Call it off: at once where it waits, at its next report where it runs."""
        self._off.set()

    def wait(self, seconds: float | None = None) -> Result | None:
        """The result, once the job is over; None where it has none."""
        self.ended.wait(seconds)
        return self.result

    def run(self, seconds: float) -> None:
        """Do the work, within a time; ends in one of the last three states, whatever happens."""
        self.state, end = State.RUNNING, time.monotonic() + seconds

        def report(progress: Progress) -> None:
            self.progress = progress
            if self._off.is_set():
                raise Cancelled
            if time.monotonic() > end:
                raise ExtremalValueError(
                    f"a job must end within {seconds:g} s, this one did not; ask for fewer areas or answers, "
                    "or start the app with a longer --seconds"
                )

        try:
            report(Progress("start"))
            self.result = self.work(report)
            self.finish(State.DONE)
        except Cancelled:
            self.finish(State.CANCELLED)
        except ExtremalError as error:
            self.finish(State.FAILED, str(error))
        except MemoryError:
            self.finish(State.FAILED, "the memory of this machine did not suffice; ask for fewer areas or answers")
        except BaseException as error:  # also SystemExit: whoever waits must hear of it
            self.finish(State.FAILED, f"something went wrong here ({type(error).__name__}); the server's log has more")
            raise

    def finish(self, state: State, error: str = "") -> None:
        """Tell what has become of it."""
        self.state, self.error = state, error
        self.ended.set()


class Line:
    """Jobs one after the other, in a thread of its own.

    Args:
        length: jobs that may wait; those who come later are told so.
        seconds: that a job may take.
        told: called with what a job raised that is not the user's to mend.
    """

    def __init__(
        self, length: int = 32, seconds: float = 120.0, told: Callable[[BaseException], None] = lambda error: None
    ) -> None:
        self.length, self.seconds, self._told = length, seconds, told
        self._waiting: deque[Job[Any]] = deque()
        self._running: Job[Any] | None = None
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._work, name="extremal-line", daemon=True)

    def __enter__(self) -> "Line":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Call everything off, and wait for the job that runs."""
        with self._changed:
            self._open = False
            for job in self._all():
                job.cancel()
            self._changed.notify_all()
        self._thread.join()

    def join(self, owner: str, work: Callable[[Report], Result]) -> Job[Result]:
        """Stand in the line.

        Args:
            owner: whose job this is; nobody has two at once.
            work: does the job; it gets a function to report its progress to, which raises where it is to end.

        Raises:
            ExtremalValueError: the line is full or closed, or the owner stands in it already.
        """
        job = Job(owner, work)
        with self._changed:
            if not self._open:
                raise ExtremalValueError("the app must be running to take a job, it is being ended; start it again")
            self._drop_cancelled()
            if any(other.owner == owner and not (other.over or other._off.is_set()) for other in self._all()):
                raise ExtremalValueError(
                    "one person must have one job at a time, yours is not done yet; wait for it or cancel it"
                )
            if len(self._waiting) >= self.length:
                raise ExtremalValueError(f"at most {self.length} jobs may wait, got one more; try again in a minute")
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def place(self, job: Job[Any]) -> int:
        """How many jobs come before this one; 0 where it runs or is over."""
        with self._changed:
            self._drop_cancelled()
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._running is not None and not self._running.over)

    def cancel(self, owner: str) -> None:
        """Call off what this person has in the line."""
        with self._changed:
            for job in self._all():
                if job.owner == owner:
                    job.cancel()
            self._drop_cancelled()

    def _all(self) -> list[Job[Any]]:
        return [*self._waiting, *([self._running] if self._running else [])]

    def _drop_cancelled(self) -> None:
        for job in [job for job in self._waiting if job._off.is_set()]:
            self._waiting.remove(job)
            job.finish(State.CANCELLED)

    def _next(self) -> Job[Any] | None:
        """The first in the line, as soon as there is one; None when the line is closed."""
        with self._changed:
            self._running = None
            while True:
                self._drop_cancelled()
                if not self._open:
                    return None
                if self._waiting:
                    self._running = self._waiting.popleft()
                    return self._running
                self._changed.wait()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.run(self.seconds)
            except BaseException as error:  # the line goes on for all others
                with suppress(Exception):
                    self._told(error)
