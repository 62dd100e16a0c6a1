"""Copies of images that differ by one grey level of noise."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extremal.networks.inputs import ImagesLike, concatenate_inputs, open_image, prepare
from extremal.networks.network import Network

GREY_LEVELS = 255  # steps from black to white


def prepare_noisy(network: Network, image: ImagesLike, seed: int | Sequence[int]) -> Tensor:
    """Prepare images like `prepare`, with uniform noise of −1, 0 or +1 grey level in every place and channel.

    Pictures get it in their 8-bit pixels, before the network's preprocessing, clipped to 0..255. Prepared tensors get
    it in the units of the network: 1/255 of the range from black to white (by the network's `mean` and `std`, or from
    0 to 1), and other inputs 1/255 of the range of each channel.

    Args:
        network: for its preprocessing.
        image: as for `prepare`.
        seed: of the noise; the images of a list get different noise.

    Returns:
        Inputs (N, C, *S), on the network's device.
    """
    return _prepare_noisy(network, image, np.random.default_rng(seed))


def add_grey_noise(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return an 8-bit picture with −1, 0 or +1 added to every pixel and channel, clipped to 0..255."""
    pixels = np.asarray(picture).astype(np.int16)
    noisy = (pixels + rng.integers(-1, 2, pixels.shape)).clip(0, GREY_LEVELS)
    return Image.fromarray(noisy.astype(np.uint8))


def _prepare_noisy(network: Network, image: ImagesLike, rng: np.random.Generator) -> Tensor:
    if isinstance(image, list | tuple):
        return concatenate_inputs([_prepare_noisy(network, item, rng) for item in image])
    opened = open_image(image)  # type: ignore[arg-type]  # a sequence of another type is refused there
    if isinstance(opened, Image.Image):
        return prepare(network, add_grey_noise(opened, rng))
    x = prepare(network, opened)
    low, high = _value_range(network, x)
    steps = torch.from_numpy(rng.integers(-1, 2, tuple(x.shape))).to(x)
    noisy = x + steps * (high - low) / GREY_LEVELS
    return noisy.clamp(torch.minimum(low, x), torch.maximum(high, x))


def _value_range(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values of black and white in inputs (N, C, *S), or those of each channel's own range."""
    trailing = [1] * (x.ndim - 2)
    if network.mean and network.std and len(network.mean) == x.shape[1]:
        mean, std = (x.new_tensor(values).view(1, -1, *trailing) for values in (network.mean, network.std))
        return -mean / std, (1 - mean) / std
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.min() >= 0 and x.max() <= 1:
        return x.new_zeros(1), x.new_ones(1)
    places = tuple(range(2, x.ndim))
    return x.amin(places, keepdim=True), x.amax(places, keepdim=True)
