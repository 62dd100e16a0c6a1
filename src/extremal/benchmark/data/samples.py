"""Images with the regions of their classes: what all data sets have in common."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, find_kind, is_address, list_names, quote

Mask = np.ndarray[Any, np.dtype[np.bool_]]

MAX_LABEL_BYTES = 1_000_000_000  # of a file of labels; COCO has 160 MB
LARGE_FRACTION = 0.25  # of the image; a class that covers more is easy to point at (Zhang et al., 2016)


@dataclass(frozen=True, eq=False)
class Region:
    """A class in an image, and the places where it is."""

    label: str  # the name of the class in the data set
    mask: Mask | None  # (H, W) in pixels of the image; None if the data set has no regions
    difficult: bool = False  # small, and another class is in the image (`is_difficult`)
    skip: str = ""  # why it cannot be judged; empty if it can


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and its classes."""

    key: str  # unique in the data set, the same in every run
    image: Image.Image  # RGB, upright
    regions: tuple[Region, ...]  # one per class, in the order of the data set's classes


class DataSet(Protocol):
    """Images by key; an image is read when its sample is requested."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; empty if the data set has none."""
        ...

    @property
    def has_regions(self) -> bool:
        """Whether the places of a class are known, in some of its images at least."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return plain values that identify its content."""
        ...

    def keys(self) -> tuple[str, ...]:
        """Return the keys of the images, in a fixed order."""
        ...

    def sample(self, key: str) -> Sample:
        """Read one of them.

        Raises:
            ExtremalValueError: its image or annotation is missing or broken; the message names the file.
        """
        ...


def require_regions(is_known: bool, name: str) -> None:
    """Raise unless the regions of a data set are known.

    Args:
        is_known: whether they are.
        name: of the data set, for messages.

    Raises:
        ExtremalValueError: they are not.
    """
    if not is_known:
        raise ExtremalValueError(
            f"the pointing game must have a data set with regions, got {name}, which has none; use voc:DIR, coco:DIR "
            "or scenes:DIR, or add --cutouts DIR"
        )


def is_difficult(mask: Mask, others: bool) -> bool:
    """Return whether a class covers less than a quarter of its image, and another class is in it.

    >>> is_difficult(np.eye(8, dtype=bool), others=True)
    True
    """
    return others and bool(mask.any()) and float(mask.mean()) < LARGE_FRACTION


def build_regions(masks: dict[str, tuple[Mask, str]], present: Sequence[str]) -> tuple[Region, ...]:
    """Return the regions of an image from the masks of its classes.

    Args:
        masks: by class, the mask and the reason why it cannot be judged (empty if it can), in the order of the classes.
        present: all classes in the image, including those that cannot be judged.
    """
    regions = []
    for label, (mask, skip) in masks.items():
        others = any(name != label for name in present)
        reason = skip or ("" if mask.any() else "empty region")
        regions.append(Region(label, mask, is_difficult(mask, others), reason))
    return tuple(regions)


def describe_keys(keys: Sequence[str]) -> dict[str, Any]:
    """Return the number and a hash of the images, for settings."""
    return {"pictures": len(keys), "digest": hash_keys(keys)}


def describe_files(keys: Sequence[str], paths: Iterable[Path]) -> dict[str, Any]:
    """Return the number of the images and a hash of their keys and file sizes, for settings.

    Sizes, unlike contents, are known without reading the files, and almost always differ if an image is replaced.
    """
    sizes = [path.stat().st_size if path.is_file() else "missing" for path in paths]
    return describe_keys([f"{key}={size}" for key, size in zip(keys, sizes, strict=True)])


def hash_keys(keys: Sequence[str]) -> str:
    """Return a short hash of keys."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:12]


def limit_keys(keys: Sequence[str], limit: int | None) -> tuple[str, ...]:
    """Return the first `limit` keys; all if it is None."""
    return tuple(keys if limit is None else keys[:limit])


def require_folder(path: Path, title: str) -> Path:
    """Return a folder that exists.

    Raises:
        ExtremalValueError: it does not.
    """
    if find_kind(path, title) != "folder":
        remedy = "download it first" if is_address(path) else "check the path"
        raise ExtremalValueError(f"{title} must be an existing folder, {quote(path)} is not; {remedy}")
    return path


def require_file(path: Path, title: str) -> Path:
    """Return a file of a data set that exists.

    Raises:
        ExtremalValueError: it does not.
    """
    if not find_kind(path, title):
        raise ExtremalValueError(
            f"{title} must be unpacked completely, {quote(path)} is missing; unpack all of its archives"
        )
    check_file(path, f"a file of {title}", max_bytes=MAX_LABEL_BYTES)
    return path


def require_files(folder: Path, names: Sequence[str], title: str) -> None:
    """Check that files exist in a folder, which is listed once.

    Raises:
        ExtremalValueError: some are missing; the message names the first and their number.
    """
    present = set(list_names(require_folder(folder, title)))
    missing = [name for name in names if name not in present]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        verb = "are" if more else "is"
        raise ExtremalValueError(
            f"{title} must be unpacked completely, {quote(folder / missing[0])}{more} {verb} missing; "
            "unpack all of its archives"
        )
