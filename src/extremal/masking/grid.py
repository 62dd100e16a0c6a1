"""Regular grids in 1, 2 or 3 dimensions: scaled lengths, Gaussian blur, linear resizing.

Every length of the method is given in pixels at a short side of 224 px and scales with the input. If the distance of
neighbouring places differs between dimensions (slices of a volume, frames of a video), `spacing` gives these distances,
as in medical images; only their ratios matter.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.number_checks import format_value, read_numbers, validate_positive

REFERENCE_SIDE = 224
MAX_SPACING_RATIO = 1000  # of the largest distance to the smallest
BLUR_RADIUS = 4.0  # of the kernel of a Gaussian, in standard deviations
MAX_DENSE_SIZE = 2048  # up to this size a dimension is blurred by one matrix product, which is several times faster
MAX_DIRECT_RADIUS = (
    256  # of a kernel; larger ones are multiplied as spectra, so that long inputs take no quadratic time
)
_LINEAR_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def read_spacing(spacing: object, name: str) -> tuple[float, ...]:
    """Return distances of neighbours along each dimension that a user passed; blurs take memory in their ratio.

    >>> read_spacing([2, 1, 1], "spacing")
    (2.0, 1.0, 1.0)

    Args:
        spacing: above 0; empty: the same along all dimensions.
        name: of the option.

    Raises:
        ExtremalValueError, ExtremalTypeError: one is not positive, or the largest is over 1000 times the smallest.
    """
    gaps = read_numbers(spacing, name, "(2, 1, 1)")
    for gap in gaps:
        validate_positive(gap, name, "e.g. (2, 1, 1) for slices that are twice as far apart as pixels")
    if gaps and max(gaps) > MAX_SPACING_RATIO * min(gaps):
        raise ExtremalValueError(
            f"{name} must be at most {MAX_SPACING_RATIO:,} times as large along one dimension as along another, got "
            f"{format_value(gaps)}; e.g. (2, 1, 1) for slices that are twice as far apart as pixels"
        )
    return gaps


def scale_length(length: float, shape: tuple[int, ...]) -> float:
    """Scale a length in pixels at a short side of 224 px to pixels of an input of this shape.

    >>> scale_length(7.0, (224, 300)), scale_length(7.0, (64,))
    (7.0, 2.0)
    """
    return scale_lengths(length, shape)[0]


def scale_lengths(length: float, shape: tuple[int, ...], spacing: Sequence[float] = ()) -> tuple[float, ...]:
    """Scale a length in pixels at a short side of 224 px to places along each dimension of an input.

    >>> scale_lengths(7.0, (224, 300)), scale_lengths(7.0, (1, 64)), scale_lengths(8.0, (16, 112, 112), (7, 1, 1))
    ((7.0, 7.0), (2.0, 2.0), (0.5714285714285714, 4.0, 4.0))

    Args:
        length: in px.
        shape: S.
        spacing: distance of neighbours along each dimension; empty: the same along all.
    """
    gaps = spacing or (1.0,) * len(shape)
    return tuple(length * short_side(shape, gaps) / REFERENCE_SIDE / gap for gap in gaps)


def short_side(shape: tuple[int, ...], spacing: Sequence[float] = ()) -> float:
    """Return the shorter of the two longest sides, e.g. the short side of an image or of a video's frames.

    Dimensions with a single place do not count.

    >>> short_side((224, 300)), short_side((8, 112, 112)), short_side((1, 64))
    (224.0, 112.0, 64.0)
    """
    gaps = spacing or (1.0,) * len(shape)
    sides = sorted(size * gap for size, gap in zip(shape, gaps, strict=True) if size > 1)
    return float(sides[-2:][0]) if sides else 1.0


def lattice_shape(shape: tuple[int, ...], step: float | Sequence[float]) -> tuple[int, ...]:
    """Return the lattice points per dimension for a step in px: ⌈size / step⌉, at least 1, at most size.

    >>> lattice_shape((224, 300), 7.0)
    (32, 43)
    """
    steps = [step] * len(shape) if isinstance(step, int | float) else step
    return tuple(min(size, max(1, math.ceil(size / s - 1e-9))) for size, s in zip(shape, steps, strict=True))


def gaussian_blur(x: Tensor, sigma: float | Sequence[float]) -> Tensor:
    """Blur by a separable Gaussian with replicated borders, which keep a constant constant.

    Args:
        x: (B, C, *S), floating.
        sigma: standard deviation in grid points, the same along all dimensions or one for each; 0 leaves x unchanged.

    Returns:
        (B, C, *S).
    """
    sigmas = [sigma] * (x.ndim - 2) if isinstance(sigma, int | float) else sigma
    for dim, deviation in enumerate(sigmas, start=2):
        if deviation > 0:
            x = _blur_last_axis(x.movedim(dim, -1), deviation).movedim(-1, dim)
    return x


def _blur_last_axis(x: Tensor, sigma: float) -> Tensor:
    """Blur along the last axis: (..., size) -> (..., size)."""
    radius, size = math.ceil(BLUR_RADIUS * sigma), x.shape[-1]
    if size <= MAX_DENSE_SIZE:
        return x @ blur_matrix(size, sigma, like=x).T
    flat = F.pad(x.reshape(-1, 1, size), (radius, radius), mode="replicate")
    kernel = _gaussian(radius, sigma, x)
    if radius > MAX_DIRECT_RADIUS:
        return _convolve_by_fft(flat, kernel).view(x.shape)
    return F.conv1d(flat, kernel.view(1, 1, -1)).view(x.shape)


def _convolve_by_fft(x: Tensor, kernel: Tensor) -> Tensor:
    """Return the same as `conv1d` without padding, in O(size·log size): (..., size + K − 1) -> (..., size)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    length = x.shape[-1]
    spectrum = torch.fft.rfft(x.to(dtype), length) * torch.fft.rfft(kernel.to(dtype), length)
    convolved: Tensor = torch.fft.irfft(spectrum, length)
    return convolved[..., len(kernel) - 1 :].to(x.dtype)


def _gaussian(radius: int, sigma: float, like: Tensor) -> Tensor:
    """Return the kernel of a Gaussian: (2·radius + 1,), summing to 1."""
    offsets = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    return kernel / kernel.sum()


def blur_matrix(size: int, sigma: float, *, like: Tensor) -> Tensor:
    """Return the blur along one dimension with replicated borders as a matrix (size, size)."""
    radius = math.ceil(BLUR_RADIUS * sigma)
    kernel = _gaussian(radius, sigma, like)
    excess = radius - (size - 1)
    if excess > 0:  # from every place, so long an offset leads to a border
        first, last = kernel[: excess + 1].sum(0, keepdim=True), kernel[-excess - 1 :].sum(0, keepdim=True)
        kernel = torch.cat([first, kernel[excess + 1 : -excess - 1], last]) if size > 1 else kernel.sum(0, keepdim=True)
        radius = size - 1
    offsets = torch.arange(-radius, radius + 1, device=like.device)
    index = (torch.arange(size, device=like.device).unsqueeze(1) + offsets).clamp(0, size - 1)
    return like.new_zeros(size, size).scatter_add_(1, index, kernel.expand(size, -1))


def resize(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Interpolate (B, C, *S) linearly to (B, C, *shape), points at cell centres."""
    if tuple(x.shape[2:]) == shape:
        return x
    return F.interpolate(x, size=shape, mode=_LINEAR_MODES[len(shape)], align_corners=False)


def resampling_matrix(size: int, new_size: int, sigma: float = 0.0, *, like: Tensor) -> Tensor:
    """Return blur and linear resizing along one dimension as a matrix, cheaper than convolutions.

    Returns:
        (new_size, size) A with A·x = resize(gaussian_blur(x, sigma), new_size).
    """
    unit_vectors = torch.eye(size, dtype=like.dtype, device=like.device).unsqueeze(1)
    return resize(gaussian_blur(unit_vectors, sigma), (new_size,))[:, 0].T.contiguous()


def apply_along_axes(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Apply one matrix (new_size, size) along each dimension: (B, C, *sizes) -> (B, C, *new_sizes)."""
    for dim, matrix in enumerate(matrices, start=2):
        x = (x.movedim(dim, -1) @ matrix.T).movedim(-1, dim)
    return x


def resize_weights(
    small: tuple[int, ...], large: tuple[int, ...], like: Tensor, counted: Tensor | None = None
) -> Tensor:
    """Return weights w over the small grid with Σ w·x = Σ_counted resize(x, large) / |Ω| for every x.

    Args:
        small: shape of the small grid.
        large: shape of the large grid, Ω.
        like: for dtype and device.
        counted: (*large) of zeros and ones; None: all places.

    Returns:
        (1, 1, *small), not negative, summing to the fraction of places that are counted.
    """
    with torch.enable_grad():
        ones = torch.ones(1, 1, *small, dtype=like.dtype, device=like.device, requires_grad=True)
        resized = resize(ones, large)
        (weights,) = torch.autograd.grad((resized if counted is None else resized * counted).mean(), ones)
    return weights
