"""The store of a long run: one folder with a manifest and parts that appear whole or not at all.

    DIR/manifest.json       what the run is: its settings, and the versions that began it
    DIR/parts/NAME.parquet  the rows of one unit of work; there if and only if the unit is done
    DIR/lock                held by the one process that writes

A unit of work is done again from its start or not at all, so that a run that was killed at any moment goes on to the
same rows, and none is counted twice.

>>> import tempfile
>>> schema = pa.schema([("key", pa.string()), ("value", pa.float64())])
>>> with tempfile.TemporaryDirectory() as folder, open_store(Path(folder) / "run", {"seed": 0}, schema) as store:
...     store.write("unit-0", [{"key": "cat", "value": 0.5}])
...     store.done(), store.table().to_pylist()
(frozenset({'unit-0'}), [{'key': 'cat', 'value': 0.5}])
"""

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from extremal.errors import ExtremalValueError

FORMAT = 1  # of the folder
MANIFEST, PARTS, LOCK = "manifest.json", "parts", "lock"
TEMP_PREFIX = ".writing-"  # prefix of what is not whole yet


@dataclass(frozen=True)
class Store:
    """The folder of a run."""

    folder: Path
    schema: pa.Schema

    def finished(self) -> frozenset[str]:
        """The names of the units whose rows are there."""
        return frozenset(path.stem for path in (self.folder / PARTS).glob("*.parquet") if path.name[0] != ".")

    def write(self, part: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """The rows of a unit of work; they appear whole or not at all, and stay after a loss of power.

        Raises:
            ExtremalValueError: the disk is full, or the folder cannot be written; what stood there still stands.
        """
        path = self.folder / PARTS / f"{part}.parquet"
        table = pa.Table.from_pylist([dict(row) for row in rows], self.schema)
        _write_atomically(path, lambda aside: pq.write_table(table, aside, compression="zstd"))

    def write_text(self, name: str, text: str) -> None:
        """A text file beside the parts, likewise whole or not at all."""
        _write_atomically(self.folder / name, lambda aside: aside.write_text(text, encoding="utf-8"))

    def read_text(self, name: str) -> str | None:
        """What `keep` wrote; None where it has not."""
        path = self.folder / name
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def write_table(self, name: str, table: pa.Table) -> None:
        """A table beside the parts, likewise whole or not at all."""
        _write_atomically(self.folder / name, lambda aside: pq.write_table(table, aside, compression="zstd"))

    def read_table(self, name: str) -> pa.Table | None:
        """What `keep_table` wrote; None where it has not."""
        path = self.folder / name
        return pq.read_table(path) if path.is_file() else None

    def read_part(self, name: str) -> pa.Table:
        """The rows of one unit of work that is done.

        Raises:
            ExtremalValueError: the part is broken.
        """
        path = self.folder / PARTS / f"{name}.parquet"
        try:
            return pq.read_table(path, schema=self.schema)
        except (pa.ArrowException, OSError) as error:
            raise ExtremalValueError(
                f"a part of a run must be whole, {str(path)!r} is not ({type(error).__name__}); delete it and run "
                "again: only its unit is done anew"
            ) from None

    def read_all(self) -> pa.Table:
        """All rows so far, units in the order of their names.

        Raises:
            ExtremalValueError: a part is broken.
        """
        return pa.concat_tables([self.schema.empty_table(), *(self.read_part(name) for name in sorted(self.finished()))])


@contextmanager
def open_store(folder: Path, settings: dict[str, Any], schema: pa.Schema) -> Iterator[Store]:
    """The store of a run with these settings: a new one, or the one that stands there, to go on with.

    Args:
        folder: new, empty, or of a former run with equal settings.
        settings: plain values; all on which the rows depend.
        schema: of the rows.

    Raises:
        ExtremalValueError: another process writes there, the folder is not a store, its settings are others (the
            difference is shown), or it cannot be written.
    """
    store = Store(folder, schema)
    _check_is_run(folder)
    try:
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from None
    with _locked(folder):
        _remove_partial(folder)
        wanted = json.loads(json.dumps(settings))
        if (folder / MANIFEST).exists():
            _check_settings(folder, wanted)
        else:
            store.write_text(
                MANIFEST, json.dumps({"format": FORMAT, "settings": wanted}, indent=2, ensure_ascii=False) + "\n"
            )
        yield store


def is_locked(folder: Path) -> bool:
    """Whether a process works in this folder now."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """The settings of the run in this folder.

    Raises:
        ExtremalValueError: no run is there, or one of another format.
    """
    try:
        head: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if head["format"] != FORMAT:
            raise KeyError("format")
        settings: dict[str, Any] = head["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ExtremalValueError(
            f"a run must have a manifest of this version, {str(folder / MANIFEST)!r} is none; name the folder of a run"
        ) from None
    return settings


def diff_settings(former: Any, wanted: Any, name: str = "") -> list[str]:
    """Where two settings differ, one line each.

    >>> diff_settings({"seed": 0, "areas": [0.1]}, {"seed": 1, "areas": [0.1]})
    ['seed: 0 there, 1 now']
    """
    if isinstance(former, dict) and isinstance(wanted, dict):
        keys = list(former) + [key for key in wanted if key not in former]
        return [
            line
            for key in keys
            for line in diff_settings(former.get(key), wanted.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if former == wanted else [f"{name}: {json.dumps(former)} there, {json.dumps(wanted)} now"]


def _check_is_run(folder: Path) -> None:
    """The folder must be new, empty, or a run's.

    Raises:
        ExtremalValueError: it is somebody else's.
    """
    if folder.exists() and not folder.is_dir():
        raise ExtremalValueError(f"a run must have a folder of its own, {str(folder)!r} is a file; choose another")
    entries = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    begun = entries <= {PARTS, LOCK} or any(name.startswith(TEMP_PREFIX) for name in entries)
    if MANIFEST not in entries and not begun:
        first = sorted(entries)[0]
        raise ExtremalValueError(
            f"a run must have a folder of its own, {str(folder)!r} holds {first!r} and no run; choose another"
        )


def _check_settings(folder: Path, wanted: dict[str, Any]) -> None:
    found = diff_settings(read_manifest(folder), wanted)
    if found:
        raise ExtremalValueError(
            f"a run must go on with the settings that began it, {str(folder)!r} was begun with others: "
            f"{'; '.join(found)}; choose another folder, or the former settings"
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder for this process alone; the lock ends with the process, however that ends."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ExtremalValueError(
            f"a run must be the only one in its folder, {str(folder)!r} is in use by another process; "
            "wait for it, or choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _remove_partial(folder: Path) -> None:
    """Remove what a killed process had not finished writing."""
    for place in (folder, folder / PARTS):
        for left in place.glob(f"{TEMP_PREFIX}*"):
            left.unlink(missing_ok=True)


def _write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write aside, bring it to the disk, and rename."""
    aside = path.with_name(f"{TEMP_PREFIX}{path.name}")
    try:
        write(aside)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from None
    finally:
        aside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_write(path: Path, error: OSError) -> ExtremalValueError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "make room and run again, it goes on where it stopped" if full else "choose another folder"
    return ExtremalValueError(
        f"a run must be able to write, {str(path)!r} could not be written: {error.strerror or error}; {remedy}"
    )
