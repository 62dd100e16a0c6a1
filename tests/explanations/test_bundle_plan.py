"""Plans of sets, contrasts and tokens: their evaluations are those that are then taken, and nothing is explained."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal import Network, contrast, explain_sets, explain_tokens
from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations.preflight.bundle_plan import BundlePlan, plan_contrast, plan_sets, plan_tokens
from extremal.masking.solvers import Consensus, Path, Penalty, Search, Solver
from extremal.networks.counting import EvaluationCounter
from extremal.scores import Answer
from support.errors import message_of
from support.vlm_toys import ANSWER, PROMPT, planted_network, planted_picture

pytestmark = pytest.mark.usefixtures("one_thread")
X = torch.ones(1, 3, 24, 24)
AREAS = (0.05, 0.1)
SOLVERS: dict[str, Solver] = {
    "consensus": Consensus(steps=2, draws=2),
    "path": Path(steps=3, polish=1, draws=1, search=0),
    "penalty": Penalty(steps=3),
    "search": Search(evaluations=100),
}


class Rivals(nn.Module):
    """Class 0 by the light of one square, class 1 by that of another, class 2 by none; counts the rows it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        first, second = x[..., 2:8, 2:8].mean((1, 2, 3)), x[..., 12:18, 12:18].mean((1, 2, 3))
        return torch.stack([8 * first, 5 * second, 0 * first + 1], 1)


def total(plan: BundlePlan) -> int:
    assert plan.evaluations is not None
    return sum(asdict(plan.evaluations).values())


@pytest.mark.parametrize(("plan", "take"), [(plan_sets, explain_sets), (plan_contrast, contrast)])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("perturbation", ["fade", "mixed"])
@pytest.mark.parametrize("mirror", [False, True])
def test_the_network_gets_as_many_rows_as_planned(
    plan: Callable[..., BundlePlan], take: Callable[..., Any], solver: str, perturbation: str, mirror: bool
) -> None:
    options: dict[str, Any] = {"areas": AREAS, "perturbation": perturbation, "solver": SOLVERS[solver]}
    options["effort"] = "thorough"  # all controls are scored
    model = Rivals()
    net = Network(model, labels=("cat", "dog", "none"), mirror=mirror, gradient=solver != "search")
    planned = plan(net, X, **options)
    model.rows = 0
    result = take(net, X, **options)
    assert model.rows == total(planned)
    stored = [getattr(result, part).settings["evaluations"] for part in result.parts]
    assert [asdict(part.evaluations) for part in planned.parts.values() if part.evaluations] == stored[:3]
    assert planned.seconds is not None
    assert planned.seconds > 0


def test_the_parts_of_a_plan() -> None:
    net = Network(Rivals(), labels=("cat", "dog", "none"))
    assert list(plan_sets(net, X, areas=AREAS).parts) == ["sufficient", "necessary", "complete"]
    planned = plan_contrast(net, X, areas=AREAS)
    games = [(name, part.settings["game"]) for name, part in planned.parts.items()]
    assert games == [("cat rather than dog", "delete"), ("cat", "preserve"), ("dog", "preserve")]
    record = planned.as_dict()
    assert sum(record["evaluations"].values()) == total(planned)
    assert list(record) == ["parts", "more", "without_effect", "evaluations", "seconds", "memory"]


@pytest.mark.parametrize("answer", [Answer(prompt=PROMPT), Answer(ANSWER, PROMPT)])
def test_tokens(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    solver = SOLVERS["consensus"]
    planned = plan_tokens(planted_network(), planted_picture(), answer, areas=AREAS, solver=solver, effort="thorough")
    assert list(planned.parts) == ["answer", "bus (3 of 3)"]
    assert planned.without_effect == ("a (1 of 3)", "red (2 of 3)")
    counted = []
    original = EvaluationCounter.count_evaluations

    def count(self: EvaluationCounter, rows: int, *, with_gradient: bool) -> None:
        counted.append(rows)
        original(self, rows, with_gradient=with_gradient)

    monkeypatch.setattr(EvaluationCounter, "count_evaluations", count)
    explain_tokens(planted_network(), planted_picture(), answer, areas=AREAS, solver=solver, effort="thorough")
    assert sum(counted) == total(planned)


def test_what_is_refused_is_what_the_functions_refuse() -> None:
    net = Network(Rivals(), labels=("cat", "dog", "none"))
    cases: list[tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
        (plan_sets, explain_sets, (net, X), {"game": "delete"}),
        (plan_sets, explain_sets, (net, X.expand(2, -1, -1, -1)), {}),
        (plan_sets, explain_sets, (net, X, ["cat", "dog"]), {}),
        (plan_contrast, contrast, (net, X, "dog", "cat"), {}),
        (plan_contrast, contrast, (net, X), {"score": "logit"}),
        (plan_tokens, explain_tokens, (planted_network(), planted_picture(), Answer(ANSWER, PROMPT, token=1)), {}),
    ]
    for plan, take, arguments, options in cases:
        with pytest.raises((ExtremalValueError, ExtremalTypeError)):
            take(*arguments, **options)
        assert message_of(plan, *arguments, **options) == message_of(take, *arguments, **options)
