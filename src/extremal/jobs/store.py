"""Store of a long run: one folder with a manifest and parts that are written atomically.

    DIR/manifest.json       the settings of the run, and the versions that started it
    DIR/parts/NAME.parquet  the rows of one unit of work; exists if and only if the unit is finished
    DIR/lock                held by the one process that writes

A unit of work is done as a whole, so a run that is killed at any moment can be resumed to the same rows, without
duplicates.

>>> import tempfile
>>> schema = pa.schema([("key", pa.string()), ("value", pa.float64())])
>>> with tempfile.TemporaryDirectory() as folder, open_store(Path(folder) / "run", {"seed": 0}, schema) as store:
...     store.write("unit-0", [{"key": "cat", "value": 0.5}])
...     store.find_finished(), store.read_all().to_pylist()
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
from extremal.file_checks import check_file, describe_error, find_kind, quote
from extremal.jobs.parquet_files import read_parquet
from extremal.json_files import MAX_JSON_BYTES, parse_json

FORMAT = 2  # of the folder
MANIFEST, PARTS, LOCK = "manifest.json", "parts", "lock"
PART_REMEDY = "delete it and run again: only its unit is computed again"
TEMP_PREFIX = ".writing-"  # of files that are not complete yet
ENCODINGS = {  # of numbers, by their type; everything else is encoded by a dictionary
    pa.float64(): "BYTE_STREAM_SPLIT",  # smooth values: 0.6 times the size of a dictionary or plain values
    pa.int64(): "DELTA_BINARY_PACKED",  # steps and counts
    pa.int32(): "PLAIN",  # labels, which have long runs: smaller than by a dictionary or deltas
}


@dataclass(frozen=True)
class Store:
    """Folder of a run."""

    folder: Path
    schema: pa.Schema

    def find_finished(self) -> frozenset[str]:
        """Return the names of the units whose rows are written."""
        return frozenset(path.stem for path in (self.folder / PARTS).glob("*.parquet") if path.name[0] != ".")

    def write(self, part: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows of a unit of work atomically, so that they survive a loss of power.

        Raises:
            ExtremalValueError: the disk is full, or the folder cannot be written; earlier files are unchanged.
        """
        path = self.folder / PARTS / f"{part}.parquet"
        table = pa.Table.from_pylist([dict(row) for row in rows], self.schema)
        _write_atomically(path, lambda temporary: _write_parquet(table, temporary))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file next to the parts, atomically."""
        _write_atomically(self.folder / name, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def read_text(self, name: str) -> str | None:
        """Return the contents of a text file; None if it does not exist."""
        path = self.folder / name
        if not find_kind(path, "a file of a run"):
            return None
        check_file(path, "a file of a run", max_bytes=MAX_JSON_BYTES)
        return path.read_text(encoding="utf-8")

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a table next to the parts, atomically."""
        _write_atomically(self.folder / name, lambda temporary: _write_parquet(table, temporary))

    def read_part(self, name: str) -> pa.Table:
        """Return the rows of one finished unit of work.

        Raises:
            ExtremalValueError: the part is damaged.
        """
        return read_parquet(self.folder / PARTS / f"{name}.parquet", self.schema, "a part of a run", PART_REMEDY)

    def read_all(self) -> pa.Table:
        """Return all rows so far, units in the order of their names.

        Raises:
            ExtremalValueError: a part is damaged.
        """
        return pa.concat_tables(
            [self.schema.empty_table(), *(self.read_part(name) for name in sorted(self.find_finished()))]
        )


@contextmanager
def open_store(folder: Path, settings: dict[str, Any], schema: pa.Schema) -> Iterator[Store]:
    """Open the store of a run with these settings: a new one, or an existing one to resume.

    Args:
        folder: new, empty, or of an earlier run with equal settings.
        settings: plain values; everything that the rows depend on.
        schema: of the rows.

    Raises:
        ExtremalValueError: another process writes there, the folder is not a store, its settings differ (the message
            names the differences), or it cannot be written.
    """
    store = Store(folder, schema)
    check_run_folder(folder)
    try:
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from None
    _check_no_link(folder / LOCK)
    with _locked(folder):
        _remove_partial(folder)
        requested = json.loads(json.dumps(settings))
        if (folder / MANIFEST).exists():
            _check_settings(folder, requested)
        else:
            manifest = {"format": FORMAT, "settings": requested}
            store.write_text(MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        yield store


def is_locked(folder: Path) -> bool:
    """Return whether a process is writing to this folder."""
    if not (folder / LOCK).exists():
        return False
    _check_no_link(folder / LOCK)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # of a read-only file system, where no process writes
        return False
    lock.release()
    return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the settings of the run in this folder.

    Raises:
        ExtremalValueError: there is no run, or one of another format.
    """
    path = folder / MANIFEST
    try:
        manifest = read_run_file(path, "the manifest of a run")
        stored_format, settings = manifest["format"], manifest["settings"]
    except (ExtremalValueError, LookupError, TypeError):
        settings = None
    if not isinstance(settings, dict):
        raise ExtremalValueError(f"a run must have a manifest, {quote(path)} is none; name the folder of a run")
    if stored_format != FORMAT:
        raise ExtremalValueError(
            f"a run must be of format {FORMAT}, {quote(path)} is of format {quote(stored_format)[1:-1]}; run again "
            "with this version, into another folder"
        )
    return settings


def read_run_file(path: Path, noun: str) -> Any:
    """Return the value in a file of plain JSON, without NaN and infinity.

    Args:
        path: of the file.
        noun: for messages, with its article: "the status of a run".

    Raises:
        ExtremalValueError: the file cannot be read, is too large, or is not such JSON.
    """
    check_file(path, noun, max_bytes=MAX_JSON_BYTES)
    try:
        return parse_json(path.read_bytes(), is_strict=True)
    except (OSError, ValueError) as error:
        raise ExtremalValueError(
            f"{noun} must be plain JSON, {quote(path)} is not ({type(error).__name__}); run again into another folder"
        ) from None


def diff_settings(stored: Any, requested: Any, name: str = "") -> list[str]:
    """Return the differences between two settings, one line each.

    >>> diff_settings({"seed": 0, "areas": [0.1]}, {"seed": 1, "areas": [0.1]})
    ['seed: 0 there, 1 now']
    """
    if isinstance(stored, dict) and isinstance(requested, dict):
        keys = list(stored) + [key for key in requested if key not in stored]
        return [
            line
            for key in keys
            for line in diff_settings(stored.get(key), requested.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if stored == requested else [f"{name}: {json.dumps(stored)} there, {json.dumps(requested)} now"]


def check_run_folder(folder: Path) -> None:
    """Raise unless the folder is new, empty, or of a run."""
    kind = find_kind(folder, "the folder of a run").replace("file", "a file")
    if kind not in ("", "folder"):
        raise ExtremalValueError(f"a run must have a folder of its own, {quote(folder)} is {kind}; choose another")
    try:
        entries = {entry.name for entry in folder.iterdir()} if kind else set()
    except OSError as error:
        raise _cannot_write(folder, error) from None
    is_new = entries <= {PARTS, LOCK} or any(name.startswith(TEMP_PREFIX) for name in entries)
    if MANIFEST not in entries and not is_new:
        first = sorted(entries)[0]
        raise ExtremalValueError(
            f"a run must have a folder of its own, {str(folder)!r} holds {first!r} and no run; choose another"
        )


def _check_settings(folder: Path, requested: dict[str, Any]) -> None:
    differences = diff_settings(read_manifest(folder), requested)
    if differences:
        raise ExtremalValueError(
            f"a run must be resumed with the settings that started it, {str(folder)!r} was started with others: "
            f"{'; '.join(differences)}; choose another folder, or the settings of that run"
        )


def _check_no_link(path: Path) -> None:
    """Raise if a file that is opened for writing is a link, which may lead out of the folder."""
    if path.is_symlink() or find_kind(path, "the lock of a run") not in ("", "file"):
        raise ExtremalValueError(
            f"the lock of a run must be a file in its folder, {quote(path)} is something else; delete it"
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder; it is released when the process ends for any reason."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ExtremalValueError(
            f"a run must be the only one in its folder, {str(folder)!r} is in use by another process; "
            "wait for it, or choose another folder"
        ) from None
    except OSError as error:
        raise ExtremalValueError(
            f"a run must be able to write to its folder, {quote(folder)} cannot be written: {describe_error(error)}; "
            "choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _remove_partial(folder: Path) -> None:
    """Remove files that a killed process did not finish."""
    for place in (folder, folder / PARTS):
        for path in place.glob(f"{TEMP_PREFIX}*"):
            path.unlink(missing_ok=True)


def _write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table so that numbers take little space and any reader of parquet can read them."""
    types = dict(
        column
        for name, kind in zip(table.schema.names, table.schema.types, strict=True)
        for column in _leaves(name, kind)
    )
    encodings = {column: ENCODINGS[kind] for column, kind in types.items() if kind in ENCODINGS}
    dictionaries = [column for column in types if column not in encodings]
    pq.write_table(
        table,
        path,
        compression="zstd",
        use_dictionary=dictionaries,
        column_encoding=encodings,
        write_page_checksum=True,  # a changed bit is an error, not another number
    )


def _leaves(name: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Yield parquet's name and the type of each column of numbers or words that a column of a table consists of."""
    if pa.types.is_list(kind):
        yield from _leaves(f"{name}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{name}.{field.name}", field.type)
    else:
        yield name, kind


def _write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary file, flush it to the disk, and rename it."""
    temporary = path.with_name(f"{TEMP_PREFIX}{path.name}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_write(path: Path, error: OSError) -> ExtremalValueError:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "make room and run again to resume" if is_full else "choose another folder"
    return ExtremalValueError(
        f"a run must be able to write, {str(path)!r} could not be written: {error.strerror or error}; {remedy}"
    )
