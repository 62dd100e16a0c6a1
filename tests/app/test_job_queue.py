"""Job queue of the app: jobs run one at a time, in order, and each one reaches a final state."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from extremal.app.job_queue import Job, JobCancelled, JobProgress, JobQueue, JobState, OnProgress
from extremal.errors import ExtremalValueError
from support.errors import message_of
from support.gates import TIMEOUT, DeafGate, Gate, final_state


@pytest.fixture
def errors() -> list[BaseException]:
    """Unexpected errors of jobs."""
    return []


@pytest.fixture
def queue(errors: list[BaseException]) -> Iterator[JobQueue]:
    with JobQueue(length=3, timeout=TIMEOUT, on_error=errors.append) as opened:
        yield opened


def start(queue: JobQueue, owner: str, gate: Gate | None = None) -> tuple[Job[object], Gate]:
    """Return a job that is running."""
    gate = gate or Gate()
    job = queue.submit(owner, gate)
    assert gate.started.wait(TIMEOUT)
    return job, gate


def test_the_result_is_returned(queue: JobQueue) -> None:
    job = queue.submit("anna", lambda on_progress: 6 * 7)
    assert job.wait(TIMEOUT) == 42
    assert (job.state, job.error, queue.position(job)) == (JobState.DONE, "", 0)


def test_jobs_run_in_order_and_one_at_a_time(queue: JobQueue) -> None:
    order, concurrent = list[str](), list[int]()

    def work(owner: str) -> Callable[[OnProgress], None]:
        def run(on_progress: OnProgress) -> None:
            concurrent.append(1)
            order.append(owner)
            time.sleep(0.01)
            assert sum(concurrent) == 1
            concurrent.pop()

        return run

    _, gate = start(queue, "first")
    jobs = [queue.submit(owner, work(owner)) for owner in ("zoe", "anna", "mia")]
    gate.released.set()
    assert [final_state(job) for job in jobs] == [JobState.DONE] * 3
    assert order == ["zoe", "anna", "mia"]


def test_the_position_counts_the_jobs_ahead(queue: JobQueue) -> None:
    running, gate = start(queue, "a")
    third_gate = Gate()
    second, third = queue.submit("b", Gate()), queue.submit("c", third_gate)
    assert [queue.position(job) for job in (running, second, third)] == [0, 1, 2]
    second.cancel()
    assert queue.position(third) == 1
    assert final_state(second) is JobState.CANCELLED
    gate.released.set()
    assert final_state(running) is JobState.DONE
    assert third_gate.started.wait(TIMEOUT)
    assert queue.position(third) == 0


def test_one_job_per_owner(queue: JobQueue) -> None:
    job, gate = start(queue, "anna")
    message = "each person may have one job at a time, yours has not finished; wait for it or cancel it"
    assert message_of(queue.submit, "anna", Gate()) == message
    waiting = queue.submit("ben", Gate())
    assert message_of(queue.submit, "ben", Gate()) == message
    queue.cancel("ben")
    assert final_state(waiting) is JobState.CANCELLED
    second = queue.submit("ben", lambda on_progress: "second")
    gate.released.set()
    assert (final_state(job), second.wait(TIMEOUT)) == (JobState.DONE, "second")
    assert queue.submit("anna", lambda on_progress: "third").wait(TIMEOUT) == "third"


def test_an_owner_may_submit_again_right_after_cancelling(queue: JobQueue) -> None:
    stuck, released = threading.Event(), threading.Event()

    def work(on_progress: OnProgress) -> None:
        stuck.set()
        released.wait(TIMEOUT)  # no report, so the job does not notice that it was cancelled
        on_progress(JobProgress("late"))

    job = queue.submit("anna", work)
    assert stuck.wait(TIMEOUT)
    queue.cancel("anna")
    second = queue.submit("anna", lambda on_progress: "second")
    assert (job.finished, queue.position(second)) == (False, 1)
    released.set()
    assert (final_state(job), second.wait(TIMEOUT)) == (JobState.CANCELLED, "second")


def test_a_full_queue(queue: JobQueue) -> None:
    start(queue, "running")
    jobs = [queue.submit(str(number), Gate()) for number in range(3)]
    assert message_of(queue.submit, "late", Gate()) == "at most 3 jobs may wait, got one more; try again in a minute"
    jobs[1].cancel()
    assert queue.position(queue.submit("late", Gate())) == 3


def test_cancelled_while_waiting(queue: JobQueue) -> None:
    _, gate = start(queue, "a")
    never = Gate()
    job = queue.submit("b", never)
    queue.cancel("b")
    assert (job.finished, job.state, job.wait()) == (True, JobState.CANCELLED, None)
    gate.released.set()
    assert queue.submit("c", lambda on_progress: True).wait(TIMEOUT)
    assert not never.started.is_set()


@pytest.mark.parametrize("by", ["owner", "job"])
def test_cancelled_while_running(queue: JobQueue, errors: list[BaseException], by: str) -> None:
    job, gate = start(queue, "a")
    if by == "owner":
        queue.cancel("a")
    else:
        job.cancel()
    assert (final_state(job), job.error, job.result) == (JobState.CANCELLED, "", None)
    assert [type(error) for error in gate.interrupts] == [JobCancelled]
    assert errors == []
    assert queue.submit("a", lambda on_progress: "next").wait(TIMEOUT) == "next"


def test_other_owners_cannot_cancel_a_job(queue: JobQueue) -> None:
    job, gate = start(queue, "a")
    queue.cancel("b")
    time.sleep(0.02)
    assert not job.finished
    gate.released.set()
    assert final_state(job) is JobState.DONE


def test_cancelling_a_finished_job_changes_nothing(queue: JobQueue) -> None:
    job = queue.submit("a", lambda on_progress: 1)
    job.wait(TIMEOUT)
    queue.cancel("a")
    job.cancel()
    assert (job.state, job.result) == (JobState.DONE, 1)


def test_progress_is_visible(queue: JobQueue) -> None:
    reported, released = threading.Event(), threading.Event()

    def work(on_progress: OnProgress) -> None:
        on_progress(JobProgress("sweep", 2, 5, "image"))
        reported.set()
        released.wait(TIMEOUT)

    job = queue.submit("a", work)
    assert reported.wait(TIMEOUT)
    assert (job.state, job.progress) == (JobState.RUNNING, JobProgress("sweep", 2, 5, "image"))
    released.set()


def test_the_time_limit(errors: list[BaseException]) -> None:
    with JobQueue(timeout=0.05, on_error=errors.append) as queue:
        job, gate = start(queue, "a")
        assert final_state(job) is JobState.FAILED
        assert job.error == (
            "a job must finish within 0.05 s, this one did not; ask for fewer areas or alternatives, "
            "for no copies, or start the app with a longer --timeout"
        )
        assert [type(error) for error in gate.interrupts] == [ExtremalValueError]
        assert errors == []
        assert queue.submit("a", lambda on_progress: "next").wait(TIMEOUT) == "next"


def test_errors_of_the_input_are_reported_to_the_owner_only(queue: JobQueue, errors: list[BaseException]) -> None:
    job, gate = start(queue, "a", Gate(raises=ExtremalValueError("areas must lie in (0, 1), got 5")))
    gate.released.set()
    assert (final_state(job), job.error, errors) == (JobState.FAILED, "areas must lie in (0, 1), got 5", [])


def test_out_of_memory(queue: JobQueue, errors: list[BaseException]) -> None:
    job, gate = start(queue, "a", Gate(raises=MemoryError()))
    gate.released.set()
    assert final_state(job) is JobState.FAILED
    assert job.error == "a job must fit into memory, this one did not; ask for fewer areas or alternatives"
    assert errors == []


@pytest.mark.parametrize("error", [RuntimeError("/secret/path"), SystemExit(3), KeyboardInterrupt()])
def test_unexpected_errors_are_brief_for_the_owner_and_complete_in_the_log(
    queue: JobQueue, errors: list[BaseException], error: BaseException
) -> None:
    job, gate = start(queue, "a", Gate(raises=error))
    gate.released.set()
    assert final_state(job) is JobState.FAILED
    assert job.error == f"an internal error occurred ({type(error).__name__}); the server's log has the details"
    assert queue.submit("b", lambda on_progress: "next").wait(TIMEOUT) == "next"  # the queue keeps running
    assert errors == [error]


def test_an_error_in_the_callback_does_not_stop_the_queue() -> None:
    def fail(error: BaseException) -> None:
        raise RuntimeError("the log is full")

    with JobQueue(on_error=fail) as queue:
        job, gate = start(queue, "a", Gate(raises=ValueError("first")))
        gate.released.set()
        assert final_state(job) is JobState.FAILED
        assert queue.submit("b", lambda on_progress: "next").wait(TIMEOUT) == "next"


def test_closing_cancels_everything() -> None:
    gates = [Gate() for _ in range(5)]
    with JobQueue() as queue:
        running, gate = start(queue, "a")
        waiting = [queue.submit(str(number), waiting) for number, waiting in enumerate(gates)]
        thread = queue._thread
    assert [job.state for job in (running, *waiting)] == [JobState.CANCELLED] * 6
    assert all(job.finished for job in (running, *waiting))
    assert not thread.is_alive()
    assert not any(waiting.started.is_set() for waiting in gates)
    assert [type(error) for error in gate.interrupts] == [JobCancelled]


def test_closing_does_not_wait_for_the_running_job() -> None:
    work = DeafGate()
    with JobQueue() as queue:
        running = queue.submit("a", work)
        assert work.started.wait(TIMEOUT)
        queue.close()
        assert not running.finished
        work.released.set()
        assert final_state(running) is JobState.CANCELLED


def test_a_closed_queue_rejects_jobs() -> None:
    with JobQueue() as queue:
        queue.close()
    assert message_of(queue.submit, "late", Gate()) == (
        "the app must be running to accept a job, it is shutting down; start it again"
    )


def test_finished_jobs_are_not_kept(queue: JobQueue) -> None:
    """Neither by the queue nor, with their tracebacks, by their futures."""
    failed, gate = start(queue, "a", Gate(raises=ValueError("broken")))
    gate.released.set()
    assert final_state(failed) is JobState.FAILED
    assert failed._future.exception() is None
    assert queue.position(failed) == 0
    assert queue._waiting == []
