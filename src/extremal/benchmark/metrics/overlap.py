"""Agreement of a map with the outline of a region: intersection over union and average precision."""

import torch
from torch import Tensor

from extremal.benchmark.metrics.checks import nan_if_empty, validate_regions


def iou(maps: Tensor, regions: Tensor) -> Tensor:
    """Return the IoU of the region with as many of the map's highest places; NaN if the region is empty.

    Ties: of equal places the first in raster order, as in `area.cut_one`.

    Args:
        maps: (N, 1, *S), finite.
        regions: (N, *S), bool.

    Returns:
        (N,) in [0, 1].
    """
    maps, regions = validate_regions(maps, regions)
    flat, inside = maps.flatten(1), regions.flatten(1)
    order = torch.argsort(flat, dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order))
    selected = ranks < inside.sum(1, keepdim=True)
    both, either = (selected & inside).sum(1), (selected | inside).sum(1)
    return nan_if_empty((both / either.clamp_min(1)).to(maps.dtype), regions)


def average_precision(maps: Tensor, regions: Tensor) -> Tensor:
    """Return Σ (R_k − R_(k−1))·P_k over the map's distinct values from the highest down; NaN for empty regions.

    >>> average_precision(torch.tensor([[[4.0, 3.0, 2.0, 1.0]]]), torch.tensor([[True, False, True, False]]))
    tensor([0.8333])

    Args:
        maps: (N, 1, *S), finite.
        regions: (N, *S), bool.

    Returns:
        (N,) in [0, 1]; a random map scores about the area of the region.
    """
    maps, regions = validate_regions(maps, regions)
    precisions = [
        _average_precision(values, region) for values, region in zip(maps.flatten(1), regions.flatten(1), strict=True)
    ]
    return nan_if_empty(torch.stack(precisions).to(maps.dtype), regions)


def _average_precision(values: Tensor, inside: Tensor) -> Tensor:
    ordered, order = values.sort(descending=True)
    true_positives = inside[order].double().cumsum(0)
    last = torch.cat([ordered[1:] != ordered[:-1], ordered.new_ones(1, dtype=torch.bool)]).nonzero()[:, 0]
    precision = true_positives[last] / (last + 1)
    recall = true_positives[last] / true_positives[-1].clamp_min(1)
    return (recall.diff(prepend=recall.new_zeros(1)) * precision).sum()
