"""Atomic writes of files and folders, and the names of result files; nothing here imports torch."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_output, check_output_file, quote, to_printable

MAX_FOLDER_BYTES = 200  # of the name of an image's folder; file systems take 255


EXPLANATION_FILE, CHANNELS_FILE, CLASS_FILE = (
    "explanation.safetensors",
    "channels.safetensors",
    "class-channels.parquet",
)
SUMMARY_FILES, COMPARISON_FILES = ("summary.html", "summary.png"), ("compare.html", "compare.png")  # page and figure
RESULT_MARKERS = frozenset(  # each result folder has one of them
    (EXPLANATION_FILE, CHANNELS_FILE, CLASS_FILE, SUMMARY_FILES[0], COMPARISON_FILES[0])
)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` at the end and is removed after an exception.

    Raises:
        ExtremalValueError: the folder cannot be written, or the path is none that a file can have.
    """
    check_output_file(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:32]}-", suffix=path.suffix[:32], dir=path.parent)
    except OSError as error:
        raise ExtremalValueError(
            f"an output must lie in a folder that can be written, got {quote(path.parent)}: {error.strerror}; "
            "choose another folder"
        ) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def content_hash(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def name_folders(out: Path, images: Sequence[str]) -> list[Path]:
    """Name one folder per image after its file; images of the same name are numbered.

    >>> [folder.name for folder in name_folders(Path("out"), ["a/cat.jpg", "b/Cat.png", "dog.png"])]
    ['cat', 'Cat-2', 'dog']
    """
    used: set[str] = set()
    folders = []
    for image in images:
        stem = _shorten(to_printable(Path(image).stem)).strip(". ") or "photo"  # never `..`
        candidates = (stem if n == 1 else f"{stem}-{n}" for n in range(1, len(images) + 1))
        name = next(name for name in candidates if name.casefold() not in used)
        used.add(name.casefold())  # some file systems do not distinguish cat and Cat
        folders.append(out / name)
    return folders


def _shorten(name: str) -> str:
    """Return the start of a name, so that a number and suffixes fit into the longest name of a file."""
    return name.encode()[:MAX_FOLDER_BYTES].decode(errors="ignore")


def check_writable(out: Path) -> None:
    """Create the folder `out` if it is missing, and try to write to it.

    Raises:
        ExtremalValueError: it cannot be created or written.
    """
    check_output(out, "an output")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".extremal-", dir=out):
            pass
    except OSError as error:
        raise ExtremalValueError(
            f"an output must lie in a folder that can be written, got {quote(out)}: {error.strerror}; "
            "choose another folder"
        ) from None


def check_replaceable(folder: Path, result_files: re.Pattern[str]) -> None:
    """Check that a result may be written to `folder`, so that no foreign files are removed.

    Args:
        folder: must not exist, or hold a previous result.
        result_files: matches the names of all files of results.

    Raises:
        ExtremalValueError: the folder is something else.
    """
    kind, is_link = check_output(folder, "a result"), os.path.islink(folder)
    if not kind and not is_link:
        return
    if is_link or kind != "folder":
        raise ExtremalValueError(
            f"a result must be a new folder or replace a previous result, got {quote(folder)}, which is not a folder; "
            "choose another folder for the results"
        )
    try:
        foreign = sorted(name for name in os.listdir(folder) if not result_files.fullmatch(name))
    except OSError as error:
        raise ExtremalValueError(
            f"a result must be a new folder or replace a previous result, got {quote(folder)}: {error.strerror}; "
            "choose another folder for the results"
        ) from None
    if foreign:
        raise ExtremalValueError(
            f"a result must be a new folder or replace a previous result, got {quote(folder)} with {quote(foreign[0])} "
            "in it; choose another folder for the results"
        )


@contextmanager
def atomic_folder(folder: Path, result_files: re.Pattern[str]) -> Iterator[Path]:
    """Yield a temporary folder, which replaces `folder` at the end, and is removed after an exception.

    Args:
        folder: must not exist, or hold a previous result, which is replaced.
        result_files: matches the names of all files of results.

    Raises:
        ExtremalValueError: the files cannot be written, or the folder is not a previous result.
    """
    from safetensors import SafetensorError

    check_replaceable(folder, result_files)
    try:
        with _temporary_folder(folder) as temporary:
            yield temporary
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ExtremalValueError(
            f"a result must be written completely, could not write {quote(folder)}: {reason}; "
            "make room or choose another folder"
        ) from None


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `folder`, renamed to it at the end, and removed after an exception."""
    temporary = Path(tempfile.mkdtemp(prefix=".extremal-", dir=folder.parent))
    previous = temporary.with_name(f"{temporary.name}-previous")
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())  # folders of mkdtemp are for their owner only
        if folder.exists():
            folder.rename(previous)
        temporary.rename(folder)
    finally:
        if previous.exists() and not folder.exists():
            previous.rename(folder)
        for leftover in (temporary, previous):
            shutil.rmtree(leftover, ignore_errors=True)


def _umask() -> int:
    """Return the umask of the process, which can be read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
