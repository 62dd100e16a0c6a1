"""Pascal VOC 2007 in its original folders: ImageSets/Main/test.txt, Annotations/*.xml, JPEGImages/*.jpg."""

import xml.etree.ElementTree as ET
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
from extremal.file_checks import check_file, describe_error, is_folder, quote
from extremal.networks.image_files import read_image_file

NAME = "VOC"
YEAR, SPLIT = "2007", "test"  # of the challenge; a list in ImageSets/Main
MAX_XML_BYTES = 10_000_000  # of the annotation of an image


class Voc:
    """The images of the test split; the region of a class is the union of its objects' boxes.

    Objects flagged as difficult do not count (method, section 6): a class with only such objects is skipped. Boxes
    count from 1 and include their last pixel.

    Args:
        path: the folder VOC2007, or a folder with VOCdevkit/VOC2007 or VOC2007 as torchvision unpacks it.
        limit: maximum number of images.
    """

    has_regions = True

    def __init__(self, path: Path, *, limit: int | None = None) -> None:
        """Read the list of the split, and check that annotations and images exist."""
        from extremal.networks.zoo.paper import class_names  # imports torch

        list_file = self.find_list(path)
        self.root = list_file.parents[2]
        self.classes = tuple(class_names("voc"))
        lines = list_file.read_text(encoding="utf-8", errors="replace").split("\n")
        self._keys = limit_keys([line.split()[0] for line in lines if line.strip()], limit)
        require_files(self.root / "Annotations", [f"{key}.xml" for key in self._keys], NAME)
        require_files(self.root / "JPEGImages", [f"{key}.jpg" for key in self._keys], NAME)

    @staticmethod
    def find_list(path: Path) -> Path:
        """Return the file that lists the images of the split.

        Raises:
            ExtremalValueError: it does not exist.
        """
        root = _find_root(require_folder(path, NAME))
        return require_file(root / "ImageSets" / "Main" / f"{SPLIT}.txt", NAME)

    def settings(self) -> dict[str, Any]:
        """Return year, split and the identity of the images."""
        images = describe_files(self._keys, map(self._find_image, self._keys))
        return {"kind": "voc", "year": YEAR, "split": SPLIT, **images}

    def keys(self) -> tuple[str, ...]:
        """Return the names in the list."""
        return self._keys

    def sample(self, key: str) -> Sample:
        """Read an image and the regions of its classes."""
        image = read_image_file(self._find_image(key))
        path = self.root / "Annotations" / f"{key}.xml"
        try:
            check_file(path, "an annotation", max_bytes=MAX_XML_BYTES)
            objects = _parse_objects(path.read_text(encoding="utf-8"))
        except ExtremalValueError:
            raise
        except Exception as error:  # a damaged file can fail in any way
            raise ExtremalValueError(
                f"an annotation must be VOC's XML, {quote(path)} is not: {describe_error(error)}; unpack it again"
            ) from None
        unknown = sorted({label for label, _, _ in objects} - set(self.classes))
        if unknown:
            raise ExtremalValueError(
                f"an object must be of one of VOC's classes, {quote(path)} has {quote(unknown[0])}"
            )
        present = [label for label in self.classes if any(label == name for name, _, _ in objects)]
        masks: dict[str, tuple[Mask, str]] = {}
        for label in present:
            mask = np.zeros((image.height, image.width), dtype=bool)
            boxes = [box for name, box, flagged in objects if name == label and not flagged]
            for left, top, right, bottom in boxes:
                mask[max(0, top - 1) : bottom, max(0, left - 1) : right] = True
            masks[label] = mask, "" if boxes else "every object is flagged difficult"
        return Sample(key, image, build_regions(masks, present))

    def _find_image(self, key: str) -> Path:
        return self.root / "JPEGImages" / f"{key}.jpg"


def _find_root(path: Path) -> Path:
    candidates = [path / "VOCdevkit" / f"VOC{YEAR}", path / f"VOC{YEAR}", path]
    return next((candidate for candidate in candidates if is_folder(candidate / "ImageSets")), candidates[0])


def _parse_objects(text: str) -> list[tuple[str, tuple[int, int, int, int], bool]]:
    """Return class, box and flag of each object; refuse a document that defines entities."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("it defines a document type")
    objects = []
    for item in ET.fromstring(text).iter("object"):
        box = item.find("bndbox")
        if box is None:
            raise ValueError("an object has no box")
        sides = tuple(round(float(_child_text(box, side))) for side in ("xmin", "ymin", "xmax", "ymax"))
        flagged = item.findtext("difficult", "0").strip() == "1"
        objects.append((_child_text(item, "name"), (sides[0], sides[1], sides[2], sides[3]), flagged))
    return objects


def _child_text(item: ET.Element, name: str) -> str:
    text = item.findtext(name)
    if text is None:
        raise ValueError(f"an object has no {name}")
    return text.strip()
