"""Regular grids in 1, 2 or 3 dimensions: scaled lengths, Gaussian blur, linear resizing.

Every length of the method is told in pixels at a short side of 224 px and scales with the input.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

REFERENCE_SIDE = 224
DENSE = 2048  # points of a line up to which its blur is one product with a matrix, several times faster
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def scaled(length: float, shape: tuple[int, ...]) -> float:
    """A length in pixels at a short side of 224 px, in pixels of an input of this shape.

    >>> scaled(7.0, (224, 300)), scaled(7.0, (64,))
    (7.0, 2.0)
    """
    return length * min(shape) / REFERENCE_SIDE


def lattice_shape(shape: tuple[int, ...], step: float) -> tuple[int, ...]:
    """Number of lattice points a dimension for a step in pixels: ⌈size / step⌉, at least 1, at most size.

    >>> lattice_shape((224, 300), 7.0)
    (32, 43)
    """
    return tuple(min(size, max(1, math.ceil(size / step - 1e-9))) for size in shape)


def gaussian_blur(x: Tensor, sigma: float, *, cut: float = 4.0) -> Tensor:
    """Separable Gaussian blur with replicated borders, so that a constant stays constant to the border.

    Args:
        x: (B, C, *S), floating.
        sigma: standard deviation in grid points; 0 returns x itself.
        cut: radius of the kernel in standard deviations.

    Returns:
        (B, C, *S).
    """
    if sigma <= 0:
        return x
    radius = math.ceil(cut * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    for dim in range(2, x.ndim):
        lines = x.movedim(dim, -1)
        size = lines.shape[-1]
        if size <= DENSE:
            under = (torch.arange(size, device=x.device).unsqueeze(1) + offsets.long()).clamp(0, size - 1)
            band = x.new_zeros(size, size).scatter_add_(1, under, kernel.expand(size, -1))
            lines = lines @ band.T
        else:
            flat = F.pad(lines.reshape(-1, 1, size), (radius, radius), mode="replicate")
            lines = F.conv1d(flat, kernel.view(1, 1, -1)).view(lines.shape)
        x = lines.movedim(-1, dim)
    return x


def resize(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Linear interpolation of (B, C, *S) to (B, C, *shape), points at cell centres."""
    if tuple(x.shape[2:]) == shape:
        return x
    return F.interpolate(x, size=shape, mode=_LINEAR[len(shape)], align_corners=False)


def line_matrix(size: int, to: int, sigma: float = 0.0, *, like: Tensor) -> Tensor:
    """Blur and linear resizing along one dimension as a matrix, small against the convolutions it stands for.

    Returns:
        (to, size) A with A·x = resize(gaussian_blur(x, sigma), to).
    """
    unit = torch.eye(size, dtype=like.dtype, device=like.device).unsqueeze(1)
    return resize(gaussian_blur(unit, sigma), (to,))[:, 0].T.contiguous()


def along(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Apply one matrix (to, size) along each dimension: (B, C, *sizes) -> (B, C, *tos)."""
    for dim, matrix in enumerate(matrices, start=2):
        x = (x.movedim(dim, -1) @ matrix.T).movedim(-1, dim)
    return x


def resize_weights(small: tuple[int, ...], large: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights w over the small grid with Σ w·x = mean(resize(x, large)), exactly for every x.

    Returns:
        (1, 1, *small), positive, summing to 1.
    """
    with torch.enable_grad():
        ones = torch.ones(1, 1, *small, dtype=dtype, device=device, requires_grad=True)
        (weights,) = torch.autograd.grad(resize(ones, large).mean(), ones)
    return weights
