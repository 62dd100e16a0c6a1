"""Pictures in folders: ImageFolder's classes where there are sub-folders, and no regions."""

from pathlib import Path
from typing import Any

from extremal.benchmark.data.samples import IMAGE_SUFFIXES, Region, Sample, describe_keys, limit_keys, require_folder
from extremal.errors import ExtremalValueError
from extremal.networks.inputs import read_picture


class Folder:
    """All pictures below a folder; a picture's class is its first sub-folder's name, if it lies in one.

    Args:
        path: of the folder.
        limit: only the first so many pictures.
    """

    def __init__(self, path: Path, *, limit: int | None = None) -> None:
        self.root = require_folder(path, "a folder of pictures")
        found = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file())
        if not found:
            raise ExtremalValueError(
                f"a folder of images must hold some ({', '.join(IMAGE_SUFFIXES)}), {str(path)!r} holds none; "
                "check the path"
            )
        self._keys = limit_keys([entry.relative_to(path).as_posix() for entry in found], limit)
        self.classes = tuple(sorted({key.split("/")[0] for key in self._keys if "/" in key}))

    def settings(self) -> dict[str, Any]:
        """Which pictures."""
        return {"kind": "folder", **describe_keys(self._keys)}

    def keys(self) -> tuple[str, ...]:
        """The paths below the folder."""
        return self._keys

    def sample(self, key: str) -> Sample:
        """A picture and its class."""
        label, _, rest = key.partition("/")
        return Sample(key, read_picture(self.root / key), (Region(label, None),) if rest else ())
