"""The shelf: answers by wish and by an unguessable name, the last few of them, in a private folder."""

import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from extremal.app.request import Answer, Wish
from extremal.report.result_files import CHANNELS, EXPLANATION, FIGURE, REPORT

FILES = {  # of a view, that may be had, and what they are called
    REPORT: "Report (HTML)",
    FIGURE: "Figure (PNG)",
    EXPLANATION: "Explanation (safetensors)",
    CHANNELS: "Explanation (safetensors)",
}


@dataclass(frozen=True)
class Kept:
    """An answer on the shelf."""

    name: str  # that nobody guesses
    wish: Wish
    answer: Answer


class Shelf:
    """The answers that were given last.

    Args:
        folder: private; each answer has a folder in it.
        most: answers that are kept; the oldest go first.
    """

    def __init__(self, folder: Path, most: int = 64) -> None:
        self.folder, self.most = folder, most
        self._kept: OrderedDict[Wish, Kept] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def new_folder(self) -> Iterator[Path]:
        """A folder for an answer, gone again after an exception; its name is that of the answer."""
        path = self.folder / secrets.token_urlsafe(16)
        path.mkdir(mode=0o700)
        try:
            yield path
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def keep(self, wish: Wish, folder: Path, answer: Answer) -> Kept:
        """Put an answer on the shelf."""
        kept = Kept(folder.name, wish, answer)
        with self._lock:
            former = self._kept.pop(wish, None)
            self._kept[wish] = kept
            gone = [former] if former else []
            while len(self._kept) > self.most:
                gone.append(self._kept.popitem(last=False)[1])
        for one in gone:
            shutil.rmtree(self.folder / one.name, ignore_errors=True)
        return kept

    def find(self, wish: Wish) -> Kept | None:
        """The answer to this wish, where it is still there."""
        with self._lock:
            kept = self._kept.get(wish)
            if kept:
                self._kept.move_to_end(wish)
        return kept

    def file(self, name: str, view: int, file: str) -> Path | None:
        """A file of a view by the answer's name; None where there is none. No text becomes part of a path."""
        given = name.encode()
        with self._lock:
            kept = next((one for one in self._kept.values() if secrets.compare_digest(one.name.encode(), given)), None)
        if kept is None or not 0 <= view < len(kept.answer.views):
            return None
        known = next((one for one in FILES if one == file), None)
        path = kept.answer.views[view].folder / known if known else None
        return path if path and path.is_file() else None
