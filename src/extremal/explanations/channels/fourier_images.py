"""Images that are easy to optimise: decorrelated in space (Fourier) and in colour."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.solvers.problem import MAX_COUNT
from extremal.networks.image_bounds import MAX_SCALED_PIXELS
from extremal.number_checks import format_value, is_number, read_whole_numbers, validate_whole

# Principal axes of the colours of natural photographs, scaled by their standard deviations, the largest being 1:
# brightness, then warm against cold, then green against magenta (benchmarks/colours.py measures them).
COLOUR_AXES = ((0.67, 0.58, 0.47), (0.31, -0.09, -0.33), (-0.03, 0.08, -0.05))
DEFAULT_STEPS = 200  # of Adam
LEARNING_RATE = 0.02  # of Adam; 0.05 leaves more noise
SMOOTHNESS_WEIGHT = 0.5  # of the total variation
START_DEVIATION = 0.01  # standard deviation of the initial spectrum: nearly grey
CONTRAST_WEIGHT = 1.0  # of the mean square distance from grey; without it deep layers give black and white


class FourierImages:
    """B images (C, H, W) in (0, 1) as the sigmoid of scaled spectra; the spectra are optimised.

    A wave of frequency f is scaled by 1/f, as in natural images, so that one learning rate serves all scales.

    >>> images = FourierImages((2, 3, 32, 40), seed=0)
    >>> images.pixels().shape, images.spectrum.requires_grad
    (torch.Size([2, 3, 32, 40]), True)
    """

    def __init__(self, shape: tuple[int, int, int, int], seed: int, *, like: Tensor | None = None) -> None:
        self.shape = shape
        height, width = shape[2:]
        generator = torch.Generator().manual_seed(seed)
        anchor = torch.empty(0, dtype=torch.float32) if like is None else like
        waves = (shape[0], shape[1], height, width // 2 + 1, 2)
        start = START_DEVIATION * torch.randn(waves, generator=generator, dtype=torch.float64)
        self.spectrum = start.to(anchor).requires_grad_()
        rows = torch.fft.fftfreq(height, dtype=torch.float64).unsqueeze(1)
        columns = torch.fft.rfftfreq(width, dtype=torch.float64)
        frequency = (rows.square() + columns.square()).sqrt().clamp_min(1 / max(height, width))
        self._scale = (1 / frequency).to(anchor)
        self._colour_axes = anchor.new_tensor(COLOUR_AXES) if shape[1] == 3 else None

    def pixels(self) -> Tensor:
        """Return the images: (B, C, H, W) in (0, 1), differentiable with respect to the spectra."""
        waves = torch.view_as_complex(self.spectrum.contiguous()) * self._scale
        values = torch.fft.irfft2(waves, s=self.shape[2:], norm="ortho")
        if self._colour_axes is not None:
            values = torch.einsum("bihw,ic->bchw", values, self._colour_axes)
        return torch.sigmoid(values)


def to_uint8(pixels: Tensor) -> Tensor:
    """Convert pixels (..., C, H, W) in [0, 1] with 1 or 3 channels to images (..., H, W, 3) uint8."""
    levels = (pixels.clamp(0, 1) * 255).round().byte()
    return levels.expand(*levels.shape[:-3], 3, *levels.shape[-2:]).movedim(-3, -1).contiguous()


def total_variation(pixels: Tensor) -> Tensor:
    """Return the mean absolute difference of vertical and of horizontal neighbours: (B, C, H, W) -> (B,)."""
    vertical = pixels.diff(dim=2).abs().flatten(1).mean(1)
    return vertical + pixels.diff(dim=3).abs().flatten(1).mean(1)


def regularisation(pixels: Tensor, smooth: float) -> Tensor:
    """Penalise roughness and distance from grey of images (B, C, H, W) in [0, 1]: (B,)."""
    return smooth * total_variation(pixels) + CONTRAST_WEIGHT * (pixels - 0.5).square().flatten(1).mean(1)


def shift(pixels: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Shift images at random by up to `max_shift` px in each direction, all alike; borders are repeated."""
    if max_shift <= 0:
        return pixels
    top, left = torch.randint(0, 2 * max_shift + 1, (2,), generator=generator).tolist()
    padded = F.pad(pixels, (max_shift,) * 4, mode="replicate")
    return padded[:, :, top : top + pixels.shape[2], left : left + pixels.shape[3]]


def jitter(
    pixels: Tensor, generator: torch.Generator, *, max_shift: float, max_rotation: float, max_zoom: float
) -> Tensor:
    """Rotate, zoom and shift images at random, all alike.

    Features then do not depend on exact positions.

    Args:
        pixels: (B, C, H, W).
        generator: of the random numbers.
        max_shift: as a fraction of the side.
        max_rotation: in radians.
        max_zoom: relative.
    """
    draws = (2 * torch.rand(4, generator=generator, dtype=torch.float64) - 1).tolist()
    angle = torch.tensor(draws[0] * max_rotation, dtype=torch.float32)
    size = 1 + draws[1] * max_zoom
    cos, sin = float(angle.cos()) * size, float(angle.sin()) * size
    matrix = pixels.new_tensor([[cos, -sin, 2 * max_shift * draws[2]], [sin, cos, 2 * max_shift * draws[3]]])
    grid = F.affine_grid(matrix.expand(len(pixels), -1, -1), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def validate_optimisation(steps: int, smooth: float) -> None:
    """Raise if the number of steps or the smoothness weight is out of range.

    Raises:
        ExtremalValueError, ExtremalTypeError: steps below 1, or a negative weight; or they are no such numbers.
    """
    validate_whole(steps, "steps", 1, MAX_COUNT, f"{DEFAULT_STEPS} are usual")
    if not is_number(smooth):
        raise ExtremalTypeError(f"smooth must be a number, got {format_value(smooth)}; {SMOOTHNESS_WEIGHT} is usual")
    if not 0 <= smooth < math.inf:
        raise ExtremalValueError(
            f"smooth must be at least 0 and finite, got {format_value(smooth)}; {SMOOTHNESS_WEIGHT} is usual"
        )


def validate_size(size: Sequence[int]) -> tuple[int, int, int]:
    """Return the size (C, H, W) of images to compute.

    Raises:
        ExtremalValueError, ExtremalTypeError: it is none.
    """
    sizes = read_whole_numbers(size, "size", "(3, 224, 224)")
    if len(sizes) != 3 or sizes[0] not in (1, 3) or min(sizes) < 1 or sizes[1] * sizes[2] > MAX_SCALED_PIXELS:
        raise ExtremalValueError(
            f"size must be (C, H, W) with 1 or 3 channels and at most {MAX_SCALED_PIXELS / 1e6:g} megapixels, got "
            f"{format_value(sizes)}; e.g. (3, 224, 224)"
        )
    return sizes[0], sizes[1], sizes[2]


def check_layer_gradient(activations: Tensor, layer: str, network_name: str) -> None:
    """Check that activations of an image have a gradient, by which the image can be optimised.

    Raises:
        ExtremalValueError: they have none.
    """
    if not activations.requires_grad:
        raise ExtremalValueError(
            f"a layer must depend on the image with a gradient to be visualised, {layer!r} of {network_name} does not; "
            "look for no_grad, detach, rounding or argmax before it"
        )


def validate_image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the shape (C, H, W) of an input that is an image.

    Raises:
        ExtremalValueError: inputs of this shape are not images.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ExtremalValueError(
            f"a layer must belong to a network of images (1 or 3, H, W) to be visualised, got the input shape {shape}; "
            "choose another network"
        )
    return shape[0], shape[1], shape[2]


def optimise_images(
    images: FourierImages,
    loss: Callable[[Tensor, int], Tensor],
    *,
    steps: int,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Minimise a loss over the spectra by Adam, and return the final images (B, C, H, W) in (0, 1).

    Args:
        images: starting point; modified.
        loss: (pixels, step) -> scalar.
        steps: of Adam.
        on_step: called after each step with the number of steps done and the total.
    """
    optimiser = torch.optim.Adam([images.spectrum], lr=LEARNING_RATE)
    for step in range(steps):
        (images.spectrum.grad,) = torch.autograd.grad(loss(images.pixels(), step), images.spectrum)
        optimiser.step()
        if on_step is not None:
            on_step(step + 1, steps)
    return images.pixels().detach()
