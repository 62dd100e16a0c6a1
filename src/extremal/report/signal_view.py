"""A signal (C, T) in a report: its waveform as a picture, the spectrogram of a sound, and a player."""

import base64
import io
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extremal.explanations.explanation import Explanation
from extremal.report.reveal import reveal_levels

WIDTH = 960  # columns of the picture
MAX_STRIPS = 12  # channels that are drawn
WAVE_HEIGHT, MIN_STRIP_HEIGHT, SPECTRUM_HEIGHT = 160, 32, 128  # px
WINDOW_SECONDS = 0.032  # of the spectrogram
RANGE_DB, N_SHADES = 70, 24  # of the spectrogram, below its loudest place
MAX_PLAYED_SAMPLES = 2_000_000  # in the page: 4 MB before encoding, two minutes at 16 kHz
UNKNOWN_RATE = 8_000  # of samples per second, in files of signals without a rate
MIN_PLAYED_RATE, MAX_PLAYED_RATE = 3_000, 384_000  # of samples per second, which browsers play
WAVE_COLOUR, PAGE_COLOUR = (26, 82, 158), (255, 255, 255)
SPECTRUM_COLOURS = ((255, 255, 255), (125, 170, 215), (26, 82, 158), (8, 24, 58))  # from silent to loud

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class SignalView:
    """One signal as variables of the template.

    Attributes:
        picture: (H, W, 3) uint8, the waveform of each channel, and below it the spectrogram of a sound.
        levels: (A, W) uint8, the step at which each column is revealed (`reveal_levels`).
        length: T.
        caption: what the picture shows, with its units.
        player: WAV file as a data URI; empty if the rate is unknown or no browser plays it.
        note: what the player leaves out; empty if nothing.
    """

    picture: Tensor
    levels: Tensor
    length: int
    caption: str
    player: str = ""
    note: str = ""


def has_signal(explanation: Explanation) -> bool:
    """Return whether the inputs are signals (N, C, T) whose samples are the places of the masks."""
    shape = explanation.inputs.shape
    return len(shape) == 3 and explanation.masks.shape[3:] == shape[2:] and shape[2] > 1


def build_signal_view(explanation: Explanation, image: int = 0) -> SignalView:
    """Draw one signal of an explanation.

    Args:
        explanation: of N signals.
        image: index of the input, 0..N − 1.
    """
    samples = explanation.inputs[image].float().numpy()
    rate = int(explanation.settings.get("sample_rate", 0))
    strips = [draw_waveforms(samples)]
    length = samples.shape[1]
    caption = f"The {'waveform' if rate else 'signal'}"
    if len(samples) > 1:
        shown = min(len(samples), MAX_STRIPS)
        caption += f", channels 1 to {shown} of {len(samples)} from top to bottom"
    window = int(rate * WINDOW_SECONDS)
    if rate and length >= 4 * window >= 32:
        strips.append(draw_spectrogram(samples.mean(0), window))
        caption += f", and its spectrogram from 0 Hz (bottom) to {rate / 2000:.3g} kHz (top), {RANGE_DB} dB in depth"
    extent = f"0 to {length / rate:.3g} s" if rate else f"{length:,} places"
    caption += f"; from left to right {extent}."
    columns = torch.from_numpy(column_places(length))
    levels = reveal_levels(explanation, image).reshape(-1, length)[:, columns]
    player, note = encode_player(samples, rate)
    return SignalView(torch.from_numpy(np.concatenate(strips)), levels, length, caption, player, note)


def column_places(length: int) -> Array:
    """Return the place in the middle of each column of the picture: (W,)."""
    places: Array = ((np.arange(WIDTH) + 0.5) * length / WIDTH).astype(np.int64)
    return places


def draw_waveforms(samples: Array) -> Array:
    """Draw channels (C, T) below one another, from the smallest to the largest sample of each column: (H, W, 3)."""
    shown = samples[:MAX_STRIPS]
    height = max(MIN_STRIP_HEIGHT, WAVE_HEIGHT // len(shown))
    edges = np.arange(WIDTH + 1) * samples.shape[1] / WIDTH
    first = np.floor(edges[:-1]).astype(np.int64)
    last = np.maximum(np.ceil(edges[1:]).astype(np.int64), first + 1)
    strips = []
    for channel in shown:
        following = np.append(channel, channel[-1:])  # so that lines join those of the next column
        low, high = (
            np.array([reduce(following[start : end + 1]) for start, end in zip(first, last, strict=True)])
            for reduce in (np.min, np.max)
        )
        centre, span = (channel.max() + channel.min()) / 2, max(float(channel.max() - channel.min()), 1e-12)
        top, bottom = ((height - 1) * (0.5 - 0.94 * (values - centre) / span) for values in (high, low))
        rows = np.arange(height)[:, None]
        inked = (rows >= np.floor(top)) & (rows <= np.ceil(bottom))
        strips.append(np.where(inked[..., None], WAVE_COLOUR, PAGE_COLOUR).astype(np.uint8))
    return np.concatenate(strips)


def draw_spectrogram(samples: Array, window: int) -> Array:
    """Draw the loudness of each frequency around each column, the lowest frequency at the bottom: (H, W, 3).

    Args:
        samples: (T,).
        window: samples of each spectrum, tapered.
    """
    padded = np.pad(samples, (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[column_places(len(samples))]
    loudness = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1))  # (W, frequencies)
    decibels = 20 * np.log10(np.maximum(loudness / max(float(loudness.max()), 1e-12), 1e-12))
    strength = np.clip(1 + decibels / RANGE_DB, 0, 1).T[::-1]  # (frequencies, W)
    strength = np.round(strength * (N_SHADES - 1)) / (N_SHADES - 1)  # for a small file
    rows = ((np.arange(SPECTRUM_HEIGHT) + 0.5) * len(strength) / SPECTRUM_HEIGHT).astype(np.int64)
    position = strength[rows] * (len(SPECTRUM_COLOURS) - 1)
    stops = np.arange(len(SPECTRUM_COLOURS))
    colours = [np.interp(position, stops, values) for values in zip(*SPECTRUM_COLOURS, strict=True)]
    return np.stack(colours, -1).round().astype(np.uint8)


def encode_player(samples: Array, rate: int) -> tuple[str, str]:
    """Encode channels (C, T) as a WAV file for a player: its data URI, and what it leaves out.

    Samples above full scale are scaled down. Signals without a rate, or of more than two channels, have none.
    """
    if not MIN_PLAYED_RATE <= rate <= MAX_PLAYED_RATE or len(samples) > 2:
        return "", ""
    notes, length = [], samples.shape[1]
    limit = MAX_PLAYED_SAMPLES // len(samples)
    if length > limit:
        notes.append(f"The player has the first {limit / rate:.0f} s of {length / rate:.0f} s.")
    peak = float(np.abs(samples).max())
    if peak > 1:
        notes.append(f"The player's volume is {1 / peak:.2g} of the sound's, whose samples exceed full scale.")
    content = encode_wave(samples[:, :limit] / max(1.0, peak), rate)
    return f"data:audio/wav;base64,{base64.b64encode(content).decode('ascii')}", " ".join(notes)


def encode_wave(samples: Array, rate: int) -> bytes:
    """Encode channels (C, T) in [−1, 1] as a WAV file of 16 bits."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").T.tobytes())
    return buffer.getvalue()


def write_region(explanation: Explanation, mask: Tensor, path: Path) -> None:
    """Write the first sound, silent outside of a cut mask, or inside if masks delete, as a WAV file.

    Samples above full scale are scaled down.

    Args:
        explanation: of N sounds.
        mask: (1, T) of zeros and ones.
        path: of the file.
    """
    heard = mask if explanation.keeps else 1 - mask
    samples: Array = (explanation.inputs[0].float() * heard).numpy()
    rate = int(explanation.settings.get("sample_rate", UNKNOWN_RATE))
    path.write_bytes(encode_wave(samples / max(1.0, float(np.abs(samples).max())), rate))
