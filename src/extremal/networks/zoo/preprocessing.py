"""Preprocessing of images for networks whose family has none of its own."""

from collections.abc import Sequence

from PIL import Image, ImageOps
from torch import Tensor

from extremal.networks.image_bounds import check_scaled_pixels
from extremal.networks.pixels import normalise_pixels, scale_short_side, to_pixels


class ShortSideCrop:
    """Scale the short side of an image, and crop it at its centre: image -> (3, side, side), normalised.

    Equal to torchvision's `Resize`, `CenterCrop`, `ToTensor` and `Normalize`.

    Args:
        resized_side: px, of the short side before the crop; at least `side`.
        side: px, of the result.
        mean: of each channel, subtracted from values in [0, 1].
        std: of each channel, by which the result is divided.
    """

    def __init__(self, resized_side: int, side: int, mean: Sequence[float], std: Sequence[float]) -> None:
        self.resized_side, self.side, self.mean, self.std = resized_side, side, tuple(mean), tuple(std)

    def __call__(self, image: Image.Image) -> Tensor:
        """Image -> (3, side, side)."""
        image = scale_short_side(image, self.resized_side, Image.Resampling.BICUBIC)
        left, top = (round((length - self.side) / 2) for length in image.size)
        pixels = to_pixels(image.crop((left, top, left + self.side, top + self.side)))
        return normalise_pixels(pixels, self.mean, self.std)


class CenterCropResize:
    """Crop an image at its centre and resize it: image -> (C, H, W).

    Args:
        channels: 3, or 1 for greyscale; None: 3.
        height: px; None: that of the image.
        width: px; None: that of the image.
        mean: subtracted from values in [0, 1].
        std: by which the result is divided.
    """

    def __init__(
        self, channels: int | None, height: int | None, width: int | None, *, mean: float = 0.0, std: float = 1.0
    ) -> None:
        self.channels, self.height, self.width, self.mean, self.std = channels, height, width, mean, std

    def __call__(self, image: Image.Image) -> Tensor:
        """Image -> (C, H, W)."""
        size = self.width or image.width, self.height or image.height
        resized = ImageOps.fit(image, size, Image.Resampling.BICUBIC)
        pixels = to_pixels(resized.convert("L") if self.channels == 1 else resized)
        return (pixels - self.mean) / self.std


class ShrinkShortSide:
    """Shrink an image if it is large, without cropping: image -> (3, H, W) in [0, 1].

    Args:
        side: px; an image whose short side is longer is shrunk to it.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image: Image.Image) -> Tensor:
        """Image -> (C, H, W)."""
        check_scaled_pixels(image, self.side, enlarge=False)
        if min(image.size) > self.side:
            image = scale_short_side(image, self.side, Image.Resampling.BILINEAR)
        return to_pixels(image)
