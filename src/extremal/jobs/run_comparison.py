"""Compare two data-set runs over the same images, without a network."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.settings import flatten_settings
from extremal.file_checks import to_path
from extremal.jobs.restore import cut_masks
from extremal.jobs.row_checks import check_rows, update_verdicts
from extremal.jobs.rows import FAILED, SCHEMA
from extremal.jobs.run_summary import COLUMNS, ImageSummary, Quantiles, group_by_class, image_summaries, quantiles
from extremal.jobs.run_table import settings, table
from extremal.jobs.store import Store
from extremal.number_checks import validate_callbacks
from extremal.scores.class_group import ResolvedClass

MOVED_IOU = 0.5  # mean IoU below which an explanation moved
SIZE_CHANGES = ("smaller", "equal", "larger")
_IMAGE_COLUMNS = ("content_hash", "input_shape")  # in which the rows of one image must agree
_MASK_COLUMNS = (
    *("key", "status", "error", "alternative", "areas", "mask_areas", "parameters", "parameters_shape"),
    *("input_shape", "within", "units"),
)
_CACHED_PARTS = 16  # parts whose rows are kept: units of two runs need not have the same images

OnImage = Callable[[int, int], None]  # finished images, all images


@dataclass(frozen=True)
class ImagePair:
    """One image, explained in both runs."""

    first: ImageSummary
    second: ImageSummary
    iou: tuple[float, ...] | None  # of the cut masks at each common area; None if a run was not finite
    mean: float | None  # of these

    @property
    def moved(self) -> bool:
        """Whether the mean IoU is below `MOVED_IOU`."""
        return self.mean is not None and self.mean < MOVED_IOU


@dataclass(frozen=True)
class ClassChange:
    """Images with one class, or one group of classes, as their target in the first run."""

    target: ResolvedClass | None  # class index, or indices of a group; None: another query
    name: str
    images: int
    moved: int
    verdicts: int  # that changed
    iou: Quantiles  # of the images' mean IoU


@dataclass(frozen=True)
class Comparison:
    """Two runs over the same images; an image with alternatives counts by its first explanation."""

    first: str  # folder
    second: str
    differences: tuple[tuple[str, str, str], ...]  # settings that differ: name, in the first, in the second
    common: tuple[tuple[str, str], ...]  # settings that are equal: name, value
    settings: tuple[Mapping[str, Any], Mapping[str, Any]]  # of the first run and of the second, as stored
    areas: tuple[float, ...]  # computed in both runs, rising
    pairs: tuple[ImagePair, ...]  # images explained in both, in the order of the first
    failed: tuple[str, ...]  # keys in both runs that failed in at least one
    only_first: tuple[str, ...]  # keys
    only_second: tuple[str, ...]
    target_changed: int  # images with another target in the second run
    iou: tuple[Quantiles, ...]  # at each of the areas
    mean: Quantiles  # of the images' mean IoU
    moved: int  # images whose mean IoU is below MOVED_IOU
    verdicts: tuple[tuple[str, str, int], ...]  # in the first, in the second, images; the most frequent first
    sizes: dict[str, int]  # images whose smallest area is smaller, equal or larger in the second; none: the largest
    scores: Quantiles  # score of the whole image in the second run minus that in the first
    classes: tuple[ClassChange, ...]  # the most frequent first


def compare(
    first: str | os.PathLike[str], second: str | os.PathLike[str], *, on_image: OnImage | None = None
) -> Comparison:
    """Compare the explanations of two runs, e.g. of two networks, checkpoints, or settings.

    Masks are rebuilt from the rows; the network is not needed. About 2 ms per image, area, and run at 224 px.

    >>> comparison = compare("before", "after")  # doctest: +SKIP
    >>> comparison.moved, comparison.mean.median  # doctest: +SKIP

    Args:
        first, second: folders of the runs; images are paired by their keys.
        on_image: called after each image.

    Raises:
        ExtremalValueError: there is no data-set run, or a part of it is damaged; the runs share no area or no image;
            or an image has other bytes, or an input of another shape, in the other run.
    """
    validate_callbacks(on_image=on_image)
    a, b = (_Run(str(to_path(folder, "a run"))) for folder in (first, second))
    areas = _common_areas(a, b)
    shared_keys = [key for key in a.images if key in b.images]
    _check_same_images(a, b, shared_keys)
    failed = {key for key in shared_keys if FAILED in (a.images[key].verdict, b.images[key].verdict)}
    explained = [key for key in shared_keys if key not in failed]
    pairs = []
    for finished, key in enumerate(explained, start=1):
        pairs.append(_compare_image(a, b, key, areas))
        if on_image is not None:
            on_image(finished, len(explained))
    differences, common = _compare_settings(a, b)
    return Comparison(
        first=a.folder,
        second=b.folder,
        differences=differences,
        common=common,
        settings=(a.settings, b.settings),
        areas=areas,
        pairs=tuple(pairs),
        failed=tuple(key for key in shared_keys if key in failed),
        only_first=tuple(key for key in a.images if key not in b.images),
        only_second=tuple(key for key in b.images if key not in a.images),
        target_changed=sum(_identify_target(pair.first) != _identify_target(pair.second) for pair in pairs),
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
    """One of the two runs; its masks are read one part at a time."""

    folder: str
    settings: dict[str, Any] = field(init=False)
    images: dict[str, ImageSummary] = field(init=False)
    identities: dict[str, tuple[Any, ...]] = field(init=False)  # values of _IMAGE_COLUMNS for each key

    def __post_init__(self) -> None:
        self.settings = settings(self.folder)
        rows = [row for row in table(self.folder, (*COLUMNS, *_IMAGE_COLUMNS)).to_pylist() if not row["alternative"]]
        self.images = {image.key: image for image in image_summaries(rows)}
        self.identities = {row["key"]: tuple(row[name] for name in _IMAGE_COLUMNS) for row in rows}
        key_store, self._mask_store = (
            Store(Path(self.folder), pa.schema([SCHEMA.field(name) for name in names]))
            for names in (("key",), _MASK_COLUMNS)
        )
        self._part_of = {
            key: part for part in key_store.find_finished() for key in key_store.read_part(part)["key"].to_pylist()
        }
        self._read_rows_cached = lru_cache(_CACHED_PARTS)(self._read_rows)

    def _read_rows(self, part: str) -> dict[str, dict[str, Any]]:
        part_rows = update_verdicts(self._mask_store.read_part(part))
        check_rows(part_rows, self.settings["areas"], Path(self.folder))
        rows = part_rows.to_pylist()
        return {row["key"]: row for row in rows if not row["alternative"]}

    def cut_masks(self, key: str, areas: Sequence[float]) -> Tensor:
        """Return the cut masks of an image at some of the run's areas: (A, *S) bool."""
        row = self._read_rows_cached(self._part_of[key])[key]
        return cut_masks(row, self.settings["explain"])[[row["areas"].index(area) for area in areas]]


def _common_areas(a: _Run, b: _Run) -> tuple[float, ...]:
    areas = tuple(area for area in a.settings["areas"] if area in b.settings["areas"])
    if not areas:
        areas_a, areas_b = (", ".join(f"{area:g}" for area in run.settings["areas"]) for run in (a, b))
        raise ExtremalValueError(
            f"runs must share an area to be compared, {a.folder!r} has {areas_a} and {b.folder!r} {areas_b}; "
            "run one of them again with an area of the other"
        )
    return areas


def _check_same_images(a: _Run, b: _Run, shared_keys: Sequence[str]) -> None:
    """Raise unless images with equal keys have equal bytes and inputs of equal shape."""
    if not shared_keys:
        raise ExtremalValueError(
            f"runs must share images to be compared, {a.folder!r} and {b.folder!r} have no key in common; "
            "run both over the same folder or manifest"
        )
    for key in shared_keys:
        (digest_a, shape_a), (digest_b, shape_b) = a.identities[key], b.identities[key]
        if None not in (digest_a, digest_b) and digest_a != digest_b:
            raise ExtremalValueError(
                f"runs must be over the same images to be compared, the bytes of {key!r} in {a.folder!r} are not "
                f"those in {b.folder!r}; run both over the same files"
            )
        if None not in (shape_a, shape_b) and shape_a != shape_b:
            sides_a, sides_b = (" × ".join(map(str, shape)) for shape in (shape_a, shape_b))
            raise ExtremalValueError(
                f"runs must have inputs of one shape to be compared, that of {key!r} is {sides_a} in {a.folder!r} and "
                f"{sides_b} in {b.folder!r}; compare networks with the same input size"
            )


def _compare_image(a: _Run, b: _Run, key: str, areas: Sequence[float]) -> ImagePair:
    masks_a, masks_b = a.cut_masks(key, areas).flatten(1), b.cut_masks(key, areas).flatten(1)
    if not (masks_a.any() and masks_b.any()):
        return ImagePair(a.images[key], b.images[key], None, None)
    intersection, union = (masks_a & masks_b).sum(1).double(), (masks_a | masks_b).sum(1)
    iou = torch.where(union > 0, intersection / union, 1.0).tolist()  # units larger than an area are cut to nothing
    return ImagePair(a.images[key], b.images[key], tuple(iou), sum(iou) / len(iou))


def _compare_settings(a: _Run, b: _Run) -> tuple[tuple[tuple[str, str, str], ...], tuple[tuple[str, str], ...]]:
    """Return the settings that differ and those that are equal, as text."""
    settings_a, settings_b = (
        {name.removeprefix("explain "): text for name, text in flatten_settings(run.settings)} for run in (a, b)
    )
    names = {**settings_a, **settings_b}
    both = [(name, settings_a.get(name, "–"), settings_b.get(name, "–")) for name in names]
    differences = tuple(entry for entry in both if entry[1] != entry[2])
    return differences, tuple((name, value) for name, value, value_b in both if value == value_b)


def _identify_target(image: ImageSummary) -> tuple[ResolvedClass | None, str]:
    """Return the class or group of an image, without its name; of another query the name."""
    return image.target, image.name if image.target is None else ""


def _count_verdicts(pairs: Sequence[ImagePair]) -> tuple[tuple[str, str, int], ...]:
    counts = Counter((pair.first.verdict, pair.second.verdict) for pair in pairs)
    return tuple((first, second, count) for (first, second), count in counts.most_common())


def _count_size_changes(pairs: Sequence[ImagePair]) -> dict[str, int]:
    def change(pair: ImagePair) -> str:
        first, second = (2.0 if image.area is None else image.area for image in (pair.first, pair.second))
        return SIZE_CHANGES[1 + (second > first) - (second < first)]

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


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
