"""Pieces of a region: its connected parts, and halves of them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def connected_parts(region: Tensor) -> list[Tensor]:
    """Return the connected parts of a region (*S): each the indices (n,) of its places in the flattened lattice.

    Places are connected if they differ by one step along one axis; those that touch only at a corner are not. Parts are
    ordered by their first place.

    >>> [part.tolist() for part in connected_parts(torch.tensor([[1, 1, 0], [0, 0, 1]]))]
    [[0, 1], [5]]

    Args:
        region: zeros and ones, or bool.
    """
    inside, outside = region.bool().cpu(), region.numel()
    labels = torch.arange(outside).view(region.shape).masked_fill(~inside, outside)
    while True:
        lowest = labels.clone()
        for axis, size in enumerate(region.shape):
            smaller = torch.minimum(labels.narrow(axis, 0, size - 1), labels.narrow(axis, 1, size - 1))
            for start in (0, 1):
                side = lowest.narrow(axis, start, size - 1)
                side.copy_(torch.minimum(side, smaller))
        lowest.masked_fill_(~inside, outside)
        # a label is the index of a place of the same part: that place's label is lower still
        lowest = torch.cat([lowest.flatten(), torch.tensor([outside])])[lowest]
        if torch.equal(lowest, labels):
            return group_places(labels.masked_fill(~inside, -1))
        labels = lowest


def group_places(labels: Tensor) -> list[Tensor]:
    """Return the places of each label, labels rising: indices (n,) in the flattened lattice.

    >>> [places.tolist() for places in group_places(torch.tensor([[7, 3], [-1, 7]]))]
    [[1], [0, 3]]

    Args:
        labels: (*S) whole numbers; places with negative ones are left out.
    """
    flat = labels.flatten().cpu()
    known, index = torch.unique(flat, return_inverse=True)
    order = index.argsort(stable=True)
    groups = torch.split(order, index.bincount(minlength=len(known)).tolist())
    return [group for label, group in zip(known.tolist(), groups, strict=True) if label >= 0]


def halve(piece: Tensor, shape: tuple[int, ...], smallest: int = 1, spacing: Sequence[float] = ()) -> list[Tensor]:
    """Cut a piece into two halves across its longer axis; return it whole if a half would be too small.

    The cut lies between two rows of places, where the halves are most equal.

    >>> [half.tolist() for half in halve(torch.tensor([0, 1, 2, 3]), (1, 8))]
    [[0, 1], [2, 3]]

    Args:
        piece: (n,) indices of places in the flattened lattice.
        shape: of the lattice.
        smallest: number of places that each half must have.
        spacing: distance of neighbouring places along each axis; empty: the same along all.
    """
    coordinates = torch.stack(torch.unravel_index(piece, shape), 1)  # (n, axes)
    extents = (coordinates.amax(0) - coordinates.amin(0)) * torch.tensor(
        list(spacing) or [1.0] * len(shape), dtype=torch.float32
    )
    rows = coordinates[:, int(extents.argmax())]
    rows = rows - rows.min()
    below = rows.bincount().cumsum(0)[:-1]  # places before each possible cut
    smaller = torch.minimum(below, len(piece) - below)
    if not len(smaller) or int(smaller.max()) < max(1, smallest):
        return [piece]
    first = rows <= smaller.argmax()
    return [piece[first], piece[~first]]


def divide(
    pieces: Sequence[Tensor],
    shape: tuple[int, ...],
    largest: int,
    smallest: int = 1,
    spacing: Sequence[float] = (),
) -> list[Tensor]:
    """Halve pieces until none has more places than `largest`, or a half would be too small.

    Args:
        pieces, shape, smallest, spacing: as for `halve`.
        largest: number of places.
    """
    divided = []
    for piece in pieces:
        halves = halve(piece, shape, smallest, spacing) if len(piece) > largest else [piece]
        divided += halves if len(halves) == 1 else divide(halves, shape, largest, smallest, spacing)
    return divided
