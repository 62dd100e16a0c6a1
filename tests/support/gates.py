"""Work for the app's job queue that runs until it is released."""

import threading
from dataclasses import dataclass, field

from extremal.app.job_queue import Job, JobProgress, JobState, OnProgress

TIMEOUT = 10.0  # s, for what should take no time


@dataclass
class Gate:
    """Work that reports its progress until it is released, and then returns a result or raises an error."""

    result: object = None
    raises: BaseException | None = None
    started: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    interrupts: list[BaseException] = field(default_factory=list)

    def __call__(self, on_progress: OnProgress) -> object:
        self.started.set()
        try:
            while not self.released.wait(0.002):
                on_progress(JobProgress("waiting"))
        except BaseException as error:
            self.interrupts.append(error)
            raise
        if self.raises:
            raise self.raises
        return self.result


@dataclass
class DeafGate:
    """Work that reports no progress, and so cannot be interrupted, until it is released."""

    started: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def __call__(self, on_progress: OnProgress) -> None:
        self.started.set()
        self.released.wait(TIMEOUT)
        on_progress(JobProgress("released"))


def final_state(job: Job[object]) -> JobState:
    """Wait for the final state of a job."""
    job.wait(TIMEOUT)
    assert job.finished
    return job.state
