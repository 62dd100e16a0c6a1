"""Job queue: one job at a time in the order of submission, with progress, cancellation and a time limit.

>>> with JobQueue() as queue:
...     job = queue.submit("anna", lambda on_progress: 6 * 7)
...     job.wait(), job.state
(42, <JobState.DONE: 'done'>)
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

from extremal.errors import ExtremalError, ExtremalValueError

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


OnProgress = Callable[[JobProgress], None]  # a job calls it often; it raises when the job has to end


@dataclass(eq=False)
class Job(Generic[T]):
    """A submitted job."""

    owner: str
    progress: JobProgress = field(default_factory=JobProgress)
    result: T | None = None
    error: str = ""  # one sentence for the owner of a failed job
    _state: JobState = JobState.WAITING
    _future: Future[None] = field(init=False)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def state(self) -> JobState:
        """Current state."""
        return JobState.CANCELLED if self._future.cancelled() else self._state

    @property
    def finished(self) -> bool:
        """Whether the state is final."""
        return self._future.done()

    def cancel(self) -> None:
        """Cancel the job: at once while it waits, at its next progress report while it runs."""
        self._cancelled.set()
        self._future.cancel()

    def wait(self, timeout: float | None = None) -> T | None:
        """Wait until the job is finished, at most `timeout` seconds, and return its result, if it has one."""
        with suppress(CancelledError, TimeoutError):
            self._future.result(timeout)
        return self.result

    def run(self, work: Callable[[OnProgress], T], timeout: float, on_error: Callable[[BaseException], None]) -> None:
        """Do the work within `timeout` seconds; the job reaches a final state even if the work fails."""
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

    Args:
        length: maximum number of waiting jobs; further jobs are rejected.
        timeout: time limit of a job, in seconds.
        on_error: called with unexpected exceptions of jobs, e.g. to log them.
    """

    def __init__(
        self, length: int = 32, timeout: float = 120.0, on_error: Callable[[BaseException], None] = lambda error: None
    ) -> None:
        self.length, self.timeout, self._on_error = length, timeout, on_error
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="extremal-jobs")
        self._lock = threading.RLock()  # a job may cancel itself
        self._jobs: list[Job[Any]] = []  # in the order of submission: the first one runs, the others wait
        self._closed = False

    def __enter__(self) -> "JobQueue":
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel all jobs, and wait for the one that is running."""
        with self._lock:
            self._closed = True
            for job in self._pending_jobs():
                job.cancel()
        self._executor.shutdown()

    def submit(self, owner: str, work: Callable[[OnProgress], T]) -> Job[T]:
        """Append a job to the queue.

        Args:
            owner: identifies who submits the job; each owner has at most one unfinished job.
            work: function to run; it receives a callback for its progress, which raises when the job has to end.

        Raises:
            ExtremalValueError: the queue is full or closed, or the owner has another job.
        """
        job = Job[T](owner)
        with self._lock:
            pending = self._pending_jobs()
            if self._closed:
                raise ExtremalValueError("the app must be running to accept a job, it is shutting down; start it again")
            if any(other.owner == owner and not other._cancelled.is_set() for other in pending):
                raise ExtremalValueError(
                    "each person may have one job at a time, yours has not finished; wait for it or cancel it"
                )
            if len(pending) > self.length:
                raise ExtremalValueError(f"at most {self.length} jobs may wait, got one more; try again in a minute")
            job._future = self._executor.submit(job.run, work, self.timeout, self._on_error)
            self._jobs.append(job)
        return job

    def position(self, job: Job[Any]) -> int:
        """Return the number of jobs ahead of this one; 0 if it is running or finished."""
        with self._lock:
            pending = self._pending_jobs()
            return pending.index(job) if job in pending else 0

    def cancel(self, owner: str) -> None:
        """Cancel the jobs of this owner."""
        with self._lock:
            for job in self._pending_jobs():
                if job.owner == owner:
                    job.cancel()

    def _pending_jobs(self) -> list[Job[Any]]:
        """Drop finished jobs, and return the others."""
        self._jobs = [job for job in self._jobs if not job.finished]
        return self._jobs
