"""Results that cannot be printed are still written; names cannot control the terminal; empty options are refused."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from extremal.cli.argument_checks import check_no_empty_argument
from extremal.cli.output import CheckedOutput
from extremal.errors import ExtremalValueError
from support.commands import call
from support.errors import message_of
from support.fake_network import save_image

PROGRAM = "import sys; from extremal.cli.main import main; sys.argv[0] = 'extremal'; main()"
FULL = Path("/dev/full")
FAST = ("--effort", "fast", "--areas", "10%")


def start(*arguments: str, stdout: object, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, text=True)  # type: ignore[call-overload, no-any-return]


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_all_images_are_written_where_the_output_is_full(extra: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_image(tmp_path / name)
    with FULL.open("w") as full:
        program = start("explain", "a.png", "b.png", *FAST, *extra, stdout=full, folder=tmp_path)
        err = program.communicate()[1]
    assert program.returncode == 1
    assert err == "error: stdout must be a stream that takes the results, got: No space left on device\n"
    assert [(tmp_path / "extremal-out" / name / "report.html").exists() for name in "ab"] == [True, True]


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [("networks", "resnet"), ("--version",), ("--help",)])
def test_other_commands_report_a_full_output(arguments: tuple[str, ...], tmp_path: Path) -> None:
    with FULL.open("w") as full:
        program = start(*arguments, stdout=full, folder=tmp_path)
        err = program.communicate()[1]
    assert program.returncode == 1
    assert err.splitlines()[-1] == "error: stdout must be a stream that takes the results, got: No space left on device"
    assert "Traceback" not in err


def test_all_images_are_written_where_a_pipe_is_closed(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_image(tmp_path / name)
    read, write = os.pipe()
    os.close(read)
    program = start("explain", "a.png", "b.png", *FAST, stdout=write, folder=tmp_path)
    os.close(write)
    err = program.communicate()[1]
    assert (program.returncode, err) == (0, "")
    assert [(tmp_path / "extremal-out" / name / "report.html").exists() for name in "ab"] == [True, True]


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "written"),
    [
        (Terminal(), "a\ufffd[2Jb\ufffdc\ufffd\n\tMünchen −1 \x1b[1;32mgreen\x1b[0m"),
        (io.BytesIO(), "a\x1b[2Jb\rc\u202e\n\tMünchen −1 \x1b[1;32mgreen\x1b[0m"),
    ],
)
def test_names_do_not_control_a_terminal(stream: io.BytesIO, written: str) -> None:
    output = CheckedOutput(stream, encoding="utf-8", newline="\n")  # type: ignore[type-var]
    text = "a\x1b[2Jb\rc\u202e\n\tMünchen −1 \x1b[1;32mgreen\x1b[0m"
    assert output.write(text) == len(text)
    output.flush()
    assert stream.getvalue().decode() == written
    assert output.find_reason() == ""


@pytest.mark.usefixtures("fake_commands")
def test_control_characters_in_names_of_images_are_replaced(tmp_path: Path) -> None:
    save_image(tmp_path / "a\x1b[31m\nb.png")
    _, out, _ = call("a\x1b[31m\nb.png")
    assert out.startswith("a\ufffd[31m\ufffdb.png: ")
    assert "\x1b" not in out
    (tmp_path / "broken\x1b[31m.png").write_bytes(b"no image")
    _, _, err = call("a\x1b[31m\nb.png", "broken\x1b[31m.png")
    assert "\x1b" not in err
    assert "broken" in err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["explain", "cat.png", "--target", ""], "--target"),
        (["explain", "cat.png", "--target="], "--target"),
        (["explain", ""], "an argument"),
        (["explain", "cat.png", "", "-q"], "an argument"),
        (["bench", "pointing", "--methods", ""], "--methods"),
        (["app", "--token="], "--token"),
        (["explain", "cat.png", "--out", ""], "--out"),
    ],
)
def test_empty_arguments_are_refused(arguments: list[str], name: str) -> None:
    assert message_of(check_no_empty_argument, arguments) == (
        f"{name} must not be empty, got ''; leave it out, or check the variable that it comes from"
    )


def test_other_arguments_are_not_empty() -> None:
    check_no_empty_argument(["explain", "cat.png", "--ask=unit:a:3", "--target", "x=", "--prompt", "a="])


def test_the_command_refuses_empty_arguments(tmp_path: Path) -> None:
    program = start("explain", "cat.png", "--target", "", stdout=subprocess.PIPE, folder=tmp_path)
    out, err = program.communicate()
    assert (program.returncode, out) == (2, "")
    assert err.startswith("error: --target must not be empty")


@pytest.mark.usefixtures("fake_commands")
def test_a_budget_without_minimal_is_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "cat.png")
    code, _, err = call("cat.png", "--budget", "5")
    assert (code, err) == (
        2,
        "error: --budget must be used with --minimal, got 5 without it; add it, or leave it out\n",
    )


def test_an_address_without_ray_is_refused() -> None:
    from extremal.jobs.run_options import RunOptions

    with pytest.raises(
        ExtremalValueError, match="address must be that of a Ray cluster, got 'foo:1' with engine local"
    ):
        RunOptions(address="foo:1")
