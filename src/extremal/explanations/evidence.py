"""Evidence: scores of a mask beyond the one that the optimiser maximised.

Optimised masks can cheat: grey values and fine edges can carry adversarial signal. Each mask is therefore also scored
cut to black and white, under perturbations that the optimiser did not use, and against random masks of its area.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from extremal.explanations.controls import Controls
from extremal.masking.device_tensors import fill_columns
from extremal.masking.domain import ExactAreaFamily
from extremal.masking.games import Evaluate, Game
from extremal.masking.perturbations import (
    Blur,
    Constant,
    Extreme,
    Fade,
    Mix,
    Mosaic,
    Noise,
    Perturbation,
    split_ways,
)
from extremal.masking.solvers.problem import gradient
from extremal.masking.support import combine_gradients
from extremal.networks.memory import is_out_of_memory

N_UNSEEN = 4  # perturbations that the optimiser did not use
MIN_UNSEEN = 3  # of them, or another draw of the noise that it used joins them
NEAR_COPY_RATIO = 1.5  # of the lengths of two blurs or two mosaics, up to which one is a near copy of the other
NEAR_ZERO = 0.25  # a constant up to this value is a near copy of zero, which `Fade` fades to
MAX_MASKS_PER_CALL = 8  # masks of one input evaluated at once
MASK_LEVELS = (0.3125, 0.4375, 0.5625, 0.6875)  # of the constant masks of `agreement`

OnEvidence = Callable[[int, int], None]  # masks done, masks in all


class EvaluateWay(Protocol):
    """Φ of masks (N, K, 1, *S) -> (N, K), each under one of the ways of a mix."""

    def __call__(self, mask: Tensor, way: Sequence[int], *, wanted: Tensor | None = None) -> Tensor:
        """Return the scores, NaN where they are not wanted (bool, on the CPU); ways are counted round."""
        ...


@dataclass(frozen=True)
class Evidence:
    """Scores of masks of N inputs at A areas."""

    scores: Tensor  # (N, A) of the masks as found, under the perturbation that the optimiser used (mean of its ways)
    binary_scores: Tensor  # (N, A) of the masks cut to exactly round(a·|Ω|) ones
    unseen_scores: Tensor  # (N, A, P) of the cut masks under P perturbations that the optimiser did not use
    unseen_blank: Tensor  # (N, P) of the input destroyed by these
    control_scores: Tensor  # (N, A, R) of R controls of each area; NaN of those that were left out


def unseen_perturbations(used: Perturbation | Mix, seed: int) -> dict[str, Perturbation]:
    """Return perturbations that the optimiser did not use and that are not near copies of those it used.

    The first `N_UNSEEN` of black and white (each channel's extremes in the input), a wide blur, a mosaic, half of the
    usual blur, fade and noise. Near copies are decided by kind, not by the input, so that all inputs have the same:
    two blurs or mosaics of similar length, two fades to the same value, two draws of noise.

    >>> list(unseen_perturbations(Mix((Blur(), Fade(), Noise())), seed=0))
    ['black', 'white', 'wide blur', 'mosaic']
    """
    candidates: dict[str, Perturbation] = {
        "black": Extreme(),
        "white": Extreme(largest=True),
        "wide blur": Blur(levels=2, sigma=40.0),  # two levels: it fades to a blur
        "mosaic": Mosaic(),
        "half blur": Blur(levels=2, sigma=10.0),
        "fade": Fade(),
        "noise": Noise(seed + 1),
    }
    ways = list(split_ways(used).values())
    unseen = {name: other for name, other in candidates.items() if not any(_is_near_copy(other, way) for way in ways)}
    if len(unseen) < MIN_UNSEEN:
        unseen["noise"] = Noise(max([way.seed for way in ways if isinstance(way, Noise)], default=seed) + 1)
    return dict(list(unseen.items())[:N_UNSEEN])


def _is_near_copy(other: Perturbation, used: Perturbation) -> bool:
    """Return whether a perturbation destroys in the same way as one that was used."""
    if isinstance(other, Blur) and isinstance(used, Blur):
        return max(other.sigma / used.sigma, used.sigma / other.sigma) <= NEAR_COPY_RATIO
    if isinstance(other, Mosaic) and isinstance(used, Mosaic):
        return max(other.side / used.side, used.side / other.side) <= NEAR_COPY_RATIO
    if isinstance(other, Fade) and isinstance(used, Constant):
        return abs(used.value) <= NEAR_ZERO
    if isinstance(other, Extreme) and isinstance(used, Extreme):
        return other == used
    return isinstance(other, Fade | Noise) and type(other) is type(used)


def collect_evidence(
    evaluate: Evaluate,
    evaluate_unseen: Evaluate | None,
    n_unseen: int,
    game: Game,
    masks: Tensor,
    areas: tuple[float, ...],
    family: ExactAreaFamily,
    controls: Controls,
    on_progress: OnEvidence | None = None,
    evaluate_way: EvaluateWay | None = None,
    binary_scores: Tensor | None = None,
) -> Evidence:
    """Evaluate masks (N, A, 1, *S): as found, cut, under unseen perturbations, and controls.

    Costs A·(2·W + P + R) + P evaluations per input, without gradients: masks under all W ways of the run, R controls
    under one way each, in turn; some of these may be left out. Where the scores of the cut masks are known,
    A·(W + P + R) + P.

    Args:
        evaluate: Φ under the perturbation that the optimiser used, of a mix the mean over its ways.
        evaluate_unseen: (N, K, 1, *S) -> (N, K, P), Φ under each of P unseen perturbations; None: there are none.
        n_unseen: P.
        game: decides which part of a mask is kept.
        masks: as found.
        areas: of the masks.
        family: the mask family, which defines how masks are cut.
        controls: to compare the cut masks with.
        on_progress: called with the number of masks done and of all masks.
        evaluate_way: Φ of masks (N, K, 1, *S) under a way of a mix each, counted round its ways, on one scale; None:
            `evaluate` is the only one.
        binary_scores: (N, A) of the cut masks, if they are known.
    """
    count, shape, n_controls = masks.shape[0], tuple(masks.shape[3:]), controls.masks.shape[2]
    n_forms = 2 if binary_scores is None else 1  # of each mask: as found, and cut
    total = len(areas) * (n_forms + n_unseen + n_controls) + n_unseen
    done = 0

    def score(evaluator: Evaluate, rows: Tensor, times: int = 1) -> Tensor:  # a few masks (N, K, 1, *S) at a time
        nonlocal done
        columns = []
        for chunk in rows.chunk(-(-rows.shape[1] // MAX_MASKS_PER_CALL), 1):
            columns.append(evaluator(game.kept_part(chunk)))
            done += times * chunk.shape[1]
            if on_progress is not None:
                on_progress(done, total)
        return torch.cat(columns, 1)

    def score_controls(rows: Tensor, numbers: Sequence[int], wanted: Tensor | None) -> Tensor:
        columns = rows.unsqueeze(2).expand(count, -1, *[-1] * (1 + len(shape)))
        parts = []
        for first in range(0, len(numbers), MAX_MASKS_PER_CALL):
            here = slice(first, first + MAX_MASKS_PER_CALL)
            by_way = evaluate
            if evaluate_way is not None:
                asked = None if wanted is None else wanted[:, here]
                by_way = partial(evaluate_way, way=numbers[here], wanted=asked)
            parts.append(score(by_way, columns[:, here]))
        return torch.cat(parts, 1)

    with torch.no_grad():
        cuts = family.cut(masks, areas)
        nothing = torch.zeros_like(masks[:, :1]) if game.keeps else torch.ones_like(masks[:, :1])
        unseen = masks.new_zeros(count, len(areas) + 1, 0)
        if evaluate_unseen is not None:
            unseen = score(evaluate_unseen, torch.cat([cuts, nothing], 1), n_unseen)
        if binary_scores is None:
            scores, binary_scores = score(evaluate, torch.cat([masks, cuts], 1)).chunk(2, 1)
        else:
            scores = score(evaluate, masks)
        control_scores = controls.score(score_controls)
        if on_progress is not None and done < total:
            on_progress(total, total)  # the controls that were left out
        return Evidence(
            scores=scores,
            binary_scores=binary_scores,
            unseen_scores=unseen[:, :-1],
            unseen_blank=unseen[:, -1],
            control_scores=control_scores,
        )


def agreement(
    evaluate_unseen: Iterable[Iterable[Evaluate]], like: Tensor, rows: int = 1, spacing: Sequence[float] = ()
) -> Tensor:
    """Return how strongly each place supports the answer under unseen perturbations: (N, 1, *S) ≥ 0.

    `combine_gradients` of the sums of dΦ/dm at the constant masks of `MASK_LEVELS` in every orientation. Costs four
    forward-backward passes per perturbation, orientation and input.

    Args:
        evaluate_unseen: for each perturbation Φ(mask ⊗ x) in each orientation that asks the same question.
        like: (N, ..., *S) masks, for shape and dtype.
        rows: of the network at once, if that is more than N.
        spacing: distance of neighbouring places along each dimension.
    """
    shape = tuple(like.shape[3:])
    constants = fill_columns(MASK_LEVELS, like).view(1, -1, 1, *[1] * len(shape))

    def slope_at(evaluate: Evaluate, part: Tensor) -> Tensor:
        mask = part.expand(len(like), -1, 1, *shape).contiguous().requires_grad_()
        scores = evaluate(mask)
        return (gradient(scores, mask) if scores.requires_grad else torch.zeros_like(mask)).sum(1)

    slopes = []
    for orientations in evaluate_unseen:
        slope = torch.zeros(len(like), 1, *shape, dtype=like.dtype, device=like.device)
        for evaluate in orientations:
            slope = add_in_parts(slope, partial(slope_at, evaluate), constants, max(1, rows // len(like)))
        slopes.append(slope)
    return combine_gradients(slopes, spacing)


def add_in_parts(start: Tensor, function: Callable[[Tensor], Tensor], columns: Tensor, size: int) -> Tensor:
    """Add the values of a function for parts of columns (1, K, ...); parts are halved if memory runs out."""
    while True:
        total = start
        try:
            for part in torch.split(columns, size, 1):
                total = total + function(part)
            return total
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        size //= 2  # only here: the exception, gone by now, held tensors
