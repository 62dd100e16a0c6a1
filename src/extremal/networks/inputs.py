"""From what a user hands in to a prepared batch: pictures are read safely, tensors are checked."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.network import Network

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")  # of pictures in a folder
MAX_PIXELS = 100_000_000  # above this a picture is refused as a decompression bomb

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor
ImagesLike = ImageLike | Sequence[ImageLike]  # several are a batch


def read_image_file(
    path: str | os.PathLike[str], *, name: str | None = None, max_pixels: int | None = None
) -> Image.Image:
    """A picture file as upright RGB: first frame, EXIF rotation applied, transparency over white.

    Args:
        path: of the file.
        name: by which messages call it; its path if None.
        max_pixels: more are refused before they are decoded; 100 megapixels if None.

    Raises:
        ExtremalValueError: the file is missing, empty, truncated, not a picture, or has too many pixels.
    """
    path = Path(path)
    told, most = repr(str(path) if name is None else name), max_pixels or MAX_PIXELS
    if not path.exists():
        raise ExtremalValueError(f"an image must be an existing file, got {told}; check the path")
    if path.is_dir():
        raise ExtremalValueError(f"an image must be a file, got the folder {told}; name the pictures in it")
    if path.stat().st_size == 0:
        raise ExtremalValueError(f"an image must not be empty, got {told} with 0 bytes; copy it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                _check_pixels(picture, told, most)
                return to_upright_rgb(picture)
    except UnidentifiedImageError:
        raise ExtremalValueError(
            f"an image must be in a format that Pillow reads, got {told}; convert it to PNG or JPEG"
        ) from None
    except Image.DecompressionBombError:
        raise ExtremalValueError(
            f"an image must have at most {most // 10**6} megapixels, got a larger one in {told}; shrink it first"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, ExtremalValueError):
            raise
        raise ExtremalValueError(
            f"an image must be readable to its end, got {told}: {error}; copy or convert it again"
        ) from None


def _check_pixels(picture: Image.Image, name: str, most: int) -> None:
    width, height = picture.size
    if width * height > most:
        raise ExtremalValueError(
            f"an image must have at most {most // 10**6} megapixels, got {width}×{height} in {name}; shrink it first"
        )
    if 0 in picture.size:
        raise ExtremalValueError(f"an image must have pixels, got {width}×{height} in {name}; check how it was cut")


def to_upright_rgb(picture: Image.Image) -> Image.Image:
    """Any Pillow picture as upright 8-bit RGB: 16-bit and float scaled to their range, alpha over white."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        broken = int((~np.isfinite(values)).sum())
        if broken:
            raise ExtremalValueError(f"an image must be finite, got {broken} NaN or infinite pixels; clean it")
        deep = picture.mode.startswith("I;16") or (picture.mode == "I" and values.max() > 255)
        low, high = (0.0, 65535.0) if deep else (0.0, 255.0)
        if values.min() < low or values.max() > high:
            low, high = float(values.min()), float(values.max())
        picture = Image.fromarray(((values - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")


def prepare(network: Network, image: ImagesLike) -> Tensor:
    """A path, a Pillow picture, a uint8 array (H, W, C) or (H, W), or a prepared tensor, as a batch (N, C, *S).

    Tensors are taken as they are, moved to the network's device and dtype; the caller's tensor is not touched. A list
    of any of these is a batch of them all.
    """
    if isinstance(image, list | tuple):
        return _concatenate([prepare(network, one) for one in image])
    if isinstance(image, Tensor):
        x = validate_input(image)
    elif isinstance(image, np.ndarray):
        x = network.prepare(to_upright_rgb(Image.fromarray(_validate_array(image))))
    elif isinstance(image, Image.Image):
        x = network.prepare(_to_rgb(image))
    elif isinstance(image, str | os.PathLike):
        x = network.prepare(read_image_file(image))
    else:
        raise ExtremalTypeError(
            "an image must be a path, a Pillow picture, a uint8 array (H, W, C) or a prepared tensor (N, C, *S), or a "
            f"list of these, got {type(image).__name__}"
        )
    anchor = network.anchor
    return x.detach().to(device=anchor.device, dtype=anchor.dtype)


def _concatenate(parts: Sequence[Tensor]) -> Tensor:
    """Inputs (N, C, *S) one after the other."""
    if not parts:
        raise ExtremalValueError("a batch must hold at least one image, got an empty list")
    shapes = sorted({tuple(part.shape[1:]) for part in parts})
    if len(shapes) > 1:
        raise ExtremalValueError(
            "the images of a batch must have one shape once they are prepared, got "
            f"{' and '.join(map(str, shapes[:3]))}; explain them one by one, or crop them alike"
        )
    return torch.cat(list(parts))


def _to_rgb(picture: Image.Image) -> Image.Image:
    """A Pillow picture, upright; Pillow reads an opened file only now."""
    _check_pixels(picture, "the given picture", MAX_PIXELS)
    try:
        return to_upright_rgb(picture)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, ExtremalValueError):
            raise
        raise ExtremalValueError(
            f"an image must be readable to its end, got a Pillow picture that is not: {error}; copy or convert it again"
        ) from None


def _validate_array(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype != np.uint8:
        raise ExtremalTypeError(
            f"an image array must be uint8 (H, W, C), got {array.dtype}; scale it to 0..255, or pass a prepared tensor"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ExtremalValueError(f"an image array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}")
    return array


def validate_input(x: Tensor) -> Tensor:
    """A prepared tensor: floating, finite, (N, C, *S) with 1 to 3 spatial dimensions."""
    if not x.is_floating_point():
        raise ExtremalTypeError(f"a prepared tensor must be floating, got {x.dtype}; convert and normalise it first")
    if not 3 <= x.ndim <= 5 or 0 in x.shape:
        raise ExtremalValueError(
            "a prepared tensor must be (N, C, *S) with 1 to 3 spatial dimensions, got shape "
            f"{tuple(x.shape)}; add a batch axis with x[None] if it is missing"
        )
    broken = int((~torch.isfinite(x)).sum())
    if broken:
        raise ExtremalValueError(f"a prepared tensor must be finite, got {broken} NaN or infinite values; clean it")
    return x
