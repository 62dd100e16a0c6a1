"""Private folder of a server: locked while the server lives, and removed afterwards, at the latest by the next one."""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # without file locks a folder is only removed by its own server
    fcntl = None  # type: ignore[assignment]

PREFIX = "extremal-app-"
LOCK_FILE = "server.lock"


@contextmanager
def private_folder() -> Iterator[Path]:
    """Create a folder that only this user can read, and remove it at the end; first remove those of dead servers."""
    remove_dead_folders()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))  # mode 0o700
    lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_dead_folders() -> list[Path]:
    """Remove the folders of servers that have ended without doing so, e.g. by SIGKILL, and return their paths.

    A folder is removed if it is in the temporary folder, has the name of a server's folder, belongs to this user, and
    contains a lock file that no process holds. Links are not followed.
    """
    removed = list[Path]()
    if fcntl is None:
        return removed
    with suppress(OSError):
        for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
            if _is_own(folder, stat.S_ISDIR) and _is_own(folder / LOCK_FILE, stat.S_ISREG) and _is_dead(folder):
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
    return removed


def _lock(folder: Path) -> int | None:
    """Lock a new folder, and return the descriptor that holds the lock."""
    if fcntl is None:
        return None
    # The lock is held before the file has its name: at no time does the folder look like that of a dead server.
    new = folder / f"{LOCK_FILE}.new"
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    new.rename(folder / LOCK_FILE)
    return descriptor


def _is_own(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Return whether a path, not followed if it is a link, is of this kind and belongs to this user."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return is_kind(status.st_mode) and status.st_uid == os.getuid()


def _is_dead(folder: Path) -> bool:
    """Return whether no process holds the lock of a folder."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
