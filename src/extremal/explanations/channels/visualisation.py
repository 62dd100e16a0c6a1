"""`visualise`: pictures that excite single channels most, beside the patches of real images that do (method 5)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
    jitter,
    regularisation,
)
from extremal.explanations.settings import validate_seed
from extremal.masking.perturbations import ScaleChannels
from extremal.networks.inputs import ImagesLike, prepare
from extremal.networks.layers import get_module
from extremal.networks.network import Network, Run
from extremal.networks.resolve import as_network
from extremal.networks.split import compute_activations

ACTIVATION_WEIGHT = 0.02  # weight of the activation, in units of the mean size of the layer's output
MAX_SHIFT, MAX_ROTATION, MAX_ZOOM = 0.06, 0.12, 0.1  # of the side, radians, relative
MAX_PATCHES = 4  # of real images, a channel
PATCH_STRIDES = 6  # side of a patch in strides of the layer

ReadLayer = Callable[[Tensor], Tensor]  # pixels (B, C, H, W) -> the layer's output


@dataclass(frozen=True, eq=False)
class Visualisation:
    """What excites M channels of a layer."""

    layer: str
    channels: tuple[int, ...]  # (M,)
    pictures: Tensor  # (M, H, W, 3) uint8
    activations: Tensor  # (M,) of the picture, the largest over places
    patches: Tensor  # (M, P, h, w, 3) uint8, of the user's images; P is 0 without any
    patch_activations: Tensor  # (M, P) the largest first
    patch_images: Tensor  # (M, P) int64, which of the images each is of


def visualise(
    network: Network | nn.Module | str,
    layer: str,
    channels: Sequence[int],
    *,
    images: Sequence[ImagesLike] = (),
    axis: int | None = None,
    size: tuple[int, int, int] | None = None,
    steps: int = DEFAULT_STEPS,
    smooth: float = SMOOTHNESS_WEIGHT,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> Visualisation:
    """For each channel find the picture that excites it, seen turned, zoomed and shifted at random at every step.

    x̂_k = argmax of the mean and the largest value of Φ_l(T x̂)_k over places − smooth·TV(x̂), over pictures in a
    Fourier and colour basis, T anew at each step.

    >>> _ = torch.manual_seed(0)
    >>> toy = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> found = visualise(toy, "0", (0, 3), images=[torch.rand(1, 3, 16, 16)], size=(3, 16, 16), steps=2)
    >>> found.pictures.shape, found.patches.shape[:2]
    (torch.Size([2, 16, 16, 3]), torch.Size([2, 1]))

    Args:
        network: as `explain` takes it, of pictures (1 or 3 channels).
        layer: name of a module that gives one tensor (B, K, ...).
        channels: (M,) indices in 0..K−1.
        images: whose patches are shown beside; each as `explain` takes it.
        axis: of the layer's output along which the channels lie, as in `explain_channels`.
        size: (C, H, W) of the pictures; None: that of the first image, or of what the network makes of a photograph.
        steps: of Adam.
        smooth: weight of the total variation, at least 0.
        seed: of the start and the moves.
        on_step: called after each step with steps done and in all.

    Returns:
        A `Visualisation`, on the CPU.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    validate_optimisation(steps, smooth)
    seed, net = validate_seed(seed), as_network(network)
    module = get_module(net, layer)
    inputs = [prepare(net, image) for image in images]
    shape = validate_image_shape(tuple((inputs[0] if inputs else net.example_input()).shape[1:]) if size is None else size)
    with net.frozen(seed) as run:
        blank = net.normalise(torch.full((1, *shape), 0.5).to(net.anchor))
        run.accelerate(blank, (layer,))
        rows = run.max_batch_size(blank)
        one = compute_activations(run, module, blank)
        wanted = _validate_channels(channels, ScaleChannels(axis).mask_shape(one)[0], layer)
        along = ScaleChannels(axis).axis_of(one)

        def reach(pixels: Tensor) -> Tensor:
            """(B, C, H, W) in [0, 1] -> (B, K, places)."""
            return compute_activations(run, module, net.normalise(pixels)).movedim(along, 1).flatten(2)

        pictures, excited = [], []
        for first in range(0, len(wanted), rows):
            found, values = _optimise(reach, wanted[first : first + rows], shape, one, steps, smooth, seed, on_step)
            pictures.append(found)
            excited.append(values)
        patches = _find_patches(run, net, module, inputs, wanted, along)
    shown = torch.cat(pictures).cpu()
    return Visualisation(
        layer,
        wanted,
        to_uint8(shown),
        torch.cat(excited).cpu(),
        *patches,
    )


def _optimise(
    reach: ReadLayer,
    channels: tuple[int, ...],
    shape: tuple[int, int, int],
    like: Tensor,
    steps: int,
    smooth: float,
    seed: int,
    on_step: Callable[[int, int], None] | None,
) -> tuple[Tensor, Tensor]:
    """Pictures (B, C, H, W) in (0, 1) for B channels, and their largest activations (B,)."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.tensor(channels, device=like.device)
    rows = torch.arange(len(channels), device=like.device)
    unit = like.abs().mean().clamp_min(1e-6)  # activations have no unit of their own

    def loss(pixels: Tensor, step: int) -> Tensor:
        del step
        seen = jitter(pixels, generator, max_shift=MAX_SHIFT, max_rotation=MAX_ROTATION, max_zoom=MAX_ZOOM)
        values = reach(seen)[rows, index]  # (B, places)
        return (regularisation(pixels, smooth) - ACTIVATION_WEIGHT * (values.mean(1) + values.amax(1)) / unit).sum()

    found = optimise_images(FourierImages((len(channels), *shape), seed, like=like), loss, steps=steps, on_step=on_step)
    with torch.no_grad():
        return found, reach(found)[rows, index].amax(1)


@torch.no_grad()
def _find_patches(
    run: Run, net: Network, module: nn.Module, inputs: list[Tensor], channels: tuple[int, ...], along: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The patches of pictures around the places that excite each channel most, one an image at most."""
    empty = torch.zeros(len(channels), 0)
    if not inputs or net.to_images(inputs[0]) is None:
        return torch.zeros(len(channels), 0, 0, 0, 3, dtype=torch.uint8), empty, empty.long()
    best, where, maps = [], [], []
    for x in inputs:
        units = compute_activations(run, module, x.clone()).movedim(along, 1)[0, list(channels)]  # (M, *places)
        values, places = units.flatten(1).max(1)
        best.append(values)
        where.append(places)
        maps.append(tuple(units.shape[1:]))
    order = torch.stack(best, 1).topk(min(MAX_PATCHES, len(inputs)), dim=1)  # (M, P)
    short = min(min(x.shape[2:]) for x in inputs)
    pictures = [net.to_images_or_empty(x)[0] for x in inputs]
    found = []
    for m, row in enumerate(order.indices.tolist()):
        for image in row:
            found.append(_crop_patch(pictures[image], maps[image], int(where[image][m]), short))
    side = max(patch.shape[1] for patch in found)
    sized = [F.interpolate(patch[None], (side, side), mode="nearest")[0] for patch in found]
    stacked = torch.stack(sized).byte().movedim(1, -1).view(len(channels), -1, side, side, 3)
    return stacked, order.values.cpu(), order.indices.cpu()


def _crop_patch(picture: Tensor, lattice: tuple[int, ...], place: int, short: int) -> Tensor:
    """The square of a picture (H, W, 3) around a place of the layer's lattice: (3, side, side), floating."""
    height, width = picture.shape[:2]
    values = picture.movedim(-1, 0).float()
    if len(lattice) != 2:  # no places: the whole picture
        return values[:, :short, :short]
    row, column = divmod(place, lattice[1])
    stride = height / lattice[0]
    side = min(short, max(32, round(PATCH_STRIDES * stride)))
    top = min(height - side, max(0, round((row + 0.5) * stride - side / 2)))
    left = min(width - side, max(0, round((column + 0.5) * width / lattice[1] - side / 2)))
    return values[:, top : top + side, left : left + side]


def _validate_channels(channels: Sequence[int], total: int, layer: str) -> tuple[int, ...]:
    found = tuple(channels)
    if not found:
        raise ExtremalValueError("channels must name at least one channel, got none; e.g. (0, 7)")
    for channel in found:
        if isinstance(channel, bool) or not hasattr(channel, "__index__"):
            raise ExtremalTypeError(f"channels must be indices, got {channel!r}; e.g. (0, 7)")
        if not 0 <= channel.__index__() < total:
            raise ExtremalValueError(
                f"channels must lie in 0..{total - 1} for {layer!r}, which has {total}, got {channel}"
            )
    return tuple(channel.__index__() for channel in found)
