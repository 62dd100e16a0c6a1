"""Compare the sizes that a folder in the format of Hugging Face asks for with its weights, before a model is built."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, describe_error, quote

MAX_LAYERS = 1000  # and other numbers of parts, each of which is built in a loop
MAX_CLASSES = 1_000_000
MAX_SIDE = 4096  # px, of a preprocessed image
MAX_EXTRA_VALUES = 2**24  # of a model, beyond those in its weights: buffers that are computed, a head
MEMORY_SHARE = 0.5  # of the machine's memory, that random weights may take

_PART_WORDS = ("layer", "depth", "block", "stage", "level", "group")  # in the names of numbers of parts
_SIDE_NAMES = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")
_SIZE_NAMES = ("size", "crop_size", "pad_size")  # of an image processor


def check_numbers(config: dict[str, Any], path: str) -> None:
    """Check the numbers of config.json that decide how long it takes to build a model.

    Args:
        config: its content.
        path: the folder as the user gave it.

    Raises:
        ExtremalValueError: there are too many layers, other parts or classes.
    """
    for name, value in _list_numbers(config):
        limit = MAX_CLASSES if name == "num_labels" else MAX_LAYERS
        is_count = name == "num_labels" or any(word in name for word in _PART_WORDS)
        if is_count and isinstance(value, int) and value > limit:
            raise ExtremalValueError(
                f"an hf: network must have a {quote(name)} of at most {limit:,} in its config.json, got {quote(path)} "
                f"with {quote(value)}; correct it"
            )


def _list_numbers(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield numbers with their names, and the lengths of lists of numbers."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _list_numbers(entry, str(key))
    elif isinstance(value, list):
        if value and not any(isinstance(entry, str) for entry in value):
            yield f"{name} (layers)", len(value)
        for entry in value:
            yield from _list_numbers(entry, name)
    elif isinstance(value, int):
        yield name, value


def read_shapes(files: list[Path], path: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in files of weights; the tensors are not read.

    Raises:
        ExtremalValueError: a file is missing or damaged.
    """
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        check_file(file, "weights")
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    shapes[name] = tuple(opened.get_slice(name).get_shape())
        except Exception as error:
            raise ExtremalValueError(
                f"an hf: network must load as it is, got {quote(path)}: {describe_error(error)}; "
                "check the folder, or save it again with save_pretrained"
            ) from None
    return shapes


def check_model(model: nn.Module, shapes: dict[str, tuple[int, ...]], path: str, file_size: int | None) -> None:
    """Check that a model without memory has the size of its weights.

    Args:
        model: on the meta device.
        shapes: of the tensors in the folder's weights; empty: others are used.
        path: the folder as the user gave it.
        file_size: bytes of a file of other weights; None without: the folder's, or random ones.

    Raises:
        ExtremalValueError: a tensor has another shape in the weights, or the model is much larger than these.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in tensors.items():
        if name in shapes and shapes[name] != tuple(tensor.shape):
            raise ExtremalValueError(
                f"weights must fit config.json, got {quote(path)} with {quote(name)} of shape {shapes[name]}, by "
                f"config.json {tuple(tensor.shape)}; correct it"
            )
    n_values = sum(tensor.numel() for tensor in tensors.values())
    if not shapes and file_size is None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit, source = int(memory * MEMORY_SHARE / torch.float32.itemsize), "half of this machine's memory holds"
    else:
        limit = 2 * (file_size or sum(map(math.prod, shapes.values()))) + MAX_EXTRA_VALUES
        source = "its weights and what is computed beside them can have"
    if n_values > limit:
        raise ExtremalValueError(
            f"an hf: network must have at most the {limit:,} values that {source}, got {quote(path)} with {n_values:,} "
            "by its config.json; correct it"
        )


def check_side(side: Any, path: str) -> int:
    """Return a side of preprocessed images in px.

    Raises:
        ExtremalValueError: it is no whole number, or out of range.
    """
    if type(side) is not int or not 1 <= side <= MAX_SIDE:
        raise ExtremalValueError(
            f"an hf: network must take images of 1..{MAX_SIDE} px, got {quote(path)} with {quote(side)}; correct its "
            "config.json or preprocessor_config.json"
        )
    return side


def check_processor(processor: Any, path: str) -> None:
    """Check the sizes to which an image processor of transformers scales images.

    Raises:
        ExtremalValueError: a size is out of range.
    """
    for name in _SIZE_NAMES:
        size = getattr(processor, name, None)
        sides = size if isinstance(size, dict) else {side: getattr(size, side, None) for side in _SIDE_NAMES}
        for side in _SIDE_NAMES:
            value = sides.get(side)
            if value is None:
                continue
            is_count = side.endswith("_edge") and hasattr(processor, "merge_size") and type(value) is int and value > 0
            check_side(math.isqrt(value) if is_count else value, path)  # Qwen's edges are numbers of pixels
