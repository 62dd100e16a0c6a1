"""Effort: fast, normal and thorough, what each decides and what it costs."""

from typing import Any

import pytest
import torch
from torch import nn

from extremal import ExtremalValueError, Settings, explain, plan, solvers
from extremal.explanations.effort import EFFORTS
from extremal.explanations.settings import AREAS
from support.toys import texture

MOST = {"fast": 43, "normal": 134, "thorough": 163}  # of a network of one size: passes with gradient + the others / 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(8 * 8 * 8, 5)
    ).eval()


@pytest.mark.parametrize("effort", EFFORTS)
def test_an_effort_costs_no_more_than_it_says(effort: str) -> None:
    result = explain(network(), texture(1, 3, 32, 32), effort=effort)
    counts = result.settings["evaluations"]
    gradients = counts["gradients"] + counts["evidence_gradients"]
    assert gradients + (counts["forwards"] + counts["evidence_forwards"]) / 3 <= MOST[effort]
    assert result.control_scores.shape == (1, len(AREAS), EFFORTS[effort].controls)
    assert result.settings["effort"] == effort
    assert Settings.from_dict(result.settings).solver == EFFORTS[effort].solver("consensus")


@pytest.mark.parametrize("effort", EFFORTS)
def test_the_plan_knows_the_cost(effort: str) -> None:
    x = texture(1, 3, 32, 32)
    planned = plan(network(), x, effort=effort).evaluations
    result = explain(network(), x, effort=effort)
    counts = result.settings["evaluations"]
    assert planned is not None
    assert planned.gradients == counts["gradients"]
    left_out = int(result.control_scores.isnan().sum())
    assert planned.evidence_forwards == counts["evidence_forwards"] + left_out


@pytest.mark.parametrize(
    ("options", "solver"),
    [
        ({"effort": "thorough"}, EFFORTS["thorough"].solver("consensus")),
        ({"effort": "fast", "solver": "path"}, EFFORTS["fast"].solver("path")),
        ({"effort": "fast", "solver": solvers.Path(steps=9)}, solvers.Path(steps=9)),
        ({"effort": "fast", "solver": "search"}, solvers.SOLVERS["search"]),
    ],
)
def test_only_solvers_passed_by_name_follow_the_effort(options: dict[str, Any], solver: solvers.Solver) -> None:
    assert Settings(**options).solver == solver
    assert Settings.from_dict(Settings(**options).as_dict()).solver == solver


def test_another_effort_replaces_the_solver_of_the_former_one() -> None:
    assert Settings().replace(effort="fast").solver == EFFORTS["fast"].solver("consensus")
    assert Settings(effort="fast").replace(effort="normal").solver == Settings().solver
    own = solvers.Consensus(steps=3)
    assert Settings(solver=own).replace(effort="fast").solver == own
    assert Settings().replace(effort="fast", solver="path").solver == EFFORTS["fast"].solver("path")


@pytest.mark.parametrize("effort", ["quick", 3, None])
def test_other_efforts_are_refused(effort: Any) -> None:
    with pytest.raises(ExtremalValueError, match="effort must be one of fast, normal, thorough, got"):
        Settings(effort=effort)
