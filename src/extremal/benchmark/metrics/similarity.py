"""Similarity of maps: rank correlation, and agreement between seeds."""

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from extremal.benchmark.metrics.checks import validate_maps
from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.area import cut_one
from extremal.masking.scaling import rank_shares
from extremal.number_checks import format_value, validate_between


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Spearman's rank correlation of each pair of maps; equal values share their mean rank.

    >>> rank_correlation(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[10.0, 30.0, 20.0]]]))
    tensor([0.5000])

    Args:
        a: (N, 1, *S), finite.
        b: of the same shape.

    Returns:
        (N,) in [−1, 1]; 0 if a map is constant.
    """
    validate_maps(a)
    validate_maps(b)
    if a.shape != b.shape:
        raise ExtremalValueError(f"maps must have one shape to be compared, got {tuple(a.shape)} and {tuple(b.shape)}")
    first, second = (rank_shares(maps.flatten(1).double()) for maps in (a, b))
    first, second = (values - values.mean(1, keepdim=True) for values in (first, second))
    norms = first.norm(dim=1) * second.norm(dim=1)
    return torch.where(norms > 0, (first * second).sum(1) / norms.clamp_min(1e-300), 0.0).to(a.dtype)


def seed_agreement(maps: Sequence[Tensor], area: float = 0.1) -> tuple[Tensor, Tensor]:
    """Compare maps of the same inputs that were made with different seeds.

    Args:
        maps: two or more tensors (N, 1, *S), one per seed.
        area: fraction of places to which the maps are cut for the overlap.

    Returns:
        The mean rank correlation over all pairs, and the mean intersection over union of the cut maps: (N,), (N,).

    Raises:
        ExtremalValueError, ExtremalTypeError: there are fewer than two seeds, or the area is no fraction.
    """
    area = validate_between(area, "area", high=1.0, remedy="e.g. 0.1")
    if not isinstance(maps, Iterable):
        raise ExtremalTypeError(f"maps must be tensors (N, 1, *S), one per seed, got {format_value(maps)}; pass a list")
    maps = list(maps)
    if len(maps) < 2:
        raise ExtremalValueError(f"agreement must be of at least 2 seeds, got {len(maps)}")
    pairs = list(itertools.combinations(maps, 2))
    correlation = torch.stack([rank_correlation(a, b) for a, b in pairs]).mean(0)
    cuts = [(cut_one(a, area) > 0, cut_one(b, area) > 0) for a, b in pairs]
    overlaps = [(a & b).flatten(1).sum(1) / (a | b).flatten(1).sum(1) for a, b in cuts]
    return correlation, torch.stack(overlaps).mean(0)
