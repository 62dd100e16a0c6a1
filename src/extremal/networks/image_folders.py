"""Find the images, sounds, clips and volumes in a folder, and warn about what is left out."""

import os
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from extremal.file_checks import describe_error, quote
from extremal.files import RESULT_MARKERS
from extremal.networks.image_files import IMAGE_SUFFIXES
from extremal.networks.input_kinds import SUFFIXES
from extremal.networks.stacks.paths import holds_series

UNREAD_SUFFIXES = (  # of images that Pillow does not read by itself
    *(".heic", ".heif", ".jxl", ".svg", ".eps", ".exr", ".hdr"),
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"),
)
MAX_NAMED = 3  # paths in a warning

Identity = tuple[int, int]  # device and number of a folder, equal on all paths to it


def find_images(folder: Path) -> list[Path]:
    """Return the images in a folder and its subfolders, also linked ones, sorted; each folder is searched once.

    Subfolders that hold results of this library are left out, with a warning. So are folders that cannot be read, links
    to folders that contain `folder`, and images that Pillow cannot read.

    Args:
        folder: to search.
    """
    return _Search(folder, IMAGE_SUFFIXES).run()


def find_inputs(folder: Path) -> list[Path]:
    """Return the files of all kinds of inputs in a folder and its subfolders, like `find_images`.

    Folders of DICOM files, each of which is one volume, are returned as folders; `folder` may be one of them.

    Args:
        folder: to search.
    """
    suffixes = tuple(suffix for of_kind in SUFFIXES.values() for suffix in of_kind)
    return _Search(folder, suffixes, with_series=True).run()


@dataclass
class _Search:
    """A search, and what it leaves out."""

    folder: Path
    suffixes: tuple[str, ...]  # of files to find
    with_series: bool = False  # whether folders of DICOM files are found, too
    visited: set[Identity] = field(default_factory=set)
    results: list[str] = field(default_factory=list)  # folders
    unreadable: list[str] = field(default_factory=list)  # folders, with the reason
    loops: list[str] = field(default_factory=list)  # links
    unread: Counter[str] = field(default_factory=Counter)  # images by suffix

    def run(self) -> list[Path]:
        """Return what is found, sorted, and warn about the rest."""
        found = sorted(self.find())
        self.warn()
        return found

    def find(self) -> Iterator[Path]:
        """Yield what is found: first that in the folder's own tree, then that which is reached by links."""
        own, linked = deque([str(self.folder)]), deque[str]()
        above = {_identify(parent) for parent in Path(os.path.realpath(self.folder)).parents}
        while own or linked:
            current = own.popleft() if own else linked.popleft()
            try:
                identity = _identify(current)
                if identity in above:
                    self.loops.append(current)
                    continue
                if identity in self.visited:
                    continue
                self.visited.add(identity)
                with os.scandir(current) as scan:
                    entries = list(scan)
            except OSError as error:
                self.unreadable.append(f"{quote(current)} ({error.strerror or describe_error(error)})")
                continue
            if current != str(self.folder) and any(entry.name in RESULT_MARKERS for entry in entries):
                self.results.append(current)
                continue
            if self.with_series and holds_series(Path(current), sorted(entry.name for entry in entries)):
                yield Path(current)
            for entry in sorted(entries, key=lambda entry: entry.name):
                if _is_folder(entry):
                    (linked if entry.is_symlink() else own).append(entry.path)
                else:
                    yield from self._select(Path(entry.path))

    def _select(self, path: Path) -> Iterator[Path]:
        suffix = path.suffix.lower()
        if suffix and path.name.lower().endswith(self.suffixes):
            yield path  # if it is a pipe or a broken link, its row says so
        elif suffix in UNREAD_SUFFIXES:
            self.unread[suffix] += 1

    def warn(self) -> None:
        """Warn once about each kind of what is left out."""
        source = quote(self.folder)
        if self.unread:
            counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.unread.items()))
            _warn(f"images that Pillow does not read were left out of {source}: {counts}; convert them to PNG or JPEG")
        if self.results:
            _warn(
                f"results of earlier commands were left out of {source}: {_name(map(quote, self.results))}; name a "
                "folder of results itself to explain its images"
            )
        if self.unreadable:
            _warn(f"folders that cannot be read were left out of {source}: {_name(self.unreadable)}; check them")
        if self.loops:
            _warn(
                f"links to folders that contain {source} were left out: {_name(map(quote, self.loops))}; name these "
                "folders instead"
            )


def _identify(folder: str | Path) -> Identity:
    info = os.stat(folder)
    return info.st_dev, info.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _name(paths: Iterable[str]) -> str:
    """Return the first paths, and the number of the others."""
    names = list(paths)
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=2)
