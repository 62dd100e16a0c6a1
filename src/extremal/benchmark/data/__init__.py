"""Data sets of images with the regions of their classes, read from their original folders."""

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
PHOTOGRAPHS_NAME = "photographs"


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
        ExtremalValueError: the kind is unknown, or files are missing.
    """
    if cutouts is not None:
        scenes = Scenes(expand_user(cutouts, "a folder of cut-outs"), **({} if count is None else {"count": count}))
        return JoinedData((get_data_set(spec, count=count), scenes), limit=limit)
    if spec == PHOTOGRAPHS_NAME:
        return Photographs(limit=limit)
    kind, colon, path = spec.partition(":")
    if kind not in DATA_SET_KINDS or not colon or not path:
        suggestions = get_close_matches(kind, DATA_SET_KINDS, n=1)
        hint = (
            f"; did you mean {suggestions[0]}:DIR?"
            if suggestions and colon
            else f"; e.g. folder:{spec or 'DIR'}"
            if not colon
            else ""
        )
        raise ExtremalValueError(
            f"data must be voc:DIR, coco:DIR, folder:DIR, scenes:DIR or photographs, got {quote(spec)}{hint}"
        )
    folder = expand_user(path, "data")
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
    "get_data_set",
]
