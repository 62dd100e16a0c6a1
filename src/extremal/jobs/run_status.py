"""How far a run is: told while it runs, and read from its folder by anybody."""

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

STATUS = "status.json"  # in the store
WRITE_INTERVAL = 2.0  # s between its changes


@dataclass(frozen=True)
class RunStatus:
    """How far a run is."""

    state: str  # running, stopped, done
    items: int  # in the plan
    done: int  # items whose rows stand, those that failed among them
    failed: int
    rate: float = 0.0  # items a second since this start; 0 where nothing was done yet
    seconds_left: float | None = None  # None where there is no rate
    updated: float = 0.0  # s since 1970

    @property
    def remaining(self) -> int:
        """Items without a row."""
        return self.items - self.done


OnStatus = Callable[[RunStatus], None]


class StatusWriter:
    """Counts what is done, tells of it, and keeps it in the store for whoever looks from outside.

    Args:
        store: of the run.
        units: its plan.
        told: called with the standing after every unit.
    """

    def __init__(self, store: Store, units: Sequence[WorkUnit], told: OnStatus | None = None) -> None:
        self._store, self._on_status = store, told
        done, self._failed = store.finished(), _failed_units(store)
        self._status = RunStatus(
            "running",
            items=sum(len(unit.items) for unit in units),
            done=sum(len(unit.items) for unit in units if unit.name in done),
            failed=sum(self._failed.values()),
        )
        self._started_at, self._done_before, self._written_at = time.monotonic(), self._status.done, 0.0
        self._done = set(done)
        self._publish()

    def missing(self, unit: WorkUnit, retry: bool) -> bool:
        """Whether a unit is to be done: it has no rows, or pictures in it failed and are to be tried again."""
        return unit.name not in self._done or (retry and unit.name in self._failed)

    def add(self, unit: WorkUnit, rows: Sequence[Mapping[str, Any]]) -> None:
        """A unit is done: its rows stand."""
        failed = sum(row["status"] == FAILED for row in rows)
        now = self._status
        again = unit.name in self._done
        done = now.done + (0 if again else len(unit.items))
        self._done.add(unit.name)
        self._done_before -= len(unit.items) if again else 0
        rate = (done - self._done_before) / max(1e-9, time.monotonic() - self._started_at)
        left = (now.items - done) / rate if rate else None
        failed += now.failed - self._failed.pop(unit.name, 0)
        self._status = replace(now, done=done, failed=failed, rate=rate, seconds_left=left)
        self._publish()

    def end(self) -> RunStatus:
        """The run ends here, done or not."""
        self._status = replace(self._status, state="stopped" if self._status.remaining else "done")
        self._publish(now=True)
        return self._status

    def _publish(self, now: bool = False) -> None:
        self._status = replace(self._status, updated=time.time())
        if now or time.monotonic() - self._written_at > WRITE_INTERVAL:
            self._store.write_text(STATUS, json.dumps(asdict(self._status)) + "\n")
            self._written_at = time.monotonic()
        if self._on_status is not None:
            self._on_status(self._status)


def status(folder: str | os.PathLike[str]) -> RunStatus:
    """How far the run in a folder is, whether it runs or not.

    Raises:
        ExtremalValueError: no run is there.
    """
    path = Path(folder)
    read_manifest(path)
    try:
        found = RunStatus(**json.loads((path / STATUS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ExtremalValueError(
            f"a run must have begun to have a standing, {str(path)!r} has none; start it with `extremal run`"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise ExtremalValueError(
            f"a standing must be of this version, that of {str(path)!r} is not ({type(error).__name__}); "
            "run again, it goes on where it stopped"
        ) from None
    if found.state == "running" and not is_locked(path):  # it was killed
        return replace(found, state="stopped", rate=0.0, seconds_left=None)
    return found


def _failed_units(store: Store) -> dict[str, int]:
    """How many pictures failed in each unit where any did."""
    found = {}
    for name in store.finished():
        column = pq.read_table(store.folder / PARTS / f"{name}.parquet", columns=["status"])["status"]
        failed = column.to_pylist().count(FAILED)
        if failed:
            found[name] = failed
    return found
