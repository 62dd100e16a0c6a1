"""Status of a run: updated while it runs, and readable from its folder at any time."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from extremal.errors import ExtremalValueError
from extremal.jobs.plan import WorkUnit
from extremal.jobs.rows import FAILED
from extremal.jobs.store import PARTS, Store, is_locked, read_manifest

STATUS_FILE = "status.json"  # in the store
WRITE_INTERVAL = 2.0  # s between two writes of the file


@dataclass(frozen=True)
class RunStatus:
    """State and progress of a run."""

    state: str  # running, stopped, done
    items: int  # in the plan
    done: int  # items with rows, including failed ones
    failed: int
    rate: float = 0.0  # items per second since this start; 0 if nothing was done yet
    seconds_left: float | None = None  # None if there is no rate
    updated: float = 0.0  # s since 1970

    @property
    def remaining(self) -> int:
        """Number of items without a row."""
        return self.items - self.done


OnStatus = Callable[[RunStatus], None]


class StatusWriter:
    """Counts finished items, reports the status, and writes it to the store.

    Args:
        store: of the run.
        units: its plan.
        on_status: called with the status at the start, after every unit, and at the end.
    """

    def __init__(self, store: Store, units: Sequence[WorkUnit], on_status: OnStatus | None = None) -> None:
        self._store, self._on_status = store, on_status
        finished, self._failed = store.find_finished(), _count_failures(store)
        self._status = RunStatus(
            "running",
            items=sum(len(unit.items) for unit in units),
            done=sum(len(unit.items) for unit in units if unit.name in finished),
            failed=sum(self._failed.values()),
        )
        self._started_at, self._done_before, self._written_at = time.monotonic(), self._status.done, 0.0
        self._finished = set(finished)
        self._publish()

    def is_due(self, unit: WorkUnit, retry: bool) -> bool:
        """Return whether a unit has to be done: it has no rows, or an image in it failed and `retry` is set."""
        return unit.name not in self._finished or (retry and unit.name in self._failed)

    def add(self, unit: WorkUnit, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count a unit whose rows have been written."""
        failed = sum(row["status"] == FAILED for row in rows)
        status = self._status
        is_retry = unit.name in self._finished
        done = status.done + (0 if is_retry else len(unit.items))
        self._finished.add(unit.name)
        self._done_before -= len(unit.items) if is_retry else 0
        rate = (done - self._done_before) / max(1e-9, time.monotonic() - self._started_at)
        seconds_left = (status.items - done) / rate if rate else None
        failed += status.failed - self._failed.pop(unit.name, 0)
        self._status = replace(status, done=done, failed=failed, rate=rate, seconds_left=seconds_left)
        self._publish()

    def end(self) -> RunStatus:
        """Write and return the final status: done, or stopped."""
        self._status = replace(self._status, state="stopped" if self._status.remaining else "done")
        self._publish(write=True)
        return self._status

    def _publish(self, write: bool = False) -> None:
        self._status = replace(self._status, updated=time.time())
        if write or time.monotonic() - self._written_at > WRITE_INTERVAL:
            self._store.write_text(STATUS_FILE, json.dumps(asdict(self._status)) + "\n")
            self._written_at = time.monotonic()
        if self._on_status is not None:
            self._on_status(self._status)


def status(folder: str | os.PathLike[str]) -> RunStatus:
    """Return the status of the run in a folder, running or not.

    Raises:
        ExtremalValueError: there is no run.
    """
    path = Path(folder)
    read_manifest(path)
    try:
        stored = RunStatus(**json.loads((path / STATUS_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ExtremalValueError(
            f"a run must have started to have a status, {str(path)!r} has none; start it with `extremal run`"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise ExtremalValueError(
            f"a status must be of this version, that of {str(path)!r} is not ({type(error).__name__}); "
            "run again to resume"
        ) from None
    if stored.state == "running" and not is_locked(path):  # the process was killed
        return replace(stored, state="stopped", rate=0.0, seconds_left=None)
    return stored


def _count_failures(store: Store) -> dict[str, int]:
    """Return how many images failed in each unit with failures."""
    counts = {}
    for name in store.find_finished():
        statuses = pq.read_table(store.folder / PARTS / f"{name}.parquet", columns=["status"])["status"]
        failed = statuses.to_pylist().count(FAILED)
        if failed:
            counts[name] = failed
    return counts
