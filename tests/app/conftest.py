"""Fixtures of the tests of the app."""

from pathlib import Path

import pytest

from extremal.masking.solvers import SOLVERS, Consensus
from extremal.masking.solvers import Path as PathSolver
from extremal.report import plots


@pytest.fixture
def fast_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make runs short: a solver with few steps, and figures that are not drawn."""
    monkeypatch.setitem(SOLVERS, "path", PathSolver(steps=12, polish=4, draws=2, search=3))
    monkeypatch.setitem(SOLVERS, "consensus", Consensus(steps=2, draws=2, least=2))
    monkeypatch.setattr(plots, "write_figure", lambda _, path, image=0: Path(path).write_bytes(b"figure"))
