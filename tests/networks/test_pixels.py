"""Pixels of images are those that torchvision returns."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import normalize, resize, to_tensor

from extremal.networks.pixels import normalise_pixels, scale_short_side, to_pixels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_and_their_normalisation(mode: str) -> None:
    picture = image(31, 17, mode)
    pixels, count = to_pixels(picture), 3 if mode == "RGB" else 1
    assert torch.equal(pixels, to_tensor(picture))
    assert torch.equal(
        normalise_pixels(pixels, MEAN[:count], STD[:count]), normalize(pixels, MEAN[:count], STD[:count])
    )


@pytest.mark.parametrize("size", [(301, 224), (224, 500), (97, 31), (64, 64), (333, 777)])
@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        (Image.Resampling.BILINEAR, InterpolationMode.BILINEAR),
        (Image.Resampling.BICUBIC, InterpolationMode.BICUBIC),
    ],
)
def test_scaling(size: tuple[int, int], own: Image.Resampling, theirs: InterpolationMode) -> None:
    picture = image(*size)
    for side in (64, 224):
        scaled, expected = scale_short_side(picture, side, own), resize(picture, [side], theirs, antialias=True)
        assert scaled.size == expected.size
        assert scaled.tobytes() == expected.tobytes()
