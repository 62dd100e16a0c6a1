"""COCO in its original files: annotations/instances_val2014.json and the images in val2014/."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from extremal.benchmark.data.samples import (
    Mask,
    Sample,
    build_regions,
    describe_files,
    limit_keys,
    require_file,
    require_files,
    require_folder,
)
from extremal.errors import ExtremalValueError
from extremal.file_checks import name_error, quote
from extremal.networks.image_files import read_image_file
from extremal.number_checks import format_value

NAME = "COCO"
SPLIT = "val2014"
MIN_CORNERS = 3  # of a polygon
MAX_OUTSIDE = 2  # long sides of the image, up to which a polygon may reach


class Coco:
    """The annotated images of the validation split; the region of a class is the union of its objects' masks.

    Crowds are not objects: they form no region, and a class with crowds only is skipped. They do count as another class
    in the image. pycocotools reads polygons and both kinds of run lengths.

    Args:
        path: the folder of annotations and images.
        limit: maximum number of images.
    """

    has_regions = True

    def __init__(self, path: Path, *, limit: int | None = None) -> None:
        """Read the annotations, and check that the images exist."""
        file = self.find_annotations(path)
        self.image_folder = path / SPLIT
        self._api = _read_annotations(file)
        try:
            self._read_index(file, path, limit)
        except ExtremalValueError:
            raise
        except Exception as error:  # values of any type may stand anywhere
            raise _annotations_error(file, error) from None

    @staticmethod
    def find_annotations(path: Path) -> Path:
        """Return the file of the annotations of the split.

        Raises:
            ExtremalValueError: it does not exist.
        """
        return require_file(require_folder(path, NAME) / "annotations" / f"instances_{SPLIT}.json", NAME)

    def _read_index(self, file: Path, path: Path, limit: int | None) -> None:
        """Read classes and images from the index of the annotations."""
        categories = sorted(self._api.cats)
        self.classes = tuple(str(self._api.cats[number]["name"]) for number in categories)
        self._label = dict(zip(categories, self.classes, strict=True))
        self._check(file)
        annotated = sorted(number for number, annotations in self._api.imgToAnns.items() if annotations)
        names = {str(self._api.imgs[number]["file_name"]): number for number in annotated}
        self._number = {name: names[name] for name in limit_keys(list(names), limit)}
        outside = next((name for name in self._number if Path(name).name != name), None)
        if outside is not None:
            raise ValueError(f"the image {quote(outside)} is not in {quote(self.image_folder.name)}")
        require_files(self.image_folder, list(self._number), NAME)

    def _check(self, file: Path) -> None:
        """Check that annotations belong to listed images and classes.

        Raises:
            ExtremalValueError: one does not.
        """
        for annotation in self._api.anns.values():
            for name, known in (("image_id", self._api.imgs), ("category_id", self._label)):
                if annotation.get(name) not in known:
                    raise ExtremalValueError(
                        f"an annotation must be of a listed image and class, {quote(file)} has annotation "
                        f"{format_value(annotation.get('id'))} of {name} {format_value(annotation.get(name))}, which "
                        "is not; download it again"
                    )

    def settings(self) -> dict[str, Any]:
        """Return the split and the identity of the images."""
        images = describe_files(self.keys(), map(self.image_folder.joinpath, self.keys()))
        return {"kind": "coco", "split": SPLIT, **images}

    def keys(self) -> tuple[str, ...]:
        """Return the file names of the images with annotations, sorted by number."""
        return tuple(self._number)

    def sample(self, key: str) -> Sample:
        """Read an image and the regions of its classes."""
        image = read_image_file(self.image_folder / key)
        size = image.height, image.width
        annotations = self._api.imgToAnns[self._number[key]]
        present = sorted({annotation["category_id"] for annotation in annotations})
        masks: dict[str, tuple[Mask, str]] = {}
        for category in present:
            mask = np.zeros(size, dtype=bool)
            objects = [a for a in annotations if a["category_id"] == category and not a.get("iscrowd")]
            for annotation in objects:
                mask |= self._mask(annotation, key, size)
            masks[self._label[category]] = mask, "" if objects else "there are only crowds of it"
        return Sample(key, image, build_regions(masks, [self._label[category] for category in present]))

    def _mask(self, annotation: dict[str, Any], key: str, size: tuple[int, int]) -> Mask:
        try:
            listed = self._api.imgs[annotation["image_id"]]
            if (listed["height"], listed["width"]) != size:  # compared before the mask is made
                raise ValueError(f"its mask has shape {(listed['height'], listed['width'])}, the image {size}")
            _check_segmentation(annotation["segmentation"], size)
            mask = np.asarray(self._api.annToMask(annotation), dtype=bool)
            if mask.shape != size:
                raise ValueError(f"its mask has shape {mask.shape}, the image {size}")
        except Exception as error:
            raise ExtremalValueError(
                "an annotation must have a mask that pycocotools reads, annotation "
                f"{format_value(annotation.get('id'))} of {key} has none: {name_error(error)}; download it again"
            ) from None
        return mask


def _check_segmentation(segmentation: Any, size: tuple[int, int]) -> None:
    """Check polygons or run lengths before pycocotools reads them in C, without bounds.

    Raises:
        ValueError: they do not fit an image of this size (H, W).
    """
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        if segmentation["size"] != list(size):
            raise ValueError(f"its mask has shape {tuple(segmentation['size'])}, the image {size}")
        if isinstance(counts, list):
            if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != size[0] * size[1]:
                raise ValueError("its runs do not cover the image")
        elif not isinstance(counts, str) or not counts.isascii() or _sum_runs(counts) != size[0] * size[1]:
            raise ValueError("its runs do not cover the image")
        return
    limit = MAX_OUTSIDE * max(size)
    for polygon in segmentation:
        if len(polygon) < MIN_CORNERS * 2 or len(polygon) % 2:
            raise ValueError("a polygon must have three corners or more")
        if not all(type(value) in (int, float) and abs(value) <= limit for value in polygon):
            raise ValueError("a polygon lies far outside of the image")


def _sum_runs(counts: str) -> int:
    """Return the number of pixels in compressed run lengths: 5 bits a character, differences from the fourth run on."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError("its runs have characters of no code")
        value |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            value -= (1 << shift) if code & 0x10 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            if not 0 <= runs[-1] < 2**31:
                raise ValueError("its runs do not cover the image")
            value, shift = 0, 0
        elif shift > 35:
            raise ValueError("its runs do not cover the image")
    if shift:
        raise ValueError("its runs end within a number")
    return sum(runs)


def _read_annotations(file: Path) -> Any:
    """Return the index that pycocotools makes of an annotation file, without its output to the terminal."""
    from pycocotools.coco import COCO

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(str(file))
    except Exception as error:  # a damaged file can fail in any way
        raise _annotations_error(file, error) from None


def _annotations_error(file: Path, error: Exception) -> ExtremalValueError:
    return ExtremalValueError(
        f"COCO's annotations must be its JSON, {quote(file)} is not: {name_error(error)}; download it again"
    )
