"""Read image files safely; nothing here imports torch."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, describe_error, quote
from extremal.networks.image_bounds import check_aspect

IMAGE_SUFFIXES = (  # of image files in a folder
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jfif", ".jpe", ".apng"),
    *(".jp2", ".j2k", ".jpx", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".psd"),
)
MAX_PIXELS = 100_000_000  # larger images are rejected as decompression bombs
MAX_FILE_BYTES = 500_000_000  # of an image file; MAX_PIXELS without compression have 400 MB
MIN_BRIGHTEST = 16.0  # of a float image in 0..255; with less, it is in some other range

# Ghostscript is a program of its own; stubs and players need another library
_OTHER_FORMATS = ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "FPX", "MIC")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation


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
    name, max_pixels = quote(path if name is None else name), max_pixels or MAX_PIXELS
    with _open_image_file(path, name, max_pixels) as image:
        return to_upright_rgb(image)


def check_image_file(path: str | os.PathLike[str], *, is_scaled: bool = False) -> None:
    """Check that a file is an image, by its header; its pixels are not decoded.

    Args:
        path: of the file.
        is_scaled: whether the image is scaled for a network, for which it may be too thin.

    Raises:
        ExtremalValueError: as `read_image_file`, as far as the header shows; or the image is too thin.
    """
    with _open_image_file(path, quote(path), MAX_PIXELS) as image:
        if is_scaled:
            check_aspect(image)


@contextmanager
def _open_image_file(path: str | os.PathLike[str], name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Yield an image whose pixels are not decoded yet; errors of Pillow, also later ones, become one sentence."""
    size = check_file(path, "an image", name=name, max_bytes=MAX_FILE_BYTES, folder_remedy="name the images in it")
    if size == 0:
        raise ExtremalValueError(f"an image must not be empty, got {name} with 0 bytes; copy it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about files that are odd; broken ones raise
            with Image.open(path, formats=_find_formats()) as image:
                check_pixels(image, name, max_pixels)
                yield image
    except ExtremalValueError:
        raise
    except UnidentifiedImageError:
        raise ExtremalValueError(
            f"an image must be in a format that Pillow reads, got {name}; convert it to PNG or JPEG"
        ) from None
    except Image.DecompressionBombError:
        raise ExtremalValueError(
            f"an image must have at most {max_pixels // 10**6} megapixels, got a larger one in {name}; shrink it first"
        ) from None
    except Exception as error:  # decoders raise almost anything on broken files
        raise ExtremalValueError(
            f"an image must be readable to its end, got {name}: {describe_error(error)}; copy or convert it again"
        ) from None


@cache
def _find_formats() -> tuple[str, ...]:
    """Return the formats that Pillow decodes by itself; others start a program, or only name it."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _OTHER_FORMATS)


def check_pixels(image: Image.Image, name: str, max_pixels: int) -> None:
    """Raise if an image has no pixels or more than `max_pixels`; `name` is that of its file in messages."""
    width, height = image.size
    if width * height > max_pixels:
        raise ExtremalValueError(
            f"an image must have at most {max_pixels // 10**6} megapixels, got {width}×{height} in {name}; shrink it "
            "first"
        )
    if 0 in image.size:
        raise ExtremalValueError(f"an image must have pixels, got {width}×{height} in {name}; check how it was cropped")


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image to upright 8-bit RGB: 16-bit and float scaled to their range, alpha over white.

    The range of float values is 0..1 if they all lie there, 0..255 if they do and the largest is above 16, else that of
    the values.
    """
    image = _turn_upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _scale_to_8_bit(image)
    image = image.convert("LA") if image.mode == "La" else image  # Pillow converts it to this mode alone
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer.getchannel("A"))
    return image.convert("RGB")


def _turn_upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says; the rest of EXIF, which may be broken, is not read or copied."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # an unreadable block says nothing about the pixels
        orientation = None
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _scale_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float values to 0..255: mode I, I;16 or F -> mode L."""
    values: np.ndarray[Any, Any] = np.asarray(image, dtype=np.float64 if image.mode == "I" else np.float32)
    n_broken = values.size - int(np.isfinite(values).sum())
    if n_broken:
        raise ExtremalValueError(f"an image must be finite, got {n_broken} NaN or infinite pixels; clean it")
    low, high = _find_range(image.mode, float(values.min()), float(values.max()))
    scaled = (values - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(np.round(scaled, out=scaled).astype(np.uint8))


def _find_range(mode: str, smallest: float, largest: float) -> tuple[float, float]:
    """Return the values of black and white."""
    if mode == "F":
        low, high = 0.0, 1.0 if largest < MIN_BRIGHTEST else 255.0
    else:
        is_16_bit = mode.startswith("I;16") or (mode == "I" and largest > 255)
        low, high = 0.0, 65535.0 if is_16_bit else 255.0
    return (low, high) if low <= smallest and largest <= high else (smallest, largest)
