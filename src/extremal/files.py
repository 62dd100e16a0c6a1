"""Atomic writes of files and folders, and the names of result files; nothing here imports torch."""

import hashlib
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

from extremal.errors import ExtremalValueError
from extremal.file_checks import (
    check_output,
    check_output_file,
    is_folder,
    quote,
    to_printable,
    unwritable_folder_error,
)

MAX_FOLDER_BYTES = 200  # of the name of an image's folder; file systems take 255
MAX_KIND_BYTES = 100  # of what is asked about the image, at its end


EXPLANATION_FILE, CHANNELS_FILE, CLASS_FILE = (
    "explanation.safetensors",
    "channels.safetensors",
    "class-channels.parquet",
)
SETS_FILE, CONTRAST_FILE, TOKENS_FILE = "sets.safetensors", "contrast.safetensors", "tokens.safetensors"
SET_KINDS, CONTRAST_KINDS = ("sufficient", "necessary", "complete"), ("loss", "first", "second")  # of regions
ANSWER_KIND = "answer"  # of the region of a whole answer; those of its tokens are token-1, token-2, ...
INVERSION_PARTS = ("all", "kept", "removed")  # of pictures
SUMMARY_FILES, COMPARISON_FILES = ("summary.html", "summary.png"), ("compare.html", "compare.png")  # page and figure
RESULT_MARKERS = frozenset(  # each result folder has one of them
    (
        *(EXPLANATION_FILE, SETS_FILE, CONTRAST_FILE, TOKENS_FILE, CHANNELS_FILE, CLASS_FILE),
        *(SUMMARY_FILES[0], COMPARISON_FILES[0]),
    )
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
        raise unwritable_folder_error(path.parent, error.strerror) from None
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


def name_folders(out: Path, images: Sequence[str], kind: str = "", *, replace: bool = True) -> list[Path]:
    """Name one folder per image after its file; images of the same name are numbered.

    >>> [folder.name for folder in name_folders(Path("out"), ["a/cat.jpg", "b/Cat.png", "dog.png"])]
    ['cat', 'Cat-2', 'dog']
    >>> [folder.name for folder in name_folders(Path("out"), ["cat.jpg"], "channels blocks.5")]
    ['cat-channels-blocks.5']

    Args:
        out: the folder of these.
        images: paths.
        kind: text that follows the names, of what is asked about the images.
        replace: whether a folder may exist; otherwise the next free number is taken.
    """
    used = set[str]() if replace else _list_used_names(out)
    suffix = f"-{name}" if (name := simplify_name(kind)) else ""
    folders = []
    for image in images:
        stem = _shorten(to_printable(Path(image).stem), suffix).strip(". ") or "photo"  # never `..`
        name = _number(f"{stem}{suffix}", used)
        used.add(name.casefold())
        folders.append(out / name)
    return folders


def choose_folder(out: Path, name: str, *, replace: bool) -> Path:
    """Return the folder of this name in `out`, or, unless it may be replaced, the next one of a number that is free."""
    return out / (name if replace else _number(name, _list_used_names(out)))


def _number(name: str, used: Set[str]) -> str:
    """Return a name, or the first one with a number that is not used."""
    candidates = (name if n == 1 else f"{name}-{n}" for n in itertools.count(1))
    return next(candidate for candidate in candidates if candidate.casefold() not in used)


def _list_used_names(folder: Path) -> set[str]:
    """Return the names in a folder without their case, which some file systems do not distinguish."""
    return {name.casefold() for name in os.listdir(folder)} if is_folder(folder) else set()


def simplify_name(text: str) -> str:
    """Return a text as part of a file name: letters, digits, dots and hyphens.

    >>> simplify_name("tabby|tiger cat"), simplify_name("unit:blocks.3:5")
    ('tabby-tiger-cat', 'unit-blocks.3-5')
    """
    return re.sub(r"[^\w.]+", "-", to_printable(text)).encode()[:MAX_KIND_BYTES].decode(errors="ignore").strip("-._")


def _shorten(name: str, suffix: str) -> str:
    """Return the start of a name, so that suffix and number fit into the longest name of a file."""
    return name.encode()[: MAX_FOLDER_BYTES - len(suffix.encode())].decode(errors="ignore")


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
        raise unwritable_folder_error(out, error.strerror) from None


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
