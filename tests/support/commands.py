"""Calls of the command line in this process."""

from pathlib import Path

import pytest

from extremal import plots, report, zoo
from extremal.masking.solvers import SOLVERS
from extremal.masking.solvers import Path as PathSolver
from support import terminal
from support.fake_network import fake_network

FILES = ["explanation.safetensors", "figure.png", "mask-0.1.png", "mask-0.2.png", "report.html"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tiny network, a cheap solver, pictures and reports that are drawn in no time; work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "load", lambda name, weights=None: fake_network())
    monkeypatch.setitem(SOLVERS, "path", PathSolver(steps=12, polish=4, draws=2))
    monkeypatch.setattr(plots, "write_figure", lambda _, path, image=0: Path(path).write_bytes(b"figure"))
    monkeypatch.setattr(
        report, "write", lambda _, path, image=0, title=None, certificate=None: Path(path).write_text(title)
    )


def call(*arguments: str, areas: str = "0.1,0.2") -> tuple[int, str, str]:
    """Exit code, stdout, stderr of `extremal explain`."""
    return terminal.call("explain", "--areas", areas, *arguments)


def standing(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())
