"""Read a folder of DICOM slices, or a DICOM file of frames, as a volume with its spacing and orientation."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extremal.errors import ExtremalValueError, check_installed
from extremal.file_checks import is_folder, quote
from extremal.networks.stacks.dicom_files import list_slices, read_file, unreadable_error
from extremal.networks.stacks.dicom_frames import has_frames, read_frames
from extremal.networks.stacks.dicom_slices import REMEDY, Slice, check_slice, order_slices
from extremal.networks.stacks.nifti_files import check_finite

if TYPE_CHECKING:
    from extremal.networks.stacks.volume import Volume

_RESCALING = (("Slope", 1.0), ("Intercept", 0.0))


def read_series(folder: str | os.PathLike[str]) -> "Volume":
    """Read a series of DICOM files as (1, D, H, W): slices in the order of their positions, then rows and columns.

    The slices are files of a folder, or the frames of a single file (Enhanced CT, MR or PET). Rescale slope and
    intercept of each slice are applied, so that values of computed tomography are Hounsfield units.

    Raises:
        ExtremalValueError: a file is damaged or too large; or the slices are of several series, differ in size,
            direction or distance, or have no positions.
    """
    import torch

    from extremal.networks.stacks.volume import Volume

    name = quote(folder)
    paths = list_slices(folder)
    check_installed("pydicom", purpose="reading DICOM files", extra="medical")
    if len(paths) == 1 and has_frames(paths[0]):
        values, order = read_frames(paths[0])
    else:
        _check_is_folder(folder, name)
        slices = [_read_header(path) for path in paths]
        order = order_slices(slices, name)
        values = np.stack([_read_pixels(slices[k]) for k in order.indices])
    check_finite(values, name)
    return Volume(torch.from_numpy(values)[None], order.spacing, order.orientation)


def check_series(folder: str | os.PathLike[str]) -> None:
    """Check that a folder has DICOM files, which are not read, or that a file has several frames.

    Raises:
        ExtremalValueError: it has none, or too many, or too large ones; or the file has no frames.
    """
    (first, *others) = list_slices(folder)
    check_installed("pydicom", purpose="reading DICOM files", extra="medical")
    if not others and not is_folder(folder) and not has_frames(first):
        _check_is_folder(folder, quote(folder))


def _check_is_folder(path: str | os.PathLike[str], name: str) -> None:
    if not is_folder(path):
        raise ExtremalValueError(f"a series must be a folder of DICOM files, got the file {name}; name its folder")


def _read_header(path: Path) -> Slice:
    header = read_file(path, pixels=False)
    name = quote(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames, samples = int(header.get("NumberOfFrames") or 1), int(header.get("SamplesPerPixel") or 1)
            shape = int(header.Rows), int(header.Columns)
            position = tuple(map(float, header.get("ImagePositionPatient") or ()))
            directions = tuple(map(float, header.get("ImageOrientationPatient") or ()))
            gaps = tuple(map(float, header.get("PixelSpacing") or ()))
            series = str(header.get("SeriesInstanceUID") or "")
    except Exception as error:  # values of other kinds than their tags
        raise unreadable_error(path, error) from None
    if frames != 1 or samples != 1:
        text = f"{frames} frames" if frames != 1 else f"{samples} channels"
        raise ExtremalValueError(
            f"a slice must be one grey picture, got {name} with {text}; name a file of frames itself, or use NIfTI"
        )
    if len(position) != 3 or len(directions) != 6 or len(gaps) != 2:
        raise ExtremalValueError(
            f"a slice must state its position, directions and pixel spacing, got {name}, which does not; export the "
            "series with its geometry"
        )
    one = Slice(path, series, shape, (gaps[0], gaps[1]), directions, position)
    check_slice(one, name)
    return one


def _read_pixels(one: Slice) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the values (H, W) of a slice, rescaled."""
    data = read_file(one.path, pixels=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = np.asarray(data.pixel_array)
            slope, intercept = (float(data.get(f"Rescale{part}", default)) for part, default in _RESCALING)
    except Exception as error:  # of decoders, also missing ones
        raise unreadable_error(one.path, error) from None
    if stored.shape != one.shape:
        raise ExtremalValueError(
            f"a slice must be of {one.shape[0]} × {one.shape[1]} pixels as it states, got {stored.shape} in "
            f"{quote(one.path)}; {REMEDY}"
        )
    values: np.ndarray[Any, np.dtype[np.float32]] = (stored * slope + intercept).astype(np.float32)
    return values
