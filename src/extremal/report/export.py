"""Cut masks for other tools: PNG, COCO run lengths, COCO polygons.

>>> import torch
>>> mask = torch.zeros(1, 6, 8)
>>> mask[:, 1:5, 2:7] = 1
>>> len(polygons(mask)), coco_rle(mask)["size"]
(1, [6, 8])
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.files import replacing


def write_png(mask: Tensor, path: str | os.PathLike[str]) -> None:
    """Write a mask as an 8-bit grey PNG, 0 and 255; the file appears whole or not at all.

    >>> import tempfile
    >>> mask = torch.eye(3)[None]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_png(mask, Path(folder) / "mask.png")
    ...     (Path(folder) / "mask.png").stat().st_size > 0
    True

    Args:
        mask: (1, H, W) of zeros and ones, e.g. `explanation.binary(0.1)[0]`.
        path: the file to write.

    Raises:
        ExtremalTypeError, ExtremalValueError: not such a mask, or a folder that cannot be written.
    """
    from PIL import Image

    picture = Image.fromarray(_pixels(mask) * np.uint8(255))
    with replacing(Path(path)) as aside:
        picture.save(aside, format="PNG")


def coco_rle(mask: Tensor) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths; exact, holes included.

    >>> coco_rle(torch.eye(3)[None])
    {'size': [3, 3], 'counts': '013000'}

    Args:
        mask: (1, H, W) of zeros and ones.

    Returns:
        `size` [H, W] and `counts` as text, so that it goes into JSON; `pycocotools.mask.decode` reads it.

    Raises:
        ExtremalTypeError, ExtremalValueError: not such a mask.
    """
    from pycocotools import mask as coco

    encoded: Any = coco.encode(np.asfortranarray(_pixels(mask)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def polygons(mask: Tensor) -> list[list[float]]:
    """The outer rings of a mask as COCO polygons, one for each connected part.

    Pixel (row i, column j) covers the square from (x, y) = (j, i) to (j + 1, i + 1). A ring runs through the middles of
    the pixel edges between 0 and 1, so corners are cut by half a pixel. Pixels that touch only at a corner are apart.
    Holes are filled: COCO's polygons cannot tell them. Where they matter, take `coco_rle`.

    >>> mask = torch.zeros(1, 5, 5)
    >>> mask[:, 2, 2] = 1
    >>> polygons(mask)
    [[2.0, 2.5, 2.5, 2.0, 3.0, 2.5, 2.5, 3.0]]

    Args:
        mask: (1, H, W) of zeros and ones.

    Returns:
        A list [x₁, y₁, x₂, y₂, …] for each part, not closed; no list for an empty mask.

    Raises:
        ExtremalTypeError, ExtremalValueError: not such a mask.
    """
    from contourpy import FillType, contour_generator

    padded = np.pad(_pixels(mask).astype(np.float64), 1)  # so that parts at the border close
    generator = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    filled: Any = generator.filled(0.5, 2.0)
    points, offsets = filled
    # the centre of pixel j lies at x = j + ½, and the padding moved it by 1; the last point repeats the first
    rings = [ring[: offset[1] - 1] - 0.5 for ring, offset in zip(points, offsets, strict=True)]
    return [ring.ravel().tolist() for ring in rings]


def _pixels(mask: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The mask as (H, W) of 0 and 1, checked."""
    if not isinstance(mask, Tensor):
        raise ExtremalTypeError(
            f"a mask must be a tensor (1, H, W) of zeros and ones, got {type(mask).__name__}; "
            "e.g. explanation.binary(0.1)[0]"
        )
    if mask.ndim != 3 or mask.shape[0] != 1 or 0 in mask.shape:
        raise ExtremalValueError(
            f"a mask must be one image, (1, H, W), got shape {tuple(mask.shape)}; e.g. explanation.binary(0.1)[0]"
        )
    mask = mask.detach().cpu()
    other = int(((mask != 0) & (mask != 1)).sum())
    if other:
        raise ExtremalValueError(
            f"a mask must be cut to zeros and ones, got {other} other values; take Explanation.binary(area)"
        )
    return mask[0].to(torch.uint8).numpy()
