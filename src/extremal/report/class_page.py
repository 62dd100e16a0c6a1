"""The report of a class: the channels of a layer that it needs most often, in one HTML file."""

import os
from dataclasses import dataclass

from extremal.explanations.channels.class_ranking import CONFIDENCE, ClassChannels
from extremal.explanations.channels.visualisation import Visualisation
from extremal.explanations.display import network_text
from extremal.explanations.overlay import png_data_uri
from extremal.file_checks import to_path
from extremal.report.channel_page import visualisation_tiles
from extremal.report.html import render_template, write_page
from extremal.report.settings_text import describe_settings
from extremal.report.text import percent, weights_caution

N_TOP_CHANNELS = 24  # on the page; the Parquet file lists all channels
MAX_THUMBNAILS = 40  # images on the page


@dataclass(frozen=True)
class ChannelBar:
    """A channel, and the fraction of images whose smallest sufficient set contains a channel, with its interval."""

    channel: int
    mean: float
    low: float
    high: float


def channel_bars(ranking: ClassChannels, count: int = N_TOP_CHANNELS) -> tuple[ChannelBar, ...]:
    """Select the channels that are needed most often, without those that are never needed."""
    order = [channel for channel in ranking.ranking()[:count] if ranking.mean[channel] > 0]
    return tuple(ChannelBar(k, float(ranking.mean[k]), float(ranking.low[k]), float(ranking.high[k])) for k in order)


def headline(ranking: ClassChannels) -> str:
    """Describe the result in one sentence."""
    n_images, total = ranking.sets.shape
    counts = ranking.sets.sum(1)
    often = ", ".join(f"{bar.channel} ({percent(bar.mean)})" for bar in channel_bars(ranking, 3))
    return (
        f"Over {n_images} images, a median of {int(counts.median())} of {total} channels of {ranking.layer} is enough "
        f"(range {int(counts.min())} to {int(counts.max())}); needed most often: {often}."
    )


def render(ranking: ClassChannels, *, visualisation: Visualisation | None = None, title: str | None = None) -> str:
    """Render the report as the text of an HTML file.

    Args:
        ranking: over N images.
        visualisation: of some of the channels.
        title: heading of the page; the class and the layer by default.
    """
    sizes = ranking.sets.sum(1).int().tolist()
    thumbnails = ranking.pictures[:MAX_THUMBNAILS] if ranking.pictures.numel() else ()
    tiles = zip(sizes, ranking.effects.tolist(), thumbnails, strict=False)
    return render_template(
        "classes.html.j2",
        settings=ranking.settings,
        described=describe_settings(ranking.settings),
        title=title or f"{ranking.target_name} – {ranking.layer} of {network_text(ranking.settings)}",
        summary={
            "headline": headline(ranking),
            "caution": weights_caution(ranking.settings),
        },
        name=ranking.target_name,
        layer=ranking.layer,
        level=CONFIDENCE,
        bars=channel_bars(ranking),
        images=[(size, effect, png_data_uri(picture)) for size, effect, picture in tiles],
        n_more=len(ranking.sets) - MAX_THUMBNAILS,
        channels=[] if visualisation is None else visualisation_tiles(visualisation),
    )


def write(
    ranking: ClassChannels,
    path: str | os.PathLike[str],
    *,
    visualisation: Visualisation | None = None,
    title: str | None = None,
) -> None:
    """Write the report, as returned by `render`, atomically."""
    file = to_path(path, "a report")
    write_page(render(ranking, visualisation=visualisation, title=title), file)
