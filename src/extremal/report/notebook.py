"""Results as short HTML fragments for notebook cells: no scripts, small pictures, colours of the notebook's theme."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import apply_mask, draw_outline, encode_jpeg, has_image, image_data_uri
from extremal.report.channel_page import render_maps, summarise_channels
from extremal.report.channel_plots import channel_figure
from extremal.report.html import render_fragment
from extremal.report.plots import figure
from extremal.report.text import percent, plural, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_INPUTS = 8  # of a result, shown in a cell
MAX_SIDE = 224  # px of a picture
JPEG_QUALITY = 80
FIGURE_DPI = 80  # of a figure that replaces the pictures of an input that is none


@dataclass(frozen=True)
class Tile:
    """One picture with its caption."""

    picture: str  # data URI
    title: str
    caption: str = ""
    is_result: bool = False  # the size of the headline


@dataclass(frozen=True)
class Panel:
    """One input of a result."""

    title: str
    headline: str
    caution: str
    tiles: list[Tile]
    figure: str = ""  # data URI, where there are no pictures


def render_explanation_notebook(explanation: Explanation) -> str:
    """Render the first inputs of an explanation: headline, the region of each area, its effect and its verdict."""
    count = len(explanation.masks)
    return _render([_explanation_panel(explanation, image) for image in range(min(count, MAX_INPUTS))], count)


def render_channel_notebook(explanation: ChannelExplanation) -> str:
    """Render the first inputs of an explanation by channels: where the set of each count is active."""
    count = len(explanation.masks)
    return _render([_channel_panel(explanation, image) for image in range(min(count, MAX_INPUTS))], count)


def _render(panels: list[Panel], count: int) -> str:
    hidden = count - len(panels)
    more = f"{plural(hidden, 'more input')} not shown; use .plot(image) or .report(path, image)." if hidden else ""
    return render_fragment("notebook.html.j2", panels=panels, more=more)


def _explanation_panel(explanation: Explanation, image: int) -> Panel:
    summary = summarise(explanation, image)
    title, tiles = f"{summary.name} – {summary.network}, {summary.game} game", list[Tile]()
    if not has_image(explanation):
        return Panel(title, summary.headline, summary.caution, tiles, _encode_figure(figure(explanation, image)))
    tiles.append(Tile(_encode(explanation.pictures[image]), "input"))
    for k, (row, area) in enumerate(zip(summary.rows, explanation.areas, strict=True)):
        mask = explanation.binary(area)[image]
        shown = draw_outline(apply_mask(explanation, mask, image), mask, explanation.keeps)
        caption = f"{percent(row.binary)} of the effect"
        tiles.append(Tile(_encode(shown), f"{row.label} – {row.verdict.label}", caption, k == summary.smallest))
    return Panel(title, summary.headline, summary.caution, tiles)


def _channel_panel(explanation: ChannelExplanation, image: int) -> Panel:
    summary = summarise_channels(explanation, image)
    title, tiles = f"{summary.name} – channels of {summary.layer} of {summary.network}", list[Tile]()
    maps = render_maps(explanation, image)
    if not maps:
        picture = _encode_figure(channel_figure(explanation, image))
        return Panel(title, summary.headline, summary.caution, tiles, picture)
    tiles.append(Tile(_encode(explanation.pictures[image]), "input"))
    smallest, rows = explanation.smallest(image), {row.count: row for row in summary.rows}
    for count, shown in maps.items():
        row, is_smallest = rows.get(count), count == smallest.count
        label = "the smallest set" if row is None else row.verdict.label
        caption = f"{percent(smallest.effect if row is None else row.binary)} of the effect"
        tiles.append(Tile(_encode(shown), f"{plural(count, 'channel')} – {label}", caption, is_smallest))
    return Panel(title, summary.headline, summary.caution, tiles)


def _encode(picture: Tensor) -> str:
    return image_data_uri("jpeg", encode_jpeg(picture.contiguous().numpy(), MAX_SIDE, JPEG_QUALITY))


def _encode_figure(drawing: "Figure") -> str:
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=FIGURE_DPI)
    return image_data_uri("png", buffer.getvalue())
