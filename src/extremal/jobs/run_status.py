"""Status of a run: updated while it runs, and readable from its folder at any time."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from extremal.errors import ExtremalValueError
from extremal.file_checks import find_kind, quote, to_path
from extremal.jobs.finished import FinishedUnits
from extremal.jobs.plan import WorkUnit
from extremal.jobs.rows import FAILED
from extremal.jobs.store import Store, is_locked, read_manifest, read_run_file

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
        finished: units that are finished already.
        on_status: called with the status at the start, after every unit, and at the end.
    """

    def __init__(
        self, store: Store, units: Sequence[WorkUnit], finished: FinishedUnits, on_status: OnStatus | None = None
    ) -> None:
        self._store, self._on_status = store, on_status
        self._failed, self._changed = dict(finished.failed), set(finished.changed)
        self._status = RunStatus(
            "running",
            items=sum(len(unit.items) for unit in units),
            done=sum(len(unit.items) for unit in units if unit.name in finished.names),
            failed=sum(self._failed.values()),
        )
        self._started_at, self._done_before, self._written_at = time.monotonic(), self._status.done, 0.0
        self._finished = set(finished.names)
        self._publish()

    def is_due(self, unit: WorkUnit, retry: bool) -> bool:
        """Return whether a unit has to be done: it has no rows, or `retry` asks for it."""
        return unit.name not in self._finished or (retry and (unit.name in self._failed or unit.name in self._changed))

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
    path = to_path(folder, "a run")
    read_manifest(path)
    file = path / STATUS_FILE
    if not find_kind(file, "the status of a run"):
        raise ExtremalValueError(
            f"a run must have started to have a status, {quote(path)} has none; start it with `extremal run`"
        )
    values = read_run_file(file, "the status of a run")
    if not _is_status(values):
        raise ExtremalValueError(
            f"the status of a run must be of this version, that of {quote(path)} is not; run again to resume"
        )
    stored = RunStatus(**values)
    if stored.state == "running" and not is_locked(path):  # the process was killed
        return replace(stored, state="stopped", rate=0.0, seconds_left=None)
    return stored


def _is_status(values: Any) -> bool:
    """Return whether values are those of a `RunStatus`."""
    if not isinstance(values, dict) or values.keys() != {entry.name for entry in fields(RunStatus)}:
        return False
    counts = [values[name] for name in ("items", "done", "failed")]
    times = [values[name] for name in ("rate", "seconds_left", "updated") if values[name] is not None]
    return (
        values["state"] in ("running", "stopped", "done")
        and all(type(count) is int and count >= 0 for count in counts)
        and all(type(time) in (int, float) and 0 <= time < math.inf for time in times)
        and None not in (values["rate"], values["updated"])
    )
