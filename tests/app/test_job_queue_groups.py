"""Job queue of the app: groups of owners take turns, and none fills the queue for the others."""

import threading

import pytest

from extremal.app import job_queue
from extremal.app.job_queue import JobQueue, JobState
from support.errors import message_of
from support.gates import TIMEOUT, DeafGate, Gate, final_state


def submit(queue: JobQueue, group: str, number: int, order: list[str] | None = None) -> job_queue.Job[object]:
    """Submit a job that adds its name to a list."""
    name = f"{group}{number}"
    return queue.submit(name, lambda on_progress: None if order is None else order.append(name), group=group)


def test_groups_take_turns() -> None:
    order = list[str]()
    with JobQueue(length=9) as queue:
        gate = Gate()
        queue.submit("running", gate, group="a")
        assert gate.started.wait(TIMEOUT)
        jobs = [submit(queue, "a", number, order) for number in range(4)]
        jobs += [submit(queue, "b", number, order) for number in range(2)] + [submit(queue, "c", 0, order)]
        assert [queue.position(job) for job in jobs] == [3, 5, 6, 7, 1, 4, 2]  # behind the one that is running
        gate.released.set()
        assert [final_state(job) for job in jobs] == [JobState.DONE] * 7
    assert order == ["b0", "c0", "a0", "b1", "a1", "a2", "a3"]


def test_one_group_can_use_the_whole_queue() -> None:
    with JobQueue(length=3) as queue:
        gate = Gate()
        queue.submit("running", gate, group="a")
        assert gate.started.wait(TIMEOUT)
        for number in range(3):
            submit(queue, "a", number)
        assert message_of(submit, queue, "a", 3) == "at most 3 jobs may wait, got one more; try again in a minute"


def test_a_full_queue_has_room_for_a_group_with_fewer_jobs() -> None:
    with JobQueue(length=4) as queue:
        gate = Gate()
        queue.submit("running", gate, group="a")
        assert gate.started.wait(TIMEOUT)
        many = [submit(queue, "a", number) for number in range(4)]
        first = submit(queue, "b", 0)
        assert (queue.position(first), final_state(many[3])) == (1, JobState.FAILED)
        assert many[3].error == (
            "at most 4 jobs may wait, yours was the last of 4 from its address and made room for one from another; "
            "try again in a minute"
        )
        second = submit(queue, "b", 1)  # two each
        assert message_of(submit, queue, "b", 2) == "at most 4 jobs may wait, got one more; try again in a minute"
        gate.released.set()
        assert [final_state(job) for job in (*many[:2], first, second)] == [JobState.DONE] * 4
        assert many[2].state is JobState.FAILED


def test_a_job_can_have_its_own_time_limit() -> None:
    with JobQueue(timeout=0.01) as queue:
        gate = Gate()
        job = queue.submit("a", gate, timeout=TIMEOUT)
        assert gate.started.wait(TIMEOUT)
        threading.Event().wait(0.05)
        assert not job.finished
        gate.released.set()
        assert final_state(job) is JobState.DONE


def test_closing_does_not_wait_for_a_job_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_queue, "MAX_STOP_SECONDS", 0.1)
    work = DeafGate()
    with JobQueue() as queue:
        job = queue.submit("a", work)
        assert work.started.wait(TIMEOUT)
    assert not job.finished
    assert queue._thread.daemon  # it does not keep the process alive
    work.released.set()
    assert final_state(job) is JobState.CANCELLED


def test_a_thread_that_ends_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = list[BaseException]()
    with JobQueue(on_error=errors.append) as queue:
        monkeypatch.setattr(queue, "_take_turn", lambda group: 1 / 0)
        job = queue.submit("a", Gate())
        assert final_state(job) is JobState.CANCELLED
        queue._thread.join(TIMEOUT)
        assert [type(error) for error in errors] == [ZeroDivisionError]
        assert message_of(queue.submit, "b", Gate()) == (
            "the app must be able to run jobs, its thread has ended; start it again"
        )


def test_turns_of_old_groups_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_queue, "MAX_GROUPS", 3)
    with JobQueue() as queue:
        for number in range(10):
            assert final_state(submit(queue, str(number), 0)) is JobState.DONE
        assert len(queue._turns) == 3
