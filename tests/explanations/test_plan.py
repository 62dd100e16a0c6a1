"""`plan`: the cost and targets that it predicts are those of the run."""

import json
import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal import Explanation, ExtremalError, Network, explain, smallest_area
from extremal.explanations.preflight.cost import Evaluations, Work, count_work
from extremal.explanations.preflight.plan import Plan, TopClass, plan
from extremal.masking.domain import Domain
from extremal.masking.solvers import SOLVERS, Consensus, Penalty, Problem, Search, Solution, Solver
from extremal.masking.solvers import Path as PathSolver
from extremal.masking.solvers.problem import Orientation, WayIndex
from support.fake_network import SIDE
from support.toys import Boxes, Switchable, texture

X = texture(1, 3, SIDE, SIDE)
BOX = (slice(4, 14), slice(6, 16))
AREAS = (0.1, 0.2, 0.3)
SHORT = PathSolver(steps=4, polish=2, rounds=1, draws=2, search=2)
SETTINGS = {
    "consensus": Consensus(),
    "short consensus": Consensus(steps=2, draws=1, least=2),
    "path": PathSolver(),
    "path, more rounds than steps": PathSolver(steps=5, polish=2, rounds=4, draws=3, search=3),
    "path without polish": PathSolver(steps=3, polish=0, draws=1, search=0),
    "penalty": Penalty(steps=5),
    "search": Search(evaluations=50),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def boxes(*, mirror: bool = False, memory: float | None = None) -> Network:
    return Network(Boxes(X, [BOX]), mirror=mirror, memory=memory)


def spent(result: Explanation) -> Evaluations:
    """What a run took, and what the controls that it left out would have taken: a plan knows no scores."""
    left_out = Evaluations(evidence_forwards=int(result.control_scores.isnan().sum()))
    return Evaluations(**result.settings["evaluations"]) + left_out


class TestEvaluations:
    @pytest.mark.parametrize("mirror", [True, False], ids=["mirrored", "as it is"])
    @pytest.mark.parametrize("game", ["preserve", "delete", "dual"])
    @pytest.mark.parametrize("solver", [*SETTINGS])
    def test_they_are_those_of_the_run(self, solver: str, game: str, mirror: bool) -> None:
        net, options = boxes(mirror=mirror), {"areas": AREAS, "game": game, "solver": SETTINGS[solver]}
        planned = plan(net, X, 0, **options)  # type: ignore[arg-type]
        result = explain(net, X, 0, **options)  # type: ignore[arg-type]
        assert planned.answers == (spent(result),)
        assert planned.evaluations == spent(result)
        assert planned.settings == {name: value for name, value in result.settings.items() if name != "evaluations"}

    @pytest.mark.parametrize("perturbation", ["mixed", "blur", "fade", "constant", "noise", ("noise", "fade")])
    @pytest.mark.parametrize("areas", [(0.2,), (0.1, 0.2)])
    def test_of_any_perturbation_and_number_of_areas(self, perturbation: Any, areas: tuple[float, ...]) -> None:
        options = {"areas": areas, "perturbation": perturbation, "solver": SHORT}
        planned = plan(boxes(), X, 0, **options)  # type: ignore[arg-type]
        assert planned.answers == (spent(explain(boxes(), X, 0, **options)),)  # type: ignore[arg-type]

    @pytest.mark.parametrize("solver", ["short consensus", "path, more rounds than steps"])
    def test_of_several_answers(self, solver: str) -> None:
        planned = plan(boxes(), X, 0, areas=AREAS, solver=SETTINGS[solver], alternatives=3)
        result = explain(boxes(), X, 0, areas=AREAS, solver=SETTINGS[solver], alternatives=3)
        assert planned.answers == (spent(result), *map(spent, result.alternatives))
        assert planned.evaluations == sum(planned.answers, Evaluations())

    @pytest.mark.parametrize("rows", [1, 2, 100])
    def test_of_several_inputs_in_blocks(self, rows: int) -> None:
        x = texture(3, 3, SIDE, SIDE)
        held = plan(boxes(), X, 0, areas=AREAS, solver=SHORT).row_bytes
        net = boxes(memory=(rows + 0.5) * held / 2**30)
        planned = plan(net, x, [0, 1, 0], areas=AREAS, solver=SHORT, game="dual")
        assert planned.rows == rows
        assert planned.rows_at_once == min(rows, 12)  # the evidence asks about four masks of each
        assert planned.answers == (spent(explain(net, x, [0, 1, 0], areas=AREAS, solver=SHORT, game="dual")),)
        assert [one.target for one in planned.inputs] == [0, 1, 0]

    @pytest.mark.parametrize(
        "solver",
        [Consensus(steps=1, draws=2, least=1), SHORT, Penalty(steps=5), Search(evaluations=50)],
        ids=["consensus", "path", "penalty", "search"],
    )
    def test_of_units(self, solver: Solver) -> None:
        units = torch.arange(SIDE * SIDE).view(SIDE, SIDE) // (3 * SIDE)
        planned = plan(boxes(), X, 0, areas=(0.3,), solver=solver, units=units)
        assert planned.answers == (spent(explain(boxes(), X, 0, areas=(0.3,), solver=solver, units=units)),)

    def test_of_a_game_and_a_question_of_ones_own(self) -> None:
        def thrice(evaluate, mask):  # type: ignore[no-untyped-def]
            return evaluate(mask) + evaluate(mask) - evaluate(1 - mask)

        def first(output: Tensor) -> Tensor:
            return output[:, 0]

        planned = plan(boxes(), X, first, areas=AREAS, solver=SHORT, game=thrice)
        assert planned.answers == (spent(explain(boxes(), X, first, areas=AREAS, solver=SHORT, game=thrice)),)

    @pytest.mark.parametrize("solver", [*SETTINGS])
    @pytest.mark.parametrize("connected", [True, False])
    def test_the_work_of_a_solver(self, solver: str, connected: bool) -> None:
        """Counted by what it asks for."""
        domain = Domain((12, 12)) if connected else Domain((12,), has_neighbours=False)
        with_gradient, without, widest = 0, 0, 0

        def reward(masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
            nonlocal with_gradient, without, widest
            count = masks.shape[0] * masks.shape[1]
            if masks.requires_grad and torch.is_grad_enabled():
                with_gradient, widest = with_gradient + count, max(widest, count)
            else:
                without += count
            return masks.flatten(2).square().mean(2)

        problem = Problem(
            reward,
            1,
            domain,
            False,
            torch.float32,
            torch.device("cpu"),
            differences=texture(1, 1, 12, 12) if connected else None,
            spans=torch.ones(1),
            whole_rewards=torch.ones(1),
        )
        SETTINGS[solver].solve(problem, AREAS, None)
        work = count_work(SETTINGS[solver], len(AREAS), False, domain)
        assert work is not None
        assert (work.single + work.batched, work.forwards, work.widest) == (with_gradient, without, widest)

    def test_refining_takes_no_more_than_predicted(self) -> None:
        rows = 0

        class Counting(Boxes):
            def forward(self, x: Tensor) -> Tensor:
                nonlocal rows
                rows += len(x)
                return super().forward(x)

        net = Network(Counting(X, [BOX]))
        planned = plan(net, X, 0, areas=(0.02, 0.4), refine=True)
        assert planned.refining is not None
        result = explain(net, X, 0, areas=(0.02, 0.4), solver=PathSolver(steps=20, polish=6, search=2))
        rows = 0
        (certificate,) = smallest_area(net, result)
        assert certificate is not None
        assert 10 < rows <= planned.refining.gradients + planned.refining.forwards
        assert plan(net, X, 0, areas=(0.02, 0.4), solver=SHORT).refining is None

    def test_of_a_solver_of_ones_own_they_are_not_known(self) -> None:
        class Own:
            name = "own"

            def settings(self) -> dict[str, object]:
                return {"name": "own"}

            def solve(self, problem: Problem, areas: tuple[float, ...], on_step: object) -> Solution:
                raise AssertionError("a plan runs no solver")

        own: Solver = Own()
        planned = plan(boxes(), X, 0, areas=AREAS, solver=own)
        assert (planned.answers, planned.evaluations, planned.seconds) == ((), None, None)
        assert planned.as_dict()["evaluations"] is None
        assert planned.inputs[0].target == 0


class TestQuestion:
    def test_the_classes_that_are_most_probable(self) -> None:
        logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 0.5, -3.0, 0.0, 0.0, 0.0, -2.0])

        class Bright(nn.Module):
            """The logits times the mean of the input."""

            def forward(self, x: Tensor) -> Tensor:
                return x.flatten(1).mean(1, keepdim=True) * logits

        names = [f"name {index}" for index in range(10)]
        net = Network(Bright(), labels=names)
        planned = plan(net, torch.ones(1, 3, 16, 16), areas=AREAS, solver=SHORT, perturbation="fade", score="logit")
        (one,) = planned.inputs
        shares = logits.softmax(0)
        assert [top.index for top in one.top][:3] == [0, 2, 4]
        assert len(one.top) == 5
        assert isinstance(one.top[1], TopClass)
        assert one.top[1].name == "name 2"
        assert one.top[1].score == pytest.approx(1.0)
        assert one.top[1].probability == pytest.approx(float(shares[2]))
        assert (one.target, one.name) == (0, "name 0")
        assert (one.full, one.blank, one.span) == (pytest.approx(2), pytest.approx(0), pytest.approx(2))
        assert one.probability == pytest.approx(float(shares[0]))
        assert one.probability_blank == pytest.approx(0.1)
        assert one.remaining == pytest.approx(0.1 / float(shares[0]))

    def test_a_class_that_is_named(self) -> None:
        (one,) = plan(boxes(), X, 1, areas=AREAS, solver=SHORT, score="contrastive").inputs
        assert (one.target, one.full) == (1, pytest.approx(-5 * math.tanh(2)))
        assert [top.score for top in one.top] == [pytest.approx(5 * math.tanh(2)), pytest.approx(-5 * math.tanh(2))]

    @pytest.mark.parametrize("last", [nn.Softmax(1), nn.Sigmoid()])
    def test_probabilities_that_the_network_returns(self, last: nn.Module) -> None:
        (one,) = plan(nn.Sequential(boxes().model, last), X, 0, areas=AREAS, solver=SHORT, score="logit").inputs
        expected = last(boxes().model(X))[0]
        assert one.probability == pytest.approx(float(expected[0]))
        assert [top.probability for top in one.top] == pytest.approx(expected.sort(descending=True).values.tolist())

    def test_one_output_has_no_probability(self) -> None:
        class One(Boxes):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x)[:, :1]

        (one,) = plan(One(X, [BOX]), X, areas=AREAS, solver=SHORT).inputs
        assert (one.probability, one.probability_blank, one.remaining) == (None, None, None)
        assert one.top == (TopClass(0, "class 0", pytest.approx(5 * math.tanh(2)), None),)

    def test_a_question_that_is_no_class(self) -> None:
        def height(output: Tensor) -> Tensor:
            return output[:, 0]

        (one,) = plan(boxes(), X, height, areas=AREAS, solver=SHORT).inputs
        assert (one.target, one.name, one.top, one.remaining) == (None, "height", (), None)


class TestCost:
    def test_rows_and_memory(self) -> None:
        class Exponential(nn.Module):
            """Holds exp(x) and nothing else for its gradient."""

            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("shift", torch.zeros(100))

            def forward(self, x: Tensor) -> Tensor:
                return x.exp().flatten(1).mean(1, keepdim=True) + self.shift[:1]

        row = 4 * X.numel()
        net = Network(Exponential(), memory=2.5 * row / 2**30)
        planned = plan(net, X, areas=AREAS, solver=SHORT, perturbation="fade")
        assert (planned.row_bytes, planned.rows, planned.rows_at_once) == (row, 2, 2)
        held = 2 * row  # of a mask: exp(x), and the mask's factor x, which is there anyway, or its product
        assert 400 + 2 * row <= planned.memory <= 400 + 2 * (held + 4 * SIDE * SIDE)
        assert planned.shape == (3, SIDE, SIDE)

    def test_both_sides_of_the_dual_game_are_held(self) -> None:
        areas = (0.1, 0.2, 0.3, 0.4)  # as many masks as the evidence has at once
        one, two = (plan(boxes(), X, 0, areas=areas, solver=SHORT, game=game) for game in ("preserve", "dual"))
        weights = 4 * X.numel()  # the template
        assert (two.memory - weights) / (one.memory - weights) == pytest.approx(2, rel=0.2)

    @pytest.mark.parametrize("solver", [PathSolver(steps=20, polish=6, search=6), Penalty(steps=25)])
    def test_time_is_about_that_of_a_run(self, solver: Solver) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)),
        )
        x = torch.randn(1, 3, 48, 48)
        ratios = []
        for _ in range(3):  # what else the machine does may disturb one
            planned = plan(model, x, areas=AREAS, solver=solver)
            start = time.perf_counter()
            explain(model, x, areas=AREAS, solver=solver)
            assert planned.seconds is not None
            ratios.append(planned.seconds / (time.perf_counter() - start))
            if 1 / 3 < ratios[-1] < 3:
                return
        pytest.fail(f"expected over measured: {ratios}")

    def test_more_answers_and_refining_take_longer(self) -> None:
        work = Work(single=3, batched=1, forwards=0, widest=1)
        planned = plan(boxes(), X, 0, areas=AREAS, solver=SHORT, alternatives=2, refine=True)
        counts = Evaluations(4, 10, 2, 5)
        pace = planned.pace
        wanted = 3 * pace.alone + pace.together + 10 * pace.forward + 2 * pace.evidence + 5 * pace.evidence_forward
        assert pace.seconds(counts, work) == pytest.approx(wanted)
        own = count_work(SHORT, 3, False, ways=3)
        assert own is not None
        assert planned.seconds == pytest.approx(sum(pace.seconds(answer, own) for answer in planned.answers))
        assert planned.seconds_refining is not None
        assert planned.seconds_refining > 0


class TestNothingElse:
    def test_no_solver_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def solve(*_: object) -> Solution:
            raise AssertionError("a plan runs no solver")

        monkeypatch.setattr(PathSolver, "solve", solve)
        monkeypatch.setattr(Penalty, "solve", solve)
        for name in SOLVERS:
            assert plan(boxes(), X, 0, areas=AREAS, solver=name).settings["solver"]["name"] == name

    @pytest.mark.parametrize("failing", [False, True])
    def test_the_network_is_left_as_it_was(self, failing: bool) -> None:
        model = Switchable()
        model.norm.eval()
        model.first.weight.requires_grad_(False)
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        flags = [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]
        seeded = torch.get_rng_state()
        if failing:
            with pytest.raises(ZeroDivisionError):
                plan(model, X, areas=AREAS, game=lambda evaluate, mask: evaluate(mask) * (1 // 0))
        else:
            plan(model, X, areas=AREAS, solver=SHORT)
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert flags == ([module.training for module in model.modules()], [p.requires_grad for p in model.parameters()])
        assert torch.equal(torch.get_rng_state(), seeded)

    @pytest.mark.parametrize(
        ("target", "options"),
        [
            (0, {"areas": (0.1, 5)}),
            (7, {}),
            (0, {"alternatives": 0}),
            (0, {"solver": "x"}),
            (lambda output: output[:, 0].detach(), {}),
            (lambda output: output[:, 0] * 0, {}),
        ],
    )
    def test_what_explain_refuses_is_refused(self, target: object, options: dict[str, object]) -> None:
        with pytest.raises(ExtremalError) as planned:
            plan(boxes(), X, target, **options)  # type: ignore[arg-type]
        with pytest.raises(ExtremalError) as explained:
            explain(boxes(), X, target, **options)  # type: ignore[arg-type]
        assert (type(planned.value), str(planned.value)) == (type(explained.value), str(explained.value))


def test_a_plan_is_a_value() -> None:
    planned = plan(boxes(), X, 0, areas=AREAS, solver=SHORT)
    assert isinstance(planned, Plan)
    with pytest.raises(AttributeError):
        planned.rows = 3  # type: ignore[misc]
    json.dumps(planned.as_dict(), allow_nan=False)
