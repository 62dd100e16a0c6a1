"""`visualise`: images that maximally activate single channels, with patches of real images (method 5)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.explanations.channels.fourier_images import (
    DEFAULT_STEPS,
    SMOOTHNESS_WEIGHT,
    FourierImages,
    check_layer_gradient,
    jitter,
    optimise_images,
    regularisation,
    to_uint8,
    validate_image_shape,
    validate_optimisation,
    validate_size,
)
from extremal.explanations.validation import validate_seed
from extremal.masking.perturbations import ScaleChannels
from extremal.networks.inputs import ImagesLike, prepare_each
from extremal.networks.layers import get_module
from extremal.networks.network import Network
from extremal.networks.resolve import as_network
from extremal.networks.run import Run
from extremal.networks.split import compute_activations
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import read_whole_numbers, validate_callbacks

ACTIVATION_WEIGHT = 0.02  # in units of the mean magnitude of the layer's output
MAX_SHIFT, MAX_ROTATION, MAX_ZOOM = 0.06, 0.12, 0.1  # fraction of the side, radians, relative
MAX_PATCHES = 4  # of real images, per channel
PATCH_STRIDES = 6  # side of a patch, in strides of the layer

ReadLayer = Callable[[Tensor], Tensor]  # pixels (B, C, H, W) -> activations (B, K, places)


@dataclass(frozen=True, eq=False)
class Visualisation:
    """Images that maximally activate M channels of a layer."""

    layer: str
    channels: tuple[int, ...]  # (M,)
    pictures: Tensor  # (M, H, W, 3) uint8
    activations: Tensor  # (M,) of the image, maximum over places
    patches: Tensor  # (M, P, h, w, 3) uint8, of the user's images; P is 0 if there are none
    patch_activations: Tensor  # (M, P) largest first
    patch_images: Tensor  # (M, P) int64, index of the image of each patch


@in_standard_modes
def visualise(
    network: Network | nn.Module | str,
    layer: str,
    channels: Sequence[int],
    *,
    images: Sequence[ImagesLike] | Tensor = (),
    axis: int | None = None,
    size: tuple[int, int, int] | None = None,
    steps: int = DEFAULT_STEPS,
    smooth: float = SMOOTHNESS_WEIGHT,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> Visualisation:
    """Find the image that maximally activates each channel, under random rotation, zoom and shift.

    x̂_k = argmax of the mean and the maximum of Φ_l(T x̂)_k over places − smooth·TV(x̂), over images in a Fourier and
    colour basis; the transformation T is drawn anew at each step.

    >>> _ = torch.manual_seed(0)
    >>> toy = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> visualisation = visualise(toy, "0", (0, 3), images=[torch.rand(1, 3, 16, 16)], size=(3, 16, 16), steps=2)
    >>> visualisation.pictures.shape, visualisation.patches.shape[:2]
    (torch.Size([2, 16, 16, 3]), torch.Size([2, 1]))

    Args:
        network: as for `explain`; its inputs are images (1 or 3 channels).
        layer: name of a module that returns one tensor (B, K, ...).
        channels: (M,) indices in 0..K−1.
        images: to take patches from; each as for `explain`; or prepared (N, C, H, W).
        axis: of the channels in the layer's output, as in `explain_channels`.
        size: (C, H, W) of the images; None: that of the first image, or of an image prepared for the network.
        steps: of Adam.
        smooth: weight of the total variation, at least 0.
        seed: of the start and the transformations.
        on_step: called after each step with the number of steps done and the total.

    Returns:
        A `Visualisation`, on the CPU.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    validate_callbacks(on_step=on_step)
    validate_optimisation(steps, smooth)
    seed, net = validate_seed(seed), as_network(network)
    module = get_module(net, layer)
    inputs = prepare_each(net, images)
    if size is None:
        shape = validate_image_shape(tuple((inputs[0] if inputs else net.example_input()).shape[1:]))
    else:
        shape = validate_size(size)
    with net.frozen(seed) as run:
        grey = net.normalise(torch.full((1, *shape), 0.5).to(net.anchor))
        run.accelerate(grey, (layer,))
        max_rows = run.max_batch_size(grey)
        like = compute_activations(run, module, grey.clone().requires_grad_() * 1)
        check_layer_gradient(like, layer, net.name)
        like = like.detach()
        indices = _validate_channels(channels, ScaleChannels(axis).mask_shape(like)[0], layer)
        channel_axis = ScaleChannels(axis).axis_of(like)

        def read_layer(pixels: Tensor) -> Tensor:
            """Return the activations (B, K, places) of pixels (B, C, H, W) in [0, 1]."""
            units = compute_activations(run, module, net.normalise(pixels)).movedim(channel_axis, 1)
            return units.reshape(*units.shape[:2], -1)  # a layer without places has one

        parts, activations = [], []
        for first in range(0, len(indices), max_rows):
            batch = indices[first : first + max_rows]
            pixels, maxima = _optimise(read_layer, batch, shape, like, steps, smooth, seed, on_step)
            parts.append(pixels)
            activations.append(maxima)
        patches, patch_activations, patch_images = _find_patches(run, net, module, inputs, indices, channel_axis)
    return Visualisation(
        layer=layer,
        channels=indices,
        pictures=to_uint8(torch.cat(parts).cpu()),
        activations=torch.cat(activations).cpu(),
        patches=patches,
        patch_activations=patch_activations,
        patch_images=patch_images,
    )


def _optimise(
    read_layer: ReadLayer,
    channels: tuple[int, ...],
    shape: tuple[int, int, int],
    like: Tensor,
    steps: int,
    smooth: float,
    seed: int,
    on_step: Callable[[int, int], None] | None,
) -> tuple[Tensor, Tensor]:
    """Return images (B, C, H, W) in (0, 1) for B channels, and their maximal activations (B,)."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.tensor(channels, device=like.device)
    rows = torch.arange(len(channels), device=like.device)
    unit = like.abs().mean().clamp_min(1e-6)  # activations have no unit of their own

    def loss(pixels: Tensor, step: int) -> Tensor:
        del step
        jittered = jitter(pixels, generator, max_shift=MAX_SHIFT, max_rotation=MAX_ROTATION, max_zoom=MAX_ZOOM)
        values = read_layer(jittered)[rows, index]  # (B, places)
        activation = (values.mean(1) + values.amax(1)) / unit
        return (regularisation(pixels, smooth) - ACTIVATION_WEIGHT * activation).sum()

    images = FourierImages((len(channels), *shape), seed, like=like)
    pixels = optimise_images(images, loss, steps=steps, on_step=on_step)
    with torch.no_grad():
        return pixels, read_layer(pixels)[rows, index].amax(1)


@torch.no_grad()
def _find_patches(
    run: Run, net: Network, module: nn.Module, inputs: list[Tensor], channels: tuple[int, ...], channel_axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the patches around the places that activate each channel most, at most one per image."""
    empty = torch.zeros(len(channels), 0, dtype=torch.float32)
    if not inputs or net.to_images(inputs[0]) is None:
        return torch.zeros(len(channels), 0, 0, 0, 3, dtype=torch.uint8), empty, empty.long()
    maxima, places, lattices = [], [], []
    for x in inputs:
        units = compute_activations(run, module, x.clone()).movedim(channel_axis, 1)[0, list(channels)]  # (M, *places)
        image_maxima, image_places = units.reshape(len(units), -1).max(1)
        maxima.append(image_maxima)
        places.append(image_places)
        lattices.append(tuple(units.shape[1:]))
    top = torch.stack(maxima, 1).topk(min(MAX_PATCHES, len(inputs)), dim=1)  # (M, P)
    short_side = min(min(x.shape[2:]) for x in inputs)
    images = [net.to_images_or_empty(x)[0] for x in inputs]
    crops = [
        _crop_patch(images[n], lattices[n], int(places[n][m]), short_side)
        for m, row in enumerate(top.indices.tolist())
        for n in row
    ]
    side = max(crop.shape[1] for crop in crops)
    resized = [F.interpolate(crop[None], (side, side), mode="nearest")[0] for crop in crops]
    patches = torch.stack(resized).byte().movedim(1, -1).view(len(channels), -1, side, side, 3)
    return patches, top.values.cpu(), top.indices.cpu()


def _crop_patch(image: Tensor, lattice: tuple[int, ...], place: int, short_side: int) -> Tensor:
    """Crop the square of an image (H, W, 3) around a place of the lattice: (3, side, side), floating."""
    height, width = image.shape[:2]
    values = image.movedim(-1, 0).float()
    if len(lattice) != 2:  # no places: the whole image
        return values[:, :short_side, :short_side]
    row, column = divmod(place, lattice[1])
    stride = height / lattice[0]
    side = min(short_side, max(32, round(PATCH_STRIDES * stride)))
    top = min(height - side, max(0, round((row + 0.5) * stride - side / 2)))
    left = min(width - side, max(0, round((column + 0.5) * width / lattice[1] - side / 2)))
    return values[:, top : top + side, left : left + side]


def _validate_channels(channels: Sequence[int], total: int, layer: str) -> tuple[int, ...]:
    indices = read_whole_numbers(channels, "channels", "(0, 7)")
    if not indices:
        raise ExtremalValueError("channels must name at least one channel, got none; e.g. (0, 7)")
    for channel in indices:
        if not 0 <= channel < total:
            raise ExtremalValueError(
                f"channels must lie in 0..{total - 1} for {layer!r}, which has {total}, got {channel}"
            )
    return indices
