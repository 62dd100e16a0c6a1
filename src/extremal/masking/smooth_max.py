"""The paper's masks: smooth max-convolution of parameters on a lattice.

A family of masks is a pure map from parameters to [0, 1] over the places of an input; it owns no parameters, the solver
does. Batch axis first: (B, 1, *lattice) -> (B, 1, *S).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.masking.grid import lattice_shape, scale_lengths

MAX_KERNEL_CACHE_BYTES = 2**26  # of the kernel values cached between calls


class SmoothMax:
    """Smooth masks by smooth max-convolution (paper, section 3.3).

    m(u) = smax over lattice points v of k(‖u − v‖/σ)·m̄(v), with k(z) = exp(−2·max(0, z − ½)²) and
    smax(f) = Σ f·exp(f/T) / Σ exp(f/T), over a window of 1 + ⌈σ/s⌉ lattice steps on each side of u.
    Lattice point i of a dimension lies at pixel s·i; outside the lattice m̄ = 0.

    >>> family = SmoothMax((224, 224))
    >>> family.parameter_shape, family(torch.ones(1, 1, 32, 32)).shape
    ((32, 32), torch.Size([1, 1, 224, 224]))

    Args:
        shape: S, size of the mask in places.
        step: s, lattice step in pixels of this input; 7 px at a short side of 224 px if None.
        sigma: σ in pixels of this input; 21 px at a short side of 224 px if None.
        temperature: T of the smooth maximum.
        padded: evaluate masks at every place within σ of the lattice, not only in the input (`evaluate_with_margin`).
        spacing: distance of neighbouring places along each dimension (`grid.scale_lengths`).
        within: (*S) bool; masks are zero elsewhere. None: everywhere.
        dtype: of the masks.
        device: of the masks.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        step: float | None = None,
        sigma: float | None = None,
        temperature: float = 1 / 20,
        padded: bool = False,
        spacing: Sequence[float] = (),
        within: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shape = shape
        default_steps = tuple(max(1.0, length) for length in scale_lengths(7.0, shape, spacing))
        self.steps = default_steps if step is None else (step,) * len(shape)
        self.sigmas = tuple(3 * step for step in self.steps) if sigma is None else (sigma,) * len(shape)
        self.temperature = temperature
        self.parameter_shape = lattice_shape(shape, self.steps)
        self.radius = max(
            1 + math.ceil(sigma / step - 1e-9) for sigma, step in zip(self.sigmas, self.steps, strict=True)
        )
        margins = tuple(math.floor(sigma) if padded else 0 for sigma in self.sigmas)
        self._input_slices = tuple(slice(margin, margin + size) for margin, size in zip(margins, shape, strict=True))
        like = torch.empty(0, dtype=dtype, device=device)
        self._windows = [self._window(dim, margins[dim], padded, like) for dim in range(len(shape))]
        self._within = None if within is None else self._pad(within.to(like))
        places = math.prod(len(window[0]) for window in self._windows)
        kernels = (2 * self.radius + 1) ** len(shape)
        self._kernels: dict[tuple[int, ...], Tensor] = {}
        self._cache_kernels = places * kernels * torch.finfo(dtype).bits // 8 <= MAX_KERNEL_CACHE_BYTES

    def _window(self, dim: int, margin: int, padded: bool, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return for each place of a dimension the lattice index under it, and its offset in px: (P,), (P,)."""
        size, points, step = self.shape[dim], self.parameter_shape[dim], self.steps[dim]
        end = math.floor(step * (points - 1)) + margin + 1 if padded else size
        place = torch.arange(-margin, max(end, size), dtype=torch.float64)
        under = torch.floor(place / step + 1e-9)
        return under.long().to(like.device), (place - under * step).to(like)

    def _pad(self, values: Tensor) -> Tensor:
        """Surround values (*S) by zeros in the margin."""
        padded = values.new_zeros([len(under) for under, _ in self._windows])
        padded[self._input_slices] = values
        return padded

    def indices(self, offset: tuple[int, ...]) -> list[Tensor]:
        """Return the index of the window's point at this offset in the padded lattice: one (P,) per dimension."""
        return [under + o + self.pad for (under, _), o in zip(self._windows, offset, strict=True)]

    @property
    def pad(self) -> int:
        """Lattice points added on each side so that no window leaves the lattice."""
        return 2 * self.radius + 1

    def kernel(self, offset: tuple[int, ...]) -> Tensor:
        """Return k(‖u − v‖/σ) of the window's point v at this offset, for every place u: (1, 1, *places)."""
        if offset in self._kernels:
            return self._kernels[offset]
        squares: Tensor | float = 0.0  # of the distance in σ
        for dim, ((_, ahead), o) in enumerate(zip(self._windows, offset, strict=True)):
            square = ((ahead - o * self.steps[dim]) / self.sigmas[dim]).square()
            squares = squares + square.view(-1, *[1] * (len(offset) - dim - 1))
        assert isinstance(squares, Tensor)
        kernel = torch.exp(-2 * (squares.sqrt() - 0.5).clamp_min(0).square())[None, None]
        if self._cache_kernels:
            self._kernels[offset] = kernel
        return kernel

    def offsets(self) -> Iterator[tuple[int, ...]]:
        """Iterate over the offsets of the window, in lattice steps."""
        return itertools.product(range(-self.radius, self.radius + 1), repeat=len(self.shape))

    def evaluate_with_margin(self, parameters: Tensor) -> Tensor:
        """Evaluate masks with their margin: (B, 1, *lattice) -> (B, 1, *S + margins), clamped to [0, 1]."""
        lattice = F.pad(parameters, [self.pad, self.pad] * len(self.shape))
        mask: Tensor = _SmoothMax.apply(lattice, self)
        mask = mask.clamp(0, 1)
        return mask if self._within is None else mask * self._within

    def crop(self, padded: Tensor) -> Tensor:
        """Return the part of padded masks that lies on the input: (B, 1, *S)."""
        leading = (slice(None), slice(None))
        return padded[leading + self._input_slices]

    def __call__(self, parameters: Tensor) -> Tensor:
        """Evaluate masks: (B, 1, *lattice) in [0, 1] -> (B, 1, *S) in [0, 1]."""
        return self.crop(self.evaluate_with_margin(parameters))


def _gather(lattice: Tensor, indices: list[Tensor]) -> Tensor:
    """Select lattice values at one index per place and dimension: (B, 1, *lattice) -> (B, 1, *places)."""
    for dim, index in enumerate(indices):
        lattice = lattice.index_select(2 + dim, index)
    return lattice


def _scatter(values: Tensor, indices: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Sum values over places into a lattice of this shape: the adjoint of `_gather`."""
    for dim, index in enumerate(indices):
        size = (*values.shape[: 2 + dim], shape[2 + dim], *values.shape[3 + dim :])
        values = values.new_zeros(size).index_add_(2 + dim, index, values)
    return values


class _SmoothMax(torch.autograd.Function):
    """Smooth maximum over the window, one offset at a time, so that memory does not grow with the window.

    ∂smax/∂f = exp(f/T)/Σexp(f/T) · (1 + (f − smax)/T).
    """

    @staticmethod
    def forward(ctx: Any, lattice: Tensor, family: SmoothMax) -> Tensor:
        top: Tensor | float = 0.0
        total: Tensor | float = 0.0
        for offset in family.offsets():
            value = family.kernel(offset) * _gather(lattice, family.indices(offset))
            weight = torch.exp((value - 1) / family.temperature)
            top, total = top + value * weight, total + weight
        assert isinstance(top, Tensor)
        assert isinstance(total, Tensor)
        ctx.save_for_backward(lattice, top / total, total)
        ctx.family = family
        return top / total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        lattice, smax, total = ctx.saved_tensors
        family: SmoothMax = ctx.family
        scaled_grad = grads[0] / total
        grad = torch.zeros_like(lattice)
        for offset in family.offsets():
            kernel, indices = family.kernel(offset), family.indices(offset)
            value = kernel * _gather(lattice, indices)
            weight = torch.exp((value - 1) / family.temperature)
            slope = scaled_grad * weight * (1 + (value - smax) / family.temperature) * kernel
            grad += _scatter(slope, indices, tuple(lattice.shape))
        return grad, None
