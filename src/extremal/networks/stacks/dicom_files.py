"""Find and open DICOM files safely, by pydicom; nothing here imports torch."""

import os
import warnings
from pathlib import Path
from typing import Any

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, describe_error, find_kind, list_names, quote
from extremal.networks.stacks.dicom_slices import REMEDY
from extremal.networks.stacks.paths import DICOM_SUFFIXES, has_dicom_mark

MAX_SLICES = 5000  # files of a series, or frames of a file
MAX_SLICE_BYTES = 200_000_000  # of a file of a series
MAX_FRAMES_BYTES = 2_000_000_000  # of a file of several frames
DEFLATED = "1.2.840.10008.1.2.1.99"  # whose files may take a thousand times their size


def list_slices(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the DICOM files of a folder: those with its suffix, and others that start as such files do.

    A file is returned itself: it may have several frames.

    Raises:
        ExtremalValueError: it has none, or too many, or too large ones.
    """
    name = quote(folder)
    if find_kind(folder, "a series") == "file":
        check_file(folder, "a file of frames", max_bytes=MAX_FRAMES_BYTES)
        return [Path(folder)]
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
        check_file(path, "a slice", max_bytes=MAX_SLICE_BYTES if len(paths) > 1 else MAX_FRAMES_BYTES)
    return paths


def read_file(path: Path, *, pixels: bool) -> Any:
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
        raise unreadable_error(path, error) from None


def unreadable_error(path: Path, error: BaseException) -> ExtremalValueError:
    """Return the error about a file that pydicom cannot read."""
    return ExtremalValueError(f"a slice must be readable DICOM, got {quote(path)}: {describe_error(error)}; {REMEDY}")
