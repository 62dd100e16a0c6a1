"""`invert`: find the image whose activations at a layer match given ones (method 5)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations.channels.fourier_images import (
    DEFAULT_STEPS,
    SMOOTHNESS_WEIGHT,
    FourierImages,
    check_layer_gradient,
    optimise_images,
    regularisation,
    shift,
    to_uint8,
    validate_image_shape,
    validate_optimisation,
    validate_size,
)
from extremal.explanations.validation import validate_seed
from extremal.files import INVERSION_PARTS
from extremal.masking.perturbations import ScaleChannels
from extremal.networks.inputs import ImagesLike, prepare
from extremal.networks.layers import get_module
from extremal.networks.network import Network
from extremal.networks.resolve import as_network
from extremal.networks.split import compute_activations
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import validate_callbacks

MAX_JITTER = 0.25  # of the layer's stride, in the first two thirds of the steps


@dataclass(frozen=True, eq=False)
class Inversion:
    """Images of the information in a layer's channels, for N inputs."""

    layer: str
    parts: tuple[str, ...]  # (M,) all; or all, kept, removed
    pictures: Tensor  # (N, M, H, W, 3) uint8
    inputs: Tensor  # (N, M, C, H, W) prepared for the network
    correlation: Tensor  # (N, M) of the image's activations with the target activations
    originals: Tensor  # (N, H, W, 3) uint8; (N, 0, 0, 3) if activations were given


@in_standard_modes
def invert(
    network: Network | nn.Module | str,
    layer: str,
    source: ImagesLike,
    mask: Tensor | np.ndarray[Any, Any] | None = None,
    *,
    axis: int | None = None,
    size: tuple[int, int, int] | None = None,
    steps: int = DEFAULT_STEPS,
    smooth: float = SMOOTHNESS_WEIGHT,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> Inversion:
    """Find the image whose activations at a layer match given ones.

    x̂ = argmin ‖Φ_l(x̂) − a‖² / ‖a‖² + smooth·TV(x̂) + ‖x̂ − grey‖² over images in a Fourier and colour basis. The
    activations a are the layer's output for an image, or given. With a mask, three images are found: for all, for the
    kept and for the removed channels.

    >>> _ = torch.manual_seed(0)
    >>> toy = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> inversion = invert(toy, "1", torch.rand(1, 3, 16, 16), torch.tensor([[1.0, 1.0, 0.0, 0.0]]), steps=2)
    >>> inversion.parts, inversion.pictures.shape
    (('all', 'kept', 'removed'), torch.Size([1, 3, 16, 16, 3]))

    Args:
        network: as for `explain`; its inputs are images (1 or 3 channels).
        layer: name of a module that returns one tensor (B, K, ...).
        source: an image as for `explain`; or, with `size`, activations (N, K, ...) of the layer.
        mask: (N, K) or (K,) in [0, 1], one value per channel, e.g. `ChannelExplanation.mask()`.
        axis: of the channels in the layer's output, as in `explain_channels`.
        size: (C, H, W) of the images, if activations are given.
        steps: of Adam.
        smooth: weight of the total variation, at least 0.
        seed: of the start and the jitter.
        on_step: called after each step with the number of steps done and the total.

    Returns:
        An `Inversion` of N inputs, on the CPU.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    validate_callbacks(on_step=on_step)
    validate_optimisation(steps, smooth)
    seed, net = validate_seed(seed), as_network(network)
    module = get_module(net, layer)
    x: Tensor | None = None
    if size is not None:
        shape = validate_size(size)
    else:
        x = prepare(net, source)
        shape = validate_image_shape(tuple(x.shape[1:]))
    with net.frozen(seed) as run:
        like = net.normalise(torch.zeros(1, *shape).to(net.anchor)) if x is None else x.clone()
        run.accelerate(like, (layer,))
        max_rows = run.max_batch_size(like)
        activations = compute_activations(run, module, like.clone().requires_grad_() * 1)
        check_layer_gradient(activations, layer, net.name)
        activations = activations.detach()
        if x is None:
            activations = _validate_activations(source, activations, layer, shape)
        masks = _build_masks(mask, activations, axis)  # (N, M, K)
        masked = ScaleChannels(axis)(activations)(masks.unsqueeze(2))  # (N, M, K, ...)
        parts, correlations = [], []
        for target in torch.split(masked.flatten(0, 1), max_rows):
            images = FourierImages((len(target), *shape), seed, like=target)
            loss = _InversionLoss(
                lambda pixels: compute_activations(run, module, net.normalise(pixels)),
                target,
                shape,
                steps,
                smooth,
                seed,
            )
            pixels = optimise_images(images, loss, steps=steps, on_step=on_step)
            with torch.no_grad():
                reached = compute_activations(run, module, net.normalise(pixels))
            parts.append(pixels)
            correlations.append(correlation(reached, target))
        pixels = torch.cat(parts).view(*masked.shape[:2], *shape).cpu()
    return Inversion(
        layer=layer,
        parts=INVERSION_PARTS[: masks.shape[1]],
        pictures=to_uint8(pixels),
        inputs=net.normalise(pixels.flatten(0, 1)).view_as(pixels),
        correlation=torch.cat(correlations).view(masked.shape[:2]).cpu(),
        originals=torch.zeros(len(activations), 0, 0, 3, dtype=torch.uint8) if x is None else net.to_images_or_empty(x),
    )


def _validate_activations(source: ImagesLike, like: Tensor, layer: str, shape: tuple[int, int, int]) -> Tensor:
    """Return the given activations (N, K, ...), validated against those of an input."""
    if not isinstance(source, Tensor) or not source.is_floating_point():
        kind = source.dtype if isinstance(source, Tensor) else type(source).__name__
        raise ExtremalTypeError(
            f"with size, source must be a floating tensor of activations (N, K, ...), got {kind}; convert an array "
            "with torch.from_numpy"
        )
    if source.shape[1:] != like.shape[1:]:
        raise ExtremalValueError(
            f"activations must have the shape of the layer's output, (N, *{tuple(like.shape[1:])}) for "
            f"{layer!r} at {shape}, got {tuple(source.shape)}"
        )
    if not len(source) or not bool(source.isfinite().all()):
        found = "NaN or infinite values" if len(source) else "those of no input"
        raise ExtremalValueError(
            f"activations must be finite, and of at least one input, got {found}; record them again from an image"
        )
    return source.detach().to(like)


class _InversionLoss:
    """Relative distance of the activations from their target, plus the regularisation."""

    def __init__(
        self,
        activations: Callable[[Tensor], Tensor],
        target: Tensor,
        shape: tuple[int, ...],
        steps: int,
        smooth: float,
        seed: int,
    ) -> None:
        self.activations, self.target, self.smooth = activations, target, smooth
        stride = shape[1] / target.shape[2] if target.ndim == 4 else 1.0
        self.max_shift, self.jitter_steps = round(MAX_JITTER * stride), steps * 2 // 3
        self.generator = torch.Generator().manual_seed(seed)
        self.norm = target.flatten(1).square().sum(1).clamp_min(1e-12)

    def __call__(self, pixels: Tensor, step: int) -> Tensor:
        shifted = shift(pixels, self.max_shift if step < self.jitter_steps else 0, self.generator)
        distance = (self.activations(shifted) - self.target).flatten(1).square().sum(1) / self.norm
        return (distance + regularisation(pixels, self.smooth)).sum()


def _build_masks(given: Tensor | np.ndarray[Any, Any] | None, activations: Tensor, axis: int | None) -> Tensor:
    """Return a mask of ones and, if a mask is given, the mask and its complement: (N, M, K)."""
    count, total = len(activations), ScaleChannels(axis).mask_shape(activations)[0]
    ones = activations.new_ones(count, 1, total)
    if given is None:
        return ones
    try:
        mask = torch.as_tensor(given).detach()
    except (TypeError, ValueError, RuntimeError):
        raise ExtremalTypeError(
            f"a mask must be a tensor or an array with one value for each of {total} channels, got "
            f"{type(given).__name__}; e.g. explanation.mask()"
        ) from None
    if mask.ndim not in (1, 2) or mask.shape[-1] != total or (mask.ndim == 2 and len(mask) not in (1, count)):
        raise ExtremalValueError(
            f"a mask must have one value for each of {total} channels, ({count}, {total}) or ({total},), "
            f"got {tuple(mask.shape)}"
        )
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ExtremalValueError(
            f"a mask must lie in [0, 1], got values from {float(mask.min()):.3g} to {float(mask.max()):.3g}"
        )
    expanded = mask.to(activations).view(-1, 1, total).expand(count, -1, -1)
    return torch.cat([ones, expanded, 1 - expanded], 1)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Pearson's correlation of each row of (B, ...) and (B, ...): (B,)."""
    a, b = (values.flatten(1) - values.flatten(1).mean(1, keepdim=True) for values in (a, b))
    coefficients: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)
    return coefficients
