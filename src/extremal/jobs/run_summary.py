"""`summary`: what a run over a data set comes to, as plain values made of its table alone."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from extremal.jobs.plan import PLAN
from extremal.jobs.rows import DONE, FAILED
from extremal.jobs.run_table import settings, table

Thing = TypeVar("Thing")

VERDICTS = ("sufficient", "suspect", "insufficient", FAILED)
EXTREMES = 8  # images told at either end
COLUMNS = (  # that are read; fields, traces and thumbnails stay on the disk
    *("key", "status", "error", "answer", "target", "target_name", "verdict", "reasons", "areas"),
    *("smallest_area", "smallest_effect", "unseen_effect", "certified_area", "certified_effect"),
    *("score_full", "evaluations", "seconds"),
)


@dataclass(frozen=True)
class Image:
    """What is known of one image; None: there is no such number."""

    key: str
    target: int | None  # class; −1: a question of another kind
    name: str  # of what was asked
    verdict: str  # one of VERDICTS
    reason: str  # one sentence, on the smallest area that is enough, or on the largest where none is; of a failure why
    area: float | None  # the smallest share of places that is enough, found by bisection where that was looked for
    effect: float | None  # share of the whole effect that its cut mask has
    unseen: float | None  # the same of the smallest computed area, under unseen perturbations, their median
    lost: float | None  # what is lost by these, as a share of the whole effect
    score: float | None  # of the whole image


@dataclass(frozen=True)
class Spread:
    """How values are distributed: each of these is one of the values. None: beyond all, or there are none."""

    count: int  # of the values, those beyond all among them
    least: float | None
    lower: float | None  # a quarter is not above it
    median: float | None
    upper: float | None  # three quarters are not above it
    most: float | None


@dataclass(frozen=True)
class Class:
    """The images that were asked about one class."""

    target: int
    name: str
    images: int
    sufficient: int
    suspect: int
    insufficient: int
    areas: Spread  # as in `Summary`


@dataclass(frozen=True)
class Summary:
    """A run over a data set; an image for which several answers were looked for counts by its first."""

    settings: dict[str, Any]
    planned: int  # images of the run
    images: int  # that have a row
    verdicts: dict[str, int]  # images of each of VERDICTS
    failures: tuple[tuple[str, int], ...]  # reasons, and how many images; the most frequent first
    others: int  # rows of other answers, which are left out here
    enough: tuple[tuple[float, int], ...]  # computed areas rising, and for how many images each is the smallest enough
    areas: Spread  # smallest areas of what was explained, suspect ones too; beyond all: where no area is enough
    classes: tuple[Class, ...]  # the most frequent first
    smallest: tuple[Image, ...]  # with the smallest areas, the smallest first
    largest: tuple[Image, ...]  # with the largest, the largest first; others than the smallest
    suspects: tuple[Image, ...]
    unseen: Spread  # share of the whole effect that is left under unseen perturbations
    lost: Spread  # share of the whole effect that is lost by them
    silent: int  # images with an area that is enough, of which unseen perturbations tell nothing
    evaluations: int  # of the network, all rows
    seconds: float  # all rows, summed over processes

    @property
    def explained(self) -> int:
        """Images that did not fail."""
        return self.images - self.verdicts[FAILED]


def summary(folder: str | os.PathLike[str]) -> Summary:
    """What the run in a folder comes to, so far; only small columns of its table are read.

    >>> found = summary("out")  # doctest: +SKIP
    >>> found.verdicts, found.areas.median  # doctest: +SKIP

    Args:
        folder: of the run.

    Raises:
        ExtremalValueError: no data-set run is there, or a part of it is broken.
    """
    return summarised(table(folder, COLUMNS), settings(folder), planned_images(folder))


def planned_images(folder: str | os.PathLike[str]) -> int:
    """How many images a run has, with a row or without; 0 where no plan is there."""
    plan = Path(folder) / PLAN
    return int(pq.read_metadata(plan).num_rows) if plan.is_file() else 0


def summarised(rows: pa.Table, told: Mapping[str, Any], planned: int = 0) -> Summary:
    """The summary of a table.

    Args:
        rows: with at least `COLUMNS`.
        told: the settings of the run.
        planned: how many images it has; no fewer than there are rows of.
    """
    raw = rows.select(COLUMNS).to_pylist()
    found = images_of(raw)
    explained = [image for image in found if image.verdict != FAILED]
    ranked = sorted((image for image in explained if image.area is not None), key=_by_area)
    ends = min(EXTREMES, (len(ranked) + 1) // 2), min(EXTREMES, len(ranked) // 2)  # no image at both
    counts = Counter(image.verdict for image in found)
    at = Counter(row["smallest_area"] for row in raw if not row["answer"] and row["status"] == DONE)
    failures = Counter(image.reason for image in found if image.verdict == FAILED)
    return Summary(
        settings=dict(told),
        planned=max(planned, len(found)),
        images=len(found),
        verdicts={word: counts[word] for word in VERDICTS},
        failures=tuple(failures.most_common()),
        others=len(raw) - len(found),
        enough=tuple((area, at[area]) for area in told["areas"]),
        areas=_areas(explained),
        classes=_classes(explained),
        smallest=tuple(ranked[: ends[0]]),
        largest=tuple(ranked[::-1][: ends[1]]),
        suspects=tuple(image for image in explained if image.verdict == "suspect"),
        unseen=spread(image.unseen for image in explained),
        lost=spread(image.lost for image in explained),
        silent=sum(image.area is not None and image.unseen is None for image in explained),
        evaluations=sum(row["evaluations"] or 0 for row in raw),
        seconds=sum(row["seconds"] or 0.0 for row in raw),
    )


def images_of(rows: Iterable[Mapping[str, Any]]) -> list[Image]:
    """The images of rows, by their first answers."""
    return [_image(row) for row in rows if not row["answer"]]


def _image(row: Mapping[str, Any]) -> Image:
    if row["status"] != DONE:
        return Image(row["key"], None, "", FAILED, row["error"] or "", *(None,) * 5)
    certified = row["certified_area"] is not None
    enough, unseen = row["smallest_area"], row["unseen_effect"]
    return Image(
        key=row["key"],
        target=row["target"],
        name=row["target_name"],
        verdict=row["verdict"],
        reason=row["reasons"][-1 if enough is None else row["areas"].index(enough)],
        area=row["certified_area"] if certified else enough,
        effect=row["certified_effect"] if certified else row["smallest_effect"],
        unseen=unseen,
        lost=None if unseen is None else row["smallest_effect"] - unseen,
        score=row["score_full"],
    )


def spread(values: Iterable[float | None], beyond: int = 0) -> Spread:
    """How numbers are distributed, those that are None or not finite left out.

    >>> spread([0.3, 0.1, None, 0.2], beyond=2)
    Spread(count=5, least=0.1, lower=0.2, median=0.3, upper=None, most=None)

    Args:
        values: in any order.
        beyond: how many more there are that are larger than all, and not known.
    """
    known = [value for value in values if value is not None and math.isfinite(value)] + [math.inf] * beyond
    if not known:
        return Spread(0, *(None,) * 5)
    told = np.quantile(known, (0, 0.25, 0.5, 0.75, 1), method="inverted_cdf").tolist()
    return Spread(len(known), *(value if math.isfinite(value) else None for value in told))


def _areas(images: Sequence[Image]) -> Spread:
    return spread((image.area for image in images), beyond=sum(image.area is None for image in images))


def by_class(things: Iterable[Thing], image: Callable[[Thing], Image]) -> list[tuple[int, str, list[Thing]]]:
    """Things by the class that an explained image of theirs was asked about, the most frequent first."""
    groups: dict[tuple[int, str], list[Thing]] = {}
    for thing in things:
        target = image(thing).target
        assert target is not None
        groups.setdefault((target, image(thing).name), []).append(thing)
    return [(*named, group) for named, group in sorted(groups.items(), key=lambda entry: (-len(entry[1]), entry[0]))]


def _classes(images: Sequence[Image]) -> tuple[Class, ...]:
    found = []
    for target, name, group in by_class(images, lambda image: image):
        counts = Counter(image.verdict for image in group)
        found.append(
            Class(
                *(target, name, len(group), counts["sufficient"], counts["suspect"], counts["insufficient"]),
                areas=_areas(group),
            )
        )
    return tuple(found)


def _by_area(image: Image) -> tuple[float, float]:
    """Smaller areas first, of equal ones those with more effect."""
    assert image.area is not None
    assert image.effect is not None
    return image.area, -image.effect
