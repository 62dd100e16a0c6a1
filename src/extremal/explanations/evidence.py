"""Evidence: what the network says of a mask beyond what the optimiser was paid for, and a plain verdict.

Optimised masks can cheat: grey values and fine edges can carry adversarial signal. So each mask is also scored cut to
black and white, under perturbations that the optimiser did not use, and next to random smooth masks of its area.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from extremal.masking.domain import Domain, ExactAreaFamily
from extremal.masking.games import Evaluate, Game
from extremal.masking.grid import gaussian_blur, scale_lengths
from extremal.masking.level_set import standardise
from extremal.masking.perturbations import PERTURBATIONS, Blur, Noise, Perturbation
from extremal.masking.solvers.problem import gradient

if TYPE_CHECKING:
    pass

CONTROLS = 8  # random masks an area
CHUNK = 4  # masks of one image evaluated at once
LEVELS = (0.3125, 0.4375, 0.5625, 0.6875)  # of the constant masks of `agreement`
SMOOTH = 2.0  # px at a short side of 224 px, of the Gaussian over the gradients of `agreement`

Progress = Callable[[int, int], None]  # masks done, masks in all


@dataclass(frozen=True)
class Evidence:
    """Scores of masks that were found for N inputs at A areas."""

    scores: Tensor  # (N, A) of the masks as found, under the perturbation that the optimiser used
    binary_scores: Tensor  # (N, A) of the masks cut to exactly round(a·|Ω|) ones
    unseen_scores: Tensor  # (N, A, P) of the cut masks under P perturbations that the optimiser did not use
    unseen_blank: Tensor  # (N, P) of the input destroyed by these
    control_scores: Tensor  # (N, A, R) of R controls of each area, of zeros and ones


def unseen_perturbations(used: Perturbation, seed: int) -> dict[str, Perturbation]:
    """Perturbations other than the one used: another blur, fade, a constant, noise."""
    others: dict[str, Perturbation] = {
        "fade": PERTURBATIONS["fade"],
        "constant": PERTURBATIONS["constant"],
        "noise": Noise(seed + 1),
    }
    like = used if isinstance(used, Blur) else Blur()
    half = replace(like, levels=2, sigma=like.sigma / 2)  # two levels: it fades to a blur
    return {"half blur": half} | {name: other for name, other in others.items() if type(other) is not type(used)}


def random_masks(domain: Domain, areas: tuple[float, ...], seed: int, like: Tensor) -> Tensor:
    """Random smooth masks cut to each area: (1, A, R, *S), the same for every input."""
    family = domain.exact_area_family(like)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(CONTROLS, 1, *family.parameter_shape, generator=generator, dtype=torch.float64).to(like)
    drawn = [family(noise, noise.new_full((CONTROLS,), area), 0.3) for area in areas]
    return family.cut(torch.stack(drawn, 1), areas)[:, :, 0].transpose(0, 1)[None]


def gather(
    evaluate: Evaluate,
    evaluate_unseen: dict[str, Evaluate],
    game: Game,
    masks: Tensor,
    areas: tuple[float, ...],
    family: ExactAreaFamily,
    controls: Tensor,
    on_progress: Progress | None = None,
) -> Evidence:
    """Evaluate masks (N, A, 1, *S): as found, cut, under unseen perturbations, and controls.

    Costs A·(2 + P + R) + P evaluations an input, without gradients.

    Args:
        family: that the masks are of; it tells how they are cut.
        controls: (N or 1, A, R, *S) of zeros and ones, to compare the cut masks with.
    """
    count, shape = masks.shape[0], tuple(masks.shape[3:])
    total = len(areas) * (2 + len(evaluate_unseen) + controls.shape[2]) + len(evaluate_unseen)
    done = 0

    def judged(score: Evaluate, rows: Tensor) -> Tensor:  # (N, K, 1, *S) -> (N, K), a few masks at a time
        nonlocal done
        columns = []
        for first in range(0, rows.shape[1], CHUNK):
            chunk = rows[:, first : first + CHUNK]
            columns.append(score(game.kept_part(chunk)))
            done += chunk.shape[1]
            if on_progress is not None:
                on_progress(done, total)
        return torch.cat(columns, 1)

    with torch.no_grad():
        cuts = family.cut(masks, areas)
        flat = controls.flatten(1, 2).unsqueeze(2).expand(count, -1, *[-1] * (1 + len(shape)))
        nothing = torch.zeros_like(masks[:, :1]) if game.keeps else torch.ones_like(masks[:, :1])
        unseen = [(judged(score, cuts), judged(score, nothing)) for score in evaluate_unseen.values()]
        return Evidence(
            scores=judged(evaluate, masks),
            binary_scores=judged(evaluate, cuts),
            unseen_scores=torch.stack([scores for scores, _ in unseen], 2)
            if unseen
            else masks.new_zeros(*cuts.shape[:2], 0),
            unseen_blank=torch.cat([blank for _, blank in unseen], 1) if unseen else masks.new_zeros(count, 0),
            control_scores=judged(evaluate, flat).view(count, len(areas), -1),
        )


def agreement(
    evaluate_unseen: Iterable[Iterable[Evaluate]], like: Tensor, rows: int = 1, spacing: Sequence[float] = ()
) -> Tensor:
    """How much each place speaks for the answer under perturbations that the optimiser did not use: (N, 1, *S) ≥ 0.

    Σ max(0, g) over perturbations, with g the sum of dΦ/dm at the constant masks of `LEVELS` in every orientation,
    smoothed and standardised: that a place harms under one perturbation takes nothing from what it does under another.
    All ones where nothing has a gradient. Costs four forward-backward passes a perturbation, orientation and input.

    Args:
        evaluate_unseen: for each perturbation Φ(mask ⊗ x) in each orientation that asks the same question.
        like: (N, ..., *S) masks, for shape and dtype.
        rows: of the network at once, where that is more than N.
        spacing: distance of neighbouring places along each dimension.
    """
    shape = tuple(like.shape[3:])
    total = torch.zeros(len(like), 1, *shape, dtype=like.dtype, device=like.device)
    constants = torch.tensor(LEVELS, dtype=like.dtype, device=like.device).view(1, -1, 1, *[1] * len(shape))
    for orientations in evaluate_unseen:
        slope = torch.zeros_like(total)
        for evaluate, part in itertools.product(orientations, torch.split(constants, max(1, rows // len(like)), 1)):
            mask = part.expand(len(like), -1, 1, *shape).contiguous().requires_grad_()
            scores = evaluate(mask)
            if scores.requires_grad:
                slope += gradient(scores, mask).sum(1)
        total += standardise(gaussian_blur(slope, scale_lengths(SMOOTH, shape, spacing)), floor=1e-30).clamp_min(0.0)
    found = (total.flatten(1).amax(1) > 0).view(-1, *[1] * (total.ndim - 1))
    return torch.where(found, total, torch.ones_like(total))
