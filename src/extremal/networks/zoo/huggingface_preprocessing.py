"""Preprocessing of networks from folders in the format of Hugging Face."""

import math
import warnings
from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.file_checks import describe_error, quote
from extremal.networks.zoo.huggingface_sizes import check_side
from extremal.networks.zoo.preprocessing import CenterCropResize

DEFAULT_SIDE = 224  # px, if the folder does not specify a size

Preprocessing = tuple[
    Callable[[Image.Image], Tensor], tuple[float, ...], tuple[float, ...]
]  # a callable, its mean, its std


def find_preprocessing(processor: Any | None, config: Any, path: str) -> Preprocessing:
    """Return the preprocessing of a folder, with mean and standard deviation of its normalisation.

    Args:
        processor: of transformers; None if the folder has none.
        config: of the model.
        path: the folder as the user gave it.

    Raises:
        ExtremalValueError: the image processor does not work, or a size is out of range.
    """
    if processor is not None:
        preprocess = HFPreprocess(processor)
        mean, std = _check_preprocess(preprocess, path)
        return preprocess, mean, std
    size = getattr(config, "image_size", None) or getattr(getattr(config, "vision_config", None), "image_size", None)
    sides = tuple(size) if isinstance(size, list | tuple) else (size or DEFAULT_SIDE,)
    height, width = (check_side(side, path) for side in (sides[0], sides[-1]))
    warnings.warn(
        f"{quote(path)} has no preprocessor_config.json: images are cropped and resized to {height}×{width} px and "
        "scaled to −1 .. 1, which may differ from the preprocessing in training",
        UserWarning,
        stacklevel=7,  # the caller of `zoo.load`
    )
    return CenterCropResize(3, height, width, mean=0.5, std=0.5), (0.5,), (0.5,)


def _check_preprocess(preprocess: "HFPreprocess", path: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of an image processor, after trying it on a grey image.

    Raises:
        ExtremalValueError: it fails, or its results are no images (C, H, W) of finite values.
    """
    processor = preprocess.processor
    try:
        mean: tuple[float, ...] = (0.0,)
        std: tuple[float, ...] = (1.0,)
        if getattr(processor, "do_normalize", False):
            mean, std = tuple(map(float, processor.image_mean)), tuple(map(float, processor.image_std))
        pixels = preprocess(Image.new("RGB", (64, 48), "grey"))
        if pixels.ndim != 3 or not pixels.isfinite().all():
            raise ValueError("a grey image does not become finite values (C, H, W)")
        if not all(map(math.isfinite, mean)) or not all(0 < value < math.inf for value in std):
            raise ValueError("image_mean must be finite, and image_std positive")
        if {len(mean), len(std)} - {1, len(pixels)}:
            raise ValueError(f"image_mean and image_std must have 1 or {len(pixels)} values")
    except Exception as error:
        raise ExtremalValueError(
            f"an hf: network must have a preprocessor_config.json that works, got {quote(path)}: "
            f"{describe_error(error)}; correct it"
        ) from None
    return mean, std


class HFPreprocess:
    """Preprocess by an image processor of transformers: image -> (C, H, W).

    Args:
        processor: the image processor.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image.Image) -> Tensor:
        """Image -> (C, H, W)."""
        pixels: Tensor = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels
