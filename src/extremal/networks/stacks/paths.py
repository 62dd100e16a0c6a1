"""Recognise clips and volumes by their paths, before anything is decoded; nothing here imports torch."""

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from extremal.file_checks import is_folder, list_names

CLIP_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv", ".3gp", ".ts"),
)
NIFTI_SUFFIXES = (".nii", ".nii.gz")
DICOM_SUFFIXES = (".dcm", ".dicom")
MAX_PLACES = 2**28  # of a volume: 512 × 512 × 1024
MAX_SNIFFED = 16  # files of a folder whose first bytes are read
_DICOM_MARK, _DICOM_OFFSET = b"DICM", 128


class StackKind(StrEnum):
    """Kinds of files with a third dimension."""

    CLIP = "clip"
    VOLUME = "volume"


def find_stack_kind(path: str | os.PathLike[str]) -> StackKind | None:
    """Return whether a path is that of a clip or a volume, by its name or the names in the folder; None: neither.

    >>> find_stack_kind("a/clip.MP4"), find_stack_kind("scan.nii.gz"), find_stack_kind("cat.png")
    (<StackKind.CLIP: 'clip'>, <StackKind.VOLUME: 'volume'>, None)
    """
    name = os.fspath(path).lower()
    if name.endswith(CLIP_SUFFIXES):
        return StackKind.CLIP
    return StackKind.VOLUME if name.endswith((*NIFTI_SUFFIXES, *DICOM_SUFFIXES)) or is_series(path) else None


def is_series(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds DICOM files: by their suffix, or without one by their first bytes."""
    if not is_folder(path) or Path(path).name in ("", ".."):
        return False
    return holds_series(Path(path), list_names(path))


def holds_series(folder: Path, names: Sequence[str]) -> bool:
    """Return whether some of the names in a folder are those of DICOM files, or of files that start as these do."""
    if any(name.lower().endswith(DICOM_SUFFIXES) for name in names):
        return True
    bare = [name for name in names if "." not in name or name.replace(".", "").isdigit()]  # also named by numbers
    return any(has_dicom_mark(folder / name) for name in bare[:MAX_SNIFFED])


def has_dicom_mark(path: Path) -> bool:
    """Return whether a regular file has the mark of DICOM after its preamble; False if it cannot be read."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            file.seek(_DICOM_OFFSET)
            return file.read(len(_DICOM_MARK)) == _DICOM_MARK
    except OSError:
        return False
