"""What is written of runs that are looked back at: a page and a figure, in a folder that appears whole."""

import os
from pathlib import Path

import pyarrow as pa

from extremal import files
from extremal.jobs.run_comparison import Comparison, OnImage, compare
from extremal.jobs.run_summary import COLUMNS, Summary, image_summaries, count_planned, summarise
from extremal.jobs.run_table import settings, table
from extremal.report import comparison_page, result_files, run_page, run_plots
from extremal.report.html import write_page
from extremal.report.table_widget import Thumbnail

Files = dict[str, str]  # paths by kind: page, figure
Folder = str | os.PathLike[str]


def write_summary(folder: Folder, out: Path) -> tuple[Summary, Files]:
    """Sum a run up, and write its page and figure.

    Args:
        folder: of the run.
        out: a new folder, or a former result, which is replaced when the new one is complete.

    Raises:
        ExtremalValueError: as `summing.summary`; or the files cannot be written.
    """
    rows = table(folder, (*COLUMNS, "thumbnail"))
    found = summarise(rows, settings(folder), count_planned(folder))
    raw = rows.select(COLUMNS).to_pylist()
    images, thumbnails = image_summaries(raw), _first(rows)
    page, figure = result_files.SUMMARY
    with files.whole_folder(out, result_files.RESULT_FILES) as aside:
        write_page(run_page.render(found, images, thumbnails, title=name(folder)), aside / page)
        run_plots.write(run_plots.summary_figure(found, images), aside / figure)
    return found, {"page": str(out / page), "figure": str(out / figure)}


def write_comparison(
    first: Folder, second: Folder, out: Path, *, on_image: OnImage | None = None
) -> tuple[Comparison, Files]:
    """Compare two runs, and write the page and figure of it.

    Args:
        first, second: folders of the runs.
        out: as in `write_summary`.
        on_image: called after each image.

    Raises:
        ExtremalValueError: as `comparing.compare`; or the files cannot be written.
    """
    found = compare(first, second, on_image=on_image)
    thumbnails = [_first(table(folder, ("key", "answer", "thumbnail"))) for folder in (first, second)]
    page, figure = result_files.COMPARISON
    with files.whole_folder(out, result_files.RESULT_FILES) as aside:
        write_page(comparison_page.render(found, *thumbnails), aside / page)
        run_plots.write(run_plots.comparison_figure(found), aside / figure)
    return found, {"page": str(out / page), "figure": str(out / figure)}


def name(folder: Folder) -> str:
    """What a run is called: as its folder."""
    return Path(folder).resolve().name


def _first(rows: pa.Table) -> dict[str, Thumbnail]:
    """The thumbnails of first answers by key."""
    columns = (rows[column].to_pylist() for column in ("key", "answer", "thumbnail"))
    return {key: picture for key, answer, picture in zip(*columns, strict=True) if not answer}
