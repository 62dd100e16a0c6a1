"""Bring rows of values to one scale: deviations, ranks, and values too large to square."""

import torch
from torch import Tensor

FLOOR = 1e-30  # of a deviation or a size, so that a row without any becomes zero
LARGE = 1e15  # values whose squares could exceed the range of float32


def standardise(field: Tensor, floor: float = 1e-3) -> Tensor:
    """Scale each row (B, ...) to mean 0 and deviation 1; `floor` is added to its deviation."""
    dims = tuple(range(1, field.ndim))
    centred = field - field.mean(dims, keepdim=True)
    return centred / (centred.square().mean(dims, keepdim=True).sqrt() + floor)


def standardise_each(fields: Tensor) -> Tensor:
    """Scale each field (N, K, ...) to mean 0 and deviation 1; one without any deviation becomes zero."""
    return standardise(fields.flatten(0, 1), floor=FLOOR).view_as(fields)


def reduce_large(values: Tensor) -> Tensor:
    """Divide rows (B, ...) with values above 1e15 by their largest, so that squares stay in the range of float32.

    >>> reduce_large(torch.tensor([[1.0, 2.0], [2e30, -4e30]])).tolist()
    [[1.0, 2.0], [0.5, -1.0]]
    """
    largest = values.abs().amax(tuple(range(1, values.ndim)), keepdim=True)
    return torch.where(largest > LARGE, values / largest, values)


def rank(values: Tensor) -> Tensor:
    """Return the standardised ranks of each row (N, ...); equal values have their mean rank."""
    return standardise(rank_shares(values), floor=FLOOR)


def rank_shares(values: Tensor) -> Tensor:
    """Return the ranks of each row (N, ...) in [0, 1]; equal values have their mean rank.

    >>> rank_shares(torch.tensor([[5.0, 7.0, 5.0, 9.0]]))
    tensor([[0.2500, 0.6250, 0.2500, 0.8750]])
    """
    ordered, places = _sort_rows(values.flatten(1))
    is_new = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[:, 1:], ordered[:, :-1], out=is_new[:, 1:])
    group = is_new.cumsum(1) - 1  # of equal values
    sizes = torch.zeros_like(group).scatter_add_(1, group, torch.ones_like(group))
    last = sizes.cumsum(1)
    ranks = (2 * last - sizes).gather(1, group)  # twice the mean
    ranks = torch.empty_like(ranks).scatter_(1, places, ranks)
    return ranks.to(values).view_as(values) / (2 * ordered.shape[1])


def _sort_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sort rows (N, P); return the values, or whole numbers in the same order, and the place of each.

    A CPU sorts a row of whole numbers in a fraction of the time; the bits of a float32 are one with the same order,
    except for those of negative values, which are in the opposite order.
    """
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return values.sort(1)
    bits = (values + 0.0).view(torch.int32)  # −0 becomes 0
    numbers = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    ordered, places = zip(*(row.sort() for row in numbers), strict=True)
    return torch.stack(ordered), torch.stack(places)
