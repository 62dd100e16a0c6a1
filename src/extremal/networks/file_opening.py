"""Open files of images, sounds and clips so that any error of their libraries becomes one sentence."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, describe_error, quote


@contextmanager
def opening(
    path: str | os.PathLike[str], noun: str, *, max_bytes: int, folder_remedy: str, name: str | None = None
) -> Iterator[None]:
    """Check a file, and turn what is raised while it is open into one sentence.

    Args:
        path: of the file.
        noun: for messages, with its article: "a clip".
        max_bytes: larger files are rejected.
        folder_remedy: for a folder.
        name: of the file in messages, quoted; None: the path.

    Raises:
        ExtremalValueError: the file is missing, empty, too large, or damaged.
        ImportError: a library that reads it is not installed, or broken.
    """
    name = name or quote(path)
    if check_file(path, noun, name=name, max_bytes=max_bytes, folder_remedy=folder_remedy) == 0:
        raise ExtremalValueError(f"{noun} must not be empty, got {name} with 0 bytes; copy it again")
    try:
        yield
    except (ExtremalValueError, ImportError):
        raise
    except Exception as error:  # decoders raise almost anything on broken files
        raise ExtremalValueError(
            f"{noun} must be readable to its end, got {name}: {describe_error(error)}; copy or convert it again"
        ) from None
