"""Perturbations: the effect of a mask on an input.

A perturbation is a callable `x -> perturb`, with x the prepared input (N, C, *S) and `perturb` a callable
`mask -> perturbed input`, (N, K, 1, *S) -> (N, K, C, *S): K masks for each input. The contract:
`perturb(1)` is the input, `perturb(0)` is the destroyed input. Two optional methods adapt it:
`mask_shape(x) -> S` if its masks have another shape than the places of x, and
`with_spacing(spacing) -> Perturbation` if its lengths depend on the distances of places.

>>> perturb = Blur()(torch.rand(1, 3, 32, 32))
>>> perturb(torch.full((1, 5, 1, 32, 32), 0.5)).shape
torch.Size([1, 5, 3, 32, 32])
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.grid import gaussian_blur, scale_lengths

Perturb = Callable[[Tensor], Tensor]  # masks (N, K, 1, *S) -> inputs (N, K, C, *S)
Perturbation = Callable[[Tensor], Perturb]  # x (N, C, *S) -> Perturb


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
        if self.levels < 2:
            raise ExtremalValueError(f"a blur's pyramid must have at least 2 levels, got {self.levels}; 8 are usual")
        if not 0 < self.sigma < float("inf"):
            raise ExtremalValueError(f"a blur's sigma must be a positive number of px, got {self.sigma:g}; 20 is usual")

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
        steps = pyramid.diff(dim=1)  # from the level below; the lowest level has that of the next
        levels = torch.cat([pyramid, torch.cat([steps[:, :1], steps], 1)], -1).view(-1, 2 * channels)
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

    def __call__(self, x: Tensor) -> Perturb:
        """Return the map from masks to perturbed inputs of x (N, C, *S)."""
        return _interpolate_to(x, torch.full_like(x, self.value))


@dataclass(frozen=True)
class Noise:
    """Fade to seeded Gaussian noise with the mean and deviation of each channel of each input."""

    seed: int = 0

    def __call__(self, x: Tensor) -> Perturb:
        """Return the map from masks to perturbed inputs of x (N, C, *S)."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(1, *x.shape[1:], generator=generator, dtype=torch.float64).to(x)  # same for every input
        dims = tuple(range(2, x.ndim))
        mean = x.mean(dims, keepdim=True)
        deviation = (x - mean).square().mean(dims, keepdim=True).sqrt()
        return _interpolate_to(x, mean + deviation * noise)


def _interpolate_to(x: Tensor, destroyed: Tensor) -> Perturb:
    """Interpolate linearly from `destroyed` at mask 0 to x at mask 1; exact at both ends."""
    x, destroyed = x.unsqueeze(1), destroyed.unsqueeze(1)  # (N, 1, C, *S)

    def perturb(mask: Tensor) -> Tensor:
        shape = (*mask.shape[:2], *x.shape[2:])
        return torch.lerp(destroyed.expand(shape), x.expand(shape), mask.expand(shape))

    return perturb


@dataclass(frozen=True)
class ScaleChannels:
    """Fade each channel of a layer's output to zero by its own mask value: (m ⊗ x)_k = m_k·x_k.

    >>> perturb = ScaleChannels()(torch.ones(1, 4, 2, 2))
    >>> perturb(torch.tensor([0.0, 0.5, 1.0, 1.0]).view(1, 1, 1, 4))[0, 0, :, 0, 0]
    tensor([0.0000, 0.5000, 1.0000, 1.0000])
    """

    axis: int | None = None  # of the channels; None: 1, but 2 for a transformer's (B, tokens, channels)

    def axis_of(self, x: Tensor) -> int:
        """Return the axis of x (N, ...) along which the channels lie, 1 .. x.ndim − 1.

        Raises:
            ExtremalValueError: x has no such axis, or it is the batch axis.
        """
        axis = (2 if x.ndim == 3 else 1) if self.axis is None else self.axis
        if not -x.ndim < axis < x.ndim or axis == 0:
            raise ExtremalValueError(
                f"axis must be one of 1..{x.ndim - 1} for an output of shape {tuple(x.shape)} (axis 0 is the batch), "
                f"got {axis}"
            )
        return axis % x.ndim

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of masks for x, (K,): one value per channel."""
        return (x.shape[self.axis_of(x)],)

    def __call__(self, x: Tensor) -> Perturb:
        """Return the map from masks (N, K, 1, channels) to perturbed outputs of x (N, ...)."""
        axis = self.axis_of(x)
        leading, trailing = [1] * (axis - 1), [1] * (x.ndim - 1 - axis)
        return lambda mask: mask.view(*mask.shape[:2], *leading, -1, *trailing) * x.unsqueeze(1)


PERTURBATIONS: dict[str, Perturbation] = {
    "blur": Blur(),
    "fade": Fade(),
    "constant": Constant(-1.0),
    "noise": Noise(),
}


def get_perturbation(perturbation: str | Perturbation) -> Perturbation:
    """Return the perturbation of this short name, or the callable itself."""
    if isinstance(perturbation, str):
        if perturbation not in PERTURBATIONS:
            raise ExtremalValueError(
                f"perturbation must be one of {', '.join(PERTURBATIONS)} or a callable, got {perturbation!r}"
            )
        return PERTURBATIONS[perturbation]
    if not callable(perturbation):
        raise ExtremalTypeError(
            f"perturbation must be one of {', '.join(PERTURBATIONS)} or a callable, got {type(perturbation).__name__}"
        )
    return perturbation


def name_perturbation(perturbation: Perturbation) -> str:
    """Return the short name of a perturbation, or the name of its function or class.

    >>> name_perturbation(Fade()), name_perturbation(Constant(0.5))
    ('fade', 'Constant')
    """
    for name, known in PERTURBATIONS.items():
        if known == perturbation:
            return name
    return str(getattr(perturbation, "__name__", type(perturbation).__name__))


def with_spacing(perturbation: Perturbation, spacing: Sequence[float]) -> Perturbation:
    """Adapt a perturbation to the distances of places; return it unchanged if it does not use them."""
    adapt: Callable[[Sequence[float]], Perturbation] | None = getattr(perturbation, "with_spacing", None)
    return perturbation if adapt is None else adapt(spacing)


def mask_shape(perturbation: Perturbation, x: Tensor) -> tuple[int, ...]:
    """Return the shape of a perturbation's masks for x (N, C, *S): S, or that of its own `mask_shape`."""
    shape_for: Callable[[Tensor], tuple[int, ...]] | None = getattr(perturbation, "mask_shape", None)
    return tuple(x.shape[2:]) if shape_for is None else shape_for(x)


def prepare_perturbation(perturbation: Perturbation, x: Tensor) -> Perturb:
    """Apply a perturbation to x and check its contract: shapes, and perturb(1) = x.

    Raises:
        ExtremalValueError: the contract is broken.
    """
    perturb = perturbation(x)
    ones = x.new_ones(x.shape[0], 1, 1, *mask_shape(perturbation, x))
    unperturbed = perturb(ones)
    expected_shape = (x.shape[0], 1, *x.shape[1:])
    if tuple(unperturbed.shape) != expected_shape:
        raise ExtremalValueError(
            f"a perturbation maps masks (N, K, 1, *S) to inputs (N, K, C, *S): expected {expected_shape} for a mask "
            f"{tuple(ones.shape)}, got {tuple(unperturbed.shape)}"
        )
    difference = float((unperturbed[:, 0] - x).abs().max())
    if not difference <= 1e-4 * max(1.0, float(x.abs().max())):
        raise ExtremalValueError(
            f"a perturbation must return the input unchanged where the mask is 1, got a difference of {difference:.3g};"
            " check that mask 1 keeps and mask 0 destroys"
        )
    return perturb
