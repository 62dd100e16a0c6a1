"""Bounds on images before they are scaled for a network, since thin ones grow."""

from PIL import Image

from extremal.errors import ExtremalValueError

MAX_ASPECT = 50  # long side / short side: at a short side of 224 px up to 224 × 11,200
MAX_SCALED_PIXELS = 4_000_000  # of an input that a network takes whole, without cropping


def check_aspect(image: Image.Image) -> None:
    """Raise if an image is so thin that scaling its short side could take gigabytes.

    Raises:
        ExtremalValueError: it is longer than 50 times its short side.
    """
    width, height = image.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ExtremalValueError(
            f"an image must not be longer than {MAX_ASPECT} times its short side, since it is scaled for the network, "
            f"got {width}×{height}; crop it, or pad its short side"
        )


def check_scaled_pixels(image: Image.Image, side: int, *, enlarge: bool) -> None:
    """Raise if an image with its short side scaled to `side` px has too many pixels to be evaluated whole.

    Args:
        image: not scaled yet.
        side: px.
        enlarge: whether images with a smaller short side are scaled up.

    Raises:
        ExtremalValueError: it would have more than 4 megapixels.
    """
    width, height = image.size
    scale = side / min(width, height)
    scale = scale if enlarge else min(1.0, scale)
    if width * scale * height * scale > MAX_SCALED_PIXELS:
        raise ExtremalValueError(
            f"an image must have at most {MAX_SCALED_PIXELS / 1e6:g} megapixels when its short side is scaled to "
            f"{min(side, round(min(width, height) * scale))} px, got {width}×{height}; crop it, or pad its short side"
        )
