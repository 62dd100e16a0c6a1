"""Fixtures of the command line's tests."""

from pathlib import Path

import pytest

from extremal import plots, zoo
from extremal.cli import question_checks
from extremal.masking.solvers import SOLVERS, Consensus
from extremal.masking.solvers import Path as PathSolver
from extremal.report import explanation_page
from support.fake_network import fake_network


@pytest.fixture(autouse=True)
def _unknown_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no class be checked before its network is loaded: tests replace networks by others of the same name."""
    monkeypatch.setattr(question_checks, "IMAGENET_NETWORKS", ())


@pytest.fixture
def fake_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in an empty folder, with a tiny network, a cheap solver, and figures and reports that cost nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "load", lambda name, weights=None, *_: fake_network())
    monkeypatch.setitem(SOLVERS, "path", PathSolver(steps=12, polish=4, draws=2))
    monkeypatch.setitem(SOLVERS, "consensus", Consensus(steps=2, draws=2, least=2))
    monkeypatch.setattr(plots, "write_figure", lambda _, path, image=0: Path(path).write_bytes(b"figure"))
    monkeypatch.setattr(explanation_page, "write", lambda _, path, **options: Path(path).write_text(options["source"]))
