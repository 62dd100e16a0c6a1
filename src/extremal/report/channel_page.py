"""The report of channels: which of a layer's channels an answer needs, and what they look like, in one HTML file."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.channels.inversion import Inversion
from extremal.explanations.channels.visualisation import Visualisation
from extremal.explanations.overlay import data_uri
from extremal.explanations.settings import checked_image
from extremal.explanations.verdict import Verdict
from extremal.report import chart
from extremal.report.html import filled, write_page
from extremal.report.text import percent

SHOWN = 24  # channels of a set that are listed by number
HIGHEST = 10.0  # effect drawn: a layer without the channels that speak against the class scores far above the whole


@dataclass(frozen=True)
class ChannelRow:
    """What is known of one count; effects are shares, 0 for nothing and 1 for the whole effect."""

    count: int
    channels: str  # their numbers, as many as can be read
    score: float  # Φ of exactly these channels
    soft: float  # effect as found
    binary: float  # effect of exactly these channels
    random: float  # median of random sets
    random_best: float
    ranked: tuple[float, ...]  # top channels of each ranking
    verdict: Verdict
    status: str

    @property
    def reason(self) -> str:
        """The verdict's reason, with spaces that do not break before the percent signs."""
        return self.verdict.reason.replace(" %", "\xa0%")


@dataclass(frozen=True)
class ChannelSummary:
    """One input of an explanation of channels in words and numbers."""

    name: str  # of the class
    network: str
    game: str
    layer: str
    total: int
    keeps: bool
    rows: tuple[ChannelRow, ...]
    rankings: tuple[str, ...]
    smallest: str  # the sentence of the smallest sufficient set, with its certificate
    headline: str
    caution: str
    score_full: float
    score_blank: float


def summarise(explanation: ChannelExplanation, image: int = 0) -> ChannelSummary:
    """The rows and sentences of one input.

    Args:
        explanation: of N inputs.
        image: which of them, 0..N − 1.
    """
    curve, verdicts = explanation.curve(image), explanation.verdict[image]
    rows = tuple(
        ChannelRow(
            count=count,
            channels=_listed(explanation.channels(count, image)),
            score=float(explanation.binary_scores[image, k]),
            soft=curve.soft[k],
            binary=curve.binary[k],
            random=curve.random[k],
            random_best=curve.random_best[k],
            ranked=tuple(values[k] for values in curve.ranked.values()),
            verdict=verdicts[k],
            status=str(explanation.status[image][k]),
        )
        for k, count in enumerate(curve.counts)
    )
    enough = next((row for row in rows if row.binary >= explanation.share), None)
    best = enough or max(rows, key=lambda row: row.binary)
    opening = "" if enough else "None of the computed counts is enough. The best of them: "
    ranked = max(zip(best.ranked, explanation.ranking_names, strict=True))
    sentence = (
        f"{best.count} of {explanation.total} channels of {explanation.layer} "
        f"{'keep' if explanation.keeps else 'take away, when removed,'} {percent(best.binary)} of the score; "
        f"random sets of that size {percent(best.random)}, the best ranking ({ranked[1]}) {percent(ranked[0])}."
    )
    caution = []
    if enough and enough.verdict.word != "sufficient":
        caution.append(f"This set is {enough.verdict.word}: {enough.reason}.")
    if explanation.bypassed:
        caution.append("Part of the answer does not pass through this layer; the masks touch only its own output.")
    return ChannelSummary(
        name=explanation.target_names[image],
        network=str(explanation.settings.get("network", "unnamed network")),
        game=str(explanation.settings.get("game", "preserve" if explanation.keeps else "delete")),
        layer=explanation.layer,
        total=explanation.total,
        keeps=explanation.keeps,
        rows=rows,
        rankings=explanation.ranking_names,
        smallest=smallest_sentence(explanation, image),
        headline=opening + sentence,
        caution=" ".join(caution),
        score_full=float(explanation.score_full[image]),
        score_blank=float(explanation.score_blank[image]),
    )


def smallest_sentence(explanation: ChannelExplanation, image: int = 0) -> str:
    """The smallest sufficient set and its certificate."""
    found = explanation.smallest(image)
    text = (
        f"The smallest sufficient set that was found has {found.count} of {explanation.total} channels "
        f"({_listed(found.channels)}) and {percent(found.effect)} of the effect"
    )
    if not found.below_count:
        return f"{text}; nothing smaller was found wanting."
    return f"{text}; the best set of {found.below_count} that was found has {percent(found.below_effect)}."


def _listed(channels: tuple[int, ...]) -> str:
    more = f" and {len(channels) - SHOWN} more" if len(channels) > SHOWN else ""
    return ", ".join(map(str, channels[:SHOWN])) + more


def render(
    explanation: ChannelExplanation,
    image: int = 0,
    *,
    inversion: Inversion | None = None,
    visualisation: Visualisation | None = None,
    title: str | None = None,
) -> str:
    """The report of one input as the text of an HTML file.

    Args:
        explanation: of N inputs.
        image: which of them, 0..N − 1.
        inversion: of the same inputs, to show what the channels carry.
        visualisation: of some of the channels.
        title: heading of the page; the class and the layer if None.

    Raises:
        ExtremalValueError: there is no such input.
    """
    checked_image(image, len(explanation.masks))
    summary = summarise(explanation, image)
    shares = explanation.areas
    curve = explanation.curve(image)
    effects = [*curve.soft, *curve.binary, *curve.random, *curve.random_best, *sum(curve.ranked.values(), ())]
    drawn = chart.plane(shares[0] / 1.3, min(1.0, shares[-1] * 1.12), effects, HIGHEST)
    labels = {share: str(count) for share, count in zip(shares, curve.counts, strict=True)}
    return filled(
        "channels.html.j2",
        settings=explanation.settings,
        title=title or f"{summary.name} – {summary.layer} of {summary.network}",
        summary=summary,
        share=explanation.share,
        plane=drawn,
        x_ticks=[chart.Tick(drawn.x(share), labels[share]) for share in drawn.spaced(shares, 30.0)],
        lines=[
            *((f"ranked-{m}", drawn.line(shares, values)) for m, values in enumerate(curve.ranked.values())),
            ("control", drawn.line(shares, curve.random)),
            ("soft", drawn.line(shares, curve.soft)),
            ("binary", drawn.line(shares, curve.binary)),
        ],
        band=drawn.band(shares, curve.random, curve.random_best),
        dots=drawn.dots(shares, curve.binary),
        photograph=data_uri(explanation.pictures[image]) if explanation.pictures.numel() else "",
        maps=[
            (row.count, data_uri(shown)) for row, shown in zip(summary.rows, _maps(explanation, image), strict=False)
        ],
        inversion=[] if inversion is None else _inverted(inversion, image),
        channels=[] if visualisation is None else excited(visualisation),
    )


def write(
    explanation: ChannelExplanation,
    path: str | os.PathLike[str],
    image: int = 0,
    *,
    inversion: Inversion | None = None,
    visualisation: Visualisation | None = None,
    title: str | None = None,
) -> None:
    """Write the report of one input, as `render` has it; the file appears whole or not at all."""
    page = render(explanation, image, inversion=inversion, visualisation=visualisation, title=title)
    write_page(page, Path(path))


def _maps(explanation: ChannelExplanation, image: int) -> list[Tensor]:
    """The photograph under the map of each count, bright where the kept channels are active: each (H, W, 3) uint8."""
    if not explanation.maps.numel() or not explanation.pictures.numel():
        return []
    picture = explanation.pictures[image].float()
    shown = []
    for count in explanation.counts:
        values = explanation.map(count, image)
        low, high = values.min(), values.max()
        light = ((values - low) / (high - low).clamp_min(1e-12)).unsqueeze(-1)
        shown.append((picture * (0.15 + 0.85 * light)).round().byte())
    return shown


def _inverted(inversion: Inversion, image: int) -> list[tuple[str, str, str]]:
    """Each picture with what it is of, and how well its activations correlate with the wanted ones."""
    names = {"all": "all channels", "kept": "kept channels", "removed": "removed channels"}
    rows = [(names[part], inversion.pictures[image, m], inversion.correlation[image, m]) for m, part in
            enumerate(inversion.parts)]  # fmt: skip
    return [(name, data_uri(picture), f"{float(value):.2f}") for name, picture, value in rows]


def excited(visualisation: Visualisation) -> list[tuple[int, str, str, list[str]]]:
    """Each channel with its picture, its activation and its patches."""
    return [
        (
            channel,
            data_uri(visualisation.pictures[m]),
            f"{float(visualisation.activations[m]):.1f}",
            [data_uri(torch.as_tensor(patch)) for patch in visualisation.patches[m]],
        )
        for m, channel in enumerate(visualisation.channels)
    ]
