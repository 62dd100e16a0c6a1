"""The verdict on a mask: its rules, thresholds and effects."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    pass


class Status(StrEnum):
    """How the run of one mask ended."""

    CONVERGED = "converged"
    STUCK = "stuck"  # scores below a smaller area's mask, which a larger budget contains
    NOT_FINITE = "not finite"


def statuses(effects: Tensor, finite: Tensor, slack: float = 0.05) -> tuple[tuple[Status, ...], ...]:
    """The status of each mask from its effect (N, A), areas rising: a curve that falls shows a stuck optimiser.

    Args:
        effects: (N, A), 0 for nothing and 1 for the whole effect.
        finite: (N,) bool.
        slack: a fall that is still put down to chance, in units of the whole effect.
    """

    def status(fall: float) -> Status:
        if not math.isfinite(fall):
            return Status.NOT_FINITE
        return Status.STUCK if fall > slack else Status.CONVERGED

    falls = torch.cummax(effects, 1).values - effects
    falls = torch.where(finite.view(-1, 1), falls, torch.nan)
    return tuple(tuple(status(fall) for fall in row) for row in falls.tolist())


@dataclass(frozen=True)
class Verdict:
    """Whether a mask is enough of the input, and why."""

    word: str  # sufficient, insufficient, suspect
    reason: str  # one sentence with the numbers

    def __str__(self) -> str:
        return self.word


SHARE = 0.9  # of the whole effect, from which on a mask is enough


TELLING_SHARE = 0.05  # of the effect that an unseen perturbation must have at all


UNSEEN_SHARE = 0.5  # of the effect that must be left, on the median, under unseen perturbations


GREY_SHARE = 0.5  # of the soft effect that may be carried by grey values


def shares(scores: Tensor, blank: Tensor, full: Tensor, keeps: bool) -> Tensor:
    """Scores as shares of the whole effect: 0 where the mask does nothing, 1 where it does all.

    (Φ − Φ_blank) / (Φ_full − Φ_blank) where masks keep, (Φ_full − Φ) / (Φ_full − Φ_blank) where they delete.
    """
    share = (scores - blank) / (full - blank)
    return share if keeps else 1 - share


def verdict(
    soft: float,
    cut: float,
    unseen: list[float],
    control: list[float],
    share: float = SHARE,
    chance: str = "a random region of this size",
) -> Verdict:
    """The verdict on one mask from its effects, where 0 is the effect of nothing and 1 of the whole input.

    An unseen effect that is NaN is left out: that perturbation hardly changes the answer, so it tells nothing.

    >>> print(verdict(1.0, 0.95, [0.9, 0.8, 0.9], [0.1, 0.2]))
    sufficient
    >>> verdict(1.1, 0.2, [0.1], [0.0]).reason
    'grey values carry it: 110 % of the effect as found, 20 % cut to black and white'
    """
    unseen = [value for value in unseen if not math.isnan(value)]
    if not all(math.isfinite(value) for value in (soft, cut, *unseen, *control)):
        return Verdict("suspect", "a score is not finite")
    if cut < share:
        if soft >= share and soft - cut > GREY_SHARE * soft:
            return Verdict(
                "suspect",
                f"grey values carry it: {soft:.0%} of the effect as found, {cut:.0%} cut to black and white".replace(
                    "%", " %"
                ),
            )
        return Verdict("insufficient", f"{cut:.0%} of the effect, wanted {share:.0%}".replace("%", " %"))
    best_control = max(control, default=0.0)
    if best_control >= cut:
        return Verdict("suspect", f"{chance} reaches {best_control:.0%}".replace("%", " %"))
    typical = float(torch.tensor(unseen).median()) if unseen else cut
    if typical < UNSEEN_SHARE * share:
        return Verdict(
            "suspect", f"only {typical:.0%} of the effect under perturbations it was not made for".replace("%", " %")
        )
    return Verdict("sufficient", f"{cut:.0%} of the effect, at best {best_control:.0%} by chance".replace("%", " %"))


NOT_FINITE = (
    "a network must return finite scores, it returned NaN or infinite ones on the way, so nothing was "
    "written; check its weights, or try another perturbation or score"
)
