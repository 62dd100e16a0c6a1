"""Images in folders: classes from sub-folders as in torchvision's ImageFolder, no regions."""

from pathlib import Path
from typing import Any

from extremal.benchmark.data.samples import Region, Sample, describe_files, limit_keys, require_folder
from extremal.errors import ExtremalValueError
from extremal.networks.image_files import IMAGE_SUFFIXES, read_image_file


class Folder:
    """All images below a folder; the class of an image is the name of its first sub-folder, if it is in one.

    Args:
        path: of the folder.
        limit: maximum number of images.
    """

    has_regions = False

    def __init__(self, path: Path, *, limit: int | None = None) -> None:
        """List the images of the folder."""
        self.root = require_folder(path, "a folder of images")
        files = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file())
        if not files:
            raise ExtremalValueError(
                f"a folder of images must hold some ({', '.join(IMAGE_SUFFIXES)}), {str(path)!r} holds none; "
                "check the path"
            )
        self._keys = limit_keys([entry.relative_to(path).as_posix() for entry in files], limit)
        self.classes = tuple(sorted({key.split("/")[0] for key in self._keys if "/" in key}))

    def settings(self) -> dict[str, Any]:
        """Return the identity of the images."""
        return {"kind": "folder", **describe_files(self._keys, map(self.root.joinpath, self._keys))}

    def keys(self) -> tuple[str, ...]:
        """Return the paths below the folder."""
        return self._keys

    def sample(self, key: str) -> Sample:
        """Read an image and its class."""
        label, _, rest = key.partition("/")
        return Sample(key, read_image_file(self.root / key), (Region(label, None),) if rest else ())
