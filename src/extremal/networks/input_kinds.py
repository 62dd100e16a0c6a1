"""Kinds of files that networks take, by their paths, and their hashes; nothing here imports torch."""

import hashlib
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, is_folder, list_names, quote
from extremal.files import content_hash
from extremal.networks import image_files
from extremal.networks.sounds import sound_files
from extremal.networks.stacks import clip_files, nifti_files
from extremal.networks.stacks.dicom_files import list_slices
from extremal.networks.stacks.paths import CLIP_SUFFIXES, DICOM_SUFFIXES, NIFTI_SUFFIXES, StackKind, find_stack_kind


class InputKind(StrEnum):
    """Kinds of files, each of which is one input."""

    PICTURE = "picture"
    SOUND = "sound"
    CLIP = "clip"
    VOLUME = "volume"


SUFFIXES: dict[InputKind, tuple[str, ...]] = {  # of the files in a folder; series of DICOM files are folders
    InputKind.PICTURE: image_files.IMAGE_SUFFIXES,
    InputKind.SOUND: sound_files.SOUND_SUFFIXES,
    InputKind.CLIP: CLIP_SUFFIXES,
    InputKind.VOLUME: NIFTI_SUFFIXES,
}
NAMED_SUFFIXES = (*(suffix for suffixes in SUFFIXES.values() for suffix in suffixes), *DICOM_SUFFIXES)
_MAX_FILE_BYTES = {
    InputKind.PICTURE: image_files.MAX_FILE_BYTES,
    InputKind.SOUND: sound_files.MAX_FILE_BYTES,
    InputKind.CLIP: clip_files.MAX_FILE_BYTES,
    InputKind.VOLUME: nifti_files.MAX_VOLUME_BYTES,
}


def find_input_kind(path: str | os.PathLike[str]) -> InputKind:
    """Return the kind of an input by its path: a picture unless its name, or the names in its folder, say otherwise.

    >>> find_input_kind("a/tone.WAV"), find_input_kind("scan.nii.gz"), find_input_kind("cat")
    (<InputKind.SOUND: 'sound'>, <InputKind.VOLUME: 'volume'>, <InputKind.PICTURE: 'picture'>)
    """
    if sound_files.is_sound(path):
        return InputKind.SOUND
    kind = find_stack_kind(path)
    return InputKind.PICTURE if kind is None else InputKind(kind)


def count_kinds(kinds: Sequence[InputKind]) -> str:
    """Return how many inputs there are of each kind, in words.

    >>> count_kinds([InputKind.CLIP, InputKind.PICTURE, InputKind.CLIP])
    '1 picture and 2 clips'
    """
    counts = [(kind, kinds.count(kind)) for kind in InputKind if kind in kinds]
    return " and ".join(f"{count:,} {kind}{'s' if count > 1 else ''}" for kind, count in counts)


def hash_input(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes; of a series that of its files' hashes, in any order and by any name.

    Raises:
        ExtremalValueError: it is no regular file, empty, or too large.
        OSError: it cannot be read.
    """
    if find_stack_kind(path) is StackKind.VOLUME and is_folder(path):
        digests = sorted(content_hash(file) for file in list_slices(path))
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()
    kind = find_input_kind(path)
    if check_file(path, f"a {kind}", max_bytes=_MAX_FILE_BYTES[kind]) == 0:
        raise ExtremalValueError(f"a {kind} must not be empty, got {quote(path)} with 0 bytes; copy it again")
    return content_hash(path)


def find_change_time(path: str | os.PathLike[str]) -> int:
    """Return the time in ns at which a file was last changed or moved here; of a series, any of its files.

    Raises:
        OSError, ValueError: it cannot be looked at.
    """
    names = list_names(path) if is_folder(path) else []
    infos = [os.stat(one) for one in (path, *(Path(path) / name for name in names))]
    return max(max(info.st_mtime_ns, info.st_ctime_ns) for info in infos)
