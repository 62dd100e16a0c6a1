"""The crash rule of both engines."""

from extremal.jobs.crashes import CrashTracker, UnitMode

CONCURRENT, EXCLUSIVE, ABANDONED, STOPPED = (
    UnitMode.CONCURRENT,
    UnitMode.EXCLUSIVE,
    UnitMode.ABANDONED,
    UnitMode.STOPPED,
)


def test_a_unit_that_is_started_again_is_run_alone_and_then_abandoned() -> None:
    tracker = CrashTracker(max_crashes=2)
    assert [tracker.start("a") for _ in range(4)] == [CONCURRENT, EXCLUSIVE, ABANDONED, ABANDONED]


def test_a_crash_that_is_reported_counts_once() -> None:
    tracker, modes = CrashTracker(max_crashes=2), []
    for _ in range(3):
        modes.append(tracker.start("a"))
        tracker.crash("a")
    assert modes == [CONCURRENT, EXCLUSIVE, ABANDONED]
    assert tracker.mode("b") == CONCURRENT


def test_a_finished_unit_has_no_crashes() -> None:
    tracker = CrashTracker(max_crashes=2)
    for _ in range(5):
        assert tracker.start("a") == CONCURRENT
        tracker.finish("a")
    tracker.start("a")
    tracker.crash("a")
    tracker.finish("a")
    assert tracker.mode("a") == CONCURRENT


def test_once_closed_only_started_units_are_run() -> None:
    tracker = CrashTracker(max_crashes=2)
    tracker.start("a")
    tracker.start("c")
    tracker.finish("c")
    tracker.close()
    assert (tracker.start("b"), tracker.start("a"), tracker.start("c")) == (STOPPED, EXCLUSIVE, CONCURRENT)


def test_workers_that_crash_while_loading_are_not_replaced_without_limit() -> None:
    tracker = CrashTracker(max_crashes=2, workers=2)
    assert [tracker.load_started() for _ in range(4)] == [""] * 4
    assert tracker.load_started() == (
        "workers must have enough memory for the network, 4 of them ended while loading it; use fewer workers, or "
        "another network"
    )
    tracker.load_finished()
    assert tracker.load_started() == ""
