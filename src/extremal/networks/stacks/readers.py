"""Readers of clips and volumes, which prepare inputs of three dimensions for a network."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.file_checks import name_error, quote, to_path
from extremal.networks.sounds.reader import SoundReader
from extremal.networks.stacks.clip_files import MAX_FRAMES, read_clip_file
from extremal.networks.stacks.dicom_series import read_series
from extremal.networks.stacks.nifti_files import read_nifti_file
from extremal.networks.stacks.paths import NIFTI_SUFFIXES, StackKind
from extremal.networks.stacks.volume import Volume
from extremal.number_checks import format_value, validate_positive, validate_whole

PrepareClip = Callable[[Tensor], Tensor]  # (T, 3, H, W) uint8 -> (C, T, H, W)
PrepareVolume = Callable[[Volume], Volume]


def _check_preprocess(preprocess: object) -> None:
    if preprocess is not None and not callable(preprocess):
        raise ExtremalTypeError(f"preprocess must be a function, got {format_value(preprocess)}; leave it out")


@dataclass(frozen=True, eq=False)
class PreparedStack:
    """A clip or a volume as a network takes it.

    Attributes:
        x: (1, C, D, H, W), frames or slices along D.
        spacing: mm between the places of a volume; empty: of a clip.
        axis: of a clip its `times` in s, of a volume its `orientation`, and the `kind`.
    """

    x: Tensor
    spacing: tuple[float, ...]
    axis: dict[str, Any]


@dataclass(frozen=True)
class ClipReader:
    """Reader of clips for a network: a number of frames, prepared together.

    >>> ClipReader(16, rate=15)
    ClipReader(frames=16, rate=15.0, preprocess=None)

    Attributes:
        frames: T, the number that the network takes.
        rate: frames per second, at which they are taken from the middle of the clip; None: evenly over the whole clip.
        preprocess: (T, 3, H, W) uint8, RGB -> (C, T, H, W), e.g. a transform of torchvision's video models; None:
            values / 255 of the whole frames.
    """

    frames: int = 16
    rate: float | None = None
    preprocess: PrepareClip | None = None

    kind: ClassVar[StackKind] = StackKind.CLIP

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", validate_whole(self.frames, "frames", 1, MAX_FRAMES, "e.g. 16"))
        if self.rate is not None:
            remedy = "it is in frames per second, e.g. 15"
            object.__setattr__(self, "rate", validate_positive(self.rate, "rate", remedy))
        _check_preprocess(self.preprocess)

    def read(self, path: str | os.PathLike[str], max_bytes: int | None = None) -> PreparedStack:
        """Read and prepare a clip.

        Args:
            path: of the file.
            max_bytes: as for `read_clip_file`.

        Raises:
            ExtremalValueError, ExtremalTypeError: the file cannot be read, is too short, or `preprocess` fails.
        """
        clip = read_clip_file(path, self.frames, self.rate, max_bytes=max_bytes)
        pixels = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).contiguous()  # (T, 3, H, W)
        rule = "preprocess must turn frames (T, 3, H, W) into a floating tensor (C, T, H, W)"
        x = _call(self.preprocess or _scale_pixels, pixels, rule)
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 4 or 0 in x.shape:
            got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ExtremalTypeError(f"{rule}, it returned {got}; permute and scale them")
        times = clip.times if len(clip.times) == x.shape[1] else ()
        return PreparedStack(x[None], (), {"kind": str(self.kind), "times": list(times)})


@dataclass(frozen=True)
class VolumeReader:
    """Reader of volumes for a network: NIfTI files, and folders of DICOM files.

    >>> VolumeReader("RAS")
    VolumeReader(orientation='RAS', preprocess=None)

    Attributes:
        orientation: the directions in which D, H and W rise, e.g. SPL (slices upwards, rows to the back, columns to the
            left) or RAS; empty: as in the file.
        preprocess: the `Volume` as it was read -> the one that the network takes, with its own spacing, e.g.
            `lambda volume: volume.resize((64, 64, 64)).normalise()`; None: unchanged.
    """

    orientation: str = ""
    preprocess: PrepareVolume | None = None

    kind: ClassVar[StackKind] = StackKind.VOLUME

    def __post_init__(self) -> None:
        if not isinstance(self.orientation, str):
            raise ExtremalTypeError(
                f"orientation must be three letters as text, got {format_value(self.orientation)}; e.g. 'RAS'"
            )
        _check_preprocess(self.preprocess)
        if self.orientation:
            Volume(torch.zeros(1, 1, 1, 1), (1.0, 1.0, 1.0), "SPL").orient(self.orientation)  # raises

    def read(self, path: str | os.PathLike[str], max_bytes: int | None = None) -> PreparedStack:
        """Read and prepare a volume.

        Args:
            path: of the file, or of the folder of a series.
            max_bytes: of a NIfTI file, as for `read_nifti_file`.

        Raises:
            ExtremalValueError, ExtremalTypeError: the file or series cannot be read, or `preprocess` fails.
        """
        volume = read_volume(path, max_bytes)
        volume = volume.orient(self.orientation) if self.orientation else volume
        if self.preprocess is not None:
            rule = "preprocess must turn an extremal.Volume into an extremal.Volume"
            prepared = _call(self.preprocess, volume, rule)
            if not isinstance(prepared, Volume):
                raise ExtremalTypeError(
                    f"{rule}, it returned a {type(prepared).__name__}; e.g. Volume(values, spacing)"
                )
            volume = prepared
        axis = {"kind": str(self.kind), "orientation": volume.orientation}
        return PreparedStack(volume.values[None], volume.spacing, axis)


StackReader = ClipReader | VolumeReader


def read_volume(path: str | os.PathLike[str], max_bytes: int | None = None) -> Volume:
    """Read a NIfTI file or a folder of DICOM files as a volume (1, D, H, W), with spacing and orientation.

    Args:
        path: of the file, or of the folder of a series.
        max_bytes: of a NIfTI file, as for `read_nifti_file`.

    Raises:
        ExtremalValueError: it cannot be read; the message names rule, value and remedy.
    """
    to_path(path, "a volume")
    is_nifti = os.fspath(path).lower().endswith(NIFTI_SUFFIXES)
    return read_nifti_file(path, max_bytes=max_bytes) if is_nifti else read_series(path)


def check_kind(
    reader: StackReader | SoundReader | None,
    kind: StackKind | None,
    path: str | os.PathLike[str],
    network: str,
    remedy: str = "",
) -> StackReader:
    """Return the reader of a network if it reads files of this kind.

    Args:
        reader: of the network; None: it takes pictures.
        kind: of the file; None: neither a clip nor a volume.
        path: of the file.
        network: its name.
        remedy: for messages; empty: how a network gets a reader.

    Raises:
        ExtremalValueError: it reads others, or the network takes pictures.
    """
    if reader is None or isinstance(reader, SoundReader) or reader.kind is not kind:
        takes = "pictures" if reader is None else f"{reader.kind}s"
        example = "ClipReader(frames=16)" if kind is StackKind.CLIP else "VolumeReader()"
        remedy = remedy or f"for one of your own pass Network(..., reader=extremal.{example})"
        raise ExtremalValueError(
            f"a network must take {kind or 'picture'}s to read {quote(path)}, {network} takes {takes}; {remedy}"
        )
    return reader


def _scale_pixels(pixels: Tensor) -> Tensor:
    return pixels.permute(1, 0, 2, 3).float() / 255


def _call(preprocess: Callable[[Any], Any], value: Tensor | Volume, rule: str) -> Any:
    try:
        return preprocess(value)
    except ExtremalError:
        raise
    except (Exception, SystemExit) as error:
        raise ExtremalValueError(f"{rule}, it raised {name_error(error)}; correct it") from error
