"""Histories: the results that each visitor has seen, while they are stored, and no other visitor's."""

import threading
from collections import OrderedDict

from extremal.app.clients import Client
from extremal.app.result_cache import CachedResult, ResultCache

MAX_RESULTS = 24  # of a visitor; the oldest are forgotten first
MAX_VISITORS = 1000  # that are remembered


class Histories:
    """Results of each visitor, the last one first.

    A visitor is known by the cookie that the server signs. Those without a cookie have no history: they cannot be
    distinguished from others at their address.

    Args:
        cache: holds the results.
    """

    def __init__(self, cache: ResultCache) -> None:
        self.cache = cache
        self._names: OrderedDict[str, list[str]] = OrderedDict()  # of results, by visitor; the least recent first
        self._lock = threading.Lock()

    def add(self, client: Client, result: CachedResult) -> None:
        """Add a result to those of a visitor, as the last one."""
        if not client.visitor:
            return
        with self._lock:
            names = [name for name in self._names.pop(client.visitor, []) if name != result.name]
            self._names[client.visitor] = [*names, result.name][-MAX_RESULTS:]
            while len(self._names) > MAX_VISITORS:
                self._names.popitem(last=False)

    def remove(self, client: Client, result: CachedResult) -> None:
        """Forget a result of a visitor, in whose place there is another one."""
        with self._lock:
            names = self._names.get(client.visitor, [])
            if result.name in names:
                names.remove(result.name)

    def results(self, client: Client) -> list[CachedResult]:
        """Return the stored results of a visitor, the last one first."""
        with self._lock:
            names = list(self._names.get(client.visitor, [])) if client.visitor else []
        found = (self.cache.find(name) for name in reversed(names))
        return [result for result in found if result is not None]

    def find(self, client: Client, name: str) -> CachedResult | None:
        """Return a result of a visitor, or an example, by its name; None if it is another's, or no longer stored."""
        if self.cache.is_example(name):
            return self.cache.find(name)
        return next((result for result in self.results(client) if result.name == name), None)

    def related(self, client: Client, result: CachedResult) -> list[CachedResult]:
        """Return the results of a visitor about the same class of the same image, the first one first."""
        about = _subject(result)
        found = [other for other in reversed(self.results(client)) if _subject(other) == about]
        return sorted(found, key=lambda other: other.number) or [result]


def _subject(result: CachedResult) -> tuple[str, str]:
    """Return the image and the class that a result is about."""
    label = result.response.views[0].label if result.response.views else ""
    return result.request.digest, label
