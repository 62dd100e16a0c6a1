"""Job queue of the app against a reference, and under many threads."""

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extremal.app.job_queue import Job, JobProgress, JobQueue, JobState
from extremal.errors import ExtremalValueError
from support.gates import TIMEOUT, Gate, final_state


@dataclass
class Reference:
    """A queue, and a list with the jobs that it should hold: the first one runs."""

    queue: JobQueue
    expected: list[Job[object]] = field(default_factory=list)
    jobs: list[Job[object]] = field(default_factory=list)  # all that were submitted
    gates: list[Gate] = field(default_factory=list)  # of `jobs`
    started: list[Job[object]] = field(default_factory=list)
    ended: dict[int, JobState] = field(default_factory=dict)  # by index in `jobs`

    def gate(self, job: Job[object]) -> Gate:
        """Return the gate of a job."""
        return self.gates[self.jobs.index(job)]

    def submit(self, number: int) -> None:
        """Submit a job, if this is allowed."""
        if any(job.owner == str(number) for job in self.expected) or len(self.expected) > self.queue.length:
            with pytest.raises(ExtremalValueError):
                self.queue.submit(str(number), Gate())
            return
        self.gates.append(Gate(result=len(self.jobs)))
        self.jobs.append(self.queue.submit(str(number), self.gates[-1]))
        self.expected.append(self.jobs[-1])

    def cancel(self, number: int) -> None:
        """Cancel the job of this owner."""
        self.queue.cancel(str(number))
        for job in [job for job in self.expected if job.owner == str(number)]:
            self.remove(job, JobState.CANCELLED)

    def finish(self, number: int) -> None:
        """Let the first job succeed or fail."""
        if self.expected:
            job = self.expected[0]
            self.gate(job).raises = ValueError("broken") if number % 2 else None
            self.gate(job).released.set()
            self.remove(job, JobState.FAILED if number % 2 else JobState.DONE)

    def look(self, _: int) -> None:
        """Check all positions."""
        assert [self.queue.position(job) for job in self.expected] == list(range(len(self.expected)))

    def remove(self, job: Job[object], state: JobState) -> None:
        """Check the final state of a job."""
        assert final_state(job) is state
        self.expected.remove(job)
        self.ended[self.jobs.index(job)] = state

    def settle(self) -> None:
        """Wait until the first job is running."""
        if self.expected and self.expected[0] not in self.started:
            assert self.gate(self.expected[0]).started.wait(TIMEOUT)
            self.started.append(self.expected[0])


@given(
    st.lists(
        st.tuples(st.sampled_from(["submit", "submit", "cancel", "finish", "look"]), st.integers(0, 5)), max_size=40
    )
)
@settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_the_order_is_kept_and_no_job_is_lost(actions: list[tuple[str, int]]) -> None:
    with JobQueue(length=3, timeout=TIMEOUT) as queue:
        reference = Reference(queue)
        for action, number in actions:
            getattr(reference, action)(number)
            reference.settle()
    jobs, gates = reference.jobs, reference.gates
    expected = [reference.ended.get(number, JobState.CANCELLED) for number in range(len(jobs))]
    assert [job.state for job in jobs] == expected
    assert all(job.finished for job in jobs)
    assert [job.result for job in jobs] == [n if state is JobState.DONE else None for n, state in enumerate(expected)]
    order = [jobs.index(job) for job in reference.started]
    assert order == sorted(order)
    assert order == [number for number, gate in enumerate(gates) if gate.started.is_set()]


def test_many_threads_do_not_block_each_other() -> None:
    """Threads submit, look, cancel and wait: each job reaches a final state, and none is lost."""
    jobs, rejections = list[Job[int]](), list[str]()

    def visit(number: int, queue: JobQueue) -> None:
        for turn in range(20):
            try:
                job = queue.submit(
                    str(number % 8), lambda on_progress, turn=turn: on_progress(JobProgress("step", turn)) or turn
                )
            except ExtremalValueError as error:
                rejections.append(str(error))
                continue
            jobs.append(job)
            queue.position(job)
            if turn % 3 == 0:
                queue.cancel(str(number % 8))
            job.wait(TIMEOUT)

    with JobQueue(length=6) as queue:
        threads = [threading.Thread(target=visit, args=(number, queue)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert not any(thread.is_alive() for thread in threads)
    assert len(jobs) + len(rejections) == 12 * 20
    assert all(job.finished and job.state in (JobState.DONE, JobState.CANCELLED) for job in jobs)
    assert all((job.result is not None) == (job.state is JobState.DONE) for job in jobs)
