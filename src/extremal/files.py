"""Files that appear whole or not at all, and values kept in them without pickle."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError

if TYPE_CHECKING:
    pass


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; moved over it at the end, removed after an exception."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise ExtremalValueError(
            f"an output must lie in a folder that can be written, got {str(path.parent)!r}: {error.strerror}; "
            "choose another folder"
        ) from None
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        mask = os.umask(0)
        os.umask(mask)
        aside.chmod(0o666 & ~mask)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: dict[str, Tensor], head: dict[str, Any]) -> None:
    """Write one safetensors file with plain values as JSON metadata."""
    from safetensors.torch import save_file

    own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}  # no sharing
    with atomic_file(path) as aside:
        save_file(own, aside, metadata={"extremal": json.dumps(head)})


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote; no code is run from the file.

    Args:
        kind: what the file should be, for messages: "an explanation".

    Raises:
        ExtremalValueError: the file is missing, or nothing that `write_tensors` wrote.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ExtremalValueError(f"{kind} must be an existing file, got {str(path)!r}; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            head: dict[str, Any] = json.loads((file.metadata() or {})["extremal"])
            return {name: file.get_tensor(name) for name in file.keys()}, head  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise unreadable_file_error(path, kind, error) from None


def unreadable_file_error(path: Path, kind: str, error: Exception) -> ExtremalValueError:
    """The message for a file that is not what it should be."""
    return ExtremalValueError(
        f"{kind} must be a file that its save wrote, in the format of this version, "
        f"got {str(path)!r} ({type(error).__name__}); save it again"
    )


def content_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fields_equal(a: object, b: object) -> bool:
    """Whether two values of one dataclass are equal, tensors to the bit and NaN to NaN."""

    def same(mine: Any, other: Any) -> bool:
        if not isinstance(mine, Tensor) or not isinstance(other, Tensor):
            return type(mine) is type(other) and bool(mine == other)
        alike = mine.dtype == other.dtype and mine.shape == other.shape
        return alike and torch.allclose(mine, other, rtol=0, atol=0, equal_nan=True)

    return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))  # type: ignore[arg-type]


def name_folders(out: Path, photos: Sequence[str]) -> list[Path]:
    """One folder a photo, named after it; a number tells those apart that share a name.

    >>> [folder.name for folder in name_folders(Path("out"), ["a/cat.jpg", "b/Cat.png", "dog.png"])]
    ['cat', 'Cat-2', 'dog']
    """
    taken: set[str] = set()
    names = []
    for photo in photos:
        stem = Path(photo).stem.strip(". ") or "photo"  # never `..`
        tries = (stem if n == 1 else f"{stem}-{n}" for n in range(1, len(photos) + 1))
        name = next(name for name in tries if name.casefold() not in taken)
        taken.add(name.casefold())  # some file systems take cat and Cat for the same
        names.append(out / name)
    return names


def check_writable(out: Path) -> None:
    """Make the folder `out` if it is missing, and try to write to it.

    Raises:
        ExtremalValueError: it cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".extremal-", dir=out):
            pass
    except OSError as error:
        raise ExtremalValueError(
            f"an output must lie in a folder that can be written, got {str(out)!r}: {error.strerror}; "
            "choose another folder"
        ) from None


def check_replaceable(folder: Path, own: re.Pattern[str]) -> None:
    """What stands at the place of a result must be a former result: nobody's own files are removed.

    Raises:
        ExtremalValueError: something else stands there.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise ExtremalValueError(
            f"a result must be a new folder or replace a former result, got {str(folder)!r}, which is not a folder; "
            "choose another folder for the results"
        )
    foreign = sorted(entry.name for entry in folder.iterdir() if not own.fullmatch(entry.name))
    if foreign:
        raise ExtremalValueError(
            f"a result must be a new folder or replace a former result, got {str(folder)!r} with {foreign[0]!r} in it; "
            "choose another folder for the results"
        )


@contextmanager
def atomic_folder(folder: Path, own: re.Pattern[str]) -> Iterator[Path]:
    """A folder to write a result to, which appears at `folder` when it is complete; a former result is replaced.

    Raises:
        ExtremalValueError: the files cannot be written, or the folder is not a former result.
    """
    from safetensors import SafetensorError

    check_replaceable(folder, own)
    try:
        with _temporary_folder(folder) as aside:
            yield aside
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ExtremalValueError(
            f"a result must be written whole, could not write {str(folder)!r}: {reason}; "
            "make room or choose another folder"
        ) from None


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` to write to; renamed to it at the end, removed after an exception."""
    aside = Path(tempfile.mkdtemp(prefix=".extremal-", dir=folder.parent))
    former = aside.with_name(f"{aside.name}-former")
    try:
        yield aside
        mask = os.umask(0)
        os.umask(mask)
        aside.chmod(0o777 & ~mask)  # mkdtemp's folders are for the owner only
        if folder.exists():
            folder.rename(former)
        aside.rename(folder)
    finally:
        if former.exists() and not folder.exists():
            former.rename(folder)
        for leftover in (aside, former):
            shutil.rmtree(leftover, ignore_errors=True)
