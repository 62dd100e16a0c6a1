"""The verdict on a mask: effects, thresholds and rules."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.percentages import format_percent
from extremal.masking.solvers.repair import MAX_FALL

SUFFICIENT_EFFECT = 0.9  # share of the whole effect from which on a mask is sufficient
MIN_SPAN = 0.2  # of the largest change by a mask, below which the whole effect is too small to divide by
MIN_UNSEEN_SPAN = 0.05  # effect of an unseen perturbation, relative to the one used, below which it is uninformative
MIN_UNSEEN_EFFECT = 0.5  # of the required effect, that must remain in the median under unseen perturbations
MAX_GREY_EFFECT = 0.5  # of the effect as found, that may be carried by grey values
MIN_STABLE_IOU = 0.5  # with copies of the input, in the median, below which masks differ by more than they share
MIN_CORE_SHARE = 1 / 3  # of a mask's places, that the masks of all copies must contain
MAX_DIGITS = 6  # decimals, at most, of a percentage that is close to its threshold: those of single precision

NOT_FINITE_MESSAGE = (
    "a network must return finite scores, it returned NaN or infinite ones during the run, so nothing was "
    "written; check its weights, or try another perturbation or score"
)


class Status(StrEnum):
    """The outcome of the run of one mask."""

    CONVERGED = "converged"
    STUCK = "stuck"  # scores below a smaller area's mask, which a larger budget contains
    NOT_FINITE = "not finite"


def find_falls(effects: Tensor) -> Tensor:
    """Return by how much each effect (..., A) is below the largest one of a smaller area.

    >>> find_falls(torch.tensor([0.5, 1.0, 0.75]))
    tensor([0.0000, 0.0000, 0.2500])
    """
    return effects.cummax(-1).values - effects


def check_finite(statuses: Iterable[Iterable[Status]]) -> None:
    """Raise if a run met a score that is not finite.

    Raises:
        ExtremalValueError: it did.
    """
    if any(Status.NOT_FINITE in row for row in statuses):
        raise ExtremalValueError(NOT_FINITE_MESSAGE)


def assign_status(effects: Tensor, finite: Tensor) -> tuple[tuple[Status, ...], ...]:
    """Return the status of each mask, (N, A), areas rising; a curve that falls reveals a stuck optimiser.

    An effect above that of the whole input counts as the whole: a larger mask has to include places that count against
    the answer, as the whole input does.

    Args:
        effects: (N, A), 0 for nothing and 1 for the whole effect.
        finite: (N,) bool.
    """

    def status(fall: float) -> Status:
        if not math.isfinite(fall):
            return Status.NOT_FINITE
        return Status.STUCK if fall > MAX_FALL else Status.CONVERGED

    falls = torch.where(finite.view(-1, 1), find_falls(effects.clamp(max=1.0)), torch.nan)
    return tuple(tuple(status(fall) for fall in row) for row in falls.tolist())


class VerdictLabel(StrEnum):
    """The word for a verdict."""

    SUFFICIENT = "sufficient"
    INSUFFICIENT = "insufficient"
    CHANCE = "chance is enough"  # random regions of the same size have the required effect, too
    SUSPECT = "suspect"
    UNSTABLE = "unstable"

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True)
class Verdict:
    """The judgement of a mask, with its reason."""

    label: VerdictLabel
    reason: str  # one sentence with the numbers

    def __str__(self) -> str:
        return self.label

    @property
    def is_sufficient(self) -> bool:
        """Whether the mask is sufficient, and nothing speaks against it."""
        return self.label == VerdictLabel.SUFFICIENT


NOTHING_FOUND = Verdict(VerdictLabel.SUSPECT, "a score was not finite during the run, so nothing was found")
NOTHING_TO_KEEP = Verdict(
    VerdictLabel.SUSPECT, "destroying the whole input raises the score, so that a region has no effect to keep"
)
NO_CHANNEL_TO_KEEP = Verdict(
    VerdictLabel.SUSPECT, "destroying all channels raises the score, so that a set has no effect to keep"
)


def compute_effects(scores: Tensor, blank: Tensor, full: Tensor, keeps: bool) -> Tensor:
    """Return scores as shares of the whole effect: 0 if the mask has no effect, 1 if it has the whole effect.

    (Φ − Φ_blank) / (Φ_full − Φ_blank) if masks keep, (Φ_full − Φ) / (Φ_full − Φ_blank) if they delete.

    >>> scores, blank, full = torch.tensor([[2.0, 3.0], [0.0, 1.0]]), torch.tensor([1.0, 0.0]), torch.tensor([5.0, 2.0])
    >>> compute_effects(scores, blank, full, keeps=True)
    tensor([[0.2500, 0.5000],
            [0.0000, 0.5000]])

    Args:
        scores: (N, ...) of masks.
        blank: of the destroyed inputs, in the first dimensions of `scores`, e.g. (N,).
        full: of the whole inputs, likewise.
        keeps: whether masks keep.
    """
    blank, full = (value.view((*value.shape, *[1] * (scores.ndim - value.ndim))) for value in (blank, full))
    share = (scores - blank) / (full - blank)
    return share if keeps else 1 - share


def find_largest_effects(*effects: Tensor) -> Tensor:
    """Return the largest finite effect of each input (N,), of effects (N, ...) as they are; of negative ones none.

    >>> find_largest_effects(torch.tensor([[0.5, 24.0], [0.2, -torch.inf]]), torch.tensor([[[1.0]], [[0.7]]]))
    tensor([24.0000,  0.7000])
    """
    flat = torch.cat([values.flatten(1) for values in effects], 1)
    return flat.nan_to_num(0.0, 0.0, 0.0).amax(1)


def compute_unseen_effects(scores: Tensor, blank: Tensor, score_blank: Tensor, full: Tensor, keeps: bool) -> Tensor:
    """Return effects under P unseen perturbations: (N, A, P); NaN if uninformative, −inf if not finite.

    Args:
        scores: (N, A, P).
        blank: (N, P) of the input destroyed by each of these perturbations.
        score_blank: (N,) of the input destroyed as in the run.
        full: (N,) of the whole input.
        keeps: whether masks keep.
    """
    effects = compute_effects(scores, blank.unsqueeze(1), full, keeps)
    full = full.view(-1, 1)
    span = (full - blank).abs() / (full - score_blank.view(-1, 1)).abs()
    broken = ~(scores.isfinite() & blank.isfinite().unsqueeze(1))
    uninformative = (span < MIN_UNSEEN_SPAN).unsqueeze(1).expand_as(effects)
    return effects.masked_fill(uninformative, torch.nan).masked_fill(broken, -torch.inf)


def find_typical_effects(unseen: Tensor) -> Tensor:
    """Return the median of unseen effects (..., P) without those that are NaN; −inf if one is not finite.

    >>> find_typical_effects(torch.tensor([[0.2, 0.6, 0.9, torch.nan], [0.9, 0.8, -torch.inf, 0.9]]))
    tensor([0.6000,   -inf])
    """
    if not unseen.shape[-1]:
        return unseen.new_full(unseen.shape[:-1], torch.nan)
    return unseen.nanmedian(-1).values.masked_fill(unseen.isinf().any(-1), -torch.inf)


def is_supported(typical: float, share: float) -> bool:
    """Return whether enough of a required share of the effect remains under unseen perturbations.

    >>> is_supported(0.5, 0.9), is_supported(0.4, 0.9), is_supported(float("nan"), 0.9)
    (True, False, True)

    Args:
        typical: median effect under them; NaN: they are uninformative.
        share: of the whole effect that is required of the mask.
    """
    return not typical < MIN_UNSEEN_EFFECT * share


def has_effect(largest: Tensor, full: Tensor, blank: Tensor) -> Tensor:
    """Return whether effects are shares of a fall of the score that is large enough to divide by: (N,) bool.

    >>> has_effect(torch.tensor([1.3, 24.0, 1.0]), torch.tensor([9.0, 9.0, 2.0]), torch.tensor([1.0, 8.7, 5.0]))
    tensor([ True, False, False])

    Args:
        largest: (N,) effect of any mask of each input.
        full: (N,) score of the whole input.
        blank: (N,) score of the destroyed input.
    """
    return ~(largest > 1 / MIN_SPAN) & ~(full < blank)


def reach_verdict(
    soft: float,
    cut: float,
    unseen: list[float],
    control: list[float],
    share: float = SUFFICIENT_EFFECT,
    noun: str = "region",
    rivals: Sequence[float] = (),
    stable_iou: float | None = None,
    core_share: float | None = None,
    largest: float | None = None,
) -> Verdict:
    """Return the verdict on one mask from its effects; 0 is no effect, 1 that of the whole input.

    Unseen effects that are NaN are excluded: those perturbations barely change the answer and are uninformative.
    If one of the random controls has the required effect, places have no meaning, even if the mask's own effect is
    large.
    `noun` is what masks select, and `rivals` are effects of other methods' masks that should not be better.
    `stable_iou` is the median IoU with the masks of copies of the input, and `core_share` the share of places that all
    of them contain (`Stability`); None: not measured. `largest` is the largest effect of any mask of the input;
    None: of these effects.

    >>> print(reach_verdict(1.0, 0.95, [0.9, 0.8, 0.9], [0.1, 0.2]))
    sufficient
    >>> reach_verdict(1.1, 0.2, [0.1], [0.0]).reason
    'grey values carry it: 110 % of the effect as found, 20 % cut to black and white'
    """
    unseen = [value for value in unseen if not math.isnan(value)]
    if not all(math.isfinite(value) for value in (soft, cut, *unseen, *control, *rivals)):
        return Verdict(VerdictLabel.SUSPECT, "a score is not finite")
    best_control = max(control, default=0.0)
    typical = float(torch.tensor(unseen, dtype=torch.float32).median()) if unseen else cut
    largest = max(soft, cut, best_control, *rivals) if largest is None else largest
    is_grey = cut < share <= soft and soft - cut > MAX_GREY_EFFECT * soft
    is_moving = stable_iou is not None and stable_iou < MIN_STABLE_IOU
    has_no_core = core_share is not None and core_share < MIN_CORE_SHARE
    found, kept = format_percent(soft), format_percent(cut)
    by_chance, _ = format_below(best_control, share)
    too_little, wanted = format_below(cut, share)
    best_rival = max(rivals, default=-math.inf)
    shared, _ = format_below(stable_iou or 0.0, MIN_STABLE_IOU)
    core, _ = format_below(core_share or 0.0, MIN_CORE_SHARE)
    under_others, _ = format_below(typical, MIN_UNSEEN_EFFECT * share)
    times = f"a mask changes the score {largest:.0f} times as much as destroying the whole input does"
    unlike = f"only {under_others} of the effect under perturbations it was not made for"
    label = VerdictLabel
    rules = (
        (largest > 1 / MIN_SPAN, label.SUSPECT, f"the effect is too small to divide by: {times}"),
        (
            best_control >= share,
            label.CHANCE,
            f"a random {noun} of this size reaches {by_chance} of the effect, this one {kept}",
        ),
        (
            is_grey,
            label.SUSPECT,
            f"grey values carry it: {found} of the effect as found, {kept} cut to black and white",
        ),
        (cut < share, label.INSUFFICIENT, f"{too_little} of the effect, wanted {wanted}"),
        (
            best_rival >= cut,
            label.SUSPECT,
            f"a ranking's {noun} of this size reaches {format_percent(best_rival)}",
        ),
        (not is_supported(typical, share), label.SUSPECT, unlike),
        (is_moving, label.UNSTABLE, f"copies with one grey level of noise share only {shared} of their places"),
        (has_no_core, label.UNSTABLE, f"all copies with one grey level of noise keep only {core} of its places"),
        (True, label.SUFFICIENT, f"{kept} of the effect, at best {by_chance} by chance"),
    )
    return next(Verdict(word, reason) for holds, word, reason in rules if holds)


def format_below(
    value: float, threshold: float, to_text: Callable[[float, int], str] = format_percent
) -> tuple[str, str]:
    """Format a share and its threshold as percentages; a share below it with the decimals that show so, if it is close.

    >>> format_below(0.84, 0.9), format_below(0.8961, 0.9), format_below(0.903, 0.905), format_below(0.904, 0.9)
    (('84 %', '90 %'), ('89.6 %', '90 %'), ('90.3 %', '90.5 %'), ('90 %', '90 %'))

    Args:
        value, threshold: shares, e.g. of the effect.
        to_text: formats a share with a number of decimals.
    """
    digits = 0
    while value < threshold and digits < MAX_DIGITS and to_text(value, digits) == to_text(threshold, digits):
        digits += 1
    rounded = [round(100 * threshold, count) for count in range(digits + 1)]
    return to_text(value, digits), to_text(threshold, rounded.index(rounded[-1]))
