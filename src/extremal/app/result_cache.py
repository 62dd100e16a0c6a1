"""Result cache: the last responses, by request and by an unguessable name, in a private folder."""

import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from extremal.app.request import Request, Response
from extremal.app.result_figure import find_figure
from extremal.files import CHANNELS_FILE, CONTRAST_FILE, EXPLANATION_FILE, SETS_FILE
from extremal.report.result_files import FIGURE_FILE, REPORT_FILE

DOWNLOADS = {  # files of a view that are served, with their labels
    REPORT_FILE: "Report (HTML)",
    FIGURE_FILE: "Figure (PNG)",
    EXPLANATION_FILE: "Explanation (safetensors)",
    CHANNELS_FILE: "Explanation (safetensors)",
    SETS_FILE: "Explanation (safetensors)",
    CONTRAST_FILE: "Explanation (safetensors)",
}


@dataclass(frozen=True)
class CachedResult:
    """A response in the cache."""

    name: str  # unguessable
    request: Request
    response: Response
    n_bytes: int = 0  # of its files
    number: int = 0  # rises from result to result


class ResultCache:
    """The last responses.

    Args:
        folder: private folder, in which each response has a folder of its own.
        max_results: number of responses to keep; the least recently used are removed first.
        max_bytes: of their files; the last response is kept even if it has more.
    """

    def __init__(self, folder: Path, max_results: int = 64, max_bytes: int = 10**9) -> None:
        self.folder, self.max_results, self.max_bytes = folder, max_results, max_bytes
        self._results: OrderedDict[Request, CachedResult] = OrderedDict()
        self._examples: dict[str, CachedResult] = {}  # by name; kept as long as the cache
        self._count = 0
        self._lock = threading.Lock()

    @contextmanager
    def new_folder(self) -> Iterator[Path]:
        """Create a folder for a response, and remove it after an exception; its name becomes that of the response."""
        path = self.folder / secrets.token_urlsafe(16)
        path.mkdir(mode=0o700)
        try:
            yield path
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def put(self, request: Request, folder: Path, response: Response) -> CachedResult:
        """Add a response."""
        n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        with self._lock:
            self._count += 1
            result = CachedResult(folder.name, request, response, n_bytes, self._count)
            previous = self._results.pop(request, None)
            self._results[request] = result
            removed = [previous] if previous else []
            while self._has_too_many():
                removed.append(self._results.popitem(last=False)[1])
        for old in removed:
            shutil.rmtree(self.folder / old.name, ignore_errors=True)
        return result

    def put_example(self, request: Request, folder: Path, response: Response) -> CachedResult:
        """Add a response that is shown to every visitor and never removed; equal requests do not get it."""
        result = CachedResult(folder.name, request, response)
        with self._lock:
            self._examples[result.name] = result
        return result

    def _has_too_many(self) -> bool:
        count, n_bytes = len(self._results), sum(result.n_bytes for result in self._results.values())
        return count > self.max_results or (count > 1 and n_bytes > self.max_bytes)

    def get(self, request: Request) -> CachedResult | None:
        """Return the response to this request, or None."""
        with self._lock:
            result = self._results.get(request)
            if result:
                self._results.move_to_end(request)
        return result

    def find(self, name: str) -> CachedResult | None:
        """Return the result with this name, or None."""
        # Timing attack: names are secrets, and are compared in constant time.
        requested = name.encode()
        with self._lock:
            results = [*self._results.values(), *self._examples.values()]
        return next((item for item in results if secrets.compare_digest(item.name.encode(), requested)), None)

    def is_example(self, name: str) -> bool:
        """Return whether the result with this name is shown to every visitor."""
        with self._lock:
            return name in self._examples

    def file_path(self, name: str, view: int, file: str) -> Path | None:
        """Return the path of a file of a view, or None; a figure is drawn when it is first asked for.

        Path traversal: neither `name` nor `file` becomes part of a path; both are compared with known names.
        """
        result = self.find(name)
        if result is None or not 0 <= view < len(result.response.views):
            return None
        known = next((item for item in DOWNLOADS if item == file), None)
        shown = result.response.views[view]
        if known == FIGURE_FILE and shown.draws_figure:
            return find_figure(shown.folder)
        path = shown.folder / known if known else None
        return path if path and path.is_file() else None
