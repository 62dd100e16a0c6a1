"""Pages of the images of a run, one for each, in its folder."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote as quote_url

from extremal.errors import ExtremalError, ExtremalValueError
from extremal.file_checks import find_kind, quote, to_path, to_printable
from extremal.files import simplify_name
from extremal.jobs.row_views import view_rows
from extremal.jobs.rows import DONE
from extremal.jobs.run_table import settings, table
from extremal.networks.network import Network
from extremal.report import explanation_page

PAGES = "pages"  # folder in that of a run
MAX_NAME = 40  # characters of a key in the name of its page
HASH_LENGTH = 16
COPIES_NOTE = (
    "Copies with one grey level of noise were explained; the page of a run states their median overlap and their core."
)

Row = Mapping[str, Any]
OnPage = Callable[[int, int], None]  # pages done, in all


def page_path(run: str | os.PathLike[str], key: str) -> Path:
    """Return the path of an image's page, whose name is safe for any key.

    >>> page_path("run", "../cats/a <b>.jpg").name
    'cats-a-b-.jpg-9d2ae85ed0fec456.html'
    """
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_LENGTH]
    start = re.sub(r"[^A-Za-z0-9._-]+", "-", simplify_name(key))[:MAX_NAME].strip("-._")
    return to_path(run, "a run") / PAGES / f"{start or 'image'}-{digest}.html"


def find_link(run: str | os.PathLike[str], key: str, start: Path) -> str | None:
    """Return the relative address of an image's page for a page in the folder `start`; None if there is no page."""
    path = page_path(run, key)
    if path.is_symlink() or find_kind(path, "a page") != "file":
        return None
    try:
        return quote_url(Path(os.path.relpath(path.resolve(), start.resolve())).as_posix())
    except ValueError:  # on another drive
        return path.resolve().as_uri()


def write_rows(run: str | os.PathLike[str], rows: Iterable[Row], network: Network) -> list[str]:
    """Write the pages of images from their rows; the network prepares the images and is not evaluated.

    Returns:
        Why pages could not be written, one line each; failed images have none and are not named.

    Raises:
        ExtremalValueError: the folder cannot be written.
    """
    explain = settings(run)["explain"]
    folder = to_path(run, "a run") / PAGES
    if folder.is_symlink():
        raise ExtremalValueError(f"the pages of a run must be in its own folder, {quote(folder)} is a link; delete it")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ExtremalValueError(
            f"the pages of a run must be in a folder, {quote(folder)} cannot be made ({error.strerror}); remove it"
        ) from None
    problems = []
    for key, group in groupby(rows, key=lambda row: row["key"]):
        of_key = list(group)
        if any(row["status"] != DONE for row in of_key):
            continue
        try:
            _write_page(page_path(run, key), of_key, network, explain)
        except ExtremalError as error:
            problems.append(f"{quote(key)}: {error}")
    return problems


def write_missing(
    run: str | os.PathLike[str], network: Network, on_page: OnPage | None = None
) -> tuple[int, list[str]]:
    """Write the pages that are missing in a run, as far as it has got.

    Args:
        run: folder of the run.
        network: with the preprocessing of the run; it is not evaluated.
        on_page: called after each page.

    Returns:
        The number of pages written, and why others were not, one line each.

    Raises:
        ExtremalValueError: there is no run, or its folder cannot be written.
    """
    wanted = _find_missing(run)
    problems, done = list[str](), 0
    rows = (row for row in table(run).to_pylist() if row["key"] in wanted)
    for _, group in groupby(rows, key=lambda row: row["key"]):
        problems += write_rows(run, list(group), network)
        done += 1
        if on_page is not None:
            on_page(done, len(wanted))
    return done - len(problems), problems


def count_missing(run: str | os.PathLike[str]) -> int:
    """Return the number of images of a run that were explained and have no page."""
    return len(_find_missing(run))


def _find_missing(run: str | os.PathLike[str]) -> dict[str, None]:
    keys = table(run, ("key", "status"))
    columns = (keys[name].to_pylist() for name in ("key", "status"))
    return dict.fromkeys(
        key
        for key, status in zip(*columns, strict=True)
        if status == DONE and find_kind(page_path(run, key), "a page") != "file"
    )


def remove_pages(run: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Remove the pages of images whose rows are written anew."""
    for row in rows:
        path = page_path(run, row["key"])
        if not (to_path(run, "a run") / PAGES).is_symlink():
            path.unlink(missing_ok=True)


def _write_page(path: Path, rows: Sequence[Row], network: Network, explain: Mapping[str, Any]) -> None:
    view = view_rows(rows, network, explain)
    explanation_page.write(
        view.explanation,
        path,
        source=to_printable(rows[0]["key"]),
        certificate=view.certificate,
        stable="" if view.explanation.stability is None else COPIES_NOTE,
    )
