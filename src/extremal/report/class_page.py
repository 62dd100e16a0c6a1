"""The report of a class: the channels of a layer that it needs most over many images, in one HTML file."""

import os
from dataclasses import dataclass
from pathlib import Path

from extremal.explanations.channels.class_ranking import LEVEL, ClassChannels
from extremal.explanations.channels.visualisation import Visualisation
from extremal.explanations.overlay import data_uri
from extremal.report.channel_page import excited
from extremal.report.html import filled, write_page
from extremal.report.text import percent

TOP = 24  # channels in the page; the table beside it has all of them
THUMBNAILS = 40  # images in the page


@dataclass(frozen=True)
class Bar:
    """One channel: in which share of the images the smallest sufficient set holds it."""

    channel: int
    mean: float
    low: float
    high: float


def bars(found: ClassChannels, count: int = TOP) -> tuple[Bar, ...]:
    """The channels that are needed most often, the first ones that are needed at all."""
    order = [channel for channel in found.ranked()[:count] if found.mean[channel] > 0]
    return tuple(Bar(k, float(found.mean[k]), float(found.low[k]), float(found.high[k])) for k in order)


def headline(found: ClassChannels) -> str:
    """What was found in one sentence."""
    counts, total = found.sets.sum(1), found.sets.shape[1]
    first = bars(found, 3)
    often = ", ".join(f"{bar.channel} ({percent(bar.mean)})" for bar in first)
    return (
        f"Over {len(found.sets)} images, {int(counts.median())} of {total} channels of {found.layer} are enough on the "
        f"median ({int(counts.min())} to {int(counts.max())}); those needed most often: {often}."
    )


def render(found: ClassChannels, *, visualisation: Visualisation | None = None, title: str | None = None) -> str:
    """The report as the text of an HTML file.

    Args:
        found: over N images.
        visualisation: of some of the channels.
        title: heading of the page; the class and the layer if None.
    """
    sizes = found.sets.sum(1).int().tolist()
    shown = zip(
        sizes, found.effects.tolist(), found.pictures[:THUMBNAILS] if found.pictures.numel() else [], strict=False
    )
    return filled(
        "classes.html.j2",
        settings=found.settings,
        title=title or f"{found.target_name} – {found.layer} of {found.settings.get('network', 'unnamed network')}",
        summary={"headline": headline(found), "caution": ""},
        name=found.target_name,
        layer=found.layer,
        level=LEVEL,
        bars=bars(found),
        images=[(size, effect, data_uri(picture)) for size, effect, picture in shown],
        more=len(found.sets) - THUMBNAILS,
        channels=[] if visualisation is None else excited(visualisation),
    )


def write(
    found: ClassChannels,
    path: str | os.PathLike[str],
    *,
    visualisation: Visualisation | None = None,
    title: str | None = None,
) -> None:
    """Write the report, as `render` has it; the file appears whole or not at all."""
    write_page(render(found, visualisation=visualisation, title=title), Path(path))
