"""Energy (Wang et al., 2020): the share of the map that lies inside the region."""

from torch import Tensor

from extremal.benchmark.metrics.checks import nan_if_empty, validate_regions


def energy(maps: Tensor, regions: Tensor) -> Tensor:
    """Σ_inside max(0, S) / Σ max(0, S); 0 where the map marks nothing, NaN where the region is empty.

    >>> import torch
    >>> region = torch.tensor([[[True, False], [True, False]]])
    >>> energy(torch.tensor([[[[3.0, 1.0], [-5.0, 0.0]]]]), region)
    tensor([0.7500])

    Args:
        maps: (N, 1, *S), finite; what is negative counts as nothing.
        regions: (N, *S), bool.

    Returns:
        (N,) in [0, 1].
    """
    maps, regions = validate_regions(maps, regions)
    positive = maps[:, 0].clamp_min(0.0).flatten(1).double()
    positive = positive / positive.amax(1, keepdim=True).clamp_min(1e-300)  # sums of tiny values stay exact
    total = positive.sum(1)
    share = (positive * regions.flatten(1)).sum(1) / total.clamp_min(1e-300)
    return nan_if_empty(share.to(maps.dtype), regions)
