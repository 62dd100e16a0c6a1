"""Runs that hang or are told to stop: they end in time, and are resumed to the same rows."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from extremal import jobs
from extremal.jobs.runner import run
from extremal.jobs.stop import StopNow, StopRequest, stop_on_signals
from support.datasets import HANGING, NETWORK, comparable_rows, write_black_image, write_images
from support.errors import message_of

QUICK: dict[str, Any] = {"areas": (0.1, 0.2), "perturbation": "fade", "threads": 1}
HERE = Path(__file__).parents[1]
LIMIT = 20.0  # s; four on a machine that does nothing else


def start(folder: Path, out: Path, *more: str, network: str = HANGING) -> "subprocess.Popen[str]":
    arguments = ["--network", network, "--areas", "0.1,0.2", "--perturbation", "fade", "--batch", "1"]
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "extremal", "run", str(folder), "--out", str(out), *arguments, *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_parts(out: Path, count: int) -> None:
    end = time.monotonic() + 120
    while len(list((out / "parts").glob("0*.parquet"))) < count:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    """Three images, on the last of which the network hangs."""
    folder = write_images(tmp_path / "pictures", 3)
    write_black_image(folder / "picture-002.png")
    return folder


class TestRequest:
    def test_the_first_signal_stops_and_the_second_is_urgent(self) -> None:
        with stop_on_signals(grace=60) as stop:
            assert not stop.is_set()
            signal.raise_signal(signal.SIGTERM)
            assert (stop.is_set(), stop.is_urgent()) == (True, False)
            signal.raise_signal(signal.SIGTERM)
            assert stop.is_urgent()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def test_after_the_grace_a_wait_is_interrupted(self) -> None:
        begin = time.monotonic()
        with stop_on_signals(grace=0.2) as stop:
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(StopNow), stop.interruptible():
                time.sleep(60)
        assert time.monotonic() - begin < LIMIT

    def test_code_that_catches_everything_is_interrupted_again(self) -> None:
        caught = list[BaseException]()

        def wait() -> None:
            with stop.interruptible():
                try:
                    time.sleep(60)
                except BaseException as error:
                    caught.append(error)

        with stop_on_signals(grace=0.1) as stop:
            signal.raise_signal(signal.SIGINT)
            wait()
            with pytest.raises(StopNow):
                wait()
        assert [type(error) for error in caught] == [StopNow]

    def test_nothing_is_interrupted_outside_of_waits(self) -> None:
        with stop_on_signals(grace=0) as stop:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            assert stop.is_urgent()

    def test_a_hangup_that_is_ignored_stays_ignored(self) -> None:
        previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with stop_on_signals() as stop:
                signal.raise_signal(signal.SIGHUP)
                assert not stop.is_set()
        finally:
            signal.signal(signal.SIGHUP, previous)

    def test_a_request_by_hand(self) -> None:
        stop = StopRequest(grace=0)
        stop.set()
        with pytest.raises(StopNow), stop.interruptible():
            pytest.fail("the block must not be entered")


@pytest.fixture(scope="module")
def rows_without_a_stop(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows of a run over the images without the one that hangs."""
    folder = tmp_path_factory.mktemp("whole")
    options: dict[str, Any] = {"network": NETWORK, "batch": 1, "workers": 0, **QUICK}
    run(write_images(folder / "pictures", 3), folder / "out", **options)
    return rows_in(folder / "out")


def rows_in(out: Path) -> list[dict[str, Any]]:
    """Return the rows of a run that do not depend on where its images are."""
    return [{**row, "path": Path(row["path"]).name} for row in comparable_rows(jobs.table(out))]


@pytest.mark.slow
class TestRuns:
    @pytest.mark.parametrize("workers", ["0", "2"])
    @pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP,)])
    def test_signals_end_a_run_whose_network_hangs(
        self,
        tmp_path: Path,
        hanging: Path,
        workers: str,
        signals: tuple[int, ...],
        rows_without_a_stop: list[dict[str, Any]],
    ) -> None:
        child = start(hanging, tmp_path / "out", "--workers", workers)
        wait_for_parts(tmp_path / "out", 2)  # the third hangs
        begin = time.monotonic()
        for number in signals:
            child.send_signal(number)
            time.sleep(0.2)
        _, messages = child.communicate(timeout=60)
        assert time.monotonic() - begin < LIMIT
        assert (child.returncode, messages) == (130, "stopped: run the same command again to resume\n")
        assert jobs.status(tmp_path / "out").state == "stopped"
        write_images(hanging, 3)  # without the image that hangs
        manifest = (tmp_path / "out" / "manifest.json").read_text()
        (tmp_path / "out" / "manifest.json").write_text(manifest.replace("hanging", "fake"))
        run(hanging, tmp_path / "out", network=NETWORK, batch=1, workers=0, **QUICK)
        assert rows_in(tmp_path / "out") == rows_without_a_stop

    @pytest.mark.cluster
    def test_a_signal_ends_a_run_on_ray_whose_network_hangs(self, tmp_path: Path, hanging: Path) -> None:
        child = start(hanging, tmp_path / "out", "--engine", "ray", "--workers", "1")
        wait_for_parts(tmp_path / "out", 2)  # the third hangs
        begin = time.monotonic()
        child.send_signal(signal.SIGTERM)
        _, messages = child.communicate(timeout=60)
        assert time.monotonic() - begin < 30  # four on a machine that does nothing else
        assert child.returncode == 130
        assert "stopped: run the same command again to resume\n" in messages
        assert jobs.status(tmp_path / "out").state == "stopped"

    def test_a_worker_whose_unit_takes_too_long_is_replaced(
        self, tmp_path: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("extremal.jobs.engines.processes.MAX_CRASHES", 2)
        done = run(hanging, tmp_path / "out", network=HANGING, batch=1, workers=1, unit_timeout=8, **QUICK)
        assert (done.state, done.done, done.failed) == ("done", 3, 1)
        assert jobs.table(tmp_path / "out")["error"].to_pylist() == [
            *(None, None),
            "several workers crashed on its batch, or did not finish it within the unit timeout of 8 s; run again with "
            "--retry, and with fewer --workers if memory is short, or a longer --unit-timeout",
        ]


@pytest.mark.slow
class TestStart:
    SCRIPT = (
        "from extremal import jobs\n"
        "try:\n"
        f"    jobs.run({{folder!r}}, {{out!r}}, network={NETWORK!r}, areas=(0.1,), workers=2)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )

    def call(self, tmp_path: Path, script: str, from_stdin: bool = False) -> tuple[str, str]:
        folder = write_images(tmp_path / "pictures", 4)
        text = script.format(folder=str(folder), out=str(tmp_path / "out"))
        (tmp_path / "script.py").write_text(text)
        command = [sys.executable, *([] if from_stdin else [str(tmp_path / "script.py")])]
        environment = {**os.environ, "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"}
        done = subprocess.run(
            command, env=environment, input=text, capture_output=True, text=True, timeout=120, check=True
        )
        return done.stdout, done.stderr

    def test_a_script_without_a_guard_ends_in_one_sentence(self, tmp_path: Path) -> None:
        out, messages = self.call(tmp_path, self.SCRIPT)
        assert messages == ""
        assert out == (
            "ExtremalValueError workers must be able to start, one ended with exit code 1 before it was ready; guard "
            "the entry point of the script by if __name__ == '__main__':, or pass workers=0\n"
        )
        assert jobs.table(tmp_path / "out").num_rows == 0  # no image is blamed

    def test_a_script_from_stdin_ends_before_anything_is_written(self, tmp_path: Path) -> None:
        out, messages = self.call(tmp_path, self.SCRIPT, from_stdin=True)
        assert messages == ""
        assert out == (
            "ExtremalValueError workers must be able to import the script that starts them, '<stdin>' is not a file; "
            "save it to a file, or pass workers=0\n"
        )
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit_timeout": 0}, "unit_timeout must be positive and finite, got 0; e.g. 600 seconds"),
        ({"unit_timeout": float("inf")}, "unit_timeout must be positive and finite, got inf; e.g. 600 seconds"),
        ({"unit_timeout": "5"}, "unit_timeout must be a number of seconds, got '5'"),
        (
            {"unit_timeout": 5, "workers": 0},
            "unit_timeout must be used with workers, which can be replaced, got workers=0; leave one of them out",
        ),
    ],
)
def test_time_limits_are_checked(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    folder = write_images(tmp_path / "one", 1)
    assert message_of(run, folder, tmp_path / "out", network=NETWORK, **options, **QUICK) == message
    assert not (tmp_path / "out").exists()
