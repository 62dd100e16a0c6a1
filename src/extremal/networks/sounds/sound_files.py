"""Read sound files safely: WAV by the standard library, other formats by soundfile; nothing here imports torch."""

import os
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from extremal.errors import ExtremalValueError, check_installed
from extremal.file_checks import quote
from extremal.networks.file_opening import opening

SOUND_SUFFIXES = (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf")
MAX_FILE_BYTES = 500_000_000  # of a sound file
MAX_SAMPLES = 100_000_000  # of all channels: 18 minutes in stereo at 48 kHz
MAX_RATE = 768_000  # Hz
_WAVE_DTYPES = {1: "u1", 2: "<i2", 4: "<i4"}  # by bytes per sample; those of one byte have no sign


@dataclass(frozen=True, eq=False)
class Sound:
    """Samples of a sound.

    Attributes:
        samples: (C, T) in [−1, 1].
        rate: samples per second.
    """

    samples: np.ndarray[Any, np.dtype[np.float32]]
    rate: int


def is_sound(path: object) -> bool:
    """Return whether a path is that of a sound, by its suffix.

    >>> is_sound("tone.WAV"), is_sound("cat.png"), is_sound(3)
    (True, False, False)
    """
    return isinstance(path, str | os.PathLike) and os.fspath(path).lower().endswith(SOUND_SUFFIXES)


def check_sound_file(path: str | os.PathLike[str]) -> None:
    """Check that a file is a sound, by its header; its samples are not read.

    Raises:
        ExtremalValueError: as `read_sound_file`, as far as the header shows.
        MissingDependencyError: the library that reads it is not installed.
    """
    with _open_sound(path):
        pass


def read_sound_file(path: str | os.PathLike[str], max_samples: int = MAX_SAMPLES) -> Sound:
    """Read a sound file.

    Args:
        path: of the file.
        max_samples: of all channels.

    Raises:
        ExtremalValueError: the file is missing, empty, damaged, not a sound, or too long.
        MissingDependencyError: the library that reads it is not installed.
    """
    with _open_sound(path, max_samples) as file:
        samples = _read_wave(file) if isinstance(file, wave.Wave_read) else file.read(dtype="float32", always_2d=True)
        rate = int(file.getframerate() if isinstance(file, wave.Wave_read) else file.samplerate)
    if not len(samples):
        raise ExtremalValueError(f"a sound must have samples, got {quote(path)} without any; record it again")
    if not np.isfinite(samples).all():
        raise ExtremalValueError(f"a sound must be finite, got NaN or infinity in {quote(path)}; write it again")
    return Sound(np.ascontiguousarray(samples.T, np.float32), rate)


@contextmanager
def _open_sound(path: str | os.PathLike[str], max_samples: int = MAX_SAMPLES) -> Iterator[Any]:
    """Yield an open sound of bounded length, whose samples are not read yet; errors of readers become one sentence."""
    name = quote(path)
    with (
        opening(path, "a sound", max_bytes=MAX_FILE_BYTES, folder_remedy="name the sounds in it"),
        _open_by_library(path, name) as file,
    ):
        is_wave = isinstance(file, wave.Wave_read)
        rate, channels, length = (
            (file.getframerate(), file.getnchannels(), file.getnframes())
            if is_wave
            else (file.samplerate, file.channels, file.frames)
        )
        if not 0 < rate <= MAX_RATE:
            raise ExtremalValueError(
                f"a sound must have 1 to {MAX_RATE:,} samples per second, got {rate:,} in {name}; convert it"
            )
        if channels * length > max_samples:
            raise ExtremalValueError(
                f"a sound must have at most {max_samples:,} samples, got {channels} × {length:,} in {name}; cut it"
            )
        yield file


def _open_by_library(path: str | os.PathLike[str], name: str) -> Any:
    """Open a WAV file of whole numbers by the standard library, other files by soundfile."""
    with open(path, "rb") as file:
        is_wave = file.read(4) == b"RIFF"
    if is_wave:
        try:
            return wave.open(os.fspath(path), "rb")
        except wave.Error:  # floating-point or compressed samples
            if find_spec("soundfile") is None:
                raise
    check_installed("soundfile", purpose=f"the sound {name}, which is no WAV file of whole numbers,", extra="audio")
    import soundfile

    return soundfile.SoundFile(os.fspath(path))


def _read_wave(file: wave.Wave_read) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Read the samples of a WAV file: (T, C) in [−1, 1]."""
    width, channels = file.getsampwidth(), file.getnchannels()
    data = file.readframes(file.getnframes())
    if len(data) < file.getnframes() * width * channels:
        raise ValueError(f"it ends after {len(data) // max(1, width * channels):,} of {file.getnframes():,} samples")
    if width == 3:
        octets = np.frombuffer(data, np.uint8).reshape(-1, 3)
        values = np.zeros((len(octets), 4), np.uint8)
        values[:, 1:] = octets  # the upper bytes of 32 bits
        samples = values.reshape(-1).view("<i4") / 2.0**31
    else:
        raw = np.frombuffer(data, _WAVE_DTYPES[width])
        samples = (raw / 128.0 - 1) if width == 1 else raw / 2.0 ** (8 * width - 1)
    return samples.reshape(-1, channels).astype(np.float32)
