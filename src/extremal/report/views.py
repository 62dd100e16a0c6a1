"""Views of results in Python, by the kind of result: the figure, the report, and a fragment for notebooks."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from extremal.errors import ExtremalValueError
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.explanation import Explanation
from extremal.explanations.progress_bar import in_notebook
from extremal.report import channel_page, explanation_page
from extremal.report.channel_plots import channel_figure
from extremal.report.notebook import render_channel_notebook, render_explanation_notebook
from extremal.report.plots import figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Result = Explanation | ChannelExplanation
FILE_BACKENDS = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")  # of matplotlib, without a window


def draw(result: Result, image: int = 0, create: "Callable[..., Figure] | None" = None) -> "Figure":
    """Draw the figure of one input.

    Args:
        result: an explanation by places or by channels.
        image: index of the input.
        create: makes the figure, e.g. `pyplot.figure`; None: one that pyplot does not keep.
    """
    if create is None and in_notebook():
        from matplotlib import pyplot

        drawing = draw(result, image, pyplot.figure)  # of pyplot, whose backend lets a cell display what it ends with
        pyplot.close(drawing)  # or it would be displayed once more
        return drawing
    if isinstance(result, ChannelExplanation):
        return channel_figure(result, image, create)
    return figure(result, image, create)


def show(result: Result, image: int = 0) -> None:
    """Show the figure of one input by pyplot: in a window, or below a notebook cell.

    Raises:
        ExtremalValueError: matplotlib has no backend that shows figures.
    """
    from matplotlib import get_backend, pyplot

    backend = get_backend()
    if backend.lower() in FILE_BACKENDS:
        raise ExtremalValueError(
            f"show must have a display, but matplotlib's backend {backend!r} only writes files; "
            "use .plot().savefig('figure.png')"
        )
    draw(result, image, pyplot.figure)
    pyplot.show()


def write_report(result: Result, path: str | os.PathLike[str], image: int = 0) -> None:
    """Write the report of one input as one HTML file."""
    if isinstance(result, ChannelExplanation):
        channel_page.write(result, path, image)
    else:
        explanation_page.write(result, path, image)


def render_notebook(result: Result) -> str:
    """Render a result as an HTML fragment for a notebook cell, without scripts."""
    if isinstance(result, ChannelExplanation):
        return render_channel_notebook(result)
    return render_explanation_notebook(result)
