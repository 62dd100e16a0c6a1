"""Readers of clips and volumes as `readers.py` tries them."""

import gzip
import random
from pathlib import Path

import numpy as np

from extremal import ClipReader, VolumeReader
from support.mutations import mutate_bytes
from support.stack_files import write_clip, write_frames, write_nifti, write_series


def write_clips(folder: Path) -> list[Path]:
    """Write clips of three containers and codecs."""
    frames = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3)).astype(np.uint8)
    codecs = {"a.mp4": "libx264", "b.webm": "libvpx-vp9", "c.avi": "mpeg4"}
    return [write_clip(folder / name, frames, codec=codec) for name, codec in codecs.items()]


def read_clip(path: Path) -> object:
    """Read and use a clip."""
    stack = ClipReader(4).read(path)
    assert stack.x.shape[:3] == (1, 3, 4)
    return stack


def write_niftis(folder: Path) -> list[Path]:
    """Write a file with compression and one without."""
    values = np.random.default_rng(0).normal(size=(6, 8, 10)).astype(np.float32)
    return [write_nifti(folder / name, values) for name in ("a.nii", "b.nii.gz")]


def mutate_nifti(rng: random.Random, content: bytes) -> bytes:
    """Change a file, or what is compressed in it."""
    if content[:2] == b"\x1f\x8b" and rng.random() < 0.7:
        return gzip.compress(mutate_bytes(rng, gzip.decompress(content)))
    return mutate_bytes(rng, content)


def read_nifti(path: Path) -> object:
    """Read and use a volume."""
    stack = VolumeReader(preprocess=lambda volume: volume.normalise()).read(path)
    assert bool(stack.x.isfinite().all())
    return stack


def write_slices(folder: Path) -> list[Path]:
    """Write a series of three slices."""
    values = np.random.default_rng(0).integers(0, 1000, (3, 8, 10))
    return sorted(write_series(folder / "series", values, (0.0, 2.0, 4.0)).iterdir())


def read_slices(path: Path) -> object:
    """Read and use the series of a slice."""
    stack = VolumeReader().read(path.parent)
    assert len(stack.spacing) == 3
    return stack


def write_frame_files(folder: Path) -> list[Path]:
    """Write a file of three frames."""
    values = np.random.default_rng(0).integers(0, 1000, (3, 8, 10))
    return [write_frames(folder / "a.dcm", values, (0.0, 2.0, 4.0))]


def read_frame_file(path: Path) -> object:
    """Read and use a file of frames."""
    stack = VolumeReader().read(path)
    assert len(stack.spacing) == 3
    return stack
