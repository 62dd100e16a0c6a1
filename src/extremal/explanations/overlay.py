"""Images under masks, and their encodings."""

import base64
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extremal.explanations.explanation import Explanation

FADE_CONTRAST, FADE_GREY = 0.4, 190.0  # of faded places: remaining contrast, and the grey level that they approach
Array = np.ndarray[Any, np.dtype[Any]]


def apply_mask(explanation: Explanation, mask: Tensor, image: int = 0) -> Tensor:
    """Show an image under a cut mask, with the places that the network does not see faded: (H, W, 3) uint8.

    Args:
        explanation: of N images.
        mask: (1, H, W) of zeros and ones.
        image: index of the image, 0..N − 1.
    """
    visible = mask if explanation.keeps else 1 - mask
    picture = explanation.pictures[image]
    return torch.where(visible.movedim(0, -1) > 0, picture, torch.from_numpy(fade(picture.numpy())))


def luminance(picture: Array) -> Array:
    """Compute the luminance (H, W) of an image (H, W, 3)."""
    brightness: Array = picture @ np.array([0.299, 0.587, 0.114])
    return brightness


def fade(picture: Array) -> Array:
    """Remove the colour of an image and reduce its contrast: (H, W, 3) uint8."""
    faded = FADE_CONTRAST * luminance(picture) + (1 - FADE_CONTRAST) * FADE_GREY
    return np.repeat(faded[..., None], 3, axis=2).astype(np.uint8)


def encode_jpeg(picture: Array, side: int, quality: int) -> bytes:
    """Encode an image (H, W, 3) uint8 as JPEG, with at most `side` pixels on its longer side."""
    from PIL import Image

    thumbnail = Image.fromarray(picture)
    thumbnail.thumbnail((side, side))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def png_data_uri(picture: Tensor) -> str:
    """Encode an image (H, W, 3) uint8 losslessly as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.contiguous().numpy()).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def has_image(explanation: Explanation) -> bool:
    """Return whether there is an image whose pixels are the places of the masks."""
    return explanation.pictures.shape[1:3] == explanation.masks.shape[3:] and explanation.pictures.numel() > 0
