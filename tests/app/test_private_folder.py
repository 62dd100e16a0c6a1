"""Private folder of the app: removed at the end, and after SIGKILL by the next server; no other folder is touched."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from extremal.app.private_folder import LOCK_FILE, PREFIX, private_folder, remove_dead_folders

LIVE = """
import time
from extremal.app.private_folder import private_folder

with private_folder() as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def start_server(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds a private folder, and return it with the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", LIVE], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(folder)}
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_removed_at_the_end_and_after_an_exception(temporary: Path) -> None:
    with private_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a").mkdir()
    with pytest.raises(ZeroDivisionError), private_folder():
        raise ZeroDivisionError
    assert list(temporary.iterdir()) == []


def test_after_sigkill_the_next_server_removes_it(temporary: Path) -> None:
    process, dead = start_server(temporary)
    (dead / "uploads").mkdir()
    (dead / "uploads" / "cat.png").write_bytes(b"private")
    with private_folder() as folder:
        assert sorted(temporary.iterdir()) == sorted([dead, folder])  # its server lives
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert dead.exists()
    with private_folder() as folder:
        assert list(temporary.iterdir()) == [folder]


def test_no_other_folder_is_removed(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / LOCK_FILE).touch()
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    (temporary / f"{PREFIX}without-lock").mkdir()
    (temporary / f"{PREFIX}linked-lock").mkdir()
    (temporary / f"{PREFIX}linked-lock" / LOCK_FILE).symlink_to(elsewhere / LOCK_FILE)
    (temporary / f"{PREFIX}file").touch()
    (temporary / "extremal-other").mkdir()
    (temporary / "extremal-other" / LOCK_FILE).touch()
    before = sorted(temporary.rglob("*"))
    assert remove_dead_folders() == []
    assert sorted(temporary.rglob("*")) == before


def test_a_new_folder_is_never_taken_for_a_dead_one(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server that looks at any moment while the folder is locked finds it alive or not yet complete."""
    seen, rename = list[list[Path]](), Path.rename

    def look_and_rename(path: Path, target: Path) -> Path:
        seen.append(remove_dead_folders())
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", look_and_rename)
    with private_folder() as folder:
        assert seen == [[]]
        assert remove_dead_folders() == []
        assert folder.exists()
