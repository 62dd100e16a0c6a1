"""The paper's perturbation: a pyramid of Gaussian blurs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from extremal.masking.grid import gaussian_blur, read_spacing, scale_lengths
from extremal.masking.replacements import Perturb
from extremal.number_checks import validate_positive, validate_whole

MAX_LEVELS = 1000  # of a pyramid, each a copy of the input


@dataclass(frozen=True)
class Blur:
    """Interpolate in a pyramid of Gaussian blurs (paper, section 3.1).

    Level l = 0 .. L−1 is x blurred with σ_l = σ_max·(1 − l/(L−1)); a mask value m interpolates linearly between the two
    levels around m·(L−1). Borders are replicated: a constant input stays constant.
    """

    levels: int = 8  # L, at least 2
    sigma: float = 20.0  # σ_max in px at a short side of 224 px; scales with the input
    spacing: tuple[float, ...] = ()  # distance of neighbouring places along each dimension (`grid.scale_lengths`)

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", validate_whole(self.levels, "a blur's levels", 2, MAX_LEVELS, "8 are usual"))
        object.__setattr__(self, "sigma", validate_positive(self.sigma, "a blur's sigma in px", "20 is usual"))
        object.__setattr__(self, "spacing", read_spacing(self.spacing, "a blur's spacing"))

    def with_spacing(self, spacing: Sequence[float]) -> "Blur":
        """Return the blur for places that are this far apart, unless it has a spacing of its own."""
        return self if self.spacing else replace(self, spacing=tuple(spacing))

    def __call__(self, x: Tensor) -> Perturb:
        """Return the map from masks to perturbed inputs of x (N, C, *S)."""
        last = self.levels - 1
        sigmas = scale_lengths(self.sigma, tuple(x.shape[2:]), self.spacing)
        deviations = [[sigma * (1 - i / last) for sigma in sigmas] for i in range(self.levels)]
        pyramid = torch.stack([gaussian_blur(x, sigma) for sigma in deviations], 1)
        pyramid = pyramid.movedim(2, -1)  # (N, L, *S, C): the channels of one place are contiguous
        count, places, channels = len(x), x[0, 0].numel(), x.shape[1]
        levels = pyramid.new_empty(*pyramid.shape[:-1], 2 * channels)
        levels[..., :channels] = pyramid
        steps = levels[..., channels:]
        torch.sub(pyramid[:, 1:], pyramid[:, :-1], out=steps[:, 1:])  # from the level below
        steps[:, 0] = steps[:, 1]  # the lowest level has that of the next
        levels = levels.view(-1, 2 * channels)
        dtype = torch.int32 if len(levels) < 2**31 else torch.int64
        place = torch.arange(places, dtype=dtype, device=x.device)
        place = place + torch.arange(count, dtype=dtype, device=x.device).view(-1, 1, 1) * (self.levels * places)

        def perturb(mask: Tensor) -> Tensor:
            height = (mask * last).flatten(2)  # (N, K, P)
            above = height.detach().ceil().to(dtype).clamp(0, last)
            level_and_step = levels.index_select(0, torch.add(place, above, alpha=places).flatten())
            level, step = level_and_step.view(*height.shape, 2 * channels).chunk(2, -1)
            interpolated: Tensor = _Lerp.apply(height - above, level, step)  # exact at every level
            return interpolated.view(*mask.shape[:2], *x.shape[2:], channels).movedim(-1, 2)

        return perturb


class _Lerp(torch.autograd.Function):
    """level + t·step with the gradient of t only: (N, K, P), (N, K, P, C), (N, K, P, C) -> (N, K, P, C)."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, level: Tensor, step: Tensor) -> Tensor:
        ctx.save_for_backward(step)
        return torch.addcmul(level, step, t.unsqueeze(-1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (step,) = ctx.saved_tensors
        return (grads[0] * step) @ step.new_ones(step.shape[-1]), None, None
