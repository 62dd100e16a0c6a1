"""Tests in processes of their own fail with their output, whatever ends or hangs the process."""

import time
from pathlib import Path

import pytest

from support.isolation import run_isolated

pytestmark = pytest.mark.slow


def write_test(folder: Path, *lines: str) -> str:
    """Write a test of these lines in a module, and return its node id."""
    (folder / "test_one.py").write_text("import os\nimport time\n\n\ndef test_one():\n" + "".join(lines))
    return "test_one.py::test_one"


def is_running(stat: Path) -> bool:
    """Return whether the process of this file in /proc has not ended."""
    try:
        return ") Z " not in stat.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_test_that_passes(tmp_path: Path) -> None:
    run_isolated(write_test(tmp_path, "    assert True\n"), tmp_path)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("    assert 'a' == 'b'\n", ("ended with 1", "assert 'a' == 'b'")),
        ("    os.write(1, b'the raylet died'); os._exit(0)\n", ("ended with 0", "the raylet died")),
        ("    os.abort()\n", ("ended with -6",)),
        ("    import pytest; pytest.skip('nothing here')\n", ("ended with 0", "1 skipped")),
    ],
)
def test_a_test_that_does_not_pass(tmp_path: Path, line: str, told: tuple[str, ...]) -> None:
    with pytest.raises(pytest.fail.Exception) as failure:
        run_isolated(write_test(tmp_path, line), tmp_path)
    assert all(text in str(failure.value) for text in told)


def test_a_test_that_hangs_is_killed_with_the_processes_that_it_started(tmp_path: Path) -> None:
    lines = (
        "    child = os.fork() or os.getpid()\n",
        "    open(f'{child}.pid', 'w').close()\n",
        "    time.sleep(600)\n",
    )
    with pytest.raises(pytest.fail.Exception, match="was killed after 15 s"):
        run_isolated(write_test(tmp_path, *lines), tmp_path, time_limit=15)
    started = [Path("/proc", path.stem, "stat") for path in tmp_path.glob("*.pid")]
    assert started
    deadline = time.monotonic() + 10
    while any(is_running(stat) for stat in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_running(stat) for stat in started)
