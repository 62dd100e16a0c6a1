"""Pictures in folders: ImageFolder's classes where there are sub-folders, and no regions."""

from pathlib import Path
from typing import Any

from extremal.benchmark.data.samples import PICTURES, Region, Sample, existing_folder, limited, told
from extremal.errors import ExtremalValueError
from extremal.networks.inputs import read_picture


class Folder:
    """All pictures below a folder; a picture's class is its first sub-folder's name, if it lies in one.

    Args:
        path: of the folder.
        limit: only the first so many pictures.
    """

    def __init__(self, path: Path, *, limit: int | None = None) -> None:
        self.root = existing_folder(path, "a folder of pictures")
        found = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in PICTURES and entry.is_file())
        if not found:
            raise ExtremalValueError(
                f"a folder of pictures must hold some ({', '.join(PICTURES)}), {str(path)!r} holds none; check the path"
            )
        self._keys = limited([entry.relative_to(path).as_posix() for entry in found], limit)
        self.classes = tuple(sorted({key.split("/")[0] for key in self._keys if "/" in key}))

    def settings(self) -> dict[str, Any]:
        """Which pictures."""
        return {"kind": "folder", **told(self._keys)}

    def keys(self) -> tuple[str, ...]:
        """The paths below the folder."""
        return self._keys

    def sample(self, key: str) -> Sample:
        """A picture and its class."""
        label, _, rest = key.partition("/")
        return Sample(key, read_picture(self.root / key), (Region(label, None),) if rest else ())
