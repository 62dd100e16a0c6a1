"""The options that every command takes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer.main

from extremal.cli import main
from support.commands import call
from support.fake_network import save_image

COMMANDS = typer.main.get_command(main.app)
PROGRAM = "import os, sys; from extremal.cli.main import main; sys.argv[0] = 'extremal'; main()"


def list_commands() -> list[tuple[str, set[str]]]:
    """Return all commands with the names of their options."""
    found = []
    for name, command in COMMANDS.commands.items():  # type: ignore[attr-defined]
        for part in getattr(command, "commands", {name: command}).values():
            found.append((part.name, {option for parameter in part.params for option in parameter.opts}))
    return found


def test_every_command_has_them() -> None:
    commands = list_commands()
    assert {"explain", "channels", "class-channels", "layers", "doctor", "app", "run", "bench", "areas"} <= {
        name for name, _ in commands
    }
    for name, options in commands:
        assert {"--threads", "--quiet", "--verbose"} <= options, name


@pytest.mark.usefixtures("fake_commands")
class TestExplain:
    def test_quiet_prints_no_warnings(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        assert call("cat.png", areas="0.2,0.1")[2] == "warning: areas were sorted: 0.1, 0.2\n"
        code, out, err = call("cat.png", "--quiet", areas="0.2,0.1")
        assert (code, err) == (0, "")
        assert out.startswith("cat.png: ")
        assert call("no.png", "-q")[2].startswith("error: an image must be an existing file")

    def test_verbose_prints_the_stages(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        _, _, err = call("cat.png", "--verbose")
        lines = err.splitlines()
        assert all(re.fullmatch(r"\d+\.\d s: cat\.png: [\w ]+", line) for line in lines)
        stages = [line.rpartition(": ")[2] for line in lines]
        assert stages[-2:] == ["testing what was found", "writing the report"]
        assert len(stages) > 2
        assert call("cat.png")[2] == ""

    def test_threads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            monkeypatch.setenv(name, os.environ.get(name, "1"))
        save_image(tmp_path / "cat.png")
        before = torch.get_num_threads()
        try:
            assert call("cat.png", "--threads", "2")[0] == 0
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        assert "--threads" in call("cat.png", "--threads", "0")[2]


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(option: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "explain", option], check=True, capture_output=True, text=True
    )
    assert "Usage: extremal explain" in done.stdout


def test_threads_that_wait_sleep() -> None:
    names = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
    program = PROGRAM + "; print(os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT'))"
    program = program.replace("main()", "exec('try: main()\\nexcept SystemExit: pass')")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    cases = ({}, "PASSIVE 2000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"), ({"GOMP_SPINCOUNT": "5"}, "PASSIVE 5")
    for given, expected in cases:
        done = subprocess.run(
            [sys.executable, "-c", program, "--version"],
            env={**environment, **given},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == expected
