"""Result folders of runs over data sets: the page and figure of a summary or a comparison."""

import os
from pathlib import Path

import pyarrow as pa

from extremal.file_checks import to_path
from extremal.files import COMPARISON_FILES, SUMMARY_FILES
from extremal.jobs.run_comparison import Comparison, OnImage, compare
from extremal.jobs.run_summary import COLUMNS, Summary, count_planned, image_summaries, summarise
from extremal.jobs.run_table import settings, table
from extremal.report import comparison_page, run_page
from extremal.report.figure_style import save_png
from extremal.report.html import write_page
from extremal.report.result_files import atomic_result_folder
from extremal.report.run_pages import find_link
from extremal.report.run_plots import comparison_figure, summary_figure
from extremal.report.table_widget import Thumbnail

Paths = dict[str, str]  # by kind: page, figure
Folder = str | os.PathLike[str]


def write_summary(run: Folder, out: Path) -> tuple[Summary, Paths]:
    """Summarise a run, and write the page and figure.

    Args:
        run: folder of the run.
        out: a new folder, or a previous result, which is replaced when the new one is complete.

    Raises:
        ExtremalValueError: as `jobs.summary`, or if the files cannot be written.
    """
    rows = table(run, (*COLUMNS, "thumbnail"))
    summary = summarise(rows, settings(run), count_planned(run))
    images = image_summaries(rows.select(COLUMNS).to_pylist())
    page, figure = SUMMARY_FILES
    with atomic_result_folder(out) as temporary:
        links = {image.key: link for image in images if (link := find_link(run, image.key, out))}
        html = run_page.render(summary, images, _first_thumbnails(rows), title=run_name(run), links=links)
        write_page(html, temporary / page)
        save_png(summary_figure(summary, images), temporary / figure)
    return summary, {"page": str(out / page), "figure": str(out / figure)}


def write_comparison(
    first: Folder, second: Folder, out: Path, *, on_image: OnImage | None = None
) -> tuple[Comparison, Paths]:
    """Compare two runs, and write the page and figure.

    Args:
        first: folder of the first run.
        second: folder of the second run.
        out: a new folder, or a previous result, which is replaced when the new one is complete.
        on_image: called after each image.

    Raises:
        ExtremalValueError: as `jobs.compare`, or if the files cannot be written.
    """
    comparison = compare(first, second, on_image=on_image)
    thumbnails = [_first_thumbnails(table(run, ("key", "alternative", "thumbnail"))) for run in (first, second)]
    page, figure = COMPARISON_FILES
    with atomic_result_folder(out) as temporary:
        write_page(comparison_page.render(comparison, *thumbnails), temporary / page)
        save_png(comparison_figure(comparison), temporary / figure)
    return comparison, {"page": str(out / page), "figure": str(out / figure)}


def run_name(run: Folder) -> str:
    """Return the name of a run, which is that of its folder."""
    return to_path(run, "a run").resolve().name


def _first_thumbnails(rows: pa.Table) -> dict[str, Thumbnail]:
    """Return the thumbnails by key, without those of alternatives."""
    columns = (rows[column].to_pylist() for column in ("key", "alternative", "thumbnail"))
    return {key: thumbnail for key, alternative, thumbnail in zip(*columns, strict=True) if not alternative}
