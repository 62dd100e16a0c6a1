"""Check files of clips and volumes as far as their headers show; nothing here imports torch."""

import os

from extremal.networks.stacks.clip_files import check_clip_file
from extremal.networks.stacks.dicom_series import check_series
from extremal.networks.stacks.nifti_files import check_nifti_file
from extremal.networks.stacks.paths import NIFTI_SUFFIXES, StackKind


def check_stack_file(path: str | os.PathLike[str], kind: StackKind) -> None:
    """Check that a clip or a volume can be opened.

    Raises:
        ExtremalValueError: it cannot.
        MissingDependencyError: the library that reads it is not installed.
    """
    if kind is StackKind.CLIP:
        check_clip_file(path)
    elif os.fspath(path).lower().endswith(NIFTI_SUFFIXES):
        check_nifti_file(path)
    else:
        check_series(path)
