"""The reader of sounds for networks on waveforms."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from math import gcd
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote
from extremal.networks.sounds.sound_files import MAX_RATE, MAX_SAMPLES, read_sound_file
from extremal.number_checks import format_no_whole, is_whole, validate_whole


@dataclass(frozen=True)
class SoundReader:
    """Reader of sounds for a network on waveforms (B, C, T).

    >>> SoundReader(rate=16000).channels
    1

    Attributes:
        rate: samples per second that the network takes; sounds at other rates are resampled.
        channels: 1: the mean of all channels; 2: stereo, a single channel is copied.
    """

    rate: int
    channels: int = 1
    kind: ClassVar[str] = "sound"

    def __post_init__(self) -> None:
        remedy = "it is in samples per second, e.g. 16000"
        object.__setattr__(self, "rate", validate_whole(self.rate, "rate", 1, MAX_RATE, remedy))
        if not is_whole(self.channels) or self.channels not in (1, 2):
            raise ExtremalValueError(f"channels must be 1 or 2, got {format_no_whole(self.channels)}; e.g. 1")

    def read(self, path: str | os.PathLike[str], max_samples: int = MAX_SAMPLES) -> Tensor:
        """Read a sound file as an input: (1, C, T) in [−1, 1].

        Args:
            path: of the file.
            max_samples: in the file, of all channels.

        Raises:
            ExtremalValueError: it cannot be read, has more than two channels where the network takes two, or has
                another rate and no library that resamples is installed.
        """
        sound = read_sound_file(path, max_samples)
        samples = sound.samples
        if self.channels == 1:
            samples = samples.mean(0, keepdims=True)
        elif len(samples) > 2:
            raise ExtremalValueError(
                f"a sound must have 1 or 2 channels for this network, got {len(samples)} in {quote(path)}; mix them"
            )
        samples = np.broadcast_to(samples, (self.channels, samples.shape[1]))
        return torch.from_numpy(np.array(self._resample(samples, sound.rate, path), np.float32))[None]

    def _resample(self, samples: np.ndarray[Any, Any], rate: int, path: str | os.PathLike[str]) -> np.ndarray[Any, Any]:
        if rate == self.rate:
            return samples
        if find_spec("scipy") is None:
            raise ExtremalValueError(
                f"a sound must have the {self.rate:,} samples per second that the network takes, got {rate:,} in "
                f"{quote(path)}; pip install 'extremal[audio]' resamples it"
            )
        from scipy.signal import resample_poly

        shared = gcd(rate, self.rate)
        resampled: np.ndarray[Any, Any] = resample_poly(samples, self.rate // shared, rate // shared, axis=1)
        return resampled


def read_sound(reader: object, path: str | os.PathLike[str], name: str) -> Tensor:
    """Read a sound file as an input of a network: (1, C, T).

    Args:
        reader: of the network.
        path: of the file.
        name: of the network.

    Raises:
        ExtremalValueError: the network does not say that it takes sounds, or the file cannot be read.
    """
    if not isinstance(reader, SoundReader):
        raise ExtremalValueError(
            f"{name} does not say that it takes sounds, got the sound {quote(path)}; return "
            "extremal.Network(model, reader=extremal.SoundReader(rate=16000)) with its own rate"
        )
    return reader.read(path)
