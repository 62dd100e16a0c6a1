"""Pictures with the regions of their classes, as every data set gives them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from extremal.errors import ExtremalValueError

Mask = np.ndarray[Any, np.dtype[np.bool_]]

LARGE_FRACTION = 0.25  # share of the picture, from which on an object is easy to point at (Zhang et al., 2016)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True, eq=False)
class Region:
    """A class in a picture, and where it is."""

    label: str  # the class, as the data set names it
    mask: Mask | None  # (H, W) in pixels of the picture; None where the data set has no regions
    difficult: bool = False  # small, and another class is in the picture (`is_difficult`)
    skip: str = ""  # why it cannot be judged; empty where it can


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture and its classes."""

    key: str  # unique in the data set, the same in every run
    image: Image.Image  # RGB, upright
    regions: tuple[Region, ...]  # one a class, in the order of the data set's classes


class DataSet(Protocol):
    """Pictures by key; none is read before it is asked for."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; empty where the data set has none."""
        ...

    def settings(self) -> dict[str, Any]:
        """Plain values that tell what it holds."""
        ...

    def keys(self) -> tuple[str, ...]:
        """The pictures, in a fixed order."""
        ...

    def sample(self, key: str) -> Sample:
        """One of them.

        Raises:
            ExtremalValueError: its picture or annotation is missing or broken; the file is named.
        """
        ...


def is_difficult(mask: Mask, others: bool) -> bool:
    """The stated criterion: the class takes less than a quarter of the picture, and another class is in it.

    >>> is_difficult(np.eye(8, dtype=bool), others=True)
    True
    """
    return others and bool(mask.any()) and float(mask.mean()) < LARGE_FRACTION


def build_regions(masks: dict[str, tuple[Mask, str]], present: Sequence[str]) -> tuple[Region, ...]:
    """Regions from masks by class, each with why it cannot be judged.

    Args:
        masks: the class's mask and reason, in the order of the classes.
        present: all classes in the picture, also those that cannot be judged: they distract all the same.
    """
    found = []
    for label, (mask, skip) in masks.items():
        others = any(other != label for other in present)
        reason = skip or ("" if mask.any() else "empty region")
        found.append(Region(label, mask, is_difficult(mask, others), reason))
    return tuple(found)


def describe_keys(keys: Sequence[str]) -> dict[str, Any]:
    """How many pictures, and which, as settings."""
    return {"pictures": len(keys), "digest": hash_keys(keys)}


def hash_keys(keys: Sequence[str]) -> str:
    """A short name for a set of keys."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:12]


def limit_keys(keys: Sequence[str], limit: int | None) -> tuple[str, ...]:
    """The first so many keys; all where there is no limit."""
    return tuple(keys if limit is None else keys[:limit])


def require_folder(path: Path, what: str) -> Path:
    """A folder that must be there.

    Raises:
        ExtremalValueError: it is not.
    """
    if not path.is_dir():
        raise ExtremalValueError(f"{what} must be an existing folder, {str(path)!r} is none; check the path")
    return path


def require_file(path: Path, what: str) -> Path:
    """A file that must be there, of a data set that should be whole.

    Raises:
        ExtremalValueError: it is not.
    """
    if not path.is_file():
        raise ExtremalValueError(f"{what} must be unpacked whole, {str(path)!r} is missing; unpack all of its archives")
    return path


def require_files(folder: Path, names: Sequence[str], what: str) -> None:
    """All of these files must be in a folder, which is listed once.

    Raises:
        ExtremalValueError: some are missing; the first and their number are told.
    """
    there = {entry.name for entry in require_folder(folder, what).iterdir()}
    missing = [name for name in names if name not in there]
    if missing:
        more = f", and {len(missing) - 1} others," if len(missing) > 1 else ""
        verb = "are" if more else "is"
        raise ExtremalValueError(
            f"{what} must be unpacked whole, {str(folder / missing[0])!r}{more} {verb} missing; "
            "unpack all of its archives"
        )
