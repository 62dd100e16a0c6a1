"""Sounds with a planted tone, and a network whose answer depends on how long each tone is heard."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from extremal import Network, SoundReader
from extremal.report.signal_view import encode_wave

RATE = 8000  # Hz
TONES = (440.0, 660.0, 990.0, 1480.0)  # Hz, one for each class
WINDOW = 400  # samples of a spectrum


class ToneMeter(nn.Module):
    """The mean strength of each tone over all windows of a sound: (B, 1, T) -> (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        moment = torch.arange(WINDOW) / RATE
        waves = [part(2 * math.pi * tone * moment) for tone in TONES for part in (torch.cos, torch.sin)]
        taper = torch.hann_window(WINDOW, periodic=False)
        self.register_buffer("filters", (torch.stack(waves) * taper / taper.sum())[:, None])

    def forward(self, x: Tensor) -> Tensor:
        parts = nn.functional.conv1d(x, self.filters, stride=WINDOW // 4).unflatten(1, (-1, 2))
        return 100 * parts.square().sum(2).mean(2)  # (B, 4)


def tone_network() -> Network:
    """Return the network; the command line names it as `support.sounds:tone_network`."""
    labels = [f"{tone:.0f} Hz" for tone in TONES]
    return Network(ToneMeter(), labels=labels, name="tone meter", reader=SoundReader(RATE))


def planted_tone(tone: float = 440.0, begin: float = 0.5, end: float = 0.8, seconds: float = 2.0) -> Tensor:
    """Return faint noise with a tone between two moments, and another tone elsewhere: (1, T)."""
    moment = torch.arange(round(seconds * RATE)) / RATE
    noise = 0.01 * torch.randn(len(moment), generator=torch.Generator().manual_seed(0))
    other = 0.4 * torch.sin(2 * math.pi * TONES[1] * moment) * (moment > 1.4)
    inside = (moment >= begin) & (moment < end)
    return (noise + other + 0.5 * torch.sin(2 * math.pi * tone * moment) * inside)[None]


def write_planted_tone(path: Path) -> Path:
    """Write the sound as a WAV file of 16 bits."""
    path.write_bytes(encode_wave(np.asarray(planted_tone()), RATE))
    return path
