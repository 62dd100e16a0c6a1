"""Look at a path before it is opened: whether it is a local, regular file of a bounded size, or a folder."""

import os
import re
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.number_checks import MAX_FORMATTED, format_value

MAX_QUOTED = 300  # characters of a name in a message
MAX_REASON = 120  # characters of another library's message
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)  # s3://..., https://...; a `Path` keeps one slash
CONTROL_CHARACTERS = "\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"  # of terminals, and of the direction of text
_SURROGATE = re.compile("[\ud800-\udfff]")  # bytes of a name that are not UTF-8, and halves of characters
_UNPRINTABLE = re.compile(f"[\ud800-\udfff{CONTROL_CHARACTERS}]")
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def quote(name: object) -> str:
    """Return a name for a message in one line, with its middle left out if it is very long.

    >>> quote("cat.png"), len(quote("a" * 1000))
    ("'cat.png'", 301)
    """
    if isinstance(name, int) and abs(name) >= 10**MAX_FORMATTED:
        return format_value(name)  # of too many digits for text
    text = repr(os.fspath(name) if isinstance(name, os.PathLike) else str(name))
    half = MAX_QUOTED // 2
    return text if len(text) <= MAX_QUOTED + 2 else f"{text[:half]}…{text[-half:]}"


def describe_error(error: BaseException) -> str:
    r"""Return another library's error in one short line, with its type if it says nothing.

    >>> describe_error(ValueError("broken file\nmore")), describe_error(KeyError("a")), describe_error(MemoryError())
    ('broken file', "KeyError: 'a'", 'MemoryError')
    """
    kind = type(error).__name__
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # an error may be unable to describe itself
        lines = []
    if not lines:
        return kind
    if isinstance(error, ValueError) and "embedded null" in lines[0]:
        return "embedded null byte"  # each version of Python has words of its own
    text = shorten(lines[0])
    return f"{kind}: {text}" if isinstance(error, LookupError) else text


def shorten(text: str, limit: int = MAX_REASON) -> str:
    """Return a text of at most this many characters, which ends with a whole word.

    >>> shorten("size mismatch for head.weight", limit=20), shorten("a" * 30, limit=20)
    ('size mismatch for …', 'aaaaaaaaaaaaaaaaaaaa…')
    """
    if len(text) <= limit:
        return text
    words = text[: limit + 1].rpartition(" ")[0].rstrip()
    return f"{words} …" if words else f"{text[:limit]}…"


def name_error(error: BaseException) -> str:
    """Return the type of another library's error, and its message in one short line if it has one.

    >>> name_error(KeyError("a")), name_error(ValueError("broken")), name_error(SystemExit())
    ("KeyError: 'a'", 'ValueError: broken', 'SystemExit')
    """
    kind, text = type(error).__name__, describe_error(error)
    return text if text.startswith(kind) else f"{kind}: {text}"


def to_path(path: object, noun: str) -> Path:
    """Return a path that a user passed; nothing else is opened, as a number would be a file that is open already.

    >>> to_path("out/cat.png", "an image").name
    'cat.png'

    Args:
        path: as text, or a `Path`.
        noun: for messages, with its article: "an image".

    Raises:
        ExtremalTypeError: it is neither.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise ExtremalTypeError(
            f"{noun} must be given by its path, as text or a pathlib.Path, got {format_value(path)}; e.g. 'out/name'"
        )
    return Path(path)


def is_address(name: str | os.PathLike[str]) -> bool:
    """Return whether a name is an address elsewhere rather than a path.

    >>> is_address("s3://bucket/cat.png"), is_address("file:cat.pt2"), is_address("C:/cat.png")
    (True, False, False)
    """
    return _ADDRESS.match(os.fspath(name)) is not None


def expand_user(path: str | os.PathLike[str], noun: str) -> Path:
    """Return a path with `~` or `~USER` replaced by the folder of that user.

    Raises:
        ExtremalValueError: there is no such user.
    """
    try:
        return to_path(path, noun).expanduser()
    except RuntimeError:
        raise ExtremalValueError(
            f"{noun} must be an existing path, got {quote(path)}, whose user does not exist; give the full path"
        ) from None


def to_printable(name: str | os.PathLike[str]) -> str:
    r"""Return a file name that can be printed: bytes that are no UTF-8 and control characters are replaced.

    >>> to_printable("cat-\udcff.png"), to_printable("red\x1b[31m.png"), to_printable("Bär.png")
    ('cat-\ufffd.png', 'red\ufffd[31m.png', 'Bär.png')
    """
    return _UNPRINTABLE.sub("\ufffd", os.fspath(name))


def escape_surrogates(text: str) -> str:
    r"""Return a text that UTF-8 has: halves of characters are written out.

    >>> escape_surrogates("caf\udce9") == r"caf\udce9"
    True
    """
    return text.encode("utf-8", "backslashreplace").decode()


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a path leads to a folder; False if it cannot be looked at."""
    return os.path.isdir(path)  # `Path.is_dir` raises without permission


def find_kind(path: str | os.PathLike[str], noun: str, name: str | None = None) -> str:
    """Return what a path leads to: `file`, `folder`, `a pipe`, `a device`, `a socket`, or nothing if it is empty.

    Args:
        path: to look at; it is not opened.
        noun: for messages, with its article: "an image".
        name: of the path in messages, quoted; None: the path.

    Raises:
        ExtremalValueError: the path cannot be looked at: too long, not a path, or in a folder without permission.
        ExtremalTypeError: it is neither a text nor a `Path`.
    """
    to_path(path, noun)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:  # ValueError: a NUL byte, or characters that no path has
        reason = getattr(error, "strerror", None) or describe_error(error)
        raise ExtremalValueError(
            f"{noun} must have a path that can be opened, got {name or quote(path)}: {reason}; check the path"
        ) from None
    if stat.S_ISREG(mode):
        return "file"
    return "folder" if stat.S_ISDIR(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def check_file(
    path: str | os.PathLike[str],
    noun: str,
    *,
    name: str | None = None,
    max_bytes: int | None = None,
    remedy: str = "check the path",
    folder_remedy: str = "name a file in it",
) -> int:
    """Return the size of a regular file in bytes; nothing is opened, so a pipe or a device cannot block.

    Args:
        path: of the file.
        noun: for messages, with its article: "an image".
        name: of the file in messages, quoted; None: the path.
        max_bytes: larger files are rejected; None: any size.
        remedy: for a file that does not exist.
        folder_remedy: for a folder.

    Raises:
        ExtremalValueError: the path is an address, leads to nothing or to something else than a regular file, cannot be
            looked at, or the file is too large.
    """
    name = name or quote(path)
    kind = find_kind(path, noun, name)
    if not kind and is_address(path):
        raise ExtremalValueError(f"{noun} must be a local file, got the address {name}; download it first")
    if not kind:
        raise ExtremalValueError(f"{noun} must be an existing file, got {name}; {remedy}")
    if kind == "folder":
        raise ExtremalValueError(f"{noun} must be a file, got the folder {name}; {folder_remedy}")
    if kind != "file":
        raise ExtremalValueError(f"{noun} must be a regular file, got {name}, which is {kind}; copy it to a file")
    size = os.stat(path).st_size
    if max_bytes is not None and size > max_bytes:
        raise ExtremalValueError(
            f"{noun} must have at most {max_bytes / 1e6:,.0f} MB, got {name} with {size / 1e6:,.0f} MB; "
            "check that it is the right file"
        )
    return size


def check_output(path: str | os.PathLike[str], noun: str) -> str:
    """Return what the path of an output leads to, as `find_kind` does.

    Args:
        path: of a file or folder to be written.
        noun: for messages, with its article: "an output".

    Raises:
        ExtremalValueError: it is an address, cannot be looked at, or is not in UTF-8.
    """
    to_path(path, noun)
    if is_address(path):
        raise ExtremalValueError(
            f"{noun} must be a local path, got the address {quote(path)}; choose a local folder, and copy it from there"
        )
    kind = find_kind(path, noun)
    if _SURROGATE.search(os.fspath(path)):
        raise ExtremalValueError(
            f"{noun} must have a path in UTF-8, got {quote(path)}; choose another name for it or its folder"
        )
    return kind


def check_output_file(path: str | os.PathLike[str]) -> None:
    """Raise if a file cannot be written; called before anything is computed for it.

    Args:
        path: of the file; an existing file will be replaced.

    Raises:
        ExtremalValueError: the path is none that a file can have, or its folder does not exist or cannot be written.
    """
    path = to_path(path, "an output")  # without a name, the folder itself
    kind, folder = check_output(path, "an output"), path.parent
    if kind == "folder":
        raise ExtremalValueError(f"an output must be a file, got the folder {quote(path)}; name a file in it")
    if kind not in ("", "file"):
        raise ExtremalValueError(
            f"an output must be a regular file, got {quote(path)}, which is {kind}; choose another"
        )
    reason: str | None = None
    try:
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            reason = "Not a directory"
        elif not os.access(folder, os.W_OK | os.X_OK):
            reason = "Permission denied"
    except OSError as error:
        reason = error.strerror
    if reason:
        raise unwritable_folder_error(folder, reason)


def unwritable_folder_error(folder: str | os.PathLike[str], reason: str | None) -> ExtremalValueError:
    """Return the error for an output in a folder that cannot be written, for the reason that the system states."""
    return ExtremalValueError(
        f"an output must lie in a folder that can be written, got {quote(folder)}: {reason}; choose another folder"
    )


def list_names(folder: str | os.PathLike[str]) -> list[str]:
    """Return the names of the entries of a folder, sorted; none if it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError):
        return []


def check_entries(entries: Iterable[zipfile.ZipInfo], size: int) -> None:
    """Raise if entries of a zip archive would take more memory than the archive has bytes.

    Archives of torch store their entries without compression.

    Args:
        entries: of the archive.
        size: of the archive in bytes.

    Raises:
        ValueError: an entry is compressed, or the entries together are larger than the archive.
    """
    total = 0
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its entry {quote(entry.filename)} is compressed, which torch never does")
        total += entry.file_size
    if total > size:
        raise ValueError(f"its entries would take {total / 1e6:,.1f} MB, more than the whole file")
