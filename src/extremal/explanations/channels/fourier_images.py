"""Pictures that are easy to optimise: decorrelated in space (Fourier) and in colour."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalValueError

# Principal axes of the colours of natural photographs, scaled by their deviations and by the largest of these:
# brightness, then warm against cold, then green against magenta (benchmarks/colours.py measures them).
COLOUR_AXES = ((0.67, 0.58, 0.47), (0.31, -0.09, -0.33), (-0.03, 0.08, -0.05))
DEFAULT_STEPS = 200  # of Adam
LEARNING_RATE = 0.02  # Adam's; 0.05 leaves more noise
SMOOTHNESS_WEIGHT = 0.5  # weight of the total variation
START_DEVIATION = 0.01  # deviation of the spectrum at the start: nearly grey
CONTRAST_WEIGHT = 1.0  # weight of the mean square distance from grey; without it deep layers give black and white


class FourierImages:
    """B pictures (C, H, W) in (0, 1) as the sigmoid of scaled spectra; the spectra are what is optimised.

    A wave of frequency f is scaled by 1/f, as natural pictures are, so that one rate serves all scales.

    >>> pictures = FourierImages((2, 3, 32, 40), seed=0)
    >>> pictures.pixels().shape, pictures.spectrum.requires_grad
    (torch.Size([2, 3, 32, 40]), True)
    """

    def __init__(self, shape: tuple[int, int, int, int], seed: int, *, like: Tensor | None = None) -> None:
        self.shape = shape
        height, width = shape[2:]
        generator = torch.Generator().manual_seed(seed)
        anchor = torch.empty(0) if like is None else like
        waves = (shape[0], shape[1], height, width // 2 + 1, 2)
        start = START_DEVIATION * torch.randn(waves, generator=generator, dtype=torch.float64)
        self.spectrum = start.to(anchor).requires_grad_()
        rows = torch.fft.fftfreq(height, dtype=torch.float64).unsqueeze(1)
        columns = torch.fft.rfftfreq(width, dtype=torch.float64)
        frequency = (rows.square() + columns.square()).sqrt().clamp_min(1 / max(height, width))
        self._scale = (1 / frequency).to(anchor)
        self._colours = torch.tensor(COLOUR_AXES).to(anchor) if shape[1] == 3 else None

    def pixels(self) -> Tensor:
        """The pictures: (B, C, H, W) in (0, 1), differentiable with respect to the spectra."""
        waves = torch.view_as_complex(self.spectrum.contiguous()) * self._scale
        values = torch.fft.irfft2(waves, s=self.shape[2:], norm="ortho")
        if self._colours is not None:
            values = torch.einsum("bihw,ic->bchw", values, self._colours)
        return torch.sigmoid(values)


def to_uint8(pixels: Tensor) -> Tensor:
    """Pixels (..., C, H, W) in [0, 1] with 1 or 3 channels as pictures (..., H, W, 3) uint8."""
    levels = (pixels.clamp(0, 1) * 255).round().byte()
    return levels.expand(*levels.shape[:-3], 3, *levels.shape[-2:]).movedim(-3, -1).contiguous()


def total_variation(pixels: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, down and across: (B, C, H, W) -> (B,)."""
    down = pixels.diff(dim=2).abs().flatten(1).mean(1)
    return down + pixels.diff(dim=3).abs().flatten(1).mean(1)


def regularisation(pixels: Tensor, smooth: float) -> Tensor:
    """What speaks against pictures (B, C, H, W) in [0, 1] as photographs: roughness, and values far from grey. (B,)."""
    return smooth * total_variation(pixels) + CONTRAST_WEIGHT * (pixels - 0.5).square().flatten(1).mean(1)


def shift(pixels: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Shifted by up to `max_shift` px in each direction, borders repeated; the same for all."""
    if max_shift <= 0:
        return pixels
    down, across = torch.randint(0, 2 * max_shift + 1, (2,), generator=generator).tolist()
    padded = F.pad(pixels, (max_shift,) * 4, mode="replicate")
    return padded[:, :, down : down + pixels.shape[2], across : across + pixels.shape[3]]


def jitter(pixels: Tensor, generator: torch.Generator, *, max_shift: float, max_rotation: float, max_zoom: float) -> Tensor:
    """Turned, zoomed and shifted at random, the same for all: what is seen must not hang on the exact place.

    Args:
        max_shift: share of the side, at most.
        max_rotation: radians, at most.
        max_zoom: relative, at most.
    """
    draws = (2 * torch.rand(4, generator=generator, dtype=torch.float64) - 1).tolist()
    angle = torch.tensor(draws[0] * max_rotation)
    size = 1 + draws[1] * max_zoom
    cos, sin = float(angle.cos()) * size, float(angle.sin()) * size
    matrix = pixels.new_tensor([[cos, -sin, 2 * max_shift * draws[2]], [sin, cos, 2 * max_shift * draws[3]]])
    grid = F.affine_grid(matrix.expand(len(pixels), -1, -1), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def validate_optimisation(steps: int, smooth: float) -> None:
    """Settings of a descent that make sense.

    Raises:
        ExtremalValueError: they do not.
    """
    if steps < 1 or smooth < 0:
        raise ExtremalValueError(
            f"steps must be at least 1 and smooth at least 0, got {steps} and {smooth:g}; "
            f"{DEFAULT_STEPS} and {SMOOTHNESS_WEIGHT} are usual"
        )


def validate_image_shape(shape: tuple[int, ...] | None) -> tuple[int, int, int]:
    """The shape of an input that is a picture: (C, H, W).

    Raises:
        ExtremalValueError: it is none.
    """
    if shape is None or len(shape) != 3 or shape[0] not in (1, 3):
        raise ExtremalValueError(
            f"what a layer sees is shown as a picture (1 or 3, H, W), got the input shape {shape}; "
            "networks of other inputs have none"
        )
    return shape[0], shape[1], shape[2]


def optimise_images(
    images: FourierImages,
    loss: Callable[[Tensor, int], Tensor],
    *,
    steps: int,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Adam on the spectra; `loss(pixels, step)` is a number. The pictures at the end, (B, C, H, W) in (0, 1)."""
    descent = torch.optim.Adam([images.spectrum], lr=LEARNING_RATE)
    for step in range(steps):
        (images.spectrum.grad,) = torch.autograd.grad(loss(images.pixels(), step), images.spectrum)
        descent.step()
        if on_step is not None:
            on_step(step + 1, steps)
    return images.pixels().detach()
