"""Data sets of images with the regions of their classes, read from their original folders."""

import os
from difflib import get_close_matches
from pathlib import Path

from extremal.benchmark.data.coco import Coco
from extremal.benchmark.data.field_of_view import FieldOfView, FieldsOfView
from extremal.benchmark.data.folder import Folder
from extremal.benchmark.data.joined import JoinedData
from extremal.benchmark.data.photographs import Photographs
from extremal.benchmark.data.samples import DataSet, Region, Sample
from extremal.benchmark.data.scenes import Scenes
from extremal.benchmark.data.voc import Voc
from extremal.errors import ExtremalValueError
from extremal.file_checks import expand_user, quote

DATA_SET_KINDS = ("voc", "coco", "folder", "scenes")  # with a path
KINDS_WITH_REGIONS = ("voc", "coco", "scenes")
PHOTOGRAPHS_NAME = "photographs"


def parse_data(spec: str) -> tuple[str, Path]:
    """Return kind and folder of a data set that is in a folder.

    >>> kind, folder = parse_data("voc:data/VOCdevkit")
    >>> kind, folder.name
    ('voc', 'VOCdevkit')

    Raises:
        ExtremalValueError: the text has another form.
    """
    kind, _, path = spec.partition(":")
    if kind in DATA_SET_KINDS and path:
        return kind, expand_user(path, "data")
    rule = f"data must be voc:DIR, coco:DIR, folder:DIR, scenes:DIR or {PHOTOGRAPHS_NAME}, got {quote(spec)}"
    if kind in DATA_SET_KINDS:
        raise ExtremalValueError(f"{rule}; name its folder, e.g. {kind}:pictures")
    similar = get_close_matches(kind, (*DATA_SET_KINDS, PHOTOGRAPHS_NAME), n=1)
    if similar:
        raise ExtremalValueError(
            f"{rule}; did you mean {similar[0]}{'' if similar[0] == PHOTOGRAPHS_NAME else ':DIR'}?"
        )
    if os.path.isdir(spec):
        raise ExtremalValueError(f"{rule}; for the images of a folder: folder:{quote(spec)[1:-1]}")
    raise ExtremalValueError(f"{rule}; e.g. folder:pictures")


def check_data(spec: str, cutouts: Path | None = None) -> None:
    """Check the folders of a data set, without reading their images and without torch.

    Args:
        spec, cutouts: as in `get_data_set`.

    Raises:
        ExtremalValueError: the kind is unknown, files are missing, or two images have one key.
    """
    if cutouts is not None:
        Scenes(expand_user(cutouts, "a folder of cut-outs"))
    if spec == PHOTOGRAPHS_NAME:
        return
    kind, folder = parse_data(spec)
    if kind == "voc":
        Voc.find_list(folder)
    elif kind == "coco":
        Coco.find_annotations(folder)
    else:
        get_data_set(spec, cutouts=cutouts)  # only lists files


def has_regions(spec: str, cutouts: Path | None = None) -> bool:
    """Return whether a data set has regions of its classes; `spec` and `cutouts` are as in `get_data_set`."""
    return cutouts is not None or spec.partition(":")[0] in KINDS_WITH_REGIONS


def get_data_set(
    spec: str, *, limit: int | None = None, count: int | None = None, cutouts: Path | None = None
) -> DataSet:
    """Return a data set by kind and path: voc:DIR, coco:DIR, folder:DIR, scenes:DIR, or photographs.

    Args:
        spec: kind and path.
        limit: maximum number of images.
        count: number of planted scenes.
        cutouts: folder of cut-outs, whose planted scenes are added to the data set.

    Raises:
        ExtremalValueError: the kind is unknown, files are missing, or two images have one key.
    """
    if cutouts is not None:
        scenes = Scenes(expand_user(cutouts, "a folder of cut-outs"), **({} if count is None else {"count": count}))
        return JoinedData((get_data_set(spec, count=count), scenes), limit=limit)
    if spec == PHOTOGRAPHS_NAME:
        return Photographs(limit=limit)
    kind, folder = parse_data(spec)
    if kind == "voc":
        return Voc(folder, limit=limit)
    if kind == "coco":
        return Coco(folder, limit=limit)
    if kind == "folder":
        return Folder(folder, limit=limit)
    return Scenes(folder, limit=limit, **({} if count is None else {"count": count}))


__all__ = [
    "DATA_SET_KINDS",
    "Coco",
    "DataSet",
    "FieldOfView",
    "FieldsOfView",
    "Folder",
    "JoinedData",
    "Photographs",
    "Region",
    "Sample",
    "Scenes",
    "Voc",
    "check_data",
    "get_data_set",
    "has_regions",
    "parse_data",
]
