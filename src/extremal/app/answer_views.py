"""HTML fragments of answers: the answer shown, with the others about the same class as tabs, and the history."""

from pathlib import Path

from extremal.app.request import RegionOverlap, ResultView
from extremal.app.result_cache import DOWNLOADS, CachedResult
from extremal.app.views import render_fragment
from extremal.files import simplify_name
from extremal.report.result_files import FIGURE_FILE
from extremal.report.table_widget import jpeg_uri
from extremal.report.text import area_percent

PAIR_SEPARATOR = "+"  # between the names of two answers that are shown side by side


def render_summary(result: CachedResult) -> str:
    """Render the findings, one sentence for each view."""
    return _render_sentences([(view.heading, view.sentence) for view in result.response.views])


def render_pair_summary(a: CachedResult, b: CachedResult) -> str:
    """Render the findings of the first views of two answers."""
    return _render_sentences([(_full_heading(result), _first_view(result).sentence) for result in (a, b)])


def render_example_summary(result: CachedResult) -> str:
    """Render what the example is that a new visitor sees, and its finding."""
    (view,) = result.response.views
    name = Path(result.request.title).stem
    network = result.request.networks[0]
    return render_fragment("example.html.j2", name=name, network=network, sentence=view.sentence)


def render_results(result: CachedResult, related: list[CachedResult] | None = None) -> str:
    """Render the views of an answer side by side: each report in a frame, with its files.

    Args:
        result: shown.
        related: answers about the same class of the same image, itself included; each is a tab.
    """
    shown = [(result, number) for number in range(len(result.response.views))]
    tabs = [(other.name, _tab_words(other)) for other in related or [result]]
    return _render_views(result.name, shown, result.response.overlaps, tabs if len(tabs) > 1 else [])


def render_pair(a: CachedResult, b: CachedResult, overlaps: tuple[RegionOverlap, ...]) -> str:
    """Render the first views of two answers side by side."""
    return _render_views(f"{a.name}{PAIR_SEPARATOR}{b.name}", [(a, 0), (b, 0)], overlaps, [])


def render_history(results: list[CachedResult]) -> str:
    """Render the answers of a visitor as a list, from which one is shown again, or two are compared."""
    entries = [
        {
            "name": result.name,
            "title": result.request.title,
            "label": _first_view(result).label,
            "words": _tab_words(result),
            "sentence": _first_view(result).sentence,
            "thumbnail": jpeg_uri(result.response.thumbnail) if result.response.thumbnail else "",
        }
        for result in results
        if result.response.views
    ]
    return render_fragment("history.html.j2", entries=entries) if entries else ""


def _render_views(
    name: str,
    shown: list[tuple[CachedResult, int]],
    overlaps: tuple[RegionOverlap, ...],
    tabs: list[tuple[str, str]],
) -> str:
    views = [
        (view.heading, f"/results/{result.name}/{number}", _download_stem(result, view), _downloads(view))
        for result, number in shown
        for view in [result.response.views[number]]
    ]
    ious = [(area_percent(overlap.area), f"{overlap.iou:.2f}") for overlap in overlaps]
    return render_fragment("results.html.j2", name=name, views=views, overlaps=ious, tabs=tabs)


def _render_sentences(views: list[tuple[str, str]]) -> str:
    return render_fragment("summary.html.j2", views=views)


def _first_view(result: CachedResult) -> ResultView:
    return result.response.views[0]


def _full_heading(result: CachedResult) -> str:
    """Return the heading of an answer's first view, with the name of its image."""
    return f"{result.request.title}: {_first_view(result).heading}"


def _tab_words(result: CachedResult) -> str:
    return " | ".join(view.tab or view.heading for view in result.response.views)


def _download_stem(result: CachedResult, view: ResultView) -> str:
    """Return the start of the names of a view's files: those of its image and of what the view is about."""
    return f"{simplify_name(Path(result.request.title).stem) or 'image'}-{simplify_name(view.heading)}"


def _downloads(view: ResultView) -> list[tuple[str, str]]:
    """Return the files of a view with their labels."""
    return [
        (file, label)
        for file, label in DOWNLOADS.items()
        if (view.folder / file).is_file() or (file == FIGURE_FILE and view.draws_figure)
    ]
