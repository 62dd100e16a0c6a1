"""The evidence for one mask in words: questions with their answers, each followed by its numbers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from extremal.explanations.verdict import (
    MAX_GREY_EFFECT,
    MIN_CORE_SHARE,
    MIN_STABLE_IOU,
    MIN_UNSEEN_EFFECT,
    SUFFICIENT_EFFECT,
    format_below,
)
from extremal.report.text import AreaRow, percent, plural


@dataclass(frozen=True)
class EvidenceLine:
    """A question about a mask with its answer."""

    question: str
    passed: bool | None  # None: it could not be tested
    text: str  # one sentence with the numbers

    @property
    def word(self) -> str:
        """The answer in one word."""
        return {True: "Yes", False: "No", None: "Unknown"}[self.passed]


def answer_questions(row: AreaRow, keeps: bool, unseen: Sequence[str]) -> list[EvidenceLine]:
    """Answer whether a mask is enough, by more than chance, and not only as it was found.

    Args:
        row: measurements of the mask.
        keeps: whether it is judged by what it keeps.
        unseen: names of the perturbations that the search did not use.
    """
    return list(_answers(row, keeps, unseen))


def _answers(row: AreaRow, keeps: bool, unseen: Sequence[str]) -> Iterator[EvidenceLine]:
    verb, third, destroyed = ("keep", "keeps", "the rest") if keeps else ("take away", "takes away", "the region")
    enough = SUFFICIENT_EFFECT
    effect, needed = format_below(row.binary, enough, percent)
    alone = f"by itself it keeps {effect}" if keeps else f"removing it takes away {effect}"
    yield EvidenceLine("Is it enough?", row.binary >= enough, f"{alone} of the score; {needed} is enough.")

    by_chance, _ = format_below(row.control_best, enough, percent)
    yield EvidenceLine(
        "Is it more than chance?",
        row.control_best < enough and row.control_best < row.binary,
        f"the best of {plural(row.n_controls, 'random region')} of this size {third} {by_chance}, "
        f"and half of them {verb} {percent(row.control)} or less.",
    )
    wanted, others = MIN_UNSEEN_EFFECT * enough, ", ".join(unseen)
    in_other_ways = f"Does it hold if {destroyed} is destroyed in other ways?"
    if math.isnan(row.unseen):
        yield EvidenceLine(
            in_other_ways,
            None,
            f"none of the other ways ({others}) changes the score enough to tell.",
        )
    else:
        kept, asked = format_below(row.unseen, wanted, percent)
        yield EvidenceLine(
            in_other_ways,
            row.unseen >= wanted,
            f"then it {third} {kept}, the median over {others}; {asked} is required.",
        )
    is_grey = row.binary < enough <= row.soft and row.soft - row.binary > MAX_GREY_EFFECT * row.soft
    yield EvidenceLine(
        "Does it hold without grey values?",
        not is_grey,
        f"as found, with grey values, it {third} {percent(row.soft)}; cut to black and white, {effect}.",
    )
    if row.stable_iou is not None and row.core_share is not None:
        yield EvidenceLine(
            "Is it stable?",
            row.stable_iou >= MIN_STABLE_IOU and row.core_share >= MIN_CORE_SHARE,
            f"the masks of copies with one grey level of noise overlap with it by {row.stable_iou:.2f} (IoU, median), "
            f"and all of them contain {percent(row.core_share)} of its places.",
        )
