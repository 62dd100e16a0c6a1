"""Read the output of a network: class scores, precision, memory layout."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from extremal.networks.class_scores import read_class_scores

HALF_PRECISIONS = (torch.float16, torch.bfloat16)


def to_channels_last(x: Tensor) -> Tensor:
    """Return (B, C, H, W) with the channels of each place adjacent in memory."""
    x = x.contiguous(memory_format=torch.channels_last)
    if x.stride(0) != x[0].numel():  # any stride is valid for a single row, but kernels infer the layout from it
        x = x.clone(memory_format=torch.channels_last)
    return x


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the hardware supports bfloat16; without support it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def to_float32(output: object) -> object:
    """Convert half precision in an output to single precision; an output without any is returned as it is."""
    if isinstance(output, Tensor):
        return output.float() if output.dtype in HALF_PRECISIONS else output
    if isinstance(output, dict):  # includes the output classes of transformers
        for key, value in output.items():
            converted = to_float32(value)
            if converted is not value:
                output[key] = converted
    elif type(output) in (tuple, list) and any(_is_half(leaf) for leaf in tree_leaves(output)):
        return tree_map(lambda leaf: leaf.float() if _is_half(leaf) else leaf, output)
    return output


def _is_half(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype in HALF_PRECISIONS


def has_single_row(output: object) -> bool:
    """Return whether an output is that of one row: a tensor (1, ...), or a mapping of tensors that are all (1, ...).

    >>> has_single_row(torch.zeros(1, 10)), has_single_row({"logits": torch.zeros(2, 10)})
    (True, False)
    """
    if not isinstance(output, Tensor | Mapping):
        return False
    tensors = find_tensors(output)
    return bool(tensors) and all(tensor.ndim > 1 and len(tensor) == 1 for tensor in tensors)


def concatenate_outputs(outputs: Sequence[Any]) -> Any:
    """Concatenate the outputs of single rows: tensors and lists row by row, in mappings and tuples entry by entry.

    >>> concatenate_outputs([{"logits": torch.zeros(1, 3)}] * 2)["logits"].shape
    torch.Size([2, 3])
    """
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(outputs) if first.ndim else torch.stack(outputs)  # type: ignore[arg-type]
    if isinstance(first, list) and first and not isinstance(first[0], Tensor):  # of a detector: one entry per image
        return [entry for output in outputs for entry in output]
    if isinstance(first, dict):
        whole = copy(first)
        for key in first:
            whole[key] = concatenate_outputs([output[key] for output in outputs])
        return whole
    if type(first) in (tuple, list):
        return type(first)(concatenate_outputs(parts) for parts in zip(*outputs, strict=True))
    return first


def read_logits(output: object, name: str, labels: Sequence[str] = (), rows: int | None = None) -> Tensor:
    """Read the scores (B, classes) from a network's output, as `read_class_scores` does."""
    return read_class_scores(output, name, labels, rows).scores


def find_tensors(output: object) -> list[Tensor]:
    """Return the floating tensors in an output."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
