"""Crash rule of both engines: a unit whose worker crashed is retried alone, and abandoned after five crashes."""

from collections import Counter
from enum import StrEnum

from extremal.jobs.plan import WorkUnit
from extremal.jobs.rows import Row, build_failed_row

MAX_CRASHES = 5  # of workers, after which the unit that they had is abandoned


class UnitMode(StrEnum):
    """The ways in which a worker can run a unit."""

    CONCURRENT = "concurrent"  # explain it; the next unit may be decoded meanwhile
    EXCLUSIVE = "exclusive"  # explain it with no other unit in the worker, so that no other is blamed for a crash
    ABANDONED = "abandoned"  # report its failure
    STOPPED = "stopped"  # skip it, since the run is to stop


class CrashTracker:
    """Counts for each unit how many workers crashed on it, and decides how it is run next.

    >>> tracker = CrashTracker(max_crashes=2)
    >>> [str(tracker.start("a")) for _ in range(3)]  # a unit that is started again has not been finished
    ['concurrent', 'exclusive', 'abandoned']

    Args:
        max_crashes: of workers, after which a unit is abandoned.
        workers: number of workers.
    """

    def __init__(self, max_crashes: int = MAX_CRASHES, workers: int = 1) -> None:
        self._max_crashes, self._max_loads = max_crashes, max_crashes * workers
        self._crashes: Counter[str] = Counter()
        self._running: set[str] = set()
        self._started: set[str] = set()
        self._loads = 0  # started since a network was last loaded
        self._closed = False

    def mode(self, name: str) -> UnitMode:
        """Return how a unit is to be run."""
        if self._crashes[name] >= self._max_crashes:
            return UnitMode.ABANDONED
        return UnitMode.EXCLUSIVE if self._crashes[name] else UnitMode.CONCURRENT

    def start(self, name: str) -> UnitMode:
        """Count a unit as running, and as crashed before if it was running already; return how it is to be run."""
        if self._closed and name not in self._started:
            return UnitMode.STOPPED
        if name in self._running:
            self.crash(name)
        self._started.add(name)
        self._running.add(name)
        return self.mode(name)

    def crash(self, name: str) -> None:
        """Count the crash of the worker that had a unit."""
        self._crashes[name] += 1
        self._running.discard(name)

    def release(self, name: str) -> None:
        """Count a unit as not running: its worker ended, and the unit is not to blame."""
        self._running.discard(name)

    def finish(self, name: str) -> None:
        """Count a unit as finished; it may be started again if its rows are lost on the way."""
        self._crashes.pop(name, None)
        self._running.discard(name)

    def close(self) -> None:
        """Start no new units."""
        self._closed = True

    def load_started(self) -> str:
        """Return why further loading is refused, if too many workers crashed while loading; else an empty string."""
        self._loads += 1
        if self._loads <= self._max_loads:
            return ""
        return (
            f"workers must have enough memory for the network, {self._max_loads} of them ended while loading it; use "
            "fewer workers, or another network"
        )

    def load_finished(self) -> None:
        """Count the network as loaded."""
        self._loads = 0


def build_abandoned_rows(unit: WorkUnit, detail: str = "", unit_timeout: float | None = None) -> list[Row]:
    """Return the rows of an abandoned unit.

    Args:
        unit: on which several workers crashed.
        detail: on their crashes.
        unit_timeout: seconds that a unit may take, if one may have taken longer.
    """
    is_timed = unit_timeout is not None
    detail += f", or did not finish it within the unit timeout of {unit_timeout:g} s" if is_timed else ""
    error = (
        f"several workers crashed on its batch{detail}; run again with --retry, and with fewer --workers if memory is "
        f"short{', or a longer --unit-timeout' if is_timed else ''}"
    )
    return [build_failed_row(item.key, item.path, None, error, 0.0) for item in unit.items]
