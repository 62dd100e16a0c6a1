"""Read NIfTI files by nibabel as volumes, with their spacing and orientation; torch is imported to read values only."""

import gzip
import logging
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from extremal.errors import ExtremalValueError, check_installed
from extremal.file_checks import check_file, describe_error, quote
from extremal.networks.stacks.paths import MAX_PLACES

if TYPE_CHECKING:
    from extremal.networks.stacks.volume import Volume

MAX_VOLUME_BYTES = 2_000_000_000  # of a file, and of it without its compression
_HEADER_BYTES, _LARGE_HEADER_BYTES = 348, 540  # of NIfTI-1 and -2, as stated in their first four bytes
_REMEDY = "copy or convert it again"


def read_nifti_file(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> "Volume":
    """Read a NIfTI file as (1, D, H, W), the last of its axes first, so that slices of most scanners are along D.

    Scaling by slope and intercept is applied. Spacing and orientation are those of the affine. A fourth axis of one
    volume is left out.

    Args:
        path: of the file.
        max_bytes: of the file without its compression, and of its values; None: 2 GB.

    Raises:
        ExtremalValueError: the file is missing, damaged, too large, no NIfTI, or has several volumes, colours, or no
            usable affine.
    """
    name, max_bytes = quote(path), max_bytes or MAX_VOLUME_BYTES
    content = _read_content(path, name, max_bytes)
    check_installed("nibabel", purpose="reading NIfTI files", extra="medical")
    import nibabel
    import torch

    from extremal.networks.stacks.volume import Volume

    image_axes: Any = nibabel.aff2axcodes
    try:
        with warnings.catch_warnings(), _silence(nibabel.imageglobals.logger):
            warnings.simplefilter("ignore")
            is_large = _LARGE_HEADER_BYTES in (int.from_bytes(content[:4], order) for order in ("little", "big"))
            kind = nibabel.Nifti2Image if is_large else nibabel.Nifti1Image
            image: Any = kind.from_stream(BytesIO(content))
            shape, affine = tuple(map(int, image.shape)), np.asarray(image.affine, np.float64)
            _check_shape(shape, image.get_data_dtype(), name, max_bytes)
            values = np.asarray(image.dataobj, dtype=np.float32).reshape(shape[:3])
            is_placed = bool(image.header["sform_code"] or image.header["qform_code"])
            orientation = "".join(map(str, image_axes(affine))) if is_placed else ""
    except ExtremalValueError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise ExtremalValueError(
            f"a volume must be readable NIfTI, got {name}: {describe_error(error)}; {_REMEDY}"
        ) from None
    with np.errstate(all="ignore"):
        spacing = np.sqrt((affine[:3, :3] ** 2).sum(0))
    if not (np.isfinite(affine).all() and (spacing > 0).all()) or len(orientation) not in (0, 3):
        raise ExtremalValueError(
            f"a volume must have a finite affine with distances above 0, got {name} with "
            f"{tuple(float(f'{gap:.3g}') for gap in spacing)} mm; write its header again"
        )
    check_finite(values, name)
    reversed_axes = np.ascontiguousarray(values.transpose(2, 1, 0))
    return Volume(torch.from_numpy(reversed_axes)[None], tuple(map(float, spacing[::-1])), orientation[::-1])


@contextmanager
def _silence(logger: logging.Logger) -> Iterator[None]:
    """Disable a logger, which would print about odd headers; broken ones raise."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def check_nifti_file(path: str | os.PathLike[str]) -> None:
    """Check that a file exists and starts as NIfTI does; its values are not read.

    Raises:
        ExtremalValueError: it does not.
    """
    name = quote(path)
    _check_start(_read_content(path, name, MAX_VOLUME_BYTES, _LARGE_HEADER_BYTES), name)
    check_installed("nibabel", purpose="reading NIfTI files", extra="medical")


def check_finite(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], name: str) -> None:
    """Raise if values of a volume are not finite."""
    n_broken = values.size - int(np.isfinite(values).sum())
    if n_broken:
        raise ExtremalValueError(
            f"a volume must be finite, got {n_broken:,} NaN or infinite values in {name}; clean it"
        )


def _read_content(path: str | os.PathLike[str], name: str, max_bytes: int, n_bytes: int | None = None) -> bytes:
    """Return the first bytes of a file, or all, decompressed, up to `max_bytes`."""
    check_file(path, "a volume", name=name, max_bytes=MAX_VOLUME_BYTES, folder_remedy="name a file in it")
    limit = max_bytes + 1 if n_bytes is None else n_bytes
    opener: Any = gzip.open if os.fspath(path).lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            content = file.read(limit)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ExtremalValueError(
            f"a volume must be readable to its end, got {name}: {describe_error(error)}; {_REMEDY}"
        ) from None
    if len(content) > max_bytes:
        raise ExtremalValueError(
            f"a volume must have at most {max_bytes / 1e9:g} GB, got more in {name}; crop or resample it first"
        )
    _check_start(content, name)
    return bytes(content)


def _check_start(content: bytes, name: str) -> None:
    sizes = [int.from_bytes(content[:4], order) for order in ("little", "big")]
    if len(content) < _HEADER_BYTES or not {_HEADER_BYTES, _LARGE_HEADER_BYTES} & set(sizes):
        raise ExtremalValueError(
            f"a volume must be NIfTI, got {name}, which does not start as such files do; convert it to .nii.gz"
        )


def _check_shape(shape: tuple[int, ...], dtype: np.dtype[np.generic], name: str, max_bytes: int) -> None:
    text = " × ".join(map(str, shape))
    if len(shape) < 3 or any(size != 1 for size in shape[3:]) or 0 in shape[:3]:
        raise ExtremalValueError(
            f"a volume must have three dimensions of at least one place, got {text} in {name}; save one volume per file"
        )
    if dtype.fields or dtype.kind not in "iuf":
        raise ExtremalValueError(f"a volume must hold real numbers, got {dtype} in {name}; convert it to one channel")
    limit = min(MAX_PLACES, max_bytes // 4)  # of float32
    if int(np.prod(shape, dtype=np.float64)) > limit:
        raise ExtremalValueError(
            f"a volume must have at most {limit:,} places, got {text} in {name}; crop or resample it first"
        )
