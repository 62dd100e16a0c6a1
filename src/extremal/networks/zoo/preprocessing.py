"""From a picture to what a network takes, where its family brings no preprocessing of its own."""

from PIL import Image, ImageOps
from torch import Tensor


class Fitted:
    """A picture cropped in its middle and resized -> (C, H, W).

    Args:
        channels: 3, or 1 for grey; None: 3.
        height: px; None: the picture's own.
        width: px; None: the picture's own.
        mean: taken from pixels in [0, 1].
        std: by which they are divided then.
    """

    def __init__(
        self, channels: int | None, height: int | None, width: int | None, *, mean: float = 0.0, std: float = 1.0
    ) -> None:
        self.channels, self.height, self.width, self.mean, self.std = channels, height, width, mean, std

    def __call__(self, picture: Image.Image) -> Tensor:
        from torchvision.transforms.functional import to_tensor

        size = self.width or picture.width, self.height or picture.height
        fitted = ImageOps.fit(picture, size, Image.Resampling.BICUBIC)
        pixels: Tensor = to_tensor(fitted.convert("L") if self.channels == 1 else fitted)
        return (pixels - self.mean) / self.std


class Bounded:
    """A picture -> (3, H, W) in [0, 1], whole and in its proportions.

    Args:
        side: px; a picture whose short side is longer is shrunk to it.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, picture: Image.Image) -> Tensor:
        from torchvision.transforms.functional import resize, to_tensor

        if min(picture.size) > self.side:
            picture = resize(picture, [self.side], antialias=True)
        pixels: Tensor = to_tensor(picture)
        return pixels
