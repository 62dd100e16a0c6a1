"""Paths that cannot be read or written: said in one sentence before anything is computed."""

import os
from importlib import import_module
from pathlib import Path

import pytest

from extremal import ExtremalValueError, files
from extremal.explanations.explanation import Explanation
from extremal.file_checks import check_output_file, is_folder
from support import terminal
from support.commands import call, list_names
from support.fake_network import save_image
from support.made_explanations import explanation

pytestmark = pytest.mark.usefixtures("fake_commands")
NOT_UTF8 = os.fsdecode(b"caf\xe9")


@pytest.fixture
def computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import_module("extremal.cli.channel_run")  # binds the function before it is replaced
    monkeypatch.setattr("extremal.networks.resolve.load_network", lambda *_: pytest.fail("paths are checked first"))


class TestOutputs:
    @pytest.mark.usefixtures("computes_nothing")
    @pytest.mark.parametrize(
        ("out", "message"),
        [
            ("s3://bucket/out", "must be a local path, got the address 's3:/bucket/out'; choose a local folder"),
            (NOT_UTF8, "must have a path in UTF-8, got 'caf\\udce9'; choose another name"),
            ("a" * 300, "File name too long; check the path"),
            ("/dev/null", "must lie in a folder that can be written, got '/dev/null': File exists"),
            ("/dev/null/out", "Not a directory; choose another folder"),
        ],
    )
    @pytest.mark.parametrize("command", ["explain", "channels", "class-channels"])
    def test_folders(self, out: str, message: str, command: str, tmp_path: Path) -> None:
        (tmp_path / "cat.png").mkdir() if command == "class-channels" else save_image(tmp_path / "cat.png")
        layer = ["--layer", "0"]
        options = {"explain": layer[:0], "channels": layer, "class-channels": [*layer, "--target", "1"]}
        code, printed, error = terminal.call(command, "cat.png", *options[command], "--out", out)
        assert (code, printed) == (2, "")
        assert error.startswith("error: an output ")
        assert message in error

    def test_a_folder_without_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.stat

        def refuse(path: object, *args: object, **options: object) -> os.stat_result:
            if "locked/" in str(path):
                raise PermissionError(13, "Permission denied")
            return real(path, *args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr("os.stat", refuse)  # the superuser may look everywhere
        save_image(tmp_path / "cat.png")
        code, _, error = call("cat.png", "--out", "locked/out")
        assert (code, error) == (
            2,
            "error: an output must have a path that can be opened, got 'locked/out': Permission denied; check the "
            "path\n",
        )
        assert call("locked/cat.png")[2].startswith("error: an image must have a path that can be opened, got ")
        assert not is_folder("locked/out")

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            (".", "an output must be a file, got the folder '.'; name a file in it"),
            ("", "an output must be a file, got the folder '.'; name a file in it"),
            ("/dev/null", "an output must be a regular file, got '/dev/null', which is a device; choose another"),
            ("no/a.safetensors", "an output must lie in a folder that can be written, got 'no': No such file"),
            ("cat.png/a", "an output must lie in a folder that can be written, got 'cat.png': Not a directory"),
            ("a" * 256, "File name too long; check the path"),
            ("a\0b", "embedded null byte; check the path"),
            (NOT_UTF8, "an output must have a path in UTF-8"),
            ("gs://bucket/a", "an output must be a local path, got the address"),
        ],
    )
    def test_files(self, path: str, message: str, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        for write in (explanation().save, check_output_file):
            with pytest.raises(ExtremalValueError) as error:
                write(path)
            assert message in str(error.value)
        assert list_names(tmp_path) == ["cat.png"]

    def test_the_longest_name(self, tmp_path: Path) -> None:
        path = tmp_path / ("ä" * 120 + ".safetensors")
        explanation().save(path)
        assert Explanation.load(path) == explanation(inputs=Explanation.load(path).inputs)

    @pytest.mark.usefixtures("computes_nothing")
    @pytest.mark.parametrize("out", [".", "no/a.png", NOT_UTF8 + ".png", "/dev/null"])
    @pytest.mark.parametrize("figure", ["methods", "areas"])
    def test_figures(self, out: str, figure: str, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        code, _, error = terminal.call("figures", figure, "cat.png", "--out", out)
        assert code == 2
        assert error.startswith("error: an output must ")


class TestNames:
    def test_an_image_whose_name_is_not_utf8(self, tmp_path: Path) -> None:
        save_image(tmp_path / f"{NOT_UTF8}.png")
        code, _, error = call(f"{NOT_UTF8}.png", "--out", "out")
        assert (code, error) == (0, "")
        assert list_names(tmp_path / "out") == ["caf\ufffd"]
        assert "caf\ufffd" in (tmp_path / "out" / "caf\ufffd" / "report.html").read_text(encoding="utf-8")

    def test_the_longest_name_of_an_image(self, tmp_path: Path) -> None:
        name = "n" * 251
        save_image(tmp_path / f"{name}.png")
        code, _, error = call(f"{name}.png", f"{name}.png", "--out", "out")
        assert (code, error) == (0, "")
        assert list_names(tmp_path / "out") == ["n" * 200, "n" * 200 + "-2"]

    def test_folders_for_names_of_any_kind(self) -> None:
        folders = files.name_folders(Path("out"), [f"{NOT_UTF8}.png", "caf\ufffd.png", "ä" * 150, "..", "a\0b"])
        assert [folder.name for folder in folders[:4]] == ["caf\ufffd", "caf\ufffd-2", "ä" * 100, "photo"]


class TestInputs:
    @pytest.mark.parametrize("address", ["s3://bucket/cat.png", "https://example.org/cat.png"])
    def test_addresses(self, address: str) -> None:
        assert call(address)[2] == (
            f"error: an image must be a local file, got the address {address!r}; download it first\n"
        )
        assert call("cat.png", "--ask", f"like:{address}")[2].startswith(
            "error: an image must be a local file, got the"
        )

    @pytest.mark.parametrize("folder", ["no", "cat.png", "a" * 300, "s3://bucket/cats"])
    def test_the_folder_of_a_class(self, folder: str, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        code, _, error = terminal.call("class-channels", folder, "--layer", "0", "--target", "1")
        assert code == 2
        assert error.startswith("error: a class must ")
