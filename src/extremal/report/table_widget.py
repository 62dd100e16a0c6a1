"""Sortable tables of any number of rows: the data that `browser.js` sorts, filters and shows."""

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from extremal.explanations.overlay import image_data_uri
from extremal.report.html import finite_or_none, json_for_script, read_asset
from extremal.report.text import MISSING

ROWS_PER_CHUNK = 50  # rows whose images are parsed together: about a screenful

Thumbnail = bytes | None  # a JPEG


@dataclass(frozen=True)
class Column:
    """A column: the values by which it is sorted, and their texts."""

    label: str
    values: Sequence[float | str | None]  # sort keys, None last
    width: str = "84px"  # a track of a CSS grid
    shown: Sequence[str] | None = None  # texts; None: the values, which are strings
    notes: Sequence[str] | None = None  # small print below the texts
    verdicts: Sequence[str] | None = None  # verdicts that determine the colour
    links: Sequence[str | None] | None = None  # addresses of the rows' pages
    choice: bool = False  # rows can be filtered by this column

    def to_json(self) -> dict[str, Any]:
        """Return the column as the script reads it."""
        column = {"label": self.label, "values": list(self.values), "width": self.width, "words": self.shown is None}
        optional = {"shown": self.shown, "notes": self.notes, "verdicts": self.verdicts, "links": self.links}
        lists = {name: list(texts) for name, texts in optional.items() if texts is not None}
        return {**column, "choice": self.choice, **lists}


@dataclass(frozen=True)
class EmbeddedTable:
    """A table as the texts of script elements."""

    data: str
    pictures: Sequence[str] = ()


@dataclass(frozen=True)
class ImageTile:
    """An image with its key and a note."""

    key: str
    note: str
    pictures: Sequence[tuple[str, str]]  # what each shows, and its URI


def count_column(label: str, counts: Sequence[int]) -> Column:
    """Build a column of whole numbers."""
    return Column(label, list(counts), "96px", shown=[f"{count:,}" for count in counts])


def number_column(
    label: str, values: Sequence[float | None], to_text: Callable[[float], str], width: str = "84px"
) -> Column:
    """Build a column of numbers; missing values and those that are not finite are sorted last."""
    return Column(
        *(label, [None if value is None else finite_or_none(value) for value in values], width),
        shown=[MISSING if value is None else to_text(value) for value in values],
    )


def table_json(
    what: str, columns: Sequence[Column], *, pictures: Sequence[str] = (), sort: tuple[int, bool] | None = None
) -> str:
    """Serialise a table as the text of a script element.

    Args:
        what: plural noun for the rows: images, classes.
        columns: all of one length.
        pictures: what each image of a row shows; the images are in elements of their own (`picture_chunks`).
        sort: index of the column to sort by first, and whether in descending order; None: keep the order of the rows.
    """
    return json_for_script(
        {
            "what": what,
            "count": len(columns[0].values),
            "columns": [column.to_json() for column in columns],
            "pictures": list(pictures),
            "per": ROWS_PER_CHUNK,
            "sort": None if sort is None else {"column": sort[0], "down": sort[1]},
        }
    )


def picture_chunks(rows: Iterable[Sequence[Thumbnail]]) -> Iterator[str]:
    """Serialise the images of rows as texts of script elements, `ROWS_PER_CHUNK` rows each."""
    chunk: list[list[str]] = []
    for row in rows:
        chunk.append([base64.b64encode(picture or b"").decode("ascii") for picture in row])
        if len(chunk) == ROWS_PER_CHUNK:
            yield json_for_script(chunk)
            chunk = []
    if chunk:
        yield json_for_script(chunk)


def jpeg_uri(picture: bytes) -> str:
    """Encode a JPEG as a data URI."""
    return image_data_uri("jpeg", picture)


def jpeg_uris(*pictures: tuple[str, Thumbnail]) -> list[tuple[str, str]]:
    """Encode labelled JPEGs as data URIs, leaving out those that are missing."""
    return [(label, jpeg_uri(picture)) for label, picture in pictures if picture]


def script() -> str:
    """Read the script of the tables."""
    return read_asset("browser.js")


def style() -> str:
    """Read the style of the tables."""
    return read_asset("browser.css")
