"""The line of the app: first come, first served, one at a time, and nobody is forgotten."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extremal.app.job_queue import Cancelled, Job, Line, Progress, Report, State
from extremal.errors import ExtremalValueError

PATIENCE = 10.0  # s, for what takes no time


@dataclass
class Gate:
    """Work that begins, reports until it is let go, and then ends as it is told to."""

    result: object = None
    raises: BaseException | None = None
    begun: threading.Event = field(default_factory=threading.Event)
    free: threading.Event = field(default_factory=threading.Event)
    stopped: list[BaseException] = field(default_factory=list)

    def __call__(self, report: Report) -> object:
        self.begun.set()
        try:
            while not self.free.wait(0.002):
                report(Progress("held"))
        except BaseException as why:
            self.stopped.append(why)
            raise
        if self.raises:
            raise self.raises
        return self.result


@pytest.fixture
def told() -> list[BaseException]:
    """What the line tells of errors that are nobody's to mend."""
    return []


@pytest.fixture
def line(told: list[BaseException]) -> Iterator[Line]:
    with Line(length=3, seconds=PATIENCE, told=told.append) as opened:
        yield opened


def begun(line: Line, owner: str, gate: Gate | None = None) -> tuple[Job[object], Gate]:
    """A job that runs."""
    gate = gate or Gate()
    job = line.join(owner, gate)
    assert gate.begun.wait(PATIENCE)
    return job, gate


def over(job: Job[object]) -> State:
    """How a job ends."""
    job.wait(PATIENCE)
    assert job.over
    return job.state


def refused(line: Line, owner: str) -> str:
    with pytest.raises(ExtremalValueError) as caught:
        line.join(owner, Gate())
    return str(caught.value)


def test_the_result_comes_back(line: Line) -> None:
    job = line.join("anna", lambda report: 6 * 7)
    assert job.wait(PATIENCE) == 42
    assert (job.state, job.error, line.place(job)) == (State.DONE, "", 0)


def test_first_come_first_served_and_one_at_a_time(line: Line) -> None:
    order, together = list[str](), list[int]()

    def work(owner: str) -> Callable[[Report], None]:
        def run(report: Report) -> None:
            together.append(1)
            order.append(owner)
            time.sleep(0.01)
            assert sum(together) == 1
            together.pop()

        return run

    _, gate = begun(line, "first")
    jobs = [line.join(owner, work(owner)) for owner in ("zoe", "anna", "mia")]
    gate.free.set()
    assert [over(job) for job in jobs] == [State.DONE] * 3
    assert order == ["zoe", "anna", "mia"]


def test_places_count_those_who_come_before(line: Line) -> None:
    running, gate = begun(line, "a")
    second, third = line.join("b", Gate()), line.join("c", Gate())
    assert [line.place(job) for job in (running, second, third)] == [0, 1, 2]
    second.cancel()
    assert line.place(third) == 1
    assert over(second) is State.CANCELLED
    gate.free.set()
    assert over(running) is State.DONE
    assert third.work.begun.wait(PATIENCE)
    assert line.place(third) == 0


def test_one_job_a_person(line: Line) -> None:
    job, gate = begun(line, "anna")
    message = "one person must have one job at a time, yours is not done yet; wait for it or cancel it"
    assert refused(line, "anna") == message
    waiting = line.join("ben", Gate())
    assert refused(line, "ben") == message
    line.cancel("ben")
    assert over(waiting) is State.CANCELLED
    again = line.join("ben", lambda report: "again")
    gate.free.set()
    assert (over(job), again.wait(PATIENCE)) == (State.DONE, "again")
    assert line.join("anna", lambda report: "too").wait(PATIENCE) == "too"


def test_who_called_off_may_ask_again_at_once(line: Line) -> None:
    stuck, free = threading.Event(), threading.Event()

    def work(report: Report) -> None:
        stuck.set()
        free.wait(PATIENCE)  # no report, so it hears nothing
        report(Progress("late"))

    job = line.join("anna", work)
    assert stuck.wait(PATIENCE)
    line.cancel("anna")
    again = line.join("anna", lambda report: "again")
    assert (job.over, line.place(again)) == (False, 1)
    free.set()
    assert (over(job), again.wait(PATIENCE)) == (State.CANCELLED, "again")


def test_a_full_line(line: Line) -> None:
    begun(line, "running")
    jobs = [line.join(str(number), Gate()) for number in range(3)]
    assert refused(line, "late") == "at most 3 jobs may wait, got one more; try again in a minute"
    jobs[1].cancel()
    assert line.place(line.join("late", Gate())) == 3


def test_called_off_while_it_waits(line: Line) -> None:
    _, gate = begun(line, "a")
    never = Gate()
    job = line.join("b", never)
    line.cancel("b")
    assert (job.over, job.state, job.wait()) == (True, State.CANCELLED, None)
    gate.free.set()
    assert line.join("c", lambda report: True).wait(PATIENCE)
    assert not never.begun.is_set()


@pytest.mark.parametrize("by", ["owner", "job"])
def test_called_off_while_it_runs(line: Line, told: list[BaseException], by: str) -> None:
    job, gate = begun(line, "a")
    if by == "owner":
        line.cancel("a")
    else:
        job.cancel()
    assert (over(job), job.error, job.result) == (State.CANCELLED, "", None)
    assert [type(why) for why in gate.stopped] == [Cancelled]
    assert told == []
    assert line.join("a", lambda report: "next").wait(PATIENCE) == "next"


def test_others_cannot_call_it_off(line: Line) -> None:
    job, gate = begun(line, "a")
    line.cancel("b")
    time.sleep(0.02)
    assert not job.over
    gate.free.set()
    assert over(job) is State.DONE


def test_calling_off_what_is_over_changes_nothing(line: Line) -> None:
    job = line.join("a", lambda report: 1)
    job.wait(PATIENCE)
    line.cancel("a")
    job.cancel()
    assert (job.state, job.result) == (State.DONE, 1)


def test_progress_is_seen(line: Line) -> None:
    reported, free = threading.Event(), threading.Event()

    def work(report: Report) -> None:
        report(Progress("sweep", 2, 5, "picture"))
        reported.set()
        free.wait(PATIENCE)

    job = line.join("a", work)
    assert reported.wait(PATIENCE)
    assert (job.state, job.progress) == (State.RUNNING, Progress("sweep", 2, 5, "picture"))
    free.set()


def test_the_time_limit(told: list[BaseException]) -> None:
    with Line(seconds=0.05, told=told.append) as line:
        job, gate = begun(line, "a")
        assert over(job) is State.FAILED
        assert job.error == (
            "a job must end within 0.05 s, this one did not; ask for fewer areas or answers, "
            "or start the app with a longer --seconds"
        )
        assert [type(why) for why in gate.stopped] == [ExtremalValueError]
        assert told == []
        assert line.join("a", lambda report: "next").wait(PATIENCE) == "next"


def test_what_the_person_can_mend_is_told_to_them_alone(line: Line, told: list[BaseException]) -> None:
    job, gate = begun(line, "a", Gate(raises=ExtremalValueError("areas must lie in (0, 1), got 5")))
    gate.free.set()
    assert (over(job), job.error, told) == (State.FAILED, "areas must lie in (0, 1), got 5", [])


def test_memory_that_does_not_suffice(line: Line, told: list[BaseException]) -> None:
    job, gate = begun(line, "a", Gate(raises=MemoryError()))
    gate.free.set()
    assert over(job) is State.FAILED
    assert job.error == "the memory of this machine did not suffice; ask for fewer areas or answers"
    assert told == []


@pytest.mark.parametrize("error", [RuntimeError("/secret/path"), SystemExit(3), KeyboardInterrupt()])
def test_what_is_unexpected_is_told_shortly_here_and_fully_there(
    line: Line, told: list[BaseException], error: BaseException
) -> None:
    job, gate = begun(line, "a", Gate(raises=error))
    gate.free.set()
    assert over(job) is State.FAILED
    assert job.error == f"something went wrong here ({type(error).__name__}); the server's log has more"
    assert line.join("b", lambda report: "next").wait(PATIENCE) == "next"  # the line lives on
    assert told == [error]


def test_an_ear_that_fails_does_not_end_the_line() -> None:
    def deaf(error: BaseException) -> None:
        raise RuntimeError("the log is full")

    with Line(told=deaf) as line:
        job, gate = begun(line, "a", Gate(raises=ValueError("first")))
        gate.free.set()
        assert over(job) is State.FAILED
        assert line.join("b", lambda report: "next").wait(PATIENCE) == "next"


def test_closing_ends_everything() -> None:
    with Line() as line:
        running, gate = begun(line, "a")
        waiting = [line.join(str(number), Gate()) for number in range(5)]
        thread = line._thread
    assert [job.state for job in (running, *waiting)] == [State.CANCELLED] * 6
    assert all(job.over for job in (running, *waiting))
    assert not thread.is_alive()
    assert not any(job.work.begun.is_set() for job in waiting)
    assert [type(why) for why in gate.stopped] == [Cancelled]


def test_nobody_joins_a_closed_line() -> None:
    with Line() as line:
        pass
    assert refused(line, "late") == "the app must be running to take a job, it is being ended; start it again"


@dataclass
class ByHand:
    """A line and beside it a list that is worked through by hand: its first runs."""

    line: Line
    queue: list[Job[object]] = field(default_factory=list)
    jobs: list[Job[object]] = field(default_factory=list)  # all that ever joined
    begun: list[Job[object]] = field(default_factory=list)
    ended: dict[int, State] = field(default_factory=dict)  # by place in `jobs`

    def join(self, number: int) -> None:
        """Stand in the line, where one may."""
        if any(job.owner == str(number) for job in self.queue) or len(self.queue) > self.line.length:
            with pytest.raises(ExtremalValueError):
                self.line.join(str(number), Gate())
            return
        self.jobs.append(self.line.join(str(number), Gate(result=len(self.jobs))))
        self.queue.append(self.jobs[-1])

    def cancel(self, number: int) -> None:
        """Call off what this person has."""
        self.line.cancel(str(number))
        for job in [job for job in self.queue if job.owner == str(number)]:
            self.leave(job, State.CANCELLED)

    def finish(self, number: int) -> None:
        """Let the first end, well or badly."""
        if self.queue:
            job = self.queue[0]
            job.work.raises = ValueError("broken") if number % 2 else None
            job.work.free.set()
            self.leave(job, State.FAILED if number % 2 else State.DONE)

    def look(self, _: int) -> None:
        """Everybody's place."""
        assert [self.line.place(job) for job in self.queue] == list(range(len(self.queue)))

    def leave(self, job: Job[object], state: State) -> None:
        """This job ended so."""
        assert over(job) is state
        self.queue.remove(job)
        self.ended[self.jobs.index(job)] = state

    def settle(self) -> None:
        """Wait until the first of the queue runs."""
        if self.queue and self.queue[0] not in self.begun:
            assert self.queue[0].work.begun.wait(PATIENCE)
            self.begun.append(self.queue[0])


@given(
    st.lists(st.tuples(st.sampled_from(["join", "join", "cancel", "finish", "look"]), st.integers(0, 5)), max_size=40)
)
@settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_order_is_kept_and_nothing_is_lost(acts: list[tuple[str, int]]) -> None:
    with Line(length=3, seconds=PATIENCE) as line:
        known = ByHand(line)
        for act, number in acts:
            getattr(known, act)(number)
            known.settle()
    wanted = [known.ended.get(number, State.CANCELLED) for number in range(len(known.jobs))]
    assert [job.state for job in known.jobs] == wanted
    assert all(job.over for job in known.jobs)
    assert [job.result for job in known.jobs] == [n if state is State.DONE else None for n, state in enumerate(wanted)]
    order = [known.jobs.index(job) for job in known.begun]
    assert order == sorted(order)
    assert order == [number for number, job in enumerate(known.jobs) if job.work.begun.is_set()]


def test_many_at_once_do_not_block_each_other() -> None:
    """Threads that join, look, cancel and leave: everything ends, and everything is accounted for."""
    jobs, refusals = list[Job[int]](), list[str]()

    def person(number: int, line: Line) -> None:
        for turn in range(20):
            try:
                job = line.join(str(number % 8), lambda report, turn=turn: report(Progress("step", turn)) or turn)
            except ExtremalValueError as error:
                refusals.append(str(error))
                continue
            jobs.append(job)
            line.place(job)
            if turn % 3 == 0:
                line.cancel(str(number % 8))
            job.wait(PATIENCE)

    with Line(length=6) as line:
        threads = [threading.Thread(target=person, args=(number, line)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)
    assert len(jobs) + len(refusals) == 12 * 20
    assert all(job.over and job.state in (State.DONE, State.CANCELLED) for job in jobs)
    assert all((job.result is not None) == (job.state is State.DONE) for job in jobs)
