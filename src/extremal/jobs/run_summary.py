"""Summarise a data-set run as plain values, from its table alone."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from extremal.explanations.verdict import VerdictLabel
from extremal.file_checks import find_kind, to_path
from extremal.jobs.parquet_files import count_rows
from extremal.jobs.plan import PLAN_FILE
from extremal.jobs.rows import DONE, FAILED, VERDICTS
from extremal.jobs.run_table import settings, table
from extremal.scores.class_group import ResolvedClass

T = TypeVar("T")

OPTIONAL_VERDICTS = (VerdictLabel.UNSTABLE, VerdictLabel.CHANCE)  # counted by class only if there are any
N_EXTREMES = 8  # images listed at either end
COLUMNS = (  # that are read; parameters, traces and thumbnails are not
    *("key", "status", "error", "alternative", "target", "group", "target_name"),
    *("verdict", "reasons", "areas"),
    *("smallest_area", "smallest_effect", "unseen_effect", "certified_area", "certified_effect"),
    *("score_full", "evaluations", "seconds"),
)


@dataclass(frozen=True)
class ImageSummary:
    """Summary of one image; None: there is no such value."""

    key: str
    target: ResolvedClass | None  # class index, or indices of a group; None: another query, or the image failed
    name: str  # of the target
    verdict: str  # one of VERDICTS
    reason: str  # one sentence on the smallest sufficient area, else on the largest area; the error of a failed image
    area: float | None  # smallest sufficient fraction of places, by a search if it was requested
    effect: float | None  # of its cut mask
    unseen: float | None  # median effect of the smallest computed area under unseen perturbations
    loss: float | None  # effect lost under these
    score: float | None  # of the whole image


@dataclass(frozen=True)
class Quantiles:
    """Distribution of values: each quantile is one of them. None: above all known values, or there are none."""

    count: int  # of values, including those above all known ones
    min: float | None
    q25: float | None
    median: float | None
    q75: float | None
    max: float | None


@dataclass(frozen=True)
class ClassSummary:
    """Images with one class, or one group of classes, as their target."""

    target: ResolvedClass | None  # class index, or indices of a group; None: another query
    name: str
    images: int
    sufficient: int
    unstable: int
    chance: int  # of the verdict that chance is enough
    suspect: int
    insufficient: int
    areas: Quantiles  # as in `Summary`

    def count(self, verdict: str) -> int:
        """Return the number of images with a verdict."""
        return int(getattr(self, VerdictLabel(verdict).name.lower()))


@dataclass(frozen=True)
class Summary:
    """Summary of a data-set run; an image with alternatives counts by its first explanation."""

    settings: dict[str, Any]
    planned: int  # images of the run
    images: int  # with a row
    verdicts: dict[str, int]  # images of each of VERDICTS
    failures: tuple[tuple[str, int], ...]  # reasons, and how many images; the most frequent first
    alternative_rows: int  # rows of alternatives, which are left out here
    smallest_counts: tuple[tuple[float, int], ...]  # computed areas rising, and for how many images each is smallest
    areas: Quantiles  # smallest areas of explained images, suspect ones too; above all others if no area is sufficient
    classes: tuple[ClassSummary, ...]  # the most frequent first
    smallest: tuple[ImageSummary, ...]  # with the smallest areas, the smallest first
    largest: tuple[ImageSummary, ...]  # with the largest, the largest first; none of the smallest
    suspects: tuple[ImageSummary, ...]
    unseen: Quantiles  # effects under unseen perturbations
    loss: Quantiles  # effects lost under these
    untested: int  # images with a sufficient area for which unseen perturbations are uninformative
    evaluations: int  # of the network, all rows
    seconds: float  # all rows, summed over processes

    @property
    def explained(self) -> int:
        """Number of images that did not fail."""
        return self.images - self.verdicts[FAILED]

    @property
    def counted_verdicts(self) -> tuple[str, ...]:
        """The verdicts that are counted by class."""
        words = (word for word in VERDICTS if word not in OPTIONAL_VERDICTS or self.verdicts[word])
        return tuple(word for word in words if word != FAILED)


def summary(folder: str | os.PathLike[str]) -> Summary:
    """Summarise the run in a folder so far; only small columns of its table are read.

    >>> result = summary("out")  # doctest: +SKIP
    >>> result.verdicts, result.areas.median  # doctest: +SKIP

    Args:
        folder: of the run.

    Raises:
        ExtremalValueError: there is no data-set run, or a part of it is damaged.
    """
    return summarise(table(folder, COLUMNS), settings(folder), count_planned(folder))


def count_planned(folder: str | os.PathLike[str]) -> int:
    """Return the number of images of a run, with or without a row; 0 if there is no plan."""
    plan = to_path(folder, "a run") / PLAN_FILE
    return count_rows(plan, "the plan of a run", "run again into another folder") if find_kind(plan, "a plan") else 0


def summarise(rows: pa.Table, settings: Mapping[str, Any], planned: int = 0) -> Summary:
    """Summarise a table.

    Args:
        rows: with at least `COLUMNS`.
        settings: of the run.
        planned: number of images of the run, if there are more than rows.
    """
    all_rows = rows.select(COLUMNS).to_pylist()
    images = image_summaries(all_rows)
    explained = [image for image in images if image.verdict != FAILED]
    ranked = sorted((image for image in explained if image.area is not None), key=_area_order)
    n_smallest, n_largest = min(N_EXTREMES, (len(ranked) + 1) // 2), min(N_EXTREMES, len(ranked) // 2)  # disjoint
    verdicts = Counter(image.verdict for image in images)
    smallest = Counter(row["smallest_area"] for row in all_rows if not row["alternative"] and row["status"] == DONE)
    failures = Counter(image.reason for image in images if image.verdict == FAILED)
    return Summary(
        settings=dict(settings),
        planned=max(planned, len(images)),
        images=len(images),
        verdicts={word: verdicts[word] for word in VERDICTS},
        failures=tuple(failures.most_common()),
        alternative_rows=len(all_rows) - len(images),
        smallest_counts=tuple((area, smallest[area]) for area in settings["areas"]),
        areas=_area_quantiles(explained),
        classes=_class_summaries(explained),
        smallest=tuple(ranked[:n_smallest]),
        largest=tuple(ranked[::-1][:n_largest]),
        suspects=tuple(image for image in explained if image.verdict == VerdictLabel.SUSPECT),
        unseen=quantiles(image.unseen for image in explained),
        loss=quantiles(image.loss for image in explained),
        untested=sum(image.area is not None and image.unseen is None for image in explained),
        evaluations=sum(row["evaluations"] or 0 for row in all_rows),
        seconds=sum(row["seconds"] or 0.0 for row in all_rows),
    )


def image_summaries(rows: Iterable[Mapping[str, Any]]) -> list[ImageSummary]:
    """Summarise the images of rows by their first explanations."""
    return [_image_summary(row) for row in rows if not row["alternative"]]


def _image_summary(row: Mapping[str, Any]) -> ImageSummary:
    if row["status"] != DONE:
        return ImageSummary(row["key"], None, "", FAILED, row["error"] or "", *(None,) * 5)
    is_certified = row["certified_area"] is not None
    smallest, unseen = row["smallest_area"], row["unseen_effect"]
    return ImageSummary(
        key=row["key"],
        target=row["target"] if row["group"] is None else tuple(row["group"]),
        name=row["target_name"],
        verdict=row["verdict"],
        reason=row["reasons"][-1 if smallest is None else row["areas"].index(smallest)],
        area=row["certified_area"] if is_certified else smallest,
        effect=row["certified_effect"] if is_certified else row["smallest_effect"],
        unseen=unseen,
        loss=None if unseen is None else row["smallest_effect"] - unseen,
        score=row["score_full"],
    )


def quantiles(values: Iterable[float | None], n_above: int = 0) -> Quantiles:
    """Return the quantiles of numbers, without those that are None or not finite.

    >>> quantiles([0.3, 0.1, None, 0.2], n_above=2)
    Quantiles(count=5, min=0.1, q25=0.2, median=0.3, q75=None, max=None)

    Args:
        values: in any order.
        n_above: number of additional values, unknown, that are larger than all.
    """
    known = [value for value in values if value is not None and math.isfinite(value)] + [math.inf] * n_above
    if not known:
        return Quantiles(0, *(None,) * 5)
    ranked = np.quantile(known, (0, 0.25, 0.5, 0.75, 1), method="inverted_cdf").tolist()
    return Quantiles(len(known), *(value if math.isfinite(value) else None for value in ranked))


def _area_quantiles(images: Sequence[ImageSummary]) -> Quantiles:
    return quantiles((image.area for image in images), n_above=sum(image.area is None for image in images))


def group_by_class(
    items: Iterable[T], get_image: Callable[[T], ImageSummary]
) -> list[tuple[ResolvedClass | None, str, list[T]]]:
    """Group items by the target of their explained image: class or group, name, items; the most frequent first."""
    groups: dict[tuple[ResolvedClass | None, str], list[T]] = {}
    for item in items:
        image = get_image(item)
        groups.setdefault((image.target, image.name), []).append(item)

    def order(entry: tuple[tuple[ResolvedClass | None, str], list[T]]) -> tuple[int, tuple[int, ...], str]:
        (target, name), items_of_target = entry
        indices = (target,) if isinstance(target, int) else target or ()
        return -len(items_of_target), indices, name

    return [(target, name, group) for (target, name), group in sorted(groups.items(), key=order)]


def _class_summaries(images: Sequence[ImageSummary]) -> tuple[ClassSummary, ...]:
    summaries = []
    for target, name, group in group_by_class(images, lambda image: image):
        verdicts = Counter(image.verdict for image in group)
        summaries.append(
            ClassSummary(
                target,
                name,
                len(group),
                **{label.name.lower(): verdicts[label] for label in VerdictLabel},
                areas=_area_quantiles(group),
            )
        )
    return tuple(summaries)


def _area_order(image: ImageSummary) -> tuple[float, float]:
    """Sort key: smaller areas first, and larger effects first among equal areas."""
    assert image.area is not None
    assert image.effect is not None
    return image.area, -image.effect
