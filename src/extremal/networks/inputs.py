"""Prepare images as inputs: image files are read safely, tensors are validated."""

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

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")  # of image files in a folder
MAX_PIXELS = 100_000_000  # larger images are rejected as decompression bombs

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor
ImagesLike = ImageLike | Sequence[ImageLike]  # a sequence is a batch


def read_image_file(
    path: str | os.PathLike[str], *, name: str | None = None, max_pixels: int | None = None
) -> Image.Image:
    """Read an image file as upright RGB: its first frame, EXIF rotation applied, transparency over white.

    Args:
        path: of the file.
        name: of the file in error messages; None: its path.
        max_pixels: larger images are rejected before they are decoded; None: 100 megapixels.

    Raises:
        ExtremalValueError: the file is missing, empty, truncated, not an image, or has too many pixels.
    """
    path = Path(path)
    name, max_pixels = repr(str(path) if name is None else name), max_pixels or MAX_PIXELS
    if not path.exists():
        raise ExtremalValueError(f"an image must be an existing file, got {name}; check the path")
    if path.is_dir():
        raise ExtremalValueError(f"an image must be a file, got the folder {name}; name the images in it")
    if path.stat().st_size == 0:
        raise ExtremalValueError(f"an image must not be empty, got {name} with 0 bytes; copy it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check_pixels(image, name, max_pixels)
                return to_upright_rgb(image)
    except UnidentifiedImageError:
        raise ExtremalValueError(
            f"an image must be in a format that Pillow reads, got {name}; convert it to PNG or JPEG"
        ) from None
    except Image.DecompressionBombError:
        raise ExtremalValueError(
            f"an image must have at most {max_pixels // 10**6} megapixels, got a larger one in {name}; shrink it first"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, ExtremalValueError):
            raise
        raise ExtremalValueError(
            f"an image must be readable to its end, got {name}: {error}; copy or convert it again"
        ) from None


def _check_pixels(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ExtremalValueError(
            f"an image must have at most {max_pixels // 10**6} megapixels, got {width}×{height} in {name}; shrink it "
            "first"
        )
    if 0 in image.size:
        raise ExtremalValueError(f"an image must have pixels, got {width}×{height} in {name}; check how it was cropped")


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image to upright 8-bit RGB: 16-bit and float scaled to their range, alpha over white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        n_broken = int((~np.isfinite(values)).sum())
        if n_broken:
            raise ExtremalValueError(f"an image must be finite, got {n_broken} NaN or infinite pixels; clean it")
        is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and values.max() > 255)
        low, high = (0.0, 65535.0) if is_16_bit else (0.0, 255.0)
        if values.min() < low or values.max() > high:
            low, high = float(values.min()), float(values.max())
        image = Image.fromarray(((values - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def prepare(network: Network, image: ImagesLike) -> Tensor:
    """Prepare a path, a Pillow image, a uint8 array (H, W, C) or (H, W), or a tensor as inputs (N, C, *S).

    Tensors must be prepared already; they are only moved to the network's device and dtype, without changing the
    caller's tensor. A list of any of these becomes one batch.
    """
    if isinstance(image, list | tuple):
        return concatenate_inputs([prepare(network, item) for item in image])
    opened = open_image(image)  # type: ignore[arg-type]  # a sequence of another type is refused there
    x = opened if isinstance(opened, Tensor) else network.prepare(opened)
    anchor = network.anchor
    return x.detach().to(device=anchor.device, dtype=anchor.dtype)


def open_image(image: ImageLike) -> Image.Image | Tensor:
    """Return one image as upright RGB, or the prepared tensor itself once it is validated."""
    if isinstance(image, Tensor):
        return validate_input(image)
    if isinstance(image, np.ndarray):
        return to_upright_rgb(Image.fromarray(_validate_array(image)))
    if isinstance(image, Image.Image):
        return _to_rgb(image)
    if isinstance(image, str | os.PathLike):
        return read_image_file(image)
    raise ExtremalTypeError(
        "an image must be a path, a Pillow image, a uint8 array (H, W, C) or a prepared tensor (N, C, *S), or a "
        f"list of these, got {type(image).__name__}"
    )


def concatenate_inputs(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate inputs (N, C, *S) of one shape.

    Raises:
        ExtremalValueError: there are none, or their shapes differ.
    """
    if not parts:
        raise ExtremalValueError("a batch must hold at least one image, got an empty list")
    shapes = sorted({tuple(part.shape[1:]) for part in parts})
    if len(shapes) > 1:
        raise ExtremalValueError(
            "the images of a batch must have one shape after preparation, got "
            f"{' and '.join(map(str, shapes[:3]))}; explain them one by one, or crop them to one shape"
        )
    return torch.cat(list(parts))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image to upright RGB; Pillow reads the pixels of an open file only here."""
    _check_pixels(image, "the Pillow image", MAX_PIXELS)
    try:
        return to_upright_rgb(image)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, ExtremalValueError):
            raise
        raise ExtremalValueError(
            f"an image must be readable to its end, got a Pillow image that is not: {error}; copy or convert it again"
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
    """Check that a tensor is floating-point, finite and (N, C, *S) with 1 to 3 spatial dimensions; return it."""
    if not x.is_floating_point():
        raise ExtremalTypeError(f"a prepared tensor must be floating, got {x.dtype}; convert and normalise it first")
    if not 3 <= x.ndim <= 5 or 0 in x.shape:
        raise ExtremalValueError(
            "a prepared tensor must be (N, C, *S) with 1 to 3 spatial dimensions, got shape "
            f"{tuple(x.shape)}; add a batch axis with x[None] if it is missing"
        )
    n_broken = int((~torch.isfinite(x)).sum())
    if n_broken:
        raise ExtremalValueError(f"a prepared tensor must be finite, got {n_broken} NaN or infinite values; clean it")
    return x
