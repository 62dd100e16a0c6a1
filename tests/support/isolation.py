"""Tests in processes of their own: what ends or hangs the process of such a test fails this test alone."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

TIME_LIMIT = 480.0  # s; less than pytest's own, which would end the session of tests instead of the process
PR_SET_PDEATHSIG = 1  # of prctl
ISOLATED_VARIABLE = "EXTREMAL_TESTS_ISOLATED"  # set in the process of an isolated test


def run_isolated(test: str, root: Path, time_limit: float = TIME_LIMIT) -> None:
    """Run one test in another process, and fail with the output of this process unless the test passes there.

    The output goes to a file as it comes, since processes that outlive the test would keep a pipe open. The process
    has a session of its own, so that everything which it started is killed with it.

    Args:
        test: its node id.
        root: folder of pytest's settings.
        time_limit: seconds after which the process is killed.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        output, options = Path(folder, "output.txt"), ["-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
        names = ["--import-mode=importlib", "-s", "-q", "--basetemp", str(Path(folder, "tmp"))]
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, *names, test],
                cwd=root,
                env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
                | {ISOLATED_VARIABLE: "1"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                ended = f"ended with {process.wait(time_limit)}"
            except subprocess.TimeoutExpired:
                ended = f"was killed after {time_limit:g} s"
            finally:
                kill_session(process)
        text = output.read_text("utf-8", "replace")
        if process.returncode != 0 or "1 passed" not in text:
            pytest.fail(f"the process of this test {ended}\n{text[-20_000:]}", pytrace=False)


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that has a session of its own, with the processes that it left in it, and wait for it."""
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_with_parent() -> None:
    """Let the system kill this process when its parent ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
