"""Files that appear whole or not at all, and values kept in them without pickle."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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


def write_tensors(path: Path, tensors: dict[str, Tensor], head: dict[str, Any]) -> None:
    """Write one safetensors file with plain values as JSON metadata."""
    from safetensors.torch import save_file

    own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}  # no sharing
    with replacing(path) as aside:
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
        raise unreadable(path, kind, error) from None


def unreadable(path: Path, kind: str, error: Exception) -> ExtremalValueError:
    """The message for a file that is not what it should be."""
    return ExtremalValueError(
        f"{kind} must be a file that its save wrote, in the format of this version, "
        f"got {str(path)!r} ({type(error).__name__}); save it again"
    )


def content_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def equal_fields(a: object, b: object) -> bool:
    """Whether two values of one dataclass are equal, tensors to the bit and NaN to NaN."""

    def same(mine: Any, other: Any) -> bool:
        if not isinstance(mine, Tensor) or not isinstance(other, Tensor):
            return type(mine) is type(other) and bool(mine == other)
        alike = mine.dtype == other.dtype and mine.shape == other.shape
        return alike and torch.allclose(mine, other, rtol=0, atol=0, equal_nan=True)

    return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))  # type: ignore[arg-type]
