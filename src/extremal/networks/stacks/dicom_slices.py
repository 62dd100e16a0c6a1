"""Geometry of DICOM slices: one grid of parallel slices at equal distances, or a refusal in one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote
from extremal.networks.stacks.paths import MAX_PLACES

MAX_DEVIATION = 0.1  # of the distance of two slices from the median of all; a missing slice doubles it
MAX_TURN = 1e-3  # by which directions of slices may differ
REMEDY = "export it again"
_DIRECTIONS = (("R", "L"), ("A", "P"), ("I", "S"))  # of x, y, z in DICOM: falling, rising


@dataclass(frozen=True)
class Slice:
    """The header of one slice, which is a file, or a frame of one."""

    path: Path
    series: str
    shape: tuple[int, int]  # rows, columns
    gaps: tuple[float, float]  # mm between rows, between columns
    directions: tuple[float, ...]  # of columns (along a row), then of rows: unit vectors
    position: tuple[float, ...]  # mm, of the first pixel
    frame: int | None = None  # of a file of several, from 0

    @property
    def label(self) -> str:
        """The name of the file, and the number of the frame from 1."""
        return self.path.name if self.frame is None else f"frame {self.frame + 1} of {self.path.name}"

    @property
    def normal(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The direction in which slices rise: (3,)."""
        return np.cross(self.directions[:3], self.directions[3:])


@dataclass(frozen=True)
class SliceOrder:
    """Slices in the order of their positions.

    Attributes:
        indices: of the slices, in this order.
        spacing: mm between slices, rows and columns.
        orientation: the directions in which these rise.
    """

    indices: tuple[int, ...]
    spacing: tuple[float, float, float]
    orientation: str


def order_slices(slices: Sequence[Slice], name: str) -> SliceOrder:
    """Return slices in the order of their positions.

    Args:
        slices: at least one.
        name: of the series, for messages.

    Raises:
        ExtremalValueError: they are of several series, differ in size, direction or distance, or are in one place.
    """
    _check_alike(slices, name)
    first = slices[0]
    heights = [float(np.dot(one.position, first.normal)) for one in slices]
    order = [int(k) for k in np.argsort(heights, kind="stable")]
    distance = _check_distances([slices[k] for k in order], [heights[k] for k in order], name)
    axes = (first.normal, np.array(first.directions[3:]), np.array(first.directions[:3]))
    return SliceOrder(tuple(order), (distance, *first.gaps), "".join(_name_directions(axes)))


def check_slice(one: Slice, name: str) -> None:
    """Raise unless a slice has pixels, distances and perpendicular directions."""
    values = [*one.position, *one.directions, *one.gaps]
    is_finite = bool(np.isfinite(values).all())
    turn = abs(float(np.linalg.norm(one.normal)) - 1) if is_finite else np.inf
    if not is_finite or min(one.gaps) <= 0 or min(one.shape) < 1 or turn > MAX_TURN * 10:
        raise ExtremalValueError(
            f"a slice must have pixels, distances above 0 and perpendicular directions, got {name} of {one.shape[0]} × "
            f"{one.shape[1]} pixels, {one.gaps[0]:g} × {one.gaps[1]:g} mm; {REMEDY}"
        )


def _check_alike(slices: Sequence[Slice], name: str) -> None:
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
                f"the slices of a series must have one size, got {_size(first)} in {quote(first.label)} and "
                f"{_size(one)} in {quote(one.label)}; copy those of one size to a folder of their own"
            )
        if not np.allclose(one.directions, first.directions, atol=MAX_TURN * 10):
            raise ExtremalValueError(
                f"the slices of a series must be parallel, got other directions in {quote(one.label)} than in "
                f"{quote(first.label)}; copy those of one direction to a folder of their own"
            )
    if len(slices) < 2:
        raise ExtremalValueError(f"a series must have at least 2 slices, got {len(slices)} in {name}; check the folder")
    if len(slices) * first.shape[0] * first.shape[1] > MAX_PLACES:
        raise ExtremalValueError(
            f"a volume must have at most {MAX_PLACES:,} places, got {len(slices)} slices of {first.shape[0]} × "
            f"{first.shape[1]} in {name}; crop or resample it first"
        )


def _size(one: Slice) -> str:
    return f"{one.shape[0]} × {one.shape[1]} pixels of {one.gaps[0]:g} × {one.gaps[1]:g} mm"


def _check_distances(slices: Sequence[Slice], heights: Sequence[float], name: str) -> float:
    """Return the distance of slices in mm, from their rising heights; raise at gaps and at slices in one place."""
    steps = np.diff(heights)
    usual = float(np.median(steps))
    smallest, largest = int(steps.argmin()), int(steps.argmax())
    if steps[smallest] <= MAX_DEVIATION * usual or usual <= 0:
        raise ExtremalValueError(
            f"the slices of a series must have positions of their own, got {quote(slices[smallest].label)} and "
            f"{quote(slices[smallest + 1].label)} in one place in {name}; copy one pass to a folder of its own"
        )
    for index in (largest, smallest):
        if abs(steps[index] - usual) > MAX_DEVIATION * usual:
            raise ExtremalValueError(
                f"the slices of a series must have no gaps, got {steps[index]:.4g} mm instead of {usual:.4g} mm "
                f"between {quote(slices[index].label)} and {quote(slices[index + 1].label)} in {name}; add the "
                "missing slices, or resample the series to NIfTI"
            )
    return float(steps.mean())


def _name_directions(axes: Sequence[np.ndarray[Any, np.dtype[np.float64]]]) -> list[str]:
    """Return the letters of the directions of the body that perpendicular vectors in DICOM's axes are closest to."""
    strengths = np.abs(np.array(axes))  # (3 axes, x y z)
    letters = [""] * 3
    for _ in range(3):  # the clearest first, so that oblique slices get three different ones
        axis, body = divmod(int(strengths.argmax()), 3)
        letters[axis] = _DIRECTIONS[body][int(axes[axis][body] > 0)]
        strengths[axis], strengths[:, body] = -1, -1
    return letters
