"""Read a folder of DICOM files, one per slice, by pydicom as a volume, with its spacing and orientation."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extremal.errors import ExtremalValueError, check_installed
from extremal.file_checks import check_file, describe_error, find_kind, list_names, quote
from extremal.networks.stacks.nifti_files import check_finite
from extremal.networks.stacks.paths import DICOM_SUFFIXES, MAX_PLACES, has_dicom_mark

if TYPE_CHECKING:
    from extremal.networks.stacks.volume import Volume

MAX_SLICES = 5000
MAX_SLICE_BYTES = 200_000_000  # of a file
MAX_DEVIATION = 0.1  # of the distance of two slices from the median of all; a missing slice doubles it
MAX_TURN = 1e-3  # by which directions of slices may differ
DEFLATED = "1.2.840.10008.1.2.1.99"  # whose files may take a thousand times their size
_DIRECTIONS = (("R", "L"), ("A", "P"), ("I", "S"))  # of x, y, z in DICOM: falling, rising
_RESCALING = (("Slope", 1.0), ("Intercept", 0.0))
_REMEDY = "export it again"


@dataclass(frozen=True)
class _Slice:
    """The header of one slice."""

    path: Path
    series: str
    shape: tuple[int, int]  # rows, columns
    gaps: tuple[float, float]  # mm between rows, between columns
    directions: tuple[float, ...]  # of columns (along a row), then of rows: unit vectors
    position: tuple[float, ...]  # mm, of the first pixel

    @property
    def normal(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.cross(self.directions[:3], self.directions[3:])


def read_series(folder: str | os.PathLike[str]) -> "Volume":
    """Read a series of DICOM files as (1, D, H, W): slices in the order of their positions, then rows and columns.

    Rescale slope and intercept of each slice are applied, so that values of computed tomography are Hounsfield units.

    Raises:
        ExtremalValueError: a file is damaged or too large; or the slices are of several series, differ in size,
            direction or distance, or have no positions.
    """
    import torch

    from extremal.networks.stacks.volume import Volume

    name = quote(folder)
    paths = list_slices(folder)
    check_installed("pydicom", purpose="reading DICOM files", extra="medical")
    slices = [_read_header(path) for path in paths]
    _check_alike(slices, name)
    heights = [float(np.dot(one.position, slices[0].normal)) for one in slices]
    order = np.argsort(heights, kind="stable")
    slices, heights = [slices[k] for k in order], [heights[k] for k in order]
    distance = _check_distances(slices, heights, name)
    values = np.stack([_read_pixels(one) for one in slices])
    check_finite(values, name)
    first = slices[0]
    axes = (first.normal, np.array(first.directions[3:]), np.array(first.directions[:3]))
    return Volume(torch.from_numpy(values)[None], (distance, *first.gaps), "".join(_name_directions(axes)))


def check_series(folder: str | os.PathLike[str]) -> None:
    """Check that a folder has DICOM files; they are not read.

    Raises:
        ExtremalValueError: it has none, or too many, or too large ones.
    """
    list_slices(folder)
    check_installed("pydicom", purpose="reading DICOM files", extra="medical")


def list_slices(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the DICOM files of a folder: those with its suffix, and others that start as such files do.

    Raises:
        ExtremalValueError: it has none, or too many, or too large ones.
    """
    name = quote(folder)
    if find_kind(folder, "a series") == "file":
        raise ExtremalValueError(f"a series must be a folder of DICOM files, got the file {name}; name its folder")
    names = [one for one in list_names(folder) if one.upper() != "DICOMDIR"]
    paths = [Path(folder) / one for one in names]
    paths = [path for path in paths if path.name.lower().endswith(DICOM_SUFFIXES) or has_dicom_mark(path)]
    if not paths:
        raise ExtremalValueError(f"a series must have DICOM files, got {name} without any; check the path")
    if len(paths) > MAX_SLICES:
        raise ExtremalValueError(
            f"a series must have at most {MAX_SLICES:,} files, got {len(paths):,} in {name}; copy one series elsewhere"
        )
    for path in paths:
        check_file(path, "a slice", max_bytes=MAX_SLICE_BYTES)
    return paths


def _read_file(path: Path, *, pixels: bool) -> Any:
    """Read a file by pydicom; nothing in it is run, and what it compresses as a whole is refused."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", "")
            if syntax == DEFLATED:
                raise ValueError("it is compressed as a whole")
            return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except Exception as error:  # a damaged file can fail in any way
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> ExtremalValueError:
    return ExtremalValueError(f"a slice must be readable DICOM, got {quote(path)}: {describe_error(error)}; {_REMEDY}")


def _read_header(path: Path) -> _Slice:
    header = _read_file(path, pixels=False)
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
        raise _unreadable(path, error) from None
    if frames != 1 or samples != 1:
        text = f"{frames} frames" if frames != 1 else f"{samples} channels"
        raise ExtremalValueError(f"a slice must be one grey picture, got {name} with {text}; split it, or use NIfTI")
    if len(position) != 3 or len(directions) != 6 or len(gaps) != 2:
        raise ExtremalValueError(
            f"a slice must state its position, directions and pixel spacing, got {name}, which does not; export the "
            "series with its geometry"
        )
    one = _Slice(path, series, shape, (gaps[0], gaps[1]), directions, position)
    is_finite = bool(np.isfinite([*position, *directions, *gaps]).all())
    if not is_finite or min(gaps) <= 0 or min(shape) < 1 or abs(float(np.linalg.norm(one.normal)) - 1) > MAX_TURN * 10:
        raise ExtremalValueError(
            f"a slice must have pixels, distances above 0 and perpendicular directions, got {name} of {shape[0]} × "
            f"{shape[1]} pixels, {gaps[0]:g} × {gaps[1]:g} mm; {_REMEDY}"
        )
    return one


def _check_alike(slices: Sequence[_Slice], name: str) -> None:
    """Raise unless all slices are of one series, of one size and direction."""
    series = sorted({one.series for one in slices})
    if len(series) > 1:
        counts = ", ".join(str(sum(one.series == uid for one in slices)) for uid in series[:5])
        raise ExtremalValueError(
            f"a folder must have one series, got {len(series)} in {name}, of {counts} slices; copy one to a folder of "
            "its own"
        )
    first = slices[0]
    for one in slices[1:]:
        if one.shape != first.shape or not np.allclose(one.gaps, first.gaps, rtol=1e-3):
            raise ExtremalValueError(
                f"the slices of a series must have one size, got {_size(first)} in {quote(first.path.name)} and "
                f"{_size(one)} in {quote(one.path.name)}; copy those of one size to a folder of their own"
            )
        if not np.allclose(one.directions, first.directions, atol=MAX_TURN * 10):
            raise ExtremalValueError(
                f"the slices of a series must be parallel, got other directions in {quote(one.path.name)} than in "
                f"{quote(first.path.name)}; copy those of one direction to a folder of their own"
            )
    if len(slices) < 2:
        raise ExtremalValueError(f"a series must have at least 2 slices, got {len(slices)} in {name}; check the folder")
    if len(slices) * first.shape[0] * first.shape[1] > MAX_PLACES:
        raise ExtremalValueError(
            f"a volume must have at most {MAX_PLACES:,} places, got {len(slices)} slices of {first.shape[0]} × "
            f"{first.shape[1]} in {name}; crop or resample it first"
        )


def _size(one: _Slice) -> str:
    return f"{one.shape[0]} × {one.shape[1]} pixels of {one.gaps[0]:g} × {one.gaps[1]:g} mm"


def _check_distances(slices: Sequence[_Slice], heights: Sequence[float], name: str) -> float:
    """Return the distance of slices in mm, from their rising heights; raise at gaps and at slices in one place."""
    steps = np.diff(heights)
    usual = float(np.median(steps))
    smallest, largest = int(steps.argmin()), int(steps.argmax())
    if steps[smallest] <= MAX_DEVIATION * usual or usual <= 0:
        raise ExtremalValueError(
            f"the slices of a series must have positions of their own, got {quote(slices[smallest].path.name)} and "
            f"{quote(slices[smallest + 1].path.name)} in one place in {name}; copy one pass to a folder of its own"
        )
    for index in (largest, smallest):
        if abs(steps[index] - usual) > MAX_DEVIATION * usual:
            raise ExtremalValueError(
                f"the slices of a series must have no gaps, got {steps[index]:.4g} mm instead of {usual:.4g} mm "
                f"between {quote(slices[index].path.name)} and {quote(slices[index + 1].path.name)} in {name}; add the "
                "missing slices, or resample the series to NIfTI"
            )
    return float(steps.mean())


def _read_pixels(one: _Slice) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the values (H, W) of a slice, rescaled."""
    data = _read_file(one.path, pixels=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = np.asarray(data.pixel_array)
            slope, intercept = (float(data.get(f"Rescale{part}", default)) for part, default in _RESCALING)
    except Exception as error:  # of decoders, also missing ones
        raise _unreadable(one.path, error) from None
    if stored.shape != one.shape:
        raise ExtremalValueError(
            f"a slice must be of {one.shape[0]} × {one.shape[1]} pixels as it states, got {stored.shape} in "
            f"{quote(one.path)}; {_REMEDY}"
        )
    values: np.ndarray[Any, np.dtype[np.float32]] = (stored * slope + intercept).astype(np.float32)
    return values


def _name_directions(axes: Sequence[np.ndarray[Any, np.dtype[np.float64]]]) -> list[str]:
    """Return the letters of the directions of the body that perpendicular vectors in DICOM's axes are closest to."""
    strengths = np.abs(np.array(axes))  # (3 axes, x y z)
    letters = [""] * 3
    for _ in range(3):  # the clearest first, so that oblique slices get three different ones
        axis, body = divmod(int(strengths.argmax()), 3)
        letters[axis] = _DIRECTIONS[body][int(axes[axis][body] > 0)]
        strengths[axis], strengths[:, body] = -1, -1
    return letters
