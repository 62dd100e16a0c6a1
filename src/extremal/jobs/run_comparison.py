"""`compare`: which explanations moved between two runs over the same images, without a network."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.settings import flatten_settings
from extremal.jobs.restore import cut_masks
from extremal.jobs.rows import FAILED, SCHEMA
from extremal.jobs.run_summary import COLUMNS, ImageSummary, Quantiles, group_by_class, image_summaries, quantiles
from extremal.jobs.run_table import settings, table
from extremal.jobs.store import Store

MOVED_IOU = 0.5  # mean IoU below which an explanation moved: what the masks share is less than half of what either has
SIZE_CHANGES = ("smaller", "equal", "larger")
_IMAGE_COLUMNS = ("content_hash", "input_shape")  # columns in which rows of one image must agree
_MASK_COLUMNS = (
    *("key", "status", "error", "answer", "areas", "mask_areas", "fields", "fields_shape", "input_shape"),
    *("within", "units"),
)
_CACHED_PARTS = 16  # parts whose masks are held: units of two runs need not have the same images

OnImage = Callable[[int, int], None]  # images done, in all


@dataclass(frozen=True)
class ImagePair:
    """One image, explained in both runs."""

    first: ImageSummary
    second: ImageSummary
    iou: tuple[float, ...] | None  # of the cut masks at each common area; None where a run was not finite
    mean: float | None  # of these

    @property
    def moved(self) -> bool:
        """Whether the masks share less than `MOVED`."""
        return self.mean is not None and self.mean < MOVED_IOU


@dataclass(frozen=True)
class ClassChange:
    """The images that the first run asked about one class."""

    target: int
    name: str
    images: int
    moved: int
    verdicts: int  # that changed
    iou: Quantiles  # of the images' mean IoU


@dataclass(frozen=True)
class Comparison:
    """Two runs over the same images; an image counts by its first answer."""

    first: str  # folder
    second: str
    differences: tuple[tuple[str, str, str], ...]  # settings that differ: name, in the first, in the second
    common: tuple[tuple[str, str], ...]  # those that are the same: name and value
    areas: tuple[float, ...]  # that both computed, rising
    pairs: tuple[ImagePair, ...]  # images explained in both, in the order of the first
    failed: tuple[str, ...]  # keys that are in both, and failed in at least one
    only_first: tuple[str, ...]  # keys
    only_second: tuple[str, ...]
    target_changed: int  # images that were asked about another class
    iou: tuple[Quantiles, ...]  # at each of the areas
    mean: Quantiles  # of the images' mean IoU
    moved: int  # images whose mean IoU is below MOVED
    verdicts: tuple[
        tuple[str, str, int], ...
    ]  # verdict in the first and in the second, images; the most frequent first
    sizes: dict[str, int]  # images whose smallest area is smaller, equal or larger in the second; none is the largest
    scores: Quantiles  # score of the whole image in the second, less that in the first
    classes: tuple[ClassChange, ...]  # the most frequent first


def compare(
    first: str | os.PathLike[str], second: str | os.PathLike[str], *, on_image: OnImage | None = None
) -> Comparison:
    """Which explanations moved from one run to another: of two networks, two checkpoints, two settings.

    Masks are made of the rows' fields; no network is asked. About 2 ms an image, area and run at 224 px.

    >>> found = compare("before", "after")  # doctest: +SKIP
    >>> found.moved, found.mean.median  # doctest: +SKIP

    Args:
        first, second: folders of the runs; images are paired by their keys.
        on_image: called after each image.

    Raises:
        ExtremalValueError: no data-set run is there, or a part of it is broken; the runs share no area or no image;
            or an image has other bytes, or an input of another shape, in the other run.
    """
    one, other = _Run(os.fspath(first)), _Run(os.fspath(second))
    areas = _common_areas(one, other)
    shared = [key for key in one.images if key in other.images]
    _check_same_images(one, other, shared)
    failed = {key for key in shared if FAILED in (one.images[key].verdict, other.images[key].verdict)}
    explained = [key for key in shared if key not in failed]
    pairs = []
    for done, key in enumerate(explained, start=1):
        pairs.append(_compare_image(one, other, key, areas))
        if on_image is not None:
            on_image(done, len(explained))
    differences, common = _compare_settings(one, other)
    return Comparison(
        first=one.folder,
        second=other.folder,
        differences=differences,
        common=common,
        areas=areas,
        pairs=tuple(pairs),
        failed=tuple(key for key in shared if key in failed),
        only_first=tuple(key for key in one.images if key not in other.images),
        only_second=tuple(key for key in other.images if key not in one.images),
        target_changed=sum(pair.first.target != pair.second.target for pair in pairs),
        iou=tuple(quantiles(pair.iou[k] if pair.iou else None for pair in pairs) for k in range(len(areas))),
        mean=quantiles(pair.mean for pair in pairs),
        moved=sum(pair.moved for pair in pairs),
        verdicts=_count_verdicts(pairs),
        sizes=_count_size_changes(pairs),
        scores=quantiles(_difference(pair.second.score, pair.first.score) for pair in pairs),
        classes=_class_changes(pairs),
    )


@dataclass
class _Run:
    """One of the runs, its masks read a part at a time."""

    folder: str
    settings: dict[str, Any] = field(init=False)
    images: dict[str, ImageSummary] = field(init=False)
    same: dict[str, tuple[Any, ...]] = field(init=False)  # what rows of an image must agree in

    def __post_init__(self) -> None:
        self.settings = settings(self.folder)
        rows = [row for row in table(self.folder, (*COLUMNS, *_IMAGE_COLUMNS)).to_pylist() if not row["answer"]]
        self.images = {image.key: image for image in image_summaries(rows)}
        self.same = {row["key"]: tuple(row[name] for name in _IMAGE_COLUMNS) for row in rows}
        keys, self._store = (
            Store(Path(self.folder), pa.schema([SCHEMA.field(name) for name in names])) for names in (("key",), _MASK_COLUMNS)
        )
        self._homes = {key: part for part in keys.finished() for key in keys.read_part(part)["key"].to_pylist()}
        self._rows = lru_cache(_CACHED_PARTS)(self._read)

    def _read(self, part: str) -> dict[str, dict[str, Any]]:
        return {row["key"]: row for row in self._store.read_part(part).to_pylist() if not row["answer"]}

    def cut_masks(self, key: str, areas: Sequence[float]) -> Tensor:
        """The cut masks of an image at these of the areas: (A, *S) bool."""
        row = self._rows(self._homes[key])[key]
        return cut_masks(row, self.settings["explain"])[[row["areas"].index(area) for area in areas]]


def _common_areas(one: _Run, other: _Run) -> tuple[float, ...]:
    areas = tuple(area for area in one.settings["areas"] if area in other.settings["areas"])
    if not areas:
        told = [", ".join(f"{area:g}" for area in side.settings["areas"]) for side in (one, other)]
        raise ExtremalValueError(
            f"runs must share an area to be compared, {one.folder!r} has {told[0]} and {other.folder!r} {told[1]}; "
            "run one of them again with an area of the other"
        )
    return areas


def _check_same_images(one: _Run, other: _Run, shared: Sequence[str]) -> None:
    """Images must be the same ones, and masks have the same places."""
    if not shared:
        raise ExtremalValueError(
            f"runs must share images to be compared, {one.folder!r} and {other.folder!r} have no key in common; "
            "run both over the same folder or manifest"
        )
    for key in shared:
        (digest, shape), (other_digest, other_shape) = one.same[key], other.same[key]
        if None not in (digest, other_digest) and digest != other_digest:
            raise ExtremalValueError(
                f"runs must be of the same pictures to be compared, the bytes of {key!r} in {one.folder!r} are not "
                f"those in {other.folder!r}; run both over the same files"
            )
        if None not in (shape, other_shape) and shape != other_shape:
            told, other_told = (" × ".join(map(str, sides)) for sides in (shape, other_shape))
            raise ExtremalValueError(
                f"runs must have inputs of one shape to be compared, that of {key!r} is {told} in {one.folder!r} and "
                f"{other_told} in {other.folder!r}; compare networks of one input size"
            )


def _compare_image(one: _Run, other: _Run, key: str, areas: Sequence[float]) -> ImagePair:
    masks, others = one.cut_masks(key, areas).flatten(1), other.cut_masks(key, areas).flatten(1)
    image, again = one.images[key], other.images[key]
    if not (masks.any() and others.any()):
        return ImagePair(image, again, None, None)
    shared, either = (masks & others).sum(1).double(), (masks | others).sum(1)
    iou = torch.where(either > 0, shared / either, 1.0).tolist()  # units larger than an area are cut to nothing
    return ImagePair(image, again, tuple(iou), sum(iou) / len(iou))


def _compare_settings(one: _Run, other: _Run) -> tuple[tuple[tuple[str, str, str], ...], tuple[tuple[str, str], ...]]:
    """Settings that differ and those that are the same, as they are written."""
    told, others = (
        {name.removeprefix("explain "): shown for name, shown in flatten_settings(side.settings)} for side in (one, other)
    )
    both = [(name, told.get(name, "–"), others.get(name, "–")) for name in {**told, **others}]
    differing = tuple(three for three in both if three[1] != three[2])
    return differing, tuple((name, value) for name, value, again in both if value == again)


def _count_verdicts(pairs: Sequence[ImagePair]) -> tuple[tuple[str, str, int], ...]:
    counts = Counter((pair.first.verdict, pair.second.verdict) for pair in pairs)
    return tuple((one, other, count) for (one, other), count in counts.most_common())


def _count_size_changes(pairs: Sequence[ImagePair]) -> dict[str, int]:
    def change(pair: ImagePair) -> str:
        one, other = (2.0 if image.area is None else image.area for image in (pair.first, pair.second))
        return SIZE_CHANGES[1 + (other > one) - (other < one)]

    counts = Counter(map(change, pairs))
    return {name: counts[name] for name in SIZE_CHANGES}


def _class_changes(pairs: Sequence[ImagePair]) -> tuple[ClassChange, ...]:
    return tuple(
        ClassChange(
            *(target, name, len(group)),
            moved=sum(pair.moved for pair in group),
            verdicts=sum(pair.first.verdict != pair.second.verdict for pair in group),
            iou=quantiles(pair.mean for pair in group),
        )
        for target, name, group in group_by_class(pairs, lambda pair: pair.first)
    )


def _difference(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
