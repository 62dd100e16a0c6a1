"""Copies of images that differ by one grey level of noise."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extremal.networks.inputs import ImagesLike, concatenate_inputs, open_image, prepare
from extremal.networks.network import Network
from extremal.networks.sounds.sound_files import is_sound

GREY_LEVELS = 255  # steps from black to white


def prepare_noisy(network: Network, image: ImagesLike, seed: int | Sequence[int]) -> Tensor:
    """Prepare images like `prepare`, with uniform noise of −1, 0 or +1 grey level in every place and channel.

    Pictures get it in their 8-bit pixels, before the network's preprocessing, clipped to 0..255. Prepared tensors get
    it in the units of the network: 1/255 of the range from black to white (by the network's `mean` and `std`, or from
    0 to 1), and other inputs 1/255 of the range of each channel.

    Args:
        network: for its preprocessing.
        image: as for `prepare`.
        seed: of the noise, at least 0; the content of each image decides its noise too, and its place in a batch does
            not.

    Returns:
        Inputs (N, C, *S), on the network's device.
    """
    if isinstance(image, list | tuple):
        return concatenate_inputs([prepare_noisy(network, item, seed) for item in image])
    opened = prepare(network, image) if is_sound(image) else open_image(image)  # type: ignore[arg-type]  # a sequence of another type is refused there
    if isinstance(opened, Image.Image):
        return prepare(network, add_grey_noise(opened, seed))
    x = prepare(network, opened)
    steps = torch.stack([torch.from_numpy(_draw_steps(row.cpu().double().numpy(), seed)) for row in x]).to(x)
    low, high = _value_range(network, x)
    noisy = x + steps * (high - low) / GREY_LEVELS
    return noisy.clamp(torch.minimum(low, x), torch.maximum(high, x))


def add_grey_noise(picture: Image.Image, seed: int | Sequence[int]) -> Image.Image:
    """Return an 8-bit picture with −1, 0 or +1 added to every pixel and channel, clipped to 0..255."""
    pixels = np.asarray(picture)
    noisy = (pixels.astype(np.int16) + _draw_steps(pixels, seed)).clip(0, GREY_LEVELS)
    return Image.fromarray(noisy.astype(np.uint8))


def _draw_steps(values: np.ndarray[Any, Any], seed: int | Sequence[int]) -> np.ndarray[Any, Any]:
    """Draw −1, 0 or +1 for each value; seed and values decide which."""
    seeds = [seed] if isinstance(seed, int) else list(seed)
    rng = np.random.default_rng([*seeds, zlib.crc32(np.ascontiguousarray(values).tobytes())])
    steps: np.ndarray[Any, Any] = rng.integers(-1, 2, values.shape)
    return steps


def _value_range(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values of black and white in inputs (N, C, *S), or those of each channel's own range."""
    normalisation = network.normalisation(x)
    if normalisation is not None:
        mean, std = normalisation
        return -mean / std, (1 - mean) / std
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.min() >= 0 and x.max() <= 1:
        return x.new_zeros(1), x.new_ones(1)
    places = tuple(range(2, x.ndim))
    return x.amin(places, keepdim=True), x.amax(places, keepdim=True)
