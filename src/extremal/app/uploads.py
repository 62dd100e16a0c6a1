"""Uploaded files: complete or not at all, within a budget of bytes for each client and for all, and for an hour."""

import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from extremal.app.clients import Client

MAX_AGE = 3600.0  # s
MAX_NAME_BYTES = 100  # of a file name, its suffix included
MAX_FILE_MB = 20
COPY_BYTES = 2**20


class TooManyUploads(Exception):
    """A client, or all of them, have too many uploads in progress."""


@dataclass(frozen=True)
class Budget:
    """Limits of uploads."""

    visitor_bytes: int = 60 * 10**6  # kept for one visitor
    address_bytes: int = 150 * 10**6  # kept for all visitors of one address
    all_bytes: int = 600 * 10**6  # kept in all
    address_active: int = 8  # in progress from one address
    shared_active: int = 16  # in progress in all, beyond which an address may have one
    all_active: int = 64  # in progress in all


@dataclass(frozen=True, eq=False)
class StoredUpload:
    """A stored file."""

    client: Client
    folder: Path  # of its own, with an unguessable name
    n_bytes: int
    time: float  # monotonic


class UploadStore:
    """Files of all clients. If a budget is exceeded, the oldest files of the client who exceeds it are removed.

    Args:
        folder: in which each file has a folder of its own; created if it is missing.
        budget: limits.
    """

    def __init__(self, folder: Path, budget: Budget | None = None) -> None:
        self.folder, self.budget = folder, budget or Budget()
        self._stored: list[StoredUpload] = []  # the oldest first
        self._active: list[str] = []  # addresses
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def slot(self, client: Client) -> Iterator[None]:
        """Count an upload in progress.

        Raises:
            TooManyUploads: there are too many already.
        """
        with self._lock:
            count = len(self._active)
            allowed = self.budget.address_active if count < self.budget.shared_active else 1
            if count >= self.budget.all_active or self._active.count(client.address) >= allowed:
                raise TooManyUploads
            self._active.append(client.address)
        try:
            yield
        finally:
            with self._lock:
                self._active.remove(client.address)

    def store(self, client: Client, file: BinaryIO, name: str) -> Path:
        """Store a file, remove what exceeds a budget or is too old, and return its path.

        Args:
            client: who sends it.
            file: read from its beginning.
            name: as the client calls it; only its last part is used, without special characters.
        """
        folder = self.folder / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        path = folder / safe_name(name)
        try:
            file.seek(0)
            with path.open("xb") as target:
                shutil.copyfileobj(file, target, COPY_BYTES)
            stored = StoredUpload(client, folder, path.stat().st_size, time.monotonic())
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with self._lock:
            self._stored.append(stored)
            removed = self._select_removed(client)
            self._stored = [item for item in self._stored if item not in removed]
        for item in removed:
            shutil.rmtree(item.folder, ignore_errors=True)
        return path

    def remove_old(self) -> None:
        """Remove files that are too old."""
        with self._lock:
            removed = [item for item in self._stored if item.time < time.monotonic() - MAX_AGE]
            self._stored = [item for item in self._stored if item not in removed]
        for item in removed:
            shutil.rmtree(item.folder, ignore_errors=True)

    def n_bytes(self) -> int:
        """Return the bytes of all stored files."""
        with self._lock:
            return sum(item.n_bytes for item in self._stored)

    def _select_removed(self, client: Client) -> list[StoredUpload]:
        """Return the files to remove after a client has stored one."""
        removed = [item for item in self._stored if item.time < time.monotonic() - MAX_AGE]
        kept = [item for item in self._stored if item not in removed]

        def limit(files: list[StoredUpload], max_bytes: int) -> None:
            excess = sum(item.n_bytes for item in files if item in kept) - max_bytes
            for item in files:
                if excess > 0 and item in kept:
                    kept.remove(item)
                    removed.append(item)
                    excess -= item.n_bytes

        limit([item for item in kept if item.client == client], self.budget.visitor_bytes)
        limit([item for item in kept if item.client.address == client.address], self.budget.address_bytes)
        while sum(item.n_bytes for item in kept) > self.budget.all_bytes:
            totals = dict[str, int]()
            for item in kept:
                totals[item.client.address] = totals.get(item.client.address, 0) + item.n_bytes
            largest = max(totals, key=lambda address: totals[address])
            oldest = next(item for item in kept if item.client.address == largest)
            kept.remove(oldest)
            removed.append(oldest)
        return removed


def safe_name(name: str) -> str:
    r"""Return a file name without folders and special characters, at most 100 bytes long.

    >>> safe_name("../../my cat.png"), safe_name("C:\\cat.png"), safe_name("..")
    ('my cat.png', 'cat.png', 'image')
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    plain = "".join(letter for letter in last if letter.isalnum() or letter in " ._-()").strip(" .")
    stem, suffix = os.path.splitext(plain)
    encoded_suffix = suffix.encode()[:16]
    kept = stem.encode()[: MAX_NAME_BYTES - len(encoded_suffix)] + encoded_suffix
    return kept.decode(errors="ignore") or "image"
