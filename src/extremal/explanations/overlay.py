"""Images under masks, and their encodings."""

import base64
import io
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

OUTLINE_COLOURS = {True: "#00c2ff", False: "#ff3b30"}  # by whether masks keep or remove their region
OUTLINE_FRACTION = 224  # the longer side divided by this is the width of an outline
FADE_CONTRAST, FADE_GREY = 0.4, 190.0  # of faded places: remaining contrast, and the grey level that they approach
HEAT_COLOURS = ((68.0, 1.0, 84.0), (59.0, 82.0, 139.0), (33.0, 145.0, 140.0), (94.0, 201.0, 98.0), (253.0, 231.0, 37.0))
HEAT_OPACITY, HEAT_BRIGHTNESS = 0.8, 0.8  # of the colour at the largest heat, and of the grey image below
Array = np.ndarray[Any, np.dtype[Any]]


class Pictured(Protocol):
    """Masks of N inputs that can have images."""

    @property
    def masks(self) -> Tensor:
        """(N, A, 1, *S) in [0, 1]."""

    @property
    def pictures(self) -> Tensor:
        """(N, H, W, 3) uint8; (N, 0, 0, 3) where they are not pictures."""

    @property
    def keeps(self) -> bool:
        """Whether masks are judged by what they keep."""


def apply_mask(explanation: Pictured, mask: Tensor, image: int = 0) -> Tensor:
    """Show an image under a cut mask, with the places that the network does not see faded: (H, W, 3) uint8.

    Args:
        explanation: of N images.
        mask: (1, H, W) of zeros and ones.
        image: index of the image, 0..N − 1.
    """
    visible = mask if explanation.keeps else 1 - mask
    picture = explanation.pictures[image]
    return torch.where(visible.movedim(0, -1) > 0, picture, torch.from_numpy(fade(picture.numpy())))


def draw_outline(picture: Tensor, mask: Tensor, keeps: bool) -> Tensor:
    """Draw the outline of a cut mask into an image: (H, W, 3) uint8.

    Args:
        picture: (H, W, 3) uint8, not changed.
        mask: (1, H, W) of zeros and ones.
        keeps: whether the region is kept, or removed; decides on the colour.
    """
    width = max(1, round(max(mask.shape[1:]) / OUTLINE_FRACTION))
    inside = mask.float()
    grown = F.max_pool2d(inside, 2 * width + 1, 1, width)[0] > 0
    colour = torch.tensor([int(OUTLINE_COLOURS[keeps][k : k + 2], 16) for k in (1, 3, 5)], dtype=torch.uint8)
    return torch.where((grown & (inside[0] == 0)).unsqueeze(-1), colour, picture)


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
    buffer = io.BytesIO()
    to_pillow(picture).save(buffer, "PNG", optimize=True)
    return image_data_uri("png", buffer.getvalue())


def image_data_uri(kind: str, content: bytes) -> str:
    """Return the bytes of an image file as a data URI; `kind` is png or jpeg.

    >>> image_data_uri("png", b"abc")
    'data:image/png;base64,YWJj'
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def draw_heat(picture: Tensor, heat: Tensor) -> Tensor:
    """Colour a grey copy of an image where the heat is high, from violet to yellow: (H, W, 3) uint8.

    Args:
        picture: (H, W, 3) uint8, not changed.
        heat: (H, W) in [0, 1]; places of 0 stay grey.
    """
    position = heat.clamp(0, 1) * (len(HEAT_COLOURS) - 1)
    first = position.floor().long().clamp(max=len(HEAT_COLOURS) - 2)
    colours, part = torch.tensor(HEAT_COLOURS), (position - first).unsqueeze(-1)
    colour = (1 - part) * colours[first] + part * colours[first + 1]
    grey = HEAT_BRIGHTNESS * torch.from_numpy(luminance(picture.numpy())).unsqueeze(-1)
    opacity = HEAT_OPACITY * heat.clamp(0, 1).unsqueeze(-1)
    return ((1 - opacity) * grey + opacity * colour).round().byte()


def to_pillow(picture: Tensor) -> "Image.Image":
    """Convert an image (H, W, 3) uint8 to Pillow's."""
    from PIL import Image

    return Image.fromarray(picture.contiguous().numpy())


def has_image(explanation: Pictured) -> bool:
    """Return whether there is an image whose pixels are the places of the masks."""
    return explanation.pictures.shape[1:3] == explanation.masks.shape[3:] and explanation.pictures.numel() > 0
