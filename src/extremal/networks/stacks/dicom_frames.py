"""Read the frames of a single DICOM file (Enhanced CT, MR, PET) as the slices of a volume."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote
from extremal.networks.stacks.dicom_files import MAX_SLICES, read_file, unreadable_error
from extremal.networks.stacks.dicom_slices import REMEDY, Slice, SliceOrder, check_slice, order_slices

_POSITION = ("PlanePositionSequence", "ImagePositionPatient")  # a functional group, and an attribute in it
_DIRECTIONS = ("PlaneOrientationSequence", "ImageOrientationPatient")
_GAPS = ("PixelMeasuresSequence", "PixelSpacing")
_SLOPE = ("PixelValueTransformationSequence", "RescaleSlope")
_INTERCEPT = ("PixelValueTransformationSequence", "RescaleIntercept")


def has_frames(path: Path) -> bool:
    """Return whether a DICOM file has several frames.

    Raises:
        ExtremalValueError: it is damaged.
    """
    with _reading(path):
        return int(read_file(path, pixels=False).get("NumberOfFrames") or 1) > 1


def read_frames(path: Path) -> tuple[np.ndarray[Any, np.dtype[np.float32]], SliceOrder]:
    """Read the frames of a file in the order of their positions, each with its own rescale slope and intercept.

    Returns:
        (D, H, W), and their order.

    Raises:
        ExtremalValueError: the file is damaged or too large; or its frames have no positions, directions and pixel
            spacing in their functional groups, or do not form a volume.
    """
    header, name = read_file(path, pixels=False), quote(path)
    with _reading(path):
        count, samples = int(header.NumberOfFrames), int(header.get("SamplesPerPixel") or 1)
        shape = int(header.Rows), int(header.Columns)
        shared = (header.get("SharedFunctionalGroupsSequence") or [{}])[0]
        frames = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    if samples != 1:
        raise ExtremalValueError(f"a frame must be one grey picture, got {name} with {samples} channels; use NIfTI")
    if count > MAX_SLICES:
        raise ExtremalValueError(
            f"a file must have at most {MAX_SLICES:,} frames, got {count:,} in {name}; export fewer of them"
        )
    if len(frames) != count:
        raise ExtremalValueError(
            f"a file of {count} frames must have a functional group for each, got {len(frames)} in {name}; export it "
            "as one file per slice, or as NIfTI"
        )
    slices, slopes, intercepts = list[Slice](), list[float](), list[float]()
    for index, own in enumerate(frames):
        with _reading(path):
            position = _find_numbers(own, shared, *_POSITION)
            directions, gaps = _find_numbers(own, shared, *_DIRECTIONS), _find_numbers(own, shared, *_GAPS)
            slopes.append(float((_find_numbers(own, shared, *_SLOPE) or (1.0,))[0]))
            intercepts.append(float((_find_numbers(own, shared, *_INTERCEPT) or (0.0,))[0]))
        if len(position) != 3 or len(directions) != 6 or len(gaps) != 2:
            raise ExtremalValueError(
                f"a frame must state its position, directions and pixel spacing in its functional groups, got frame "
                f"{index + 1} of {name}, which does not; export it as one file per slice, or as NIfTI"
            )
        one = Slice(path, "", shape, (gaps[0], gaps[1]), directions, position, index)
        check_slice(one, f"frame {index + 1} of {name}")
        slices.append(one)
    order = order_slices(slices, name)  # also limits the places, before they are decoded
    return _read_values(path, (count, *shape), order.indices, slopes, intercepts), order


def _read_values(
    path: Path, shape: tuple[int, int, int], indices: tuple[int, ...], slopes: list[float], intercepts: list[float]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    data = read_file(path, pixels=True)
    with _reading(path):
        stored = np.asarray(data.pixel_array)
    if stored.shape != shape:
        raise ExtremalValueError(
            f"a file must have the {' × '.join(map(str, shape))} pixels that it states, got {stored.shape} in "
            f"{quote(path)}; {REMEDY}"
        )
    values = np.empty(shape, np.float32)
    for place, index in enumerate(indices):
        values[place] = stored[index] * slopes[index] + intercepts[index]
    return values


def _find_numbers(own: Any, shared: Any, sequence: str, attribute: str) -> tuple[float, ...]:
    """Return the numbers of an attribute in the functional group of a frame, or in that of all; none if missing."""
    for groups in (own, shared):
        group = groups.get(sequence)
        value = group[0].get(attribute) if group else None
        if value is not None:
            return tuple(map(float, value)) if hasattr(value, "__len__") else (float(value),)
    return ()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn any error about the content of a file into one sentence, and ignore warnings about it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ExtremalValueError:
        raise
    except Exception as error:  # values of other kinds than their tags, and decoders, also missing ones
        raise unreadable_error(path, error) from None
