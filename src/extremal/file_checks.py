"""Look at a path before it is opened: whether it is a local, regular file of a bounded size, or a folder."""

import os
import re
import stat
from pathlib import Path

from extremal.errors import ExtremalValueError

MAX_QUOTED = 300  # characters of a name in a message
MAX_REASON = 120  # characters of another library's message
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)  # s3://..., https://...; a `Path` keeps one slash
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
        return Path(path).expanduser()
    except RuntimeError:
        raise ExtremalValueError(
            f"{noun} must be an existing path, got {quote(path)}, whose user does not exist; give the full path"
        ) from None


def find_kind(path: str | os.PathLike[str], noun: str, name: str | None = None) -> str:
    """Return what a path leads to: `file`, `folder`, `a pipe`, `a device`, `a socket`, or nothing if it is empty.

    Args:
        path: to look at; it is not opened.
        noun: for messages, with its article: "an image".
        name: of the path in messages, quoted; None: the path.

    Raises:
        ExtremalValueError: the path cannot be looked at: too long, not a path, or in a folder without permission.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:  # ValueError: a NUL byte, or characters that no path has
        reason = getattr(error, "strerror", None) or str(error)
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
