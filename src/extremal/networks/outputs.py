"""Read the output of a network: class scores, precision, memory layout."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from extremal.networks.class_scores import read_class_scores


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
    """Convert an output of autocast back to single precision."""
    if isinstance(output, Tensor):
        return output.float() if output.dtype == torch.bfloat16 else output
    if isinstance(output, dict):  # includes the output classes of transformers
        for key, value in output.items():
            output[key] = to_float32(value)
    return output


def read_logits(output: object, name: str, labels: Sequence[str] = (), rows: int | None = None) -> Tensor:
    """Read the scores (B, classes) from a network's output, as `read_class_scores` does."""
    return read_class_scores(output, name, labels, rows).scores


def find_tensors(output: object) -> list[Tensor]:
    """Return the floating tensors in an output."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
