"""Numbers as text, and the rows and sentences of an explanation's report; no layout, no numerics."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from extremal.explanations.answer_probability import find_probability, is_unlikely
from extremal.explanations.display import has_random_weights, network_text
from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import has_image
from extremal.explanations.percentages import format_percent, format_short_percent
from extremal.explanations.verdict import (
    MIN_SPAN,
    NOTHING_TO_KEEP,
    SUFFICIENT_EFFECT,
    Verdict,
    VerdictLabel,
    format_below,
)
from extremal.masking.area import find_coverage
from extremal.report.signal_view import has_signal

if TYPE_CHECKING:
    from extremal.jobs.run_summary import Quantiles

MIN_QUANTILES = 4  # values from which on quartiles and medians are stated
MISSING = "–"  # text of a number that does not exist
RANDOM_WEIGHTS = "The weights of this network are random: it was never trained, and its answer means nothing."
MIN_EXCESS = 0.005  # of an effect above 1 or below 0 that is explained; less is rounding


def percent(value: float, digits: int = 0) -> str:
    r"""Format a fraction in percent, with a no-break space.

    >>> percent(0.914), percent(-0.001), percent(float("nan"))
    ('91\xa0%', '0\xa0%', 'not finite')
    """
    return nbsp(format_percent(value, digits))


def unseen_percent(effect: float) -> str:
    r"""Format the typical effect under unseen perturbations; NaN where none of them is informative.

    >>> unseen_percent(0.914), unseen_percent(float("nan")), unseen_percent(float("-inf"))
    ('91\xa0%', 'unknown', 'not finite')
    """
    return "unknown" if math.isnan(effect) else percent(effect)


def probability_percent(probability: float) -> str:
    r"""Format a probability in percent with one decimal.

    >>> probability_percent(0.9968), probability_percent(0.0041), probability_percent(0.0002), probability_percent(0.0)
    ('99.7\xa0%', '0.4\xa0%', 'under 0.1\xa0%', '0.0\xa0%')
    """
    return f"under {percent(0.001, 1)}" if 0 < probability < 0.001 else percent(probability, 1)


def area_percent(area: float) -> str:
    r"""Format an area in percent with at most three significant digits.

    >>> area_percent(0.025), area_percent(0.4)
    ('2.5\xa0%', '40\xa0%')
    """
    return nbsp(format_short_percent(area))


def decimal(value: float) -> str:
    """Format a score with three decimals.

    >>> decimal(-7.11149)
    '−7.111'
    """
    return f"{value:.3f}".replace("-", "−") if math.isfinite(value) else "not finite"


def duration(seconds: float) -> str:
    r"""Format a time in seconds, minutes or hours, depending on its length.

    >>> duration(42), duration(600), duration(90000)
    ('42\xa0s', '10\xa0min', '25.0\xa0h')
    """
    if seconds < 100:
        return f"{seconds:.0f}\xa0s"
    return f"{seconds / 60:.0f}\xa0min" if seconds < 6000 else f"{seconds / 3600:.1f}\xa0h"


def area_text(area: float | None) -> str:
    """Format an area that may be missing."""
    return MISSING if area is None else area_percent(area)


def iou_text(value: float | None) -> str:
    """Format an IoU that may be missing, with two decimals."""
    return MISSING if value is None else f"{value:.2f}"


def above_largest_area(areas: Sequence[float]) -> str:
    """Format an area above the largest computed one."""
    return f"over\xa0{area_percent(areas[-1])}"


def quantile_texts(quantiles: "Quantiles", to_text: Callable[[float], str], above_all: str = MISSING) -> list[str]:
    """Format the five numbers of a distribution; of fewer than `MIN_QUANTILES` values only the ends.

    Args:
        quantiles: of the values.
        to_text: formats a number.
        above_all: text for a quantile that is larger than every known value.
    """
    values = (quantiles.min, quantiles.q25, quantiles.median, quantiles.q75, quantiles.max)
    unknown = above_all if quantiles.count else MISSING
    texts = [unknown if value is None else to_text(value) for value in values]
    return texts if quantiles.count >= MIN_QUANTILES else [texts[0], *[MISSING] * 3, texts[-1]]


def plural(count: int, noun: str) -> str:
    """Format a count with its noun, whose plural ends in -s.

    >>> plural(1, "image"), plural(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def join_words(words: Sequence[str]) -> str:
    """Join words as in a sentence.

    >>> join_words(["blur"]), join_words(["blur", "fade", "noise"])
    ('blur', 'blur, fade and noise')
    """
    *first, last = words or [""]
    return f"{', '.join(first)} and {last}" if first else last


def nbsp(text: str) -> str:
    """Replace the spaces before percent signs with no-break spaces."""
    return text.replace(" %", "\xa0%")


def doubt_sentence(subject: str, verdict: Verdict) -> str:
    r"""Describe a verdict that is not `sufficient`, with its reason.

    >>> doubt_sentence("This mask", Verdict(VerdictLabel.SUSPECT, "a score is not finite"))
    'This mask is suspect: a score is not finite.'
    """
    start = "Chance is enough" if verdict.label is VerdictLabel.CHANCE else f"{subject} is {verdict.label}"
    return f"{start}: {nbsp(verdict.reason)}."


@dataclass(frozen=True)
class AreaRow:
    """Measurements at one area; effects are fractions of the whole effect, from 0 to 1."""

    area: float  # to which the mask was cut, a fraction of places
    coverage: float  # the fraction in the mask, which is smaller where whole units, or those left, have fewer places
    places: int  # in the cut mask
    score: float  # Φ of the cut mask, in the score's own unit
    soft: float  # effect of the mask as found
    binary: float  # effect of the cut mask
    unseen: float  # median effect under unseen perturbations
    control: float  # median effect of random masks
    control_best: float  # best effect of random masks
    n_controls: int  # random masks
    verdict: Verdict
    status: str
    stable_iou: float | None = None  # median over copies with one grey level of noise; None: not measured
    core_share: float | None = None  # of its places, those that all copies keep

    @property
    def label(self) -> str:
        """The area as text."""
        return area_percent(self.coverage)

    @property
    def reason(self) -> str:
        """The verdict's reason."""
        return nbsp(self.verdict.reason)

    @property
    def note(self) -> str:
        """A remark on the search for this mask; empty if there is nothing to say."""
        return "the search missed a better mask: a smaller area has a larger effect" if self.status == "stuck" else ""

    @property
    def effects(self) -> tuple[float, ...]:
        """All effects of the row."""
        return (self.soft, self.binary, self.unseen, self.control, self.control_best)


@dataclass(frozen=True)
class ExplanationSummary:
    """The explanation of one input in words and numbers."""

    name: str  # of the class
    network: str
    game: str
    keeps: bool  # masks are judged by what they keep
    whole: str  # what areas are fractions of: "image", "signal", "clip", "volume" or "input"
    rows: tuple[AreaRow, ...]  # in ascending order of area
    smallest: int | None  # row of the smallest sufficient area
    score_full: float
    score_blank: float
    network_cautions: tuple[str, ...] = ()  # `list_network_cautions`

    @property
    def headline_row(self) -> int:
        """Index of the row of the headline: the smallest sufficient area, or the one with the largest effect."""
        if self.smallest is not None:
            return self.smallest
        effects = [row.binary if math.isfinite(row.binary) else -math.inf for row in self.rows]
        return effects.index(max(effects))

    @property
    def picture_heading(self) -> str:
        """The heading of the picture that shows the region."""
        if self.smallest is None:
            return "The best region found"
        return "What is enough" if self.keeps else "What the answer depends on"

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        if self.smallest is not None:
            return self.sentence(self.rows[self.smallest])
        best = self.rows[self.headline_row]
        if best.verdict == NOTHING_TO_KEEP:
            return f"None of the computed areas is enough: {best.reason}."
        if not math.isfinite(best.binary):
            return "None of the computed areas is enough: no score is finite."
        sentence = self.sentence(best)
        return f"None of the computed areas is enough. The best of them: {sentence[0].lower()}{sentence[1:]}"

    @property
    def caution(self) -> str:
        """Reasons to doubt the headline; empty if there are none."""
        sentences = list(self.network_cautions)
        row = self.rows[self.headline_row]
        if row.binary >= SUFFICIENT_EFFECT and not row.verdict.is_sufficient:
            sentences.append(doubt_sentence("This mask", row.verdict))
        return " ".join(sentences)

    def sentence(self, row: AreaRow) -> str:
        """Describe the effect at one area, compared with random regions."""
        effect, _ = format_below(row.binary, SUFFICIENT_EFFECT, percent)
        chance, whole = percent(row.control), self.whole
        if self.keeps and row.binary > 1 + MIN_EXCESS:
            effect = f"{effect} of the score (the network is surer than with the whole {whole})"
        elif row.binary < -MIN_EXCESS:
            effect = f"{effect} of the score ({'worse than keeping nothing' if self.keeps else 'the score rises'})"
        else:
            effect = f"{effect} of the score"
        if abs(row.binary) > 1 / MIN_SPAN:
            times = f"{abs(row.binary):.0f} times as much as destroying the whole {whole} does"
            return f"{'Keeping' if self.keeps else 'Removing'} {row.label} of the {whole} changes the score {times}."
        if self.keeps:
            return f"{row.label} of the {whole} keeps {effect}; random regions of that size keep {chance}."
        return (
            f"Removing {row.label} of the {whole} takes away {effect}; "
            f"removing random regions of that size takes away {chance}."
        )


def summarise(explanation: Explanation, image: int = 0) -> ExplanationSummary:
    """Summarise the explanation of one input.

    Args:
        explanation: of N inputs.
        image: index of the input, 0..N − 1.
    """
    curve, verdicts, stable = explanation.curve(image), explanation.verdict[image], explanation.stability
    n_controls = explanation.count_controls(image)
    scores = explanation.binary_scores[image].tolist()
    total, places = explanation.masks[0, 0].numel(), [explanation.places(area) for area in explanation.areas]
    if explanation.units is not None or explanation.within is not None:
        places = [int(explanation.binary(area)[image].sum()) for area in explanation.areas]
    rows = tuple(
        AreaRow(
            area=area,
            coverage=find_coverage(area, places[k], total),
            places=places[k],
            score=scores[k],
            soft=curve.soft[k],
            binary=curve.binary[k],
            unseen=curve.unseen[k],
            control=curve.control[k],
            control_best=curve.control_best[k],
            n_controls=n_controls[k],
            verdict=verdicts[k],
            status=str(explanation.status[image][k]),
            stable_iou=None if stable is None else float(stable.median_iou[image, k]),
            core_share=None if stable is None else float(stable.core_shares[image, k]),
        )
        for k, area in enumerate(explanation.areas)
    )
    enough = explanation.smallest(image=image)
    return ExplanationSummary(
        name=explanation.target_names[image],
        network=network_text(explanation.settings),
        game=str(explanation.settings.get("game", "preserve" if explanation.keeps else "delete")),
        keeps=explanation.keeps,
        whole=name_whole(explanation),
        rows=rows,
        smallest=None if enough is None else explanation.areas.index(enough.area),
        score_full=float(explanation.score_full[image]),
        score_blank=float(explanation.score_blank[image]),
        network_cautions=list_network_cautions(explanation, image),
    )


def weights_caution(settings: Mapping[str, Any]) -> str:
    """Say that the network of a result was never trained; empty if it was, or if older settings do not say it."""
    return RANDOM_WEIGHTS if has_random_weights(settings) else ""


def list_network_cautions(explanation: Explanation, image: int = 0) -> tuple[str, ...]:
    """Return the reasons to doubt the network's answer: random weights, and little probability.

    Args:
        explanation: of N inputs.
        image: index of the input.
    """
    cautions = weights_caution(explanation.settings), unlikely_sentence(explanation, image)
    return tuple(caution for caution in cautions if caution)


def unlikely_sentence(explanation: Explanation, image: int = 0) -> str:
    """Say that the network gives the answer little probability for the whole input; empty if enough, or unknown.

    Args:
        explanation: of N inputs.
        image: index of the input.
    """
    probability = find_probability(explanation, image)
    if probability is None or not is_unlikely(explanation, image):
        return ""
    whole = f"for the whole {name_whole(explanation)}"
    if probability < 1e-6:
        return f"The network gives this answer almost no probability {whole}."
    return f"The network gives this answer little probability {whole}: {100 * probability:.2g}\N{NO-BREAK SPACE}%."


def name_whole(explanation: Explanation) -> str:
    """Return what areas are fractions of."""
    if has_image(explanation):
        return "image"
    return "signal" if has_signal(explanation) else str(explanation.settings.get("stack", {}).get("kind", "input"))
