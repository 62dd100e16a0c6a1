"""The command line's folders: never partial, never replacing other files; interrupts; the real network."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import extremal
from extremal import files, plots
from extremal.explanations.explanation import Explanation
from support.commands import RESULT_FILES, call, list_names
from support.fake_network import save_image

pytestmark = pytest.mark.usefixtures("fake_commands")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


class TestFolders:
    def test_a_file_in_place_of_the_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "extremal.networks.resolve.load_network", lambda *_: pytest.fail("the folder is checked first")
        )
        (tmp_path / "out").touch()
        save_image(tmp_path / "cat.png")
        expected = (
            "error: an output must lie in a folder that can be written, got 'out': File exists; choose another folder\n"
        )
        assert call("cat.png", "--out", "out") == (2, "", expected)
        message = call("cat.png", "--out", "out/deeper")[2]
        assert message == expected.replace("'out'", "'out/deeper'").replace("File exists", "Not a directory")

    def test_a_folder_that_cannot_be_written(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")

        def refused(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(Path, "mkdir", refused)  # the superuser may write anywhere, so no real folder refuses
        assert call("cat.png", "--out", "out")[2] == (
            "error: an output must lie in a folder that can be written, got 'out': Permission denied; "
            "choose another folder\n"
        )

    def test_other_files_are_not_removed(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        (tmp_path / "cat").mkdir()
        (tmp_path / "cat" / "thesis.tex").write_text("years of work")
        assert call("cat.png", "--out", ".", "--force") == (
            *(2, ""),
            "error: a result must be a new folder or replace a previous result, got 'cat' with 'thesis.tex' in it; "
            "choose another folder for the results\n",
        )
        assert list_names(tmp_path / "cat") == ["thesis.tex"]

    @pytest.mark.parametrize("kind", ["file", "link"])
    def test_files_and_links_are_not_removed(self, tmp_path: Path, kind: str) -> None:
        save_image(tmp_path / "cat.png")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "cat").touch() if kind == "file" else (tmp_path / "cat").symlink_to(tmp_path / "elsewhere")
        assert call("cat.png", "--out", ".", "--force")[2] == (
            "error: a result must be a new folder or replace a previous result, got 'cat', which is not a folder; "
            "choose another folder for the results\n"
        )

    @pytest.mark.parametrize("name", ["..", ".", "/"])
    def test_odd_image_names_do_not_give_odd_folder_names(self, tmp_path: Path, name: str) -> None:
        assert files.name_folders(tmp_path, [name]) == [tmp_path / "photo"]
        assert call(name)[2].startswith("error: an image must be a file, got the folder ")

    @pytest.mark.parametrize(
        "error", [OSError(28, "No space left on device"), RuntimeError("a bug"), KeyboardInterrupt()]
    )
    def test_nothing_partial_and_the_previous_result_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        save_image(tmp_path / "cat.png")
        call("cat.png")
        folder = tmp_path / "extremal-out"
        before = {name: (folder / "cat" / name).read_bytes() for name in RESULT_FILES}

        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(plots, "write_figure", fail)
        if isinstance(error, RuntimeError):
            with pytest.raises(RuntimeError):
                call("cat.png")
        elif isinstance(error, OSError):
            assert call("cat.png", "--seed", "1", "--force") == (
                *(2, ""),
                "error: a result must be written completely, could not write 'extremal-out/cat': No space left on "
                "device; make room or choose another folder\n",
            )
        else:
            assert call("cat.png", "--force")[0] == 130
        assert list_names(folder) == ["cat"]
        assert {name: (folder / "cat" / name).read_bytes() for name in RESULT_FILES} == before

    @pytest.mark.parametrize("broken", [0, 1])
    def test_the_previous_result_is_restored_if_a_rename_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
    ) -> None:
        save_image(tmp_path / "cat.png")
        call("cat.png")
        rename, calls = Path.rename, []

        def interrupted(path: Path, target: Path) -> Path:
            calls.append(path)
            if len(calls) == broken + 1:
                raise KeyboardInterrupt
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", interrupted)
        assert call("cat.png", "--force")[0] == 130
        assert list_names(tmp_path / "extremal-out") == ["cat"]
        assert list_names(tmp_path / "extremal-out" / "cat") == RESULT_FILES


@pytest.mark.slow
class TestInterrupt:
    def test_finished_images_are_reported_and_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("a.png", "b.png", "c.png"):
            save_image(tmp_path / name)
        before = extremal.explain

        def explain(net: Any, picture: str, *args: Any, on_step: Any, **options: Any) -> Explanation:
            def step(progress: Any) -> None:
                on_step(progress)
                if picture == "b.png" and progress.index == 1:
                    raise KeyboardInterrupt

            return before(net, picture, *args, on_step=step, **options)

        monkeypatch.setattr(extremal, "explain", explain)
        code, out, err = call("a.png", "b.png", "c.png", "--json")
        assert code == 130
        assert err == "interrupted: 1 of 3 images written (a.png); not written: b.png, c.png\n"
        assert [record["path"] for record in json.loads(out)] == ["a.png"]
        assert list_names(tmp_path / "extremal-out") == ["a"]

    @pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
    def test_a_real_signal(self, tmp_path: Path, sent: signal.Signals) -> None:
        """Ctrl-C, or a polite end, once the solver has begun, in a process of its own."""
        save_image(tmp_path / "cat.png")
        script = (
            "import signal, sys\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # as in a terminal: a job in the background of
            "from dataclasses import replace\n"  # a shell script ignores SIGINT, and its processes inherit that
            "from support.fake_network import fake_network\n"
            "from extremal import solvers, zoo\n"
            "from extremal.cli import batch, main\n"
            "zoo.load = lambda name, weights=None, *_, **__: fake_network()\n"
            "solvers.SOLVERS['consensus'] = replace(solvers.SOLVERS['consensus'], steps=10**6)\n"
            "before = batch.progress\n"
            "from contextlib import contextmanager\n"
            "@contextmanager\n"
            "def progress(name):\n"
            "    with before(name) as report:\n"
            "        yield lambda *at: (at[1] == 20 and open('running', 'w').close(), report(*at))\n"
            "batch.progress = progress\n"
            "sys.argv = ['extremal', 'explain', 'cat.png']\n"
            "main.main()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                until = time.monotonic() + 60
                while not (tmp_path / "running").exists() and process.poll() is None and time.monotonic() < until:
                    time.sleep(0.05)
                process.send_signal(sent)
                out, err = process.communicate(timeout=60)
            finally:
                process.kill()
        assert err.decode() == "interrupted: 0 of 1 images written; not written: cat.png\n"
        assert (process.returncode, out) == (130, b"")
        assert list_names(tmp_path) == ["cat.png", "running"]


@pytest.mark.slow
class TestWholeProgram:
    def test_help_does_not_wait_for_torch(self) -> None:
        script = (
            "import sys\n"
            "from extremal.cli.main import app\n"
            "app(['--help'], standalone_mode=False)\n"
            "sys.exit(bool({'torch', 'timm', 'matplotlib', 'numpy'} & set(sys.modules)))\n"
        )
        found = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, check=False)
        assert found.returncode == 0
        assert b"explain" in found.stdout

    def test_the_embedded_network(self, tmp_path: Path) -> None:
        noise = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
        Image.fromarray((noise * 255).byte().numpy()).save(tmp_path / "noise.jpg")
        command = [
            str(Path(sys.executable).parent / "extremal"),
            "explain",
            "noise.jpg",
            "--areas",
            "0.1,0.2",
            "--json",
        ]
        found = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, check=False)
        assert (found.returncode, found.stderr) == (0, b"")
        (record,) = json.loads(found.stdout)
        folder = tmp_path / "extremal-out" / "noise"
        assert list_names(folder) == RESULT_FILES
        assert record["settings"]["network"] == "embedded"
        assert Explanation.load(record["files"]["explanation"]).target_names == (record["target_name"],)
        with Image.open(folder / "figure.png") as figure:
            figure.load()
        assert "<html" in (folder / "report.html").read_text()
