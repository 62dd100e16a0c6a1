"""What a report says: the rows and sentences of one input, as plain values; no layout, no numerics of its own."""

import math
from dataclasses import dataclass

from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import has_picture
from extremal.explanations.smallest_area import Certificate
from extremal.explanations.verdict import Verdict


def percent(value: float, digits: int = 0) -> str:
    """A share in percent with a space that does not break.

    >>> percent(0.914), percent(-0.001), percent(float("nan"))
    ('91\\xa0%', '0\\xa0%', 'not finite')
    """
    if not math.isfinite(value):
        return "not finite"
    text = f"{100 * value:.{digits}f}"
    return f"{text.removeprefix('-') if float(text) == 0 else text}\xa0%".replace("-", "−")


def area_percent(area: float) -> str:
    """An area in percent, three digits at most.

    >>> area_percent(0.025), area_percent(0.4)
    ('2.5\\xa0%', '40\\xa0%')
    """
    return f"{100 * area:.3g}\xa0%"


def decimal(value: float) -> str:
    """A score with three decimals.

    >>> decimal(-7.11149)
    '−7.111'
    """
    return f"{value:.3f}".replace("-", "−") if math.isfinite(value) else "not finite"


def time_words(seconds: float) -> str:
    """A time in the unit that a person would use.

    >>> time_words(42), time_words(600), time_words(90000)
    ('42\\xa0s', '10\\xa0min', '25.0\\xa0h')
    """
    if seconds < 100:
        return f"{seconds:.0f}\xa0s"
    return f"{seconds / 60:.0f}\xa0min" if seconds < 6000 else f"{seconds / 3600:.1f}\xa0h"


@dataclass(frozen=True)
class Row:
    """What is known of one input at one area; effects are shares, 0 for nothing and 1 for the whole effect."""

    area: float  # share of places
    places: int  # in the cut mask
    score: float  # Φ of the cut mask, in the score's own unit
    soft: float  # effect as found
    binary: float  # effect cut
    unseen: float  # median effect under unseen perturbations
    control: float  # median effect of random masks
    control_best: float
    verdict: Verdict
    status: str

    @property
    def label(self) -> str:
        """The area as it is written."""
        return area_percent(self.area)

    @property
    def reason(self) -> str:
        """The verdict's reason, with spaces that do not break before the percent signs."""
        return self.verdict.reason.replace(" %", "\xa0%")

    @property
    def effects(self) -> tuple[float, ...]:
        """Every effect of the row."""
        return (self.soft, self.binary, self.unseen, self.control, self.control_best)


@dataclass(frozen=True)
class Summary:
    """One input of an explanation in words and numbers."""

    name: str  # of the class
    network: str
    game: str
    keeps: bool  # judged by what the masks keep
    whole: str  # what areas are shares of: image or input
    rows: tuple[Row, ...]  # areas rising
    smallest: int | None  # row of the smallest sufficient area
    score_full: float
    score_blank: float

    @property
    def headline(self) -> str:
        """The answer in one sentence."""
        if self.smallest is not None:
            return self.sentence(self.rows[self.smallest])
        finite = [row for row in self.rows if math.isfinite(row.binary)]
        if not finite:
            return "None of the computed areas is enough: no score is finite."
        best = max(finite, key=lambda row: row.binary)
        sentence = self.sentence(best)
        return f"None of the computed areas is enough. The best of them: {sentence[0].lower()}{sentence[1:]}"

    @property
    def caution(self) -> str:
        """Why the headline should not be taken at its word; empty if nothing speaks against it."""
        if self.smallest is None:
            return ""
        row = self.rows[self.smallest]
        return "" if row.verdict.word == "sufficient" else f"This mask is {row.verdict.word}: {row.reason}."

    def sentence(self, row: Row) -> str:
        """What was measured at one area, next to chance."""
        found, chance, whole = percent(row.binary), percent(row.control), self.whole
        if self.keeps:
            return f"{row.label} of the {whole} keeps {found} of the score; random regions of that size keep {chance}."
        return (
            f"Removing {row.label} of the {whole} takes away {found} of the score; "
            f"removing random regions of that size takes away {chance}."
        )


def summarise(explanation: Explanation, image: int = 0) -> Summary:
    """The rows and sentences of one input.

    Args:
        explanation: of N inputs.
        image: which of them, 0..N − 1.
    """
    curve, verdicts = explanation.curve(image), explanation.verdict[image]
    scores = explanation.binary_scores[image].tolist()
    rows = tuple(
        Row(
            area=area,
            places=explanation.places(area),
            score=scores[k],
            soft=curve.soft[k],
            binary=curve.binary[k],
            unseen=curve.unseen[k],
            control=curve.control[k],
            control_best=curve.control_best[k],
            verdict=verdicts[k],
            status=str(explanation.status[image][k]),
        )
        for k, area in enumerate(explanation.areas)
    )
    enough = explanation.smallest(image=image)
    return Summary(
        name=explanation.target_names[image],
        network=str(explanation.settings.get("network", "unnamed network")),
        game=str(explanation.settings.get("game", "preserve" if explanation.keeps else "delete")),
        keeps=explanation.keeps,
        whole="image" if has_picture(explanation) else "input",
        rows=rows,
        smallest=None if enough is None else explanation.areas.index(enough.area),
        score_full=float(explanation.score_full[image]),
        score_blank=float(explanation.score_blank[image]),
    )


def certified(certificate: Certificate) -> str:
    """What was found between the computed areas, on both sides of the smallest sufficient one.

    >>> import torch
    >>> certified(Certificate(0.0734, torch.ones(1, 2, 2), 0.902, 0.0721, 0.884, 0.9)).replace("\xa0", " ")
    'Between the measured areas: 7.34 % has 90 % of the effect, the best mask found of 7.21 % has 88 %.'
    """
    found = f"{area_percent(certificate.area)} has {percent(certificate.effect)} of the effect"
    if not certificate.below_area:
        return f"Between the measured areas: {found}; nothing smaller was found wanting."
    below = f"{area_percent(certificate.below_area)} has {percent(certificate.below_effect)}"
    return f"Between the measured areas: {found}, the best mask found of {below}."


def several(explanation: Explanation, image: int = 0) -> str:
    """How many of the answers that were looked for are sufficient and overlap little; empty where one was wanted.

    Args:
        explanation: of N inputs.
        image: which of them, 0..N − 1.
    """
    wanted, regions = 1 + len(explanation.alternatives), explanation.regions(image=image)
    if wanted == 1:
        return ""
    if len(regions) < 2:
        return f"{'Only one' if regions else 'No'} sufficient region was found of the {wanted} that were looked for."
    areas = ", ".join(area_percent(region.area) for region in regions)
    return f"{len(regions)} sufficient regions that overlap little were found, of {wanted} looked for: {areas}."
