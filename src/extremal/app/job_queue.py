"""Job queue: one job at a time, groups of owners in turn, with progress, cancellation and a time limit.

>>> with JobQueue() as queue:
...     job = queue.submit("anna", lambda on_progress: 6 * 7)
...     job.wait(), job.state
(42, <JobState.DONE: 'done'>)
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

from extremal.errors import ExtremalError, ExtremalValueError

MAX_STOP_SECONDS = 1.5  # for the running job to end when the queue is closed
MAX_GROUPS = 4096  # whose turns are remembered

T = TypeVar("T")


class JobState(Enum):
    """State of a job; the last three are final."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobCancelled(Exception):
    """Raised inside a cancelled job, at its next progress report."""


@dataclass(frozen=True)
class JobProgress:
    """Progress of a job."""

    stage: str = ""  # current stage, e.g. sweep
    done: int = 0
    total: int = 0  # 0: unknown
    preview: Any = None  # intermediate result to display
    seconds_left: float | None = None  # of this stage; None: unknown


OnProgress = Callable[[JobProgress], None]  # a job calls it often; it raises when the job has to end


@dataclass(eq=False)
class Job(Generic[T]):
    """A submitted job."""

    owner: str
    group: str = ""  # of owners who share one turn
    progress: JobProgress = field(default_factory=JobProgress)
    result: T | None = None
    error: str = ""  # one sentence for the owner of a failed job
    _state: JobState = JobState.WAITING
    _future: Future[None] = field(default_factory=Future)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def state(self) -> JobState:
        """Current state."""
        if self._future.cancelled():
            return JobState.FAILED if self.error else JobState.CANCELLED
        return self._state

    @property
    def finished(self) -> bool:
        """Whether the state is final."""
        return self._future.done()

    def cancel(self) -> None:
        """Cancel the job: at once while it waits, at its next progress report while it runs."""
        self._cancelled.set()
        self._future.cancel()

    def reject(self, error: str) -> None:
        """End a job that waits, with this error for its owner."""
        self.error = error
        if not self._future.cancel():
            self.error = ""  # it runs already

    def wait(self, timeout: float | None = None) -> T | None:
        """Wait until the job is finished, at most `timeout` seconds, and return its result, if it has one."""
        with suppress(CancelledError, TimeoutError):
            self._future.result(timeout)
        return self.result

    def run(self, work: Callable[[OnProgress], T], timeout: float, on_error: Callable[[BaseException], None]) -> None:
        """Do the work within `timeout` seconds; the job reaches a final state even if the work fails."""
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            self._run(work, timeout, on_error)
        finally:
            self._future.set_result(None)

    def _run(self, work: Callable[[OnProgress], T], timeout: float, on_error: Callable[[BaseException], None]) -> None:
        self._state, deadline = JobState.RUNNING, time.monotonic() + timeout

        def on_progress(progress: JobProgress) -> None:
            self.progress = progress
            if self._cancelled.is_set():
                raise JobCancelled
            if time.monotonic() > deadline:
                raise ExtremalValueError(
                    f"a job must finish within {timeout:g} s, this one did not; ask for fewer areas or alternatives, "
                    "for no copies, or start the app with a longer --timeout"
                )

        try:
            on_progress(JobProgress("start"))
            self.result = work(on_progress)
            self._state = JobState.DONE
        except JobCancelled:
            self._state = JobState.CANCELLED
        except ExtremalError as error:
            self._fail(str(error))
        except MemoryError:
            self._fail("a job must fit into memory, this one did not; ask for fewer areas or alternatives")
        except BaseException as error:  # SystemExit too: the owner must see an end, and the queue must keep running
            self._fail(f"an internal error occurred ({type(error).__name__}); the server's log has the details")
            with suppress(Exception):
                on_error(error)

    def _fail(self, error: str) -> None:
        self._state, self.error = JobState.FAILED, error


class JobQueue:
    """Jobs of several owners, run one after the other in a thread.

    The group that was served least recently is next, and within a group the job that was submitted first: a group that
    submits many jobs delays its own, and each other group by one job. If the queue is full, a job of a group with fewer
    jobs replaces the last job of the group with the most.

    Args:
        length: maximum number of waiting jobs.
        timeout: time limit of a job, in seconds.
        on_error: called with unexpected exceptions of jobs, e.g. to log them.
    """

    def __init__(
        self, length: int = 32, timeout: float = 120.0, on_error: Callable[[BaseException], None] = lambda error: None
    ) -> None:
        self.length, self.timeout, self._on_error = length, timeout, on_error
        self._changed = threading.Condition(threading.RLock())  # a job may cancel itself
        self._waiting: list[tuple[Job[Any], Callable[[], None]]] = []  # in the order of submission
        self._running: Job[Any] | None = None
        self._turns: dict[str, int] = {}  # of groups, by when they were served last
        self._n_turns = 0
        self._closed = self._broken = False
        self._thread = threading.Thread(target=self._serve, name="extremal-jobs", daemon=True)
        self._thread.start()

    def __enter__(self) -> "JobQueue":
        return self

    def __exit__(self, *_: object) -> None:
        """Close the queue, and wait for the job that is running, at most 1.5 s."""
        self.close()
        self._thread.join(MAX_STOP_SECONDS)

    def close(self) -> None:
        """Take no further jobs, and cancel all that are not finished."""
        with self._changed:
            self._closed = True
            for job in self._pending_jobs():
                job.cancel()
            self._changed.notify_all()

    def submit(
        self, owner: str, work: Callable[[OnProgress], T], *, group: str = "", timeout: float | None = None
    ) -> Job[T]:
        """Append a job to the queue.

        Args:
            owner: identifies who submits the job; each owner has at most one unfinished job.
            work: function to run; it receives a callback for its progress, which raises when the job has to end.
            group: of the owner, e.g. all that have the same address.
            timeout: time limit of this job, in seconds; None: that of the queue.

        Raises:
            ExtremalValueError: the queue is full or closed, or the owner has another job.
        """
        job, limit = Job[T](owner, group), self.timeout if timeout is None else timeout
        with self._changed:
            pending = self._pending_jobs()
            if self._broken:
                raise ExtremalValueError("the app must be able to run jobs, its thread has ended; start it again")
            if self._closed:
                raise ExtremalValueError("the app must be running to accept a job, it is shutting down; start it again")
            if any(other.owner == owner and not other._cancelled.is_set() for other in pending):
                raise ExtremalValueError(
                    "each person may have one job at a time, yours has not finished; wait for it or cancel it"
                )
            if len(pending) > self.length:
                self._make_room(group)
            self._waiting.append((job, lambda: job.run(work, limit, self._on_error)))
            self._changed.notify_all()
        return job

    def _make_room(self, group: str) -> None:
        """Reject the last job of the group that has the most, if that is not the group of the new job.

        Raises:
            ExtremalValueError: no other group has more jobs than this one would have.
        """
        counts = Counter(job.group for job, _ in self._waiting)
        largest, count = max(counts.items(), key=lambda item: item[1])
        if count <= counts[group] + 1:
            raise ExtremalValueError(f"at most {self.length} jobs may wait, got one more; try again in a minute")
        last = next(job for job, _ in reversed(self._waiting) if job.group == largest)
        last.reject(
            f"at most {self.length} jobs may wait, yours was the last of {count} from its address and made room for "
            "one from another; try again in a minute"
        )
        self._pending_jobs()

    def position(self, job: Job[Any]) -> int:
        """Return the number of jobs ahead of this one; 0 if it is running or finished."""
        with self._changed:
            pending = self._pending_jobs()
            return pending.index(job) if job in pending else 0

    def cancel(self, owner: str) -> None:
        """Cancel the jobs of this owner."""
        with self._changed:
            for job in self._pending_jobs():
                if job.owner == owner:
                    job.cancel()

    def _pending_jobs(self) -> list[Job[Any]]:
        """Drop finished jobs, and return the others in the order in which they are run."""
        self._waiting = [entry for entry in self._waiting if not entry[0].finished]
        running = [self._running] if self._running and not self._running.finished else []
        waiting, turns, ordered = [job for job, _ in self._waiting], dict(self._turns), list[Job[Any]]()
        while waiting:
            job = min(waiting, key=lambda item: turns.get(item.group, -1))  # the first of several
            waiting.remove(job)
            ordered.append(job)
            turns[job.group] = self._n_turns + len(ordered)
        return [*running, *ordered]

    def _serve(self) -> None:
        """Run jobs until the queue is closed; if this fails, no job is left waiting."""
        try:
            while self._run_next():
                pass
        except BaseException as error:  # nothing else may end this thread
            self._broken = True
            with suppress(Exception):
                self._on_error(error)
        with self._changed:
            self._closed = True
            for job in self._pending_jobs():
                job.cancel()

    def _run_next(self) -> bool:
        """Wait for the next job and run it; return False once the queue is closed."""
        with self._changed:
            self._running = None
            while not self._closed and not self._pending_jobs():
                self._changed.wait()
            if self._closed:
                return False
            self._running = job = self._pending_jobs()[0]
            self._take_turn(job.group)
            run = next(run for other, run in self._waiting if other is job)
            self._waiting = [entry for entry in self._waiting if entry[0] is not job]
        run()
        return True

    def _take_turn(self, group: str) -> None:
        """Note that a group is served now; groups that were served long ago are forgotten."""
        self._n_turns += 1
        self._turns.pop(group, None)
        self._turns[group] = self._n_turns
        while len(self._turns) > MAX_GROUPS:
            del self._turns[next(iter(self._turns))]
