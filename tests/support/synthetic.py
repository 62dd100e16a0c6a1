"""Synthetic explanations without a network: seeded numbers of the right shapes, for code that only reads them."""

from dataclasses import replace
from typing import Any

import torch

from extremal.explanations.explanation import Explanation
from extremal.explanations.stability import Stability
from extremal.explanations.verdict import Status
from extremal.masking.area import cut_one
from extremal.masking.grid import gaussian_blur

AREAS = (0.025, 0.05, 0.1, 0.2, 0.4)
UNSEEN = ("fade", "constant", "noise")


def explanation(
    areas: tuple[float, ...] = AREAS,
    shape: tuple[int, ...] = (48, 64),
    *,
    count: int = 1,
    keeps: bool = True,
    pictures: bool = True,
    seed: int = 0,
    **changes: Any,
) -> Explanation:
    """Return smooth masks, scores that rise with area (fall if masks delete) from 0 to 1, and weak controls."""
    generator = torch.Generator().manual_seed(seed)
    columns = len(areas)
    field = gaussian_blur(torch.randn(count * columns, 1, *shape, generator=generator), 3.0)
    cuts = [cut_one(field[k::columns], area) for k, area in enumerate(areas)]
    masks = torch.stack([(0.9 * cut + 0.1 * torch.rand(cut.shape, generator=generator)) for cut in cuts], 1)
    effect = torch.linspace(0.3, 1.05, columns + 1)[1:].expand(count, -1)
    chance = 0.3 * effect[..., None] * torch.rand(count, columns, 8, generator=generator)
    unseen = effect[..., None] * torch.tensor([0.95, 0.9, 0.6])
    side = (lambda e: e) if keeps else (lambda e: 1 - e)
    size = (count, *shape, 3) if pictures and len(shape) == 2 else (count, 0, 0, 3)
    made = Explanation(
        areas=areas,
        masks=masks,
        mask_areas=masks.flatten(2).mean(2),
        scores=side(effect + 0.02),
        binary_scores=side(effect),
        unseen_scores=side(unseen),
        unseen_blank=torch.zeros(count, len(UNSEEN)),
        control_scores=side(chance),
        agreement=cuts[-1] + 0.1,
        score_full=torch.ones(count),
        score_blank=torch.zeros(count),
        inputs=torch.randn(count, 3, *shape, generator=generator),
        pictures=torch.randint(0, 256, size, generator=generator).to(torch.uint8),
        destroyed=torch.full(size, 128, dtype=torch.uint8),
        trace_step=torch.arange(4),
        trace_area=torch.rand(count, 4, generator=generator),
        trace_reward=torch.rand(count, 4, generator=generator),
        trace_grey=torch.rand(count, 4, generator=generator),
        target=(281,) * count,
        target_names=("tabby cat",) * count,
        unseen_names=UNSEEN,
        status=((Status.CONVERGED,) * columns,) * count,
        keeps=keeps,
        settings={
            "versions": {"extremal": "0.1.0"},
            "network": "toy",
            "weights": "0" * 64,
            "game": "preserve" if keeps else "delete",
            "solver": {"name": "path", "steps": 60},
            "seed": seed,
            "evaluations": {"gradients": 107, "forwards": 34},
        },
    )
    return replace(made, **changes)


def stability(
    areas: tuple[float, ...] = AREAS, shape: tuple[int, ...] = (48, 64), *, count: int = 1, iou: float = 0.8
) -> Stability:
    """Return the stability of three copies, the median of whose IoUs is `iou`; the core is a corner."""
    columns = (count, len(areas))
    core = torch.zeros(*columns, 1, *shape, dtype=torch.bool)
    core[(..., *[slice(0, size // 3) for size in shape])] = True
    return Stability(
        areas=areas,
        ious=torch.tensor([iou - 0.1, iou, iou + 0.1]).expand(*columns, 3).clone(),
        core=core,
        core_shares=torch.full(columns, 0.72),
        effects=torch.linspace(0.3, 1.05, 3).expand(*columns, 3).clone(),
        unseen_effects=torch.linspace(0.2, 1.0, 3).expand(*columns, 3).clone(),
        smallest_areas=torch.tensor([[areas[-1], areas[-1], areas[0]]], dtype=torch.float64).repeat(count, 1),
        seed=0,
        evaluations=300 * count,
    )
