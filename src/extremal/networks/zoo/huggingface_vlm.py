"""Models of images and text from folders in the format of Hugging Face: processors, tokenizers, and their memory."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from extremal.errors import ExtremalValueError, Notice
from extremal.file_checks import describe_error, quote

SINGLE_SHARE = 0.5  # of the machine's memory, that weights in single precision may take
HALF_SHARE = 0.8  # the same for weights in half precision, if single precision does not fit
GIB = 2**30


def is_vision_language(transformers: Any, architecture: str) -> bool:
    """Return whether transformers lists an architecture as a model of images and text that writes text."""
    listed = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return architecture in listed.values()


def choose_dtype(model: nn.Module, path: str) -> torch.dtype:
    """Return the precision in which a model's weights fit into memory: single, else bfloat16 with a notice.

    Args:
        model: on the meta device.
        path: the folder as the user gave it.

    Raises:
        ExtremalValueError: they fit in neither.
    """
    n_values = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    memory = find_memory()
    if 4 * n_values <= SINGLE_SHARE * memory:
        return torch.float32
    if 2 * n_values <= HALF_SHARE * memory:
        warnings.warn(
            f"hf:{path} is loaded in bfloat16, {2 * n_values / GIB:.1f} GiB, because {4 * n_values / GIB:.1f} GiB in "
            f"single precision are more than half of this machine's memory of {memory / GIB:.1f} GiB",
            Notice,
            stacklevel=6,
        )
        return torch.bfloat16
    raise ExtremalValueError(
        f"a model must fit into memory, got {quote(path)} of {2 * n_values / GIB:.1f} GiB in bfloat16, and this "
        f"machine has {memory / GIB:.1f} GiB; choose a smaller model, or a machine with more memory"
    )


def find_memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def load_processor(transformers: Any, folder: Path, path: str) -> Any:
    """Load the processor of images and text from a folder.

    Args:
        transformers: the library.
        folder: with the processor's settings and a tokenizer.
        path: the folder as the user gave it.

    Raises:
        ExtremalValueError: it does not load, or is no processor of images and text.
    """
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ExtremalValueError(
            f"a model of images and text must have its processor in its folder, got {quote(path)}: "
            f"{describe_error(error)}; save it there with save_pretrained"
        ) from None
    return processor
