"""Several data sets as one."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from extremal.benchmark.data.samples import DataSet, Sample, limit_keys
from extremal.errors import ExtremalValueError
from extremal.file_checks import quote


class JoinedData:
    """The images of several data sets, those of the first one first.

    Args:
        parts: with distinct keys.
        limit: maximum number of images.

    Raises:
        ExtremalValueError: two parts have an image of one key.
    """

    def __init__(self, parts: Sequence[DataSet], *, limit: int | None = None) -> None:
        """List the images of all parts."""
        self._parts = tuple(parts)
        keys = Counter(key for part in self._parts for key in part.keys())  # noqa: SIM118  # no mapping
        shared = [key for key, count in keys.items() if count > 1]
        if shared:
            raise ExtremalValueError(
                f"joined data must have distinct keys, {quote(shared[0])} names {keys[shared[0]]} images; put the "
                "cut-outs of several folders into one, or rename the images"
            )
        self._owners = {key: part for part in self._parts for key in part.keys()}  # noqa: SIM118  # no mapping
        self._keys = limit_keys(tuple(self._owners), limit)
        self.has_regions = any(part.has_regions for part in self._parts)
        self.classes = tuple(dict.fromkeys(label for part in self._parts for label in part.classes))

    def settings(self) -> dict[str, Any]:
        """Return the identity of each part, and the number of images."""
        return {"kind": "joined", "parts": [part.settings() for part in self._parts], "pictures": len(self._keys)}

    def keys(self) -> tuple[str, ...]:
        """Return the keys of all parts."""
        return self._keys

    def sample(self, key: str) -> Sample:
        """Read an image and its classes."""
        return self._owners[key].sample(key)
