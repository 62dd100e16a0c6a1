"""Export cut masks as PNG, COCO run-length encoding, or COCO polygons.

>>> import torch
>>> mask = torch.zeros(1, 6, 8)
>>> mask[:, 1:5, 2:7] = 1
>>> len(polygons(mask)), coco_rle(mask)["size"]
(1, [6, 8])
"""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import quote, to_path
from extremal.files import atomic_file


def write_png(mask: Tensor, path: str | os.PathLike[str]) -> None:
    """Write a mask atomically as an 8-bit greyscale PNG with the values 0 and 255.

    >>> import tempfile
    >>> from pathlib import Path
    >>> mask = torch.eye(3)[None]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_png(mask, Path(folder) / "mask.png")
    ...     (Path(folder) / "mask.png").stat().st_size > 0
    True

    Args:
        mask: (1, H, W) of zeros and ones, e.g. `explanation.binary(0.1)[0]`.
        path: the file to write.

    Raises:
        ExtremalTypeError, ExtremalValueError: if the mask is invalid, or the folder cannot be written.
    """
    from PIL import Image

    pixels = Image.fromarray(_validate_pixels(mask) * np.uint8(255))
    with atomic_file(to_path(path, "a mask")) as temporary:
        pixels.save(temporary, format="PNG")


def write_mask(mask: Tensor, path: str | os.PathLike[str]) -> None:
    """Write a mask atomically: as PNG, or, if the path ends in .npy, as an array (*S) of 0 and 1.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_mask(torch.ones(1, 4, 6, 8), Path(folder) / "mask.npy")
    ...     np.load(Path(folder) / "mask.npy", allow_pickle=False).shape
    (4, 6, 8)

    Args:
        mask: (1, *S) of zeros and ones.
        path: the file to write, with the suffix .png or .npy.

    Raises:
        ExtremalTypeError, ExtremalValueError: if the mask is invalid, or the folder cannot be written.
    """
    target = to_path(path, "a mask")
    if target.suffix.lower() == ".png":
        write_png(mask, target)
        return
    if target.suffix.lower() != ".npy":
        raise ExtremalValueError(f"a mask must be written to a .png or .npy file, got {quote(target)}; change its name")
    values = _validate_mask(mask)
    with atomic_file(target) as temporary, temporary.open("wb") as file:
        np.save(file, values, allow_pickle=False)


def coco_rle(mask: Tensor) -> dict[str, Any]:
    """Encode a mask as COCO's compressed run-length encoding, exactly and including holes.

    >>> coco_rle(torch.eye(3)[None])
    {'size': [3, 3], 'counts': '013000'}

    Args:
        mask: (1, H, W) of zeros and ones.

    Returns:
        `size` [H, W] and `counts` as text, which can be written as JSON; `pycocotools.mask.decode` reads it.

    Raises:
        ExtremalTypeError, ExtremalValueError: if the mask is invalid.
    """
    from pycocotools import mask as coco

    encoded: Any = coco.encode(np.asfortranarray(_validate_pixels(mask)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def polygons(mask: Tensor) -> list[list[float]]:
    """Convert a mask to COCO polygons: the outer ring of each connected part.

    Pixel (row i, column j) covers the square from (x, y) = (j, i) to (j + 1, i + 1). A ring runs through the midpoints
    of the pixel edges between 0 and 1, so corners are cut by half a pixel. Pixels that touch only at a corner belong to
    different parts. Holes are filled, since COCO's polygons cannot represent them; use `coco_rle` to keep holes.

    >>> mask = torch.zeros(1, 5, 5)
    >>> mask[:, 2, 2] = 1
    >>> polygons(mask)
    [[2.0, 2.5, 2.5, 2.0, 3.0, 2.5, 2.5, 3.0]]

    Args:
        mask: (1, H, W) of zeros and ones.

    Returns:
        A list [x₁, y₁, x₂, y₂, …] for each part, without repeating the first point; an empty list for an empty mask.

    Raises:
        ExtremalTypeError, ExtremalValueError: if the mask is invalid.
    """
    from contourpy import FillType, contour_generator

    padded = np.pad(_validate_pixels(mask).astype(np.float64), 1)  # closes parts at the border
    generator = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    contours: Any = generator.filled(0.5, 2.0)
    points, offsets = contours
    # the centre of pixel j is at x = j + ½, and the padding shifts it by 1; the last point repeats the first
    rings = [ring[: offset[1] - 1] - 0.5 for ring, offset in zip(points, offsets, strict=True)]
    return [ring.ravel().tolist() for ring in rings]


def _validate_pixels(mask: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a valid mask as (H, W) of 0 and 1."""
    if isinstance(mask, Tensor) and (mask.ndim != 3 or mask.shape[0] != 1 or 0 in mask.shape):
        raise ExtremalValueError(
            f"a mask must be one image, (1, H, W), got shape {tuple(mask.shape)}; e.g. explanation.binary(0.1)[0]"
        )
    return _validate_mask(mask)


def _validate_mask(mask: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a valid mask as (*S) of 0 and 1."""
    if not isinstance(mask, Tensor):
        raise ExtremalTypeError(
            f"a mask must be a tensor (1, *S) of zeros and ones, got {type(mask).__name__}; "
            "e.g. explanation.binary(0.1)[0]"
        )
    if mask.ndim < 2 or mask.shape[0] != 1 or 0 in mask.shape:
        raise ExtremalValueError(
            f"a mask must be one of an input, (1, *S), got shape {tuple(mask.shape)}; e.g. explanation.binary(0.1)[0]"
        )
    mask = mask.detach().cpu()
    invalid = int(((mask != 0) & (mask != 1)).sum())
    if invalid:
        raise ExtremalValueError(
            f"a mask must be cut to zeros and ones, got {invalid} other values; use Explanation.binary(area)"
        )
    return mask[0].to(torch.uint8).numpy()
