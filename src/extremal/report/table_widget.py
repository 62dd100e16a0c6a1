"""Tables of any number of rows in a page: what `browser.js` sorts, filters and shows."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from extremal.report.html import embedded, source

PER = 50  # rows whose pictures are read together; as few as a screen holds, more would be read for nothing

Thumbnail = bytes | None  # a JPEG


@dataclass(frozen=True)
class Column:
    """A column: what it is sorted by, and what is written."""

    label: str
    values: Sequence[float | str | None]  # by which it is sorted, None last
    width: str = "84px"  # a track of a CSS grid
    shown: Sequence[str] | None = None  # what is written; None: the values, which are words then
    notes: Sequence[str] | None = None  # small, below
    verdicts: Sequence[str] | None = None  # words by which it is coloured
    choice: bool = False  # rows can be chosen by it

    def told(self) -> dict[str, Any]:
        """What the script reads."""
        words = self.shown is None
        told = {"label": self.label, "values": list(self.values), "width": self.width, "words": words}
        more = {"shown": self.shown, "notes": self.notes, "verdicts": self.verdicts}
        return {**told, "choice": self.choice, **{name: list(v) for name, v in more.items() if v is not None}}


def table_data(
    what: str, columns: Sequence[Column], *, pictures: Sequence[str] = (), sort: tuple[int, bool] | None = None
) -> str:
    """A table as the text of a script element.

    Args:
        what: the rows are: images, classes.
        columns: all of one length.
        pictures: what each picture of a row shows; they stand in elements of their own (`picture_parts`).
        sort: by which column first, and whether from the largest down; None: as the rows come.
    """
    return embedded(
        {
            "what": what,
            "count": len(columns[0].values),
            "columns": [column.told() for column in columns],
            "pictures": list(pictures),
            "per": PER,
            "sort": None if sort is None else {"column": sort[0], "down": sort[1]},
        }
    )


def picture_parts(rows: Iterable[Sequence[Thumbnail]]) -> Iterator[str]:
    """The pictures of rows as texts of script elements, `PER` rows each, so that few of them are read at once."""
    part: list[list[str]] = []
    for row in rows:
        part.append([base64.b64encode(picture or b"").decode("ascii") for picture in row])
        if len(part) == PER:
            yield embedded(part)
            part = []
    if part:
        yield embedded(part)


def jpeg_uri(picture: bytes) -> str:
    """A JPEG as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(picture).decode("ascii")


def script() -> str:
    """The script of these tables."""
    return source("browser.js")


def style() -> str:
    """Their style."""
    return source("browser.css")
