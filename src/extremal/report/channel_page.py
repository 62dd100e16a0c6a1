"""The report of channels: which channels of a layer a score needs, and what activates them, in one HTML file."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.channels.inversion import Inversion
from extremal.explanations.channels.values import ChannelCurve
from extremal.explanations.channels.visualisation import Visualisation
from extremal.explanations.display import network_text
from extremal.explanations.minimal_region import MinimalRegion
from extremal.explanations.overlay import draw_heat, png_data_uri
from extremal.explanations.validation import validate_image
from extremal.explanations.verdict import Verdict, format_below
from extremal.file_checks import to_path
from extremal.report import chart
from extremal.report.html import render_template, write_page
from extremal.report.minimal_panel import build_channel_panel
from extremal.report.settings_text import describe_settings
from extremal.report.text import doubt_sentence, nbsp, percent, plural, weights_caution

MAX_LISTED_CHANNELS = 24  # of one set
MAX_CHANNEL_EFFECT = 10.0  # drawn: without channels that speak against a class, a layer scores far above the whole


@dataclass(frozen=True)
class ChannelRow:
    """Measurements at one count; effects are fractions of the whole effect, from 0 to 1."""

    count: int
    channels: str  # their indices, at most `MAX_LISTED_CHANNELS`
    score: float  # Φ of exactly these channels
    soft: float  # effect of the set as found
    binary: float  # effect of exactly these channels
    random: float  # median effect of random sets
    random_best: float  # best effect of random sets
    ranked: tuple[float, ...]  # effect of the top channels of each ranking
    verdict: Verdict
    status: str

    @property
    def reason(self) -> str:
        """The verdict's reason."""
        return nbsp(self.verdict.reason)


@dataclass(frozen=True)
class ChannelSummary:
    """The explanation of one input by channels in words and numbers."""

    name: str  # of the class
    network: str
    game: str
    layer: str
    total: int
    keeps: bool
    rows: tuple[ChannelRow, ...]
    rankings: tuple[str, ...]
    smallest: str  # sentence on the smallest sufficient set, with its certificate
    headline: str
    caution: str
    score_full: float
    score_blank: float


def summarise_channels(explanation: ChannelExplanation, image: int = 0) -> ChannelSummary:
    """Summarise the explanation of one input by channels.

    Args:
        explanation: of N inputs.
        image: index of the input, 0..N − 1.
    """
    curve, verdicts = explanation.curve(image), explanation.verdict[image]
    rows = tuple(
        ChannelRow(
            count=count,
            channels=_list_channels(explanation.channels(count, image)),
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
    row = next((row for row in rows if row.count >= explanation.smallest(image).count), rows[-1])
    return ChannelSummary(
        name=explanation.target_names[image],
        network=network_text(explanation.settings),
        game=str(explanation.settings.get("game", "preserve" if explanation.keeps else "delete")),
        layer=explanation.layer,
        total=explanation.total,
        keeps=explanation.keeps,
        rows=rows,
        rankings=explanation.ranking_names,
        smallest=smallest_sentence(explanation, image),
        headline=_headline(explanation, row, image),
        caution=_caution(explanation, row),
        score_full=float(explanation.score_full[image]),
        score_blank=float(explanation.score_blank[image]),
    )


def _headline(explanation: ChannelExplanation, row: ChannelRow, image: int) -> str:
    """Describe the smallest set that is enough, and chance at the nearest larger count that was measured."""
    smallest = explanation.smallest(image)
    if smallest.count == explanation.total:
        return f"No set smaller than all {explanation.total} channels of {explanation.layer} was found to be enough."
    ranking_effect, ranking = max(zip(row.ranked, explanation.ranking_names, strict=True))
    verb = "keep" if explanation.keeps else "take away"
    start = "" if explanation.keeps else "Removing "
    return (
        f"{start}{smallest.count} of {explanation.total} channels of {explanation.layer} "
        f"{verb if explanation.keeps else 'takes away'} {percent(smallest.effect)} of the score. "
        f"For comparison, {row.count} random channels {verb} {percent(row.random)}, and the first {row.count} by "
        f"{ranking} {percent(ranking_effect)}."
    )


def _caution(explanation: ChannelExplanation, row: ChannelRow) -> str:
    sentences = [caution] if (caution := weights_caution(explanation.settings)) else []
    if row.binary >= explanation.share and not row.verdict.is_sufficient:
        sentences.append(doubt_sentence(f"The set of {plural(row.count, 'channel')}", row.verdict))
    if explanation.bypassed:
        sentences.append("Part of the answer bypasses this layer; the masks affect only the output of the layer.")
    return " ".join(sentences)


def smallest_sentence(explanation: ChannelExplanation, image: int = 0) -> str:
    """Describe the smallest sufficient set that was found, and the best smaller set."""
    if not explanation.has_effect()[image]:
        return f"No set is called sufficient: {nbsp(explanation.verdict[image][0].reason)}."
    smallest = explanation.smallest(image)
    result = (
        f"The smallest sufficient set that was found has {smallest.count} of {explanation.total} channels "
        f"({_list_channels(smallest.channels)}) and {percent(smallest.effect)} of the effect"
    )
    if not smallest.below_count:
        return f"{result}; every smaller set that was tried is also sufficient."
    below, _ = format_below(smallest.below_effect, smallest.share, percent)
    return f"{result}; the best set of {smallest.below_count} that was found has {below}."


def minimal_set_sentence(region: MinimalRegion | None) -> str:
    """Describe a minimal set of channels in one sentence.

    Args:
        region: the set of one input; None if none of its sets is sufficient when it is evaluated again.
    """
    if region is None:
        return "Minimal set: none of the sets that were found is sufficient when it is evaluated again."
    channels = tuple(region.mask[0].nonzero()[:, 0].tolist())
    result = f"{len(channels)} of {region.mask.shape[1]} channels ({_list_channels(channels)})"
    return f"Minimal set: {result} with {percent(region.effect)} of the effect; {region.reason}."


def _list_channels(channels: tuple[int, ...]) -> str:
    more = f" and {len(channels) - MAX_LISTED_CHANNELS} more" if len(channels) > MAX_LISTED_CHANNELS else ""
    return ", ".join(map(str, channels[:MAX_LISTED_CHANNELS])) + more


def render(
    explanation: ChannelExplanation,
    image: int = 0,
    *,
    inversion: Inversion | None = None,
    visualisation: Visualisation | None = None,
    minimal: MinimalRegion | None = None,
    title: str | None = None,
) -> str:
    """Render the report of one input as the text of an HTML file.

    Args:
        explanation: of N inputs.
        image: index of the input, 0..N − 1.
        inversion: of the same inputs, to show what the channels encode.
        visualisation: of some of the channels.
        minimal: the minimal set of channels of this input.
        title: heading of the page; the class and the layer by default.

    Raises:
        ExtremalValueError: if there is no such input.
    """
    validate_image(image, len(explanation.masks))
    summary, maps = summarise_channels(explanation, image), render_maps(explanation, image)
    return render_template(
        "channels.html.j2",
        settings=explanation.settings,
        described=describe_settings(explanation.settings, is_class=explanation.is_class),
        title=title or f"{summary.name} – {summary.layer} of {summary.network}",
        summary=summary,
        threshold=explanation.share,
        **_chart_values(explanation.curve(image), explanation.areas),
        photograph=png_data_uri(explanation.pictures[image]) if explanation.pictures.numel() else "",
        maps=[(count, plural(count, "channel"), png_data_uri(map_)) for count, map_ in maps.items()],
        smallest_count=explanation.smallest(image).count,
        inversion=[] if inversion is None else _inversion_tiles(inversion, image),
        minimal=None if minimal is None else build_channel_panel(minimal, minimal_set_sentence(minimal)),
        channels=[] if visualisation is None else visualisation_tiles(visualisation),
    )


def _chart_values(curve: ChannelCurve, fractions: tuple[float, ...]) -> dict[str, Any]:
    """Lay out the evidence curve as variables of the template."""
    effects = [*curve.soft, *curve.binary, *curve.random, *curve.random_best, *sum(curve.ranked.values(), ())]
    axes = chart.build_axes(fractions[0] / 1.3, min(1.0, fractions[-1] * 1.12), effects, MAX_CHANNEL_EFFECT)
    labels = {fraction: str(count) for fraction, count in zip(fractions, curve.counts, strict=True)}
    return {
        "axes": axes,
        "x_ticks": [chart.Tick(axes.x(fraction), labels[fraction]) for fraction in axes.select_ticks(fractions, 30.0)],
        "lines": [
            *((f"ranked-{m}", axes.polylines(fractions, values)) for m, values in enumerate(curve.ranked.values())),
            ("control", axes.polylines(fractions, curve.random)),
            ("soft", axes.polylines(fractions, curve.soft)),
            ("binary", axes.polylines(fractions, curve.binary)),
        ],
        "band": axes.band(fractions, curve.random, curve.random_best),
        "dots": axes.dots(fractions, curve.binary),
    }


def write(
    explanation: ChannelExplanation,
    path: str | os.PathLike[str],
    image: int = 0,
    *,
    inversion: Inversion | None = None,
    visualisation: Visualisation | None = None,
    minimal: MinimalRegion | None = None,
    title: str | None = None,
) -> None:
    """Write the report of one input, as returned by `render`, atomically."""
    file = to_path(path, "a report")
    page = render(explanation, image, inversion=inversion, visualisation=visualisation, minimal=minimal, title=title)
    write_page(page, file)


def render_maps(explanation: ChannelExplanation, image: int) -> dict[int, Tensor]:
    """Render where the kept channels are active: of each count and of the smallest set, (H, W, 3) uint8, by count.

    There are none if the layer has no places, or the input is not an image.
    """
    if not explanation.maps.numel() or not explanation.pictures.numel():
        return {}
    heats = {count: explanation.heatmap(count, image) for count in explanation.counts}
    smallest = explanation.smallest(image).count
    if explanation.smallest_activity is not None and smallest < explanation.total:
        heats.setdefault(smallest, explanation.heatmap(None, image))
    picture = explanation.pictures[image]
    return {count: draw_heat(picture, torch.from_numpy(heats[count])) for count in sorted(heats)}


def _inversion_tiles(inversion: Inversion, image: int) -> list[tuple[str, str, str]]:
    """Return each optimised image with its channels and the correlation of its activations with the target."""
    names = {"all": "all channels", "kept": "kept channels", "removed": "removed channels"}
    rows = [(names[part], inversion.pictures[image, m], inversion.correlation[image, m]) for m, part in
            enumerate(inversion.parts)]  # fmt: skip
    return [(name, png_data_uri(picture), f"{float(value):.2f}") for name, picture, value in rows]


def visualisation_tiles(visualisation: Visualisation) -> list[tuple[int, str, str, list[str]]]:
    """Return each channel with its optimised image, its activation and its patches."""
    return [
        (
            channel,
            png_data_uri(visualisation.pictures[m]),
            f"{float(visualisation.activations[m]):.1f}",
            [png_data_uri(torch.as_tensor(patch)) for patch in visualisation.patches[m]],
        )
        for m, channel in enumerate(visualisation.channels)
    ]
