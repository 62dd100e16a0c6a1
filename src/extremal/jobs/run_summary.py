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

from extremal.jobs.plan import PLAN_FILE
from extremal.jobs.rows import DONE, FAILED
from extremal.jobs.run_table import settings, table

T = TypeVar("Thing")

VERDICTS = ("sufficient", "suspect", "insufficient", FAILED)
N_EXTREMES = 8  # images told at either end
COLUMNS = (  # that are read; fields, traces and thumbnails stay on the disk
    *("key", "status", "error", "answer", "target", "target_name", "verdict", "reasons", "areas"),
    *("smallest_area", "smallest_effect", "unseen_effect", "certified_area", "certified_effect"),
    *("score_full", "evaluations", "seconds"),
)


@dataclass(frozen=True)
class ImageSummary:
    """What is known of one image; None: there is no such number."""

    key: str
    target: int | None  # class; −1: a question of another kind
    name: str  # of what was asked
    verdict: str  # one of VERDICTS
    reason: str  # one sentence, on the smallest area that is enough, or on the largest where none is; of a failure why
    area: float | None  # the smallest share of places that is enough, found by bisection where that was looked for
    effect: float | None  # share of the whole effect that its cut mask has
    unseen: float | None  # the same of the smallest computed area, under unseen perturbations, their median
    loss: float | None  # what is lost by these, as a share of the whole effect
    score: float | None  # of the whole image


@dataclass(frozen=True)
class Quantiles:
    """How values are distributed: each of these is one of the values. None: beyond all, or there are none."""

    count: int  # of the values, those beyond all among them
    min: float | None
    q25: float | None  # a quarter is not above it
    median: float | None
    q75: float | None  # three quarters are not above it
    max: float | None


@dataclass(frozen=True)
class ClassSummary:
    """The images that were asked about one class."""

    target: int
    name: str
    images: int
    sufficient: int
    suspect: int
    insufficient: int
    areas: Quantiles  # as in `Summary`


@dataclass(frozen=True)
class Summary:
    """A run over a data set; an image for which several answers were looked for counts by its first."""

    settings: dict[str, Any]
    planned: int  # images of the run
    images: int  # that have a row
    verdicts: dict[str, int]  # images of each of VERDICTS
    failures: tuple[tuple[str, int], ...]  # reasons, and how many images; the most frequent first
    alternative_rows: int  # rows of other answers, which are left out here
    smallest_counts: tuple[tuple[float, int], ...]  # computed areas rising, and for how many images each is the smallest enough
    areas: Quantiles  # smallest areas of what was explained, suspect ones too; beyond all: where no area is enough
    classes: tuple[ClassSummary, ...]  # the most frequent first
    smallest: tuple[ImageSummary, ...]  # with the smallest areas, the smallest first
    largest: tuple[ImageSummary, ...]  # with the largest, the largest first; others than the smallest
    suspects: tuple[ImageSummary, ...]
    unseen: Quantiles  # share of the whole effect that is left under unseen perturbations
    loss: Quantiles  # share of the whole effect that is lost by them
    untested: int  # images with an area that is enough, of which unseen perturbations tell nothing
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
    return summarise(table(folder, COLUMNS), settings(folder), count_planned(folder))


def count_planned(folder: str | os.PathLike[str]) -> int:
    """How many images a run has, with a row or without; 0 where no plan is there."""
    plan = Path(folder) / PLAN_FILE
    return int(pq.read_metadata(plan).num_rows) if plan.is_file() else 0


def summarise(rows: pa.Table, told: Mapping[str, Any], planned: int = 0) -> Summary:
    """The summary of a table.

    Args:
        rows: with at least `COLUMNS`.
        told: the settings of the run.
        planned: how many images it has; no fewer than there are rows of.
    """
    raw = rows.select(COLUMNS).to_pylist()
    found = image_summaries(raw)
    explained = [image for image in found if image.verdict != FAILED]
    ranked = sorted((image for image in explained if image.area is not None), key=_by_area)
    ends = min(N_EXTREMES, (len(ranked) + 1) // 2), min(N_EXTREMES, len(ranked) // 2)  # no image at both
    counts = Counter(image.verdict for image in found)
    at = Counter(row["smallest_area"] for row in raw if not row["answer"] and row["status"] == DONE)
    failures = Counter(image.reason for image in found if image.verdict == FAILED)
    return Summary(
        settings=dict(told),
        planned=max(planned, len(found)),
        images=len(found),
        verdicts={word: counts[word] for word in VERDICTS},
        failures=tuple(failures.most_common()),
        alternative_rows=len(raw) - len(found),
        smallest_counts=tuple((area, at[area]) for area in told["areas"]),
        areas=_area_quantiles(explained),
        classes=_class_summaries(explained),
        smallest=tuple(ranked[: ends[0]]),
        largest=tuple(ranked[::-1][: ends[1]]),
        suspects=tuple(image for image in explained if image.verdict == "suspect"),
        unseen=quantiles(image.unseen for image in explained),
        loss=quantiles(image.loss for image in explained),
        untested=sum(image.area is not None and image.unseen is None for image in explained),
        evaluations=sum(row["evaluations"] or 0 for row in raw),
        seconds=sum(row["seconds"] or 0.0 for row in raw),
    )


def image_summaries(rows: Iterable[Mapping[str, Any]]) -> list[ImageSummary]:
    """The images of rows, by their first answers."""
    return [_image(row) for row in rows if not row["answer"]]


def _image(row: Mapping[str, Any]) -> ImageSummary:
    if row["status"] != DONE:
        return ImageSummary(row["key"], None, "", FAILED, row["error"] or "", *(None,) * 5)
    certified = row["certified_area"] is not None
    enough, unseen = row["smallest_area"], row["unseen_effect"]
    return ImageSummary(
        key=row["key"],
        target=row["target"],
        name=row["target_name"],
        verdict=row["verdict"],
        reason=row["reasons"][-1 if enough is None else row["areas"].index(enough)],
        area=row["certified_area"] if certified else enough,
        effect=row["certified_effect"] if certified else row["smallest_effect"],
        unseen=unseen,
        loss=None if unseen is None else row["smallest_effect"] - unseen,
        score=row["score_full"],
    )


def quantiles(values: Iterable[float | None], n_above: int = 0) -> Quantiles:
    """How numbers are distributed, those that are None or not finite left out.

    >>> quantiles([0.3, 0.1, None, 0.2], beyond=2)
    Spread(count=5, least=0.1, lower=0.2, median=0.3, upper=None, most=None)

    Args:
        values: in any order.
        n_above: how many more there are that are larger than all, and not known.
    """
    known = [value for value in values if value is not None and math.isfinite(value)] + [math.inf] * n_above
    if not known:
        return Quantiles(0, *(None,) * 5)
    told = np.quantile(known, (0, 0.25, 0.5, 0.75, 1), method="inverted_cdf").tolist()
    return Quantiles(len(known), *(value if math.isfinite(value) else None for value in told))


def _area_quantiles(images: Sequence[ImageSummary]) -> Quantiles:
    return quantiles((image.area for image in images), n_above=sum(image.area is None for image in images))


def group_by_class(things: Iterable[T], image: Callable[[T], ImageSummary]) -> list[tuple[int, str, list[T]]]:
    """Things by the class that an explained image of theirs was asked about, the most frequent first."""
    groups: dict[tuple[int, str], list[T]] = {}
    for thing in things:
        target = image(thing).target
        assert target is not None
        groups.setdefault((target, image(thing).name), []).append(thing)
    return [(*named, group) for named, group in sorted(groups.items(), key=lambda entry: (-len(entry[1]), entry[0]))]


def _class_summaries(images: Sequence[ImageSummary]) -> tuple[ClassSummary, ...]:
    found = []
    for target, name, group in group_by_class(images, lambda image: image):
        counts = Counter(image.verdict for image in group)
        found.append(
            ClassSummary(
                *(target, name, len(group), counts["sufficient"], counts["suspect"], counts["insufficient"]),
                areas=_area_quantiles(group),
            )
        )
    return tuple(found)


def _by_area(image: ImageSummary) -> tuple[float, float]:
    """Smaller areas first, of equal ones those with more effect."""
    assert image.area is not None
    assert image.effect is not None
    return image.area, -image.effect
