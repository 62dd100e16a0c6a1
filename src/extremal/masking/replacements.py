"""Perturbations that fade to a replacement: zero, a constant, noise, an extreme value, a mosaic."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.device_tensors import copy_to
from extremal.masking.grid import scale_lengths
from extremal.number_checks import is_number, read_numbers, validate_positive, validate_whole

MAX_SEED = 2**63 - 1  # of a random generator of torch

Perturb = Callable[[Tensor], Tensor]  # masks (N, K, 1, *S) -> inputs (N, K, C, *S)


@dataclass(frozen=True)
class Fade:
    """Fade to zero, which is the mean colour of a normalised image: m·x."""

    def __call__(self, x: Tensor) -> Perturb:
        """Return the map from masks to perturbed inputs of x (N, C, *S)."""
        return lambda mask: mask * x.unsqueeze(1)


@dataclass(frozen=True)
class Constant:
    """Fade to a constant value, the same in every channel, in units of the prepared input."""

    value: float = 0.0

    def __post_init__(self) -> None:
        if not is_number(self.value):
            raise ExtremalTypeError(f"the value of a constant must be a number, got {self.value!r}; e.g. 0.5")
        if not math.isfinite(self.value):
            raise ExtremalValueError(f"the value of a constant must be finite, got {self.value:g}; e.g. 0.5")
        object.__setattr__(self, "value", float(self.value))

    def __call__(self, x: Tensor) -> Perturb:
        """Return the map from masks to perturbed inputs of x (N, C, *S)."""
        return _interpolate_to(x, torch.full_like(x, self.value))


@dataclass(frozen=True)
class Noise:
    """Fade to seeded Gaussian noise with the mean and deviation of each channel of each input."""

    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", validate_whole(self.seed, "the seed of noise", 0, MAX_SEED))

    def __call__(self, x: Tensor) -> Perturb:
        """Return the map from masks to perturbed inputs of x (N, C, *S)."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(1, *x.shape[1:], generator=generator, dtype=torch.float64)  # same for every input
        noise = copy_to(noise, x)
        dims = tuple(range(2, x.ndim))
        mean = x.mean(dims, keepdim=True)
        deviation = (x - mean).square().mean(dims, keepdim=True).sqrt()
        return _interpolate_to(x, mean + deviation * noise)


@dataclass(frozen=True)
class Extreme:
    """Fade to each channel's smallest or largest value in the input: the input's own black or white."""

    largest: bool = False

    def __call__(self, x: Tensor) -> Perturb:
        """Return the map from masks to perturbed inputs of x (N, C, *S)."""
        dims = tuple(range(2, x.ndim))
        extremes = x.amax(dims, keepdim=True) if self.largest else x.amin(dims, keepdim=True)
        return _interpolate_to(x, extremes.expand_as(x))


@dataclass(frozen=True)
class Mosaic:
    """Fade to the means of square tiles, which start at the first place of each dimension.

    >>> x = torch.tensor([1.0, 3.0, 5.0, 7.0, 20.0]).view(1, 1, 5)
    >>> Mosaic(side=2 * 224 / 5)(x)(torch.zeros(1, 1, 1, 5)).flatten().tolist()
    [2.0, 2.0, 6.0, 6.0, 20.0]
    """

    side: float = 28.0  # of a tile in px at a short side of 224 px; scales with the input, at least two places
    spacing: tuple[float, ...] = ()  # distance of neighbouring places along each dimension (`grid.scale_lengths`)

    def __post_init__(self) -> None:
        object.__setattr__(self, "side", validate_positive(self.side, "a mosaic's side in px", "28 is usual"))
        object.__setattr__(self, "spacing", read_numbers(self.spacing, "a mosaic's spacing", "(2, 1, 1)"))

    def with_spacing(self, spacing: Sequence[float]) -> "Mosaic":
        """Return the mosaic for places that are this far apart, unless it has a spacing of its own."""
        return self if self.spacing else replace(self, spacing=tuple(spacing))

    def __call__(self, x: Tensor) -> Perturb:
        """Return the map from masks to perturbed inputs of x (N, C, *S)."""
        means = x
        for dim, side in enumerate(scale_lengths(self.side, tuple(x.shape[2:]), self.spacing), start=2):
            means = _average_tiles(means, dim, max(2, round(side)))
        return _interpolate_to(x, means)


def _average_tiles(x: Tensor, dim: int, side: int) -> Tensor:
    """Replace the values along a dimension by the means of tiles of `side` places; the last tile may be smaller."""
    size = x.shape[dim]
    padded = F.pad(x.movedim(dim, -1), (0, -size % side))
    sums = padded.reshape(*padded.shape[:-1], -1, side).sum(-1)  # (..., tiles)
    first_places = torch.arange(0, size, side, device=x.device)
    means: Tensor = sums / (size - first_places).clamp_max(side)
    return means.repeat_interleave(side, -1)[..., :size].movedim(-1, dim)


def _interpolate_to(x: Tensor, destroyed: Tensor) -> Perturb:
    """Interpolate linearly from `destroyed` at mask 0 to x at mask 1; exact at both ends."""
    x, destroyed = x.unsqueeze(1), destroyed.unsqueeze(1)  # (N, 1, C, *S)

    def perturb(mask: Tensor) -> Tensor:
        perturbed: Tensor = _Interpolation.apply(mask, x, destroyed)
        return perturbed

    return perturb


class _Interpolation(torch.autograd.Function):
    """Masks (N, K, 1, *S) -> inputs (N, K, C, *S) between the destroyed ones and x, with the gradient of masks only."""

    @staticmethod
    def forward(ctx: Any, mask: Tensor, x: Tensor, destroyed: Tensor) -> Tensor:
        ctx.save_for_backward(x, destroyed)
        shape = (*mask.shape[:2], *x.shape[2:])
        return torch.lerp(destroyed.expand(shape), x.expand(shape), mask.expand(shape))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, destroyed = ctx.saved_tensors
        return (grads[0] * (x - destroyed)).sum(2, keepdim=True), None, None  # one difference for all K masks
