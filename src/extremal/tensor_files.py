"""Files of tensors: safetensors with JSON metadata."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, describe_error, quote
from extremal.files import atomic_file
from extremal.json_files import parse_json

MAX_RESULT_BYTES = 4_000_000_000  # of a file of tensors, which is read into memory


class FormatError(ValueError):
    """Raised for a file that has other content than its format; the message says what."""


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write one safetensors file with plain values as JSON metadata."""
    from safetensors.torch import save_file

    # shared memory is not allowed
    copies = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    with atomic_file(path) as temporary:
        save_file(copies, temporary, metadata={"extremal": json.dumps(metadata)})


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and metadata from a file of `write_tensors`; no code of the file is run.

    Args:
        path: of the file.
        kind: noun for messages, with its article: "an explanation".

    Raises:
        ExtremalValueError: the file is missing, or was not written by `write_tensors`.
    """
    from safetensors import safe_open

    check_file(path, kind, max_bytes=MAX_RESULT_BYTES)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = parse_json((file.metadata() or {})["extremal"])
            if not isinstance(metadata, dict):
                raise TypeError("its metadata is no object")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except Exception as error:  # a damaged file can fail in any way
        raise unreadable_file_error(path, kind, error) from None


def unreadable_file_error(path: Path, kind: str, error: Exception) -> ExtremalValueError:
    """Build the error for a file whose content is not of the expected kind."""
    reason = describe_error(error) if isinstance(error, FormatError) else type(error).__name__
    return ExtremalValueError(
        f"{kind} must be a file written by its save, in the format of this version, "
        f"got {quote(path)} ({reason}); save it again"
    )


def values_equal(a: Any, b: Any) -> bool:
    """Return whether two values are equal: tensors in dtype, shape and every value, with NaN equal to NaN."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b) and bool(a == b)
    same_form = a.dtype == b.dtype and a.shape == b.shape
    return same_form and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def fields_equal(a: object, b: object) -> bool:
    """Return whether two values of one dataclass are equal, in all fields by `values_equal`."""
    return all(values_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))  # type: ignore[arg-type]
