"""The verdict on a mask: effects, thresholds and rules."""

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

SUFFICIENT_EFFECT = 0.9  # share of the whole effect from which on a mask is sufficient
MIN_UNSEEN_SPAN = 0.05  # effect of an unseen perturbation, relative to the one used, below which it is uninformative
MIN_UNSEEN_EFFECT = 0.5  # of the required effect, that must remain in the median under unseen perturbations
MAX_GREY_EFFECT = 0.5  # of the effect as found, that may be carried by grey values
MIN_STABLE_IOU = 0.5  # with copies of the input, in the median, below which masks differ by more than they share
MIN_CORE_SHARE = 1 / 3  # of a mask's places, that the masks of all copies must contain

NOT_FINITE = (
    "a network must return finite scores, it returned NaN or infinite ones during the run, so nothing was "
    "written; check its weights, or try another perturbation or score"
)


class Status(StrEnum):
    """The outcome of the run of one mask."""

    CONVERGED = "converged"
    STUCK = "stuck"  # scores below a smaller area's mask, which a larger budget contains
    NOT_FINITE = "not finite"


def assign_status(effects: Tensor, finite: Tensor, slack: float = 0.05) -> tuple[tuple[Status, ...], ...]:
    """Return the status of each mask, (N, A), areas rising; a curve that falls reveals a stuck optimiser.

    An effect above that of the whole input counts as the whole: a larger mask has to include places that count against
    the answer, as the whole input does.

    Args:
        effects: (N, A), 0 for nothing and 1 for the whole effect.
        finite: (N,) bool.
        slack: largest fall that is attributed to chance, in units of the whole effect.
    """

    def status(fall: float) -> Status:
        if not math.isfinite(fall):
            return Status.NOT_FINITE
        return Status.STUCK if fall > slack else Status.CONVERGED

    effects = effects.clamp(max=1.0)
    falls = torch.cummax(effects, 1).values - effects
    falls = torch.where(finite.view(-1, 1), falls, torch.nan)
    return tuple(tuple(status(fall) for fall in row) for row in falls.tolist())


@dataclass(frozen=True)
class Verdict:
    """The judgement of a mask, with its reason."""

    label: str  # sufficient, insufficient, suspect, unstable
    reason: str  # one sentence with the numbers

    def __str__(self) -> str:
        return self.label


def compute_effects(scores: Tensor, blank: Tensor, full: Tensor, keeps: bool) -> Tensor:
    """Return scores as shares of the whole effect: 0 if the mask has no effect, 1 if it has the whole effect.

    (Φ − Φ_blank) / (Φ_full − Φ_blank) if masks keep, (Φ_full − Φ) / (Φ_full − Φ_blank) if they delete.
    """
    share = (scores - blank) / (full - blank)
    return share if keeps else 1 - share


def reach_verdict(
    soft: float,
    cut: float,
    unseen: list[float],
    control: list[float],
    share: float = SUFFICIENT_EFFECT,
    chance: str = "a random region of this size",
    stable_iou: float | None = None,
    core_share: float | None = None,
) -> Verdict:
    """Return the verdict on one mask from its effects; 0 is no effect, 1 that of the whole input.

    Unseen effects that are NaN are excluded: those perturbations barely change the answer and are uninformative.
    `stable_iou` is the median IoU with the masks of copies of the input, and `core_share` the share of places that all
    of them contain (`Stability`); None: not measured.

    >>> print(reach_verdict(1.0, 0.95, [0.9, 0.8, 0.9], [0.1, 0.2]))
    sufficient
    >>> reach_verdict(1.1, 0.2, [0.1], [0.0]).reason
    'grey values carry it: 110 % of the effect as found, 20 % cut to black and white'
    """
    unseen = [value for value in unseen if not math.isnan(value)]
    if not all(math.isfinite(value) for value in (soft, cut, *unseen, *control)):
        return Verdict("suspect", "a score is not finite")
    if cut < share:
        if soft >= share and soft - cut > MAX_GREY_EFFECT * soft:
            effects = f"{format_percent(soft)} of the effect as found, {format_percent(cut)} cut to black and white"
            return Verdict("suspect", f"grey values carry it: {effects}")
        return Verdict("insufficient", f"{format_percent(cut)} of the effect, wanted {format_percent(share)}")
    best_control = max(control, default=0.0)
    if best_control >= cut:
        return Verdict("suspect", f"{chance} reaches {format_percent(best_control)}")
    typical = float(torch.tensor(unseen, dtype=torch.float32).median()) if unseen else cut
    if typical < MIN_UNSEEN_EFFECT * share:
        effect = format_percent(typical)
        return Verdict("suspect", f"only {effect} of the effect under perturbations it was not made for")
    if stable_iou is not None and stable_iou < MIN_STABLE_IOU:
        shared = format_percent(stable_iou)
        label, reason = "unstable", f"copies with one grey level of noise share only {shared} of their places"
    elif core_share is not None and core_share < MIN_CORE_SHARE:
        kept = format_percent(core_share)
        label, reason = "unstable", f"all copies with one grey level of noise keep only {kept} of its places"
    else:
        label = "sufficient"
        reason = f"{format_percent(cut)} of the effect, at best {format_percent(best_control)} by chance"
    return Verdict(label, reason)


def format_percent(share: float) -> str:
    """Format a share as a whole percentage.

    >>> format_percent(0.947)
    '95 %'
    """
    return f"{100 * share:.0f} %"
