"""Read the output of a network: class scores, precision, memory layout."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from extremal.errors import ExtremalTypeError, ExtremalValueError


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


def read_logits(output: object, name: str) -> Tensor:
    """Read the scores (B, classes) from a network's output, averaged over its positions (paper, section 4)."""
    if isinstance(output, Mapping) and isinstance(output.get("logits"), Tensor):
        output = output["logits"]
    elif not isinstance(output, Tensor) and isinstance(getattr(output, "logits", None), Tensor):
        output = output.logits  # type: ignore[attr-defined]
    if isinstance(output, list | tuple) and output and isinstance(output[0], Mapping) and "boxes" in output[0]:
        raise ExtremalTypeError(
            f"a detector must be asked about a box, {name} returns boxes and no classes; "
            "pass scores.Box() as target, or --ask box"
        )
    if not isinstance(output, Tensor):
        keys = f" with keys {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
        raise ExtremalTypeError(
            f"a network must return a tensor (B, classes) or an output with logits, {name} returned a "
            f"{type(output).__name__}{keys}; pass a callable on the output as target, or wrap the network"
        )
    if not output.is_floating_point():
        raise ExtremalTypeError(f"a network must return floating scores, {name} returned {output.dtype}")
    if output.ndim < 2:
        raise ExtremalValueError(
            f"a network must return (B, classes), {name} returned shape {tuple(output.shape)}; "
            "wrap it, e.g. to [:, None]"
        )
    return output.flatten(2).mean(2) if output.ndim > 2 else output


def find_tensors(output: object) -> list[Tensor]:
    """Return the floating tensors in an output."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
