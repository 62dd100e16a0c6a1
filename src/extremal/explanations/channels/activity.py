"""Maps of the places where sets of channels are active in an image."""

import torch
from torch import Tensor

from extremal.networks.layers import square_lattice


def build_place_fields(x: Tensor, sets: Tensor, smallest: Tensor, axis: int, *, is_image: bool) -> dict[str, Tensor]:
    """Return the fields about where channels are active: of sets (N, A, K), and of the smallest ones (N, K).

    Args:
        x: (N, K, ...) activations.
        sets, smallest: of zeros and ones.
        axis: of the channels in the activations.
        is_image: whether inputs have rows and columns, so that three axes of activations are tokens of a lattice.
    """
    complete = torch.cat([sets, smallest.to(sets)[:, None]], 1)
    strength = _sum_channels(x, complete, axis, is_image=is_image, is_squared=True)
    return {
        "maps": _sum_channels(x, sets, axis, is_image=is_image),
        "activity": strength[:, :-1],
        "smallest_activity": strength[:, -1],
    }


def _sum_channels(x: Tensor, sets: Tensor, axis: int, *, is_image: bool, is_squared: bool = False) -> Tensor:
    """Return Σ_k m_k·x_k for sets (N, A, K) of activations x: (N, A, h, w); (N, A, 0, 0) without places.

    If `is_squared`, √Σ_k m_k·x_k², in which channels of different signs do not cancel.
    """
    units = x.movedim(axis, 1)  # (N, K, *places)
    shape = tuple(units.shape[2:])
    maps: Tensor
    if x.ndim == 3 and axis == 1:  # the units are tokens: map the norms of those that are kept
        maps = sets * units.norm(dim=2).unsqueeze(1)
    else:
        values = units.reshape(*units.shape[:2], -1)
        maps = torch.einsum("nak,nkp->nap", sets, values.square() if is_squared else values)
        maps = maps.clamp_min(0).sqrt() if is_squared else maps
    lattice = square_lattice(maps.shape[2]) if x.ndim == 3 else shape if len(shape) == 2 else None
    if lattice is None or not is_image:
        return maps.new_zeros(*maps.shape[:2], 0, 0)
    return maps[:, :, -lattice[0] * lattice[1] :].reshape(*maps.shape[:2], *lattice)
