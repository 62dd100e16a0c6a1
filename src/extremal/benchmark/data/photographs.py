"""Photographs that scikit-image brings, with classes of ImageNet that are in them, no regions."""

from typing import Any

import numpy as np
from PIL import Image

from extremal.benchmark.data.samples import Region, Sample, describe_keys, limit_keys
from extremal.errors import ExtremalValueError

PHOTOGRAPH_CLASSES = {  # of `skimage.data`
    "chelsea": ("tiger cat", "tabby"),
    "coffee": ("espresso", "cup"),
    "rocket": ("missile",),
    "camera": ("tripod",),
    "stereo_motorcycle": ("moped",),
}


class Photographs:
    """Five photographs with seven classes of ImageNet.

    Args:
        limit: maximum number of images.
    """

    has_regions = False

    def __init__(self, *, limit: int | None = None) -> None:
        """List the photographs."""
        self._keys = limit_keys(tuple(PHOTOGRAPH_CLASSES), limit)
        self.classes = tuple(sorted({label for key in self._keys for label in PHOTOGRAPH_CLASSES[key]}))

    def settings(self) -> dict[str, Any]:
        """Return the identity of the photographs."""
        labels = [f"{key}={label}" for key in self._keys for label in PHOTOGRAPH_CLASSES[key]]
        return {"kind": "photographs", **describe_keys(labels)}

    def keys(self) -> tuple[str, ...]:
        """Return the names of the photographs in `skimage.data`."""
        return self._keys

    def sample(self, key: str) -> Sample:
        """Read a photograph and its classes.

        Raises:
            ExtremalValueError: this version of scikit-image does not have it, or has to download it and cannot.
        """
        import skimage.data

        try:
            pixels = getattr(skimage.data, key)()
        except Exception as error:  # a download may fail in many ways
            raise ExtremalValueError(
                f"a photograph must be among scikit-image's data, could not read {key!r}: {error}; connect once to "
                "download it, or use --data folder:DIR"
            ) from None
        pixels = pixels[0] if isinstance(pixels, tuple) else pixels  # the left one of a stereo pair
        regions = tuple(Region(label, None) for label in PHOTOGRAPH_CLASSES[key])
        return Sample(key, Image.fromarray(np.asarray(pixels)).convert("RGB"), regions)
