"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from extremal.errors import ExtremalValueError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
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
