"""`invert`: the picture whose activations at a layer are wanted ones, so that they can be seen (method 5)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations.channels.fourier_images import (
    SMOOTHNESS_WEIGHT,
    DEFAULT_STEPS,
    FourierImages,
    to_uint8,
    validate_optimisation,
    validate_image_shape,
    optimise_images,
    shift,
    regularisation,
)
from extremal.explanations.settings import validate_seed
from extremal.masking.perturbations import ScaleChannels
from extremal.networks.inputs import ImagesLike, prepare
from extremal.networks.layers import get_module
from extremal.networks.network import Network
from extremal.networks.resolve import as_network
from extremal.networks.split import compute_activations

MAX_JITTER = 0.25  # of the layer's stride, at most, in the first two thirds of the steps
PART_NAMES = ("all", "kept", "removed")


@dataclass(frozen=True, eq=False)
class Inversion:
    """Pictures of what a layer's channels carry, for N inputs."""

    layer: str
    parts: tuple[str, ...]  # (M,) all; or all, kept, removed
    pictures: Tensor  # (N, M, H, W, 3) uint8
    inputs: Tensor  # (N, M, C, H, W) as the network takes them
    correlation: Tensor  # (N, M) of the picture's activations with the wanted ones
    originals: Tensor  # (N, H, W, 3) uint8; (N, 0, 0, 3) where activations were given


def invert(
    network: Network | nn.Module | str,
    layer: str,
    source: ImagesLike,
    mask: Tensor | None = None,
    *,
    axis: int | None = None,
    size: tuple[int, int, int] | None = None,
    steps: int = DEFAULT_STEPS,
    smooth: float = SMOOTHNESS_WEIGHT,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> Inversion:
    """Find x̂ = argmin ‖Φ_l(x̂) − a‖² / ‖a‖² + smooth·TV(x̂) + ‖x̂ − grey‖² over pictures in a Fourier and colour basis.

    a is the layer's output for an image, or given; with a mask there are three: all channels, the kept, the removed.

    >>> _ = torch.manual_seed(0)
    >>> toy = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> found = invert(toy, "1", torch.rand(1, 3, 16, 16), torch.tensor([[1.0, 1.0, 0.0, 0.0]]), steps=2)
    >>> found.parts, found.pictures.shape
    (('all', 'kept', 'removed'), torch.Size([1, 3, 16, 16, 3]))

    Args:
        network: as `explain` takes it, of pictures (1 or 3 channels).
        layer: name of a module that gives one tensor (B, K, ...).
        source: an image as `explain` takes it; or, where `size` is given, activations (N, K, ...) of the layer.
        mask: (N, K) or (K,) in [0, 1], one value a channel.
        axis: of the layer's output along which the channels lie, as in `explain_channels`.
        size: (C, H, W) of the pictures, where activations are given.
        steps: of Adam.
        smooth: weight of the total variation, at least 0.
        seed: of the start and the jitter.
        on_step: called after each step with steps done and in all.

    Returns:
        An `Inversion` of N inputs, on the CPU.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    validate_optimisation(steps, smooth)
    seed, net = validate_seed(seed), as_network(network)
    module = get_module(net, layer)
    x = None if size is not None else prepare(net, source)
    shape = validate_image_shape(tuple(x.shape[1:]) if x is not None else size)
    with net.frozen(seed) as run:
        like = net.normalise(torch.zeros(1, *shape).to(net.anchor)) if x is None else x.clone()
        run.accelerate(like, (layer,))
        rows = run.max_batch_size(like)
        wanted = compute_activations(run, module, like).detach()
        if x is None:
            wanted = _validate_activations(source, wanted, layer, shape)
        masks = _build_masks(mask, wanted, axis)  # (N, M, K)
        goals = ScaleChannels(axis)(wanted)(masks.unsqueeze(2))  # (N, M, K, ...)
        flat = goals.flatten(0, 1)
        pixels, alike = [], []
        for first in range(0, len(flat), rows):
            goal = flat[first : first + rows]
            pictures = FourierImages((len(goal), *shape), seed, like=goal)
            loss = _InversionLoss(lambda p: compute_activations(run, module, net.normalise(p)), goal, shape, steps, smooth, seed)
            found = optimise_images(pictures, loss, steps=steps, on_step=on_step)
            with torch.no_grad():
                reached = compute_activations(run, module, net.normalise(found))
            pixels.append(found)
            alike.append(correlation(reached, goal))
        shown = torch.cat(pixels).view(*goals.shape[:2], *shape).cpu()
    return Inversion(
        layer,
        PART_NAMES[: masks.shape[1]],
        to_uint8(shown),
        net.normalise(shown.flatten(0, 1)).view_as(shown),
        torch.cat(alike).view(goals.shape[:2]).cpu(),
        torch.zeros(len(wanted), 0, 0, 3, dtype=torch.uint8) if x is None else net.to_images_or_empty(x),
    )


def _validate_activations(source: ImagesLike, like: Tensor, layer: str, shape: tuple[int, int, int]) -> Tensor:
    """Activations that were handed in, checked against those of an input: (N, K, ...)."""
    if not isinstance(source, Tensor) or not source.is_floating_point():
        kind = source.dtype if isinstance(source, Tensor) else type(source).__name__
        raise ExtremalTypeError(f"with size, source must be activations (N, K, ...), got {kind}")
    if source.shape[1:] != like.shape[1:]:
        raise ExtremalValueError(
            f"activations must have the shape of the layer's output, (N, *{tuple(like.shape[1:])}) for "
            f"{layer!r} at {shape}, got {tuple(source.shape)}"
        )
    return source.detach().to(like)


class _InversionLoss:
    """Distance of the activations from the goal, relative to its size, and the prior."""

    def __init__(
        self,
        activations: Callable[[Tensor], Tensor],
        goal: Tensor,
        shape: tuple[int, ...],
        steps: int,
        smooth: float,
        seed: int,
    ) -> None:
        self.activations, self.goal, self.smooth = activations, goal, smooth
        stride = shape[1] / goal.shape[2] if goal.ndim == 4 else 1.0
        self.jitter, self.until = round(MAX_JITTER * stride), steps * 2 // 3
        self.generator = torch.Generator().manual_seed(seed)
        self.size = goal.flatten(1).square().sum(1).clamp_min(1e-12)

    def __call__(self, pixels: Tensor, step: int) -> Tensor:
        seen = shift(pixels, self.jitter if step < self.until else 0, self.generator)
        gap = (self.activations(seen) - self.goal).flatten(1).square().sum(1) / self.size
        return (gap + regularisation(pixels, self.smooth)).sum()


def _build_masks(mask: Tensor | None, wanted: Tensor, axis: int | None) -> Tensor:
    """All ones; and the mask and what it leaves, where there is one: (N, M, K)."""
    count, total = len(wanted), ScaleChannels(axis).mask_shape(wanted)[0]
    whole = wanted.new_ones(count, 1, total)
    if mask is None:
        return whole
    if mask.ndim not in (1, 2) or mask.shape[-1] != total or (mask.ndim == 2 and len(mask) not in (1, count)):
        raise ExtremalValueError(
            f"a mask must have one value for each of {total} channels, ({count}, {total}) or ({total},), "
            f"got {tuple(mask.shape)}"
        )
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ExtremalValueError(
            f"a mask must lie in [0, 1], got values from {float(mask.min()):.3g} to {float(mask.max()):.3g}"
        )
    kept = mask.to(wanted).view(-1, 1, total).expand(count, -1, -1)
    return torch.cat([whole, kept, 1 - kept], 1)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row of (B, ...) and (B, ...): (B,)."""
    a, b = (values.flatten(1) - values.flatten(1).mean(1, keepdim=True) for values in (a, b))
    alike: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)
    return alike
