"""Support of each place for an answer, from gradients with respect to masks."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from extremal.masking.grid import gaussian_blur, scale_lengths
from extremal.masking.scaling import FLOOR, reduce_large, standardise

GRADIENT_BLUR = 2.0  # px at a short side of 224 px, of the Gaussian over the gradients


def combine_gradients(gradients: Iterable[Tensor], spacing: Sequence[float] = ()) -> Tensor:
    """Return Σ max(0, g) over gradients g under several perturbations, smoothed and standardised: (N, 1, *S) ≥ 0.

    Harm under one perturbation does not offset support under another. All ones for an input without any gradient.

    >>> combine_gradients([torch.tensor([[[0.0, 0.0, 9.0]]])]).argmax()
    tensor(2)

    Args:
        gradients: (N, 1, *S) for each perturbation, at least one.
        spacing: distance of neighbouring places along each dimension.
    """
    parts = []
    for values in gradients:
        lengths = scale_lengths(GRADIENT_BLUR, tuple(values.shape[2:]), spacing)
        parts.append(standardise(reduce_large(gaussian_blur(values, lengths)), floor=FLOOR).clamp_min(0.0))
    total = torch.stack(parts).sum(0)
    is_supported = (total.flatten(1).amax(1) > 0).view(-1, *[1] * (total.ndim - 1))
    return torch.where(is_supported, total, torch.ones_like(total))
