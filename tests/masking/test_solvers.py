"""Contract of all solvers, and the paper's solver re-derived."""

import itertools
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.area import cut
from extremal.masking.domain import Domain
from extremal.masking.solvers import (
    SOLVERS,
    Consensus,
    Path,
    Penalty,
    Problem,
    Search,
    Solver,
    Step,
    get_solver,
    rebuild_masks,
)
from extremal.masking.solvers.path import count_passes
from extremal.masking.solvers.problem import Orientation, WayIndex

F64 = torch.float64
SOLVER_IDS = ["consensus", "path", "penalty", "search"]
QUICK: list[Solver] = [
    Consensus(steps=5, draws=2, least=5),
    Path(steps=6, polish=3, draws=2),
    Penalty(steps=7),
    Search(evaluations=50, batch=8),
]


def weights(*shape: int, count: int = 1, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(count, 1, 1, *shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


class LinearReward:
    """The mean of w·m, with counts of calls and masks; on the mirrored input w is mirrored."""

    def __init__(self, w: Tensor, spoil: Callable[[Tensor, int], Tensor] | None = None) -> None:
        self.w, self.spoil = w, spoil
        self.calls, self.rows, self.mirrored = 0, 0, []  # number of calls, masks per input, orientations

    def __call__(self, masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        flips = [mirrored if isinstance(mirrored, bool) else mirrored[k % len(mirrored)] for k in range(masks.shape[1])]
        columns = [column.flip(-1) if flip else column for column, flip in zip(masks.unbind(1), flips, strict=True)]
        weights = [self.w[:, 0].flip(-1) if flip else self.w[:, 0] for flip in flips]
        rewards = (torch.stack(weights, 1) * torch.stack(columns, 1)).flatten(2).mean(2)
        self.calls, self.rows = self.calls + 1, self.rows + masks.shape[1]
        self.mirrored.append(mirrored)
        return rewards if self.spoil is None else self.spoil(rewards, self.calls)


def problem(reward: LinearReward, *, mirror: bool = False) -> Problem:
    w = reward.w
    return Problem(reward, len(w), Domain(tuple(w.shape[3:])), mirror, w.dtype, w.device)


@pytest.mark.parametrize("solver", QUICK, ids=SOLVER_IDS)
@pytest.mark.parametrize("shape", [(20,), (12, 10), (5, 6, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_masks_have_the_shape_and_dtype_of_the_problem(
    solver: Solver, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    solution = solver.solve(problem(LinearReward(weights(*shape, count=2, dtype=dtype))), (0.1, 0.5), None)
    assert solution.masks.shape == (2, 2, 1, *shape)
    assert solution.masks.dtype == dtype
    assert solution.masks.min() >= 0
    assert solution.masks.max() <= 1 + 1e-6
    assert not solution.masks.requires_grad
    assert solution.finite.tolist() == [True, True]


@pytest.mark.parametrize("solver", [*QUICK, Penalty(steps=3, padded=True)], ids=[*SOLVER_IDS, "padded"])
@pytest.mark.parametrize(
    "domain",
    [
        Domain((12, 10)),
        Domain((5, 6, 7), spacing=(2.0, 1.0, 1.0)),
        Domain((12, 10), within=torch.ones(12, 10).tril().bool()),
        Domain((12, 10), units=torch.arange(120).view(12, 10) // 8),
        Domain((30,), has_neighbours=False),
    ],
    ids=["image", "volume", "within", "units", "channels"],
)
def test_masks_are_rebuilt_from_their_fields_bit_by_bit(solver: Solver, domain: Domain) -> None:
    reward = LinearReward(weights(*domain.shape, count=2))
    problem_ = Problem(reward, 2, domain, False, F64, reward.w.device)
    solution = solver.solve(problem_, (0.1, 0.3), None)
    assert solution.fields is not None
    assert not solution.fields.requires_grad
    settings = json.loads(json.dumps(solver.settings()))
    assert torch.equal(rebuild_masks(settings, solution.fields, (0.1, 0.3), domain), solution.masks)


def test_masks_of_another_solver_cannot_be_rebuilt() -> None:
    template = (
        "a solver must be one of consensus, path, penalty, search with settings of this version, got {}; pass it as "
        "solver, "
    )
    for settings, got in (({"name": "given"}, "'given' with none"), ({"name": "path", "pace": 1}, "'path' with pace")):
        message = template.format(got) + "or store explanations whole with save"
        with pytest.raises(ExtremalValueError, match=f"^{re.escape(message)}$"):
            rebuild_masks(settings, torch.zeros(1, 1, 1, 4), (0.5,), Domain((4,)))


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("settings", [Path(), Path(steps=9, polish=4, draws=3)])
def test_path_takes_the_passes_that_count_passes_returns(settings: Path, mirror: bool) -> None:
    reward = LinearReward(weights(10, 12))
    settings.solve(problem(reward, mirror=mirror), (0.05, 0.1, 0.3))
    forwards = (settings.rounds + 1) * (3 * 3 - 2) + settings.search * 3  # cut masks, without gradient
    assert reward.rows == count_passes(settings, 3, mirror) + forwards


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_the_polish_never_lowers_the_reward_of_the_sweep(rounds: int) -> None:
    """Compared by the rewards of cut masks, by which they are judged."""
    areas, w = (0.05, 0.1, 0.3), weights(14, 15, count=3)
    wavy = LinearReward(w, lambda rewards, _: torch.sin(40 * rewards))  # a reward with many optima
    settings = Path(steps=6, polish=0, draws=1, polish_rate=0.5, search=0)
    swept = settings.solve(problem(wavy), areas)
    polished = replace(settings, polish=8, rounds=rounds).solve(problem(wavy), areas)
    before, after = (wavy(cut(solution.masks, areas), False) for solution in (swept, polished))
    assert bool((after >= before - 1e-12).all())
    assert bool((after > before + 1e-3).any())


def test_the_search_only_raises_rewards_and_is_seeded() -> None:
    areas, w = (0.05, 0.1, 0.3), weights(14, 15, count=3)
    settings = Path(steps=6, polish=2, draws=1, search=0)
    problem_ = problem(LinearReward(w))

    def solve(settings: Path, seed: int = 0) -> tuple[Tensor, Tensor]:
        masks = settings.solve(replace(problem_, seed=seed), areas).masks
        return masks, problem_.reward(cut(masks, areas), False)

    (_, before), (masks, after) = solve(settings), solve(replace(settings, search=30))
    assert bool((after >= before - 1e-12).all())
    assert bool((after > before + 1e-3).any())
    assert torch.equal(solve(replace(settings, search=30))[0], masks)
    assert not torch.equal(solve(replace(settings, search=30), seed=1)[0], masks)


@pytest.mark.parametrize(("name", "minimum"), [("steps", 1), ("polish", 0), ("rounds", 1), ("search", 0), ("draws", 1)])
def test_numbers_of_steps_have_a_minimum(name: str, minimum: int) -> None:
    with pytest.raises(ExtremalValueError) as error:
        Path(**{name: minimum - 1})
    assert str(error.value) == f"{name} of path must be at least {minimum}, got {minimum - 1}"


def test_penalty_takes_one_pass_a_step_and_area() -> None:
    reward = LinearReward(weights(10, 12))
    Penalty(steps=6).solve(problem(reward, mirror=True), (0.05, 0.1, 0.3))
    assert reward.rows == 6 * 3
    assert reward.mirrored in (
        [False, True] * 3,
        [True, False] * 3,
    )  # the paper's jitter: mirrored on every second step


@pytest.mark.parametrize("solver", QUICK, ids=SOLVER_IDS)
@pytest.mark.parametrize("mirror", [False, True])
def test_progress_and_trace_hold_the_same_steps(solver: Solver, mirror: bool) -> None:
    steps: list[Step] = []
    solution = solver.solve(problem(LinearReward(weights(12, 10, count=2)), mirror=mirror), (0.1, 0.5), steps.append)
    trace = solution.trace
    assert [step.index for step in steps] == list(range(len(steps)))
    assert {step.total for step in steps} == {len(steps)}
    assert trace.step.dtype == torch.int64
    rows = [step.index for step in steps for _ in range(step.masks.shape[1])]
    assert trace.step.tolist() == rows
    assert trace.area.shape == trace.reward.shape == trace.grey.shape == (2, len(rows))
    masks = torch.cat([step.masks for step in steps], 1).flatten(2)
    assert not masks.requires_grad
    torch.testing.assert_close(trace.area, masks.mean(2))
    torch.testing.assert_close(trace.grey, (4 * masks * (1 - masks)).mean(2))
    torch.testing.assert_close(trace.reward, torch.cat([step.rewards for step in steps], 1))


def test_path_has_exact_areas_all_the_way() -> None:
    steps: list[Step] = []
    areas = (0.04, 0.2, 0.97)
    settings = Path(steps=20, polish=4, draws=2)
    settings.solve(problem(LinearReward(weights(13, 17))), areas, steps.append)
    swept = [float(step.masks.mean()) for step in steps if step.stage == "sweep"]
    np.testing.assert_allclose(swept, settings.schedule(areas), atol=1e-9)
    polished = [step.masks.flatten(2).mean(2)[0].tolist() for step in steps if step.stage == "polish"]
    np.testing.assert_allclose(polished, [areas] * 4, atol=1e-9)


@pytest.mark.parametrize("areas", [(0.025, 0.05, 0.1, 0.2, 0.4), (0.001,), (0.5, 0.99)])
def test_the_schedule_falls_geometrically_past_every_area(areas: tuple[float, ...]) -> None:
    schedule = Path().schedule(areas)
    ratios = [after / before for before, after in itertools.pairwise(schedule)]
    assert schedule[0] > areas[-1]
    assert schedule[-1] < areas[0]
    assert 0 < schedule[-1] < schedule[0] < 1
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-9)
    assert ratios[0] < 1


@pytest.mark.parametrize("solver", QUICK, ids=SOLVER_IDS)
@pytest.mark.parametrize("call", [1, 4, 6])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_input_that_is_not_finite_does_not_affect_the_others(solver: Solver, call: int, value: float) -> None:
    w = weights(12, 10, count=3)

    def spoil(rewards: Tensor, calls: int) -> Tensor:
        broken = torch.zeros_like(rewards)
        broken[1] = value if calls >= call else 0.0
        return rewards + broken * rewards.abs() if calls >= call else rewards

    solution = solver.solve(problem(LinearReward(w, spoil)), (0.1, 0.5), None)
    undisturbed = solver.solve(problem(LinearReward(w)), (0.1, 0.5), None)
    assert solution.finite.tolist() == [True, False, True]
    assert solution.fields is not None
    assert solution.fields.flatten(1).any(1).tolist() == [True, False, True]
    assert float(solution.masks[1].abs().max()) == 0.0
    assert torch.equal(solution.masks[[0, 2]], undisturbed.masks[[0, 2]])


@pytest.mark.parametrize("solver", QUICK, ids=SOLVER_IDS)
def test_a_run_ends_when_no_input_is_finite(solver: Solver) -> None:
    steps: list[Step] = []
    reward = LinearReward(weights(12, 10, count=2), lambda rewards, calls: rewards * (math.nan if calls >= 4 else 1.0))
    solution = solver.solve(problem(reward), (0.1, 0.5), steps.append)
    assert solution.finite.tolist() == [False, False]
    assert float(solution.masks.abs().max()) == 0.0
    assert len(steps) == 4
    assert solution.trace.step.tolist() == sorted(solution.trace.step.tolist())
    assert bool(solution.trace.reward.isnan().any())


@pytest.mark.parametrize("solver", QUICK, ids=SOLVER_IDS)
def test_a_batch_equals_its_inputs_one_by_one(solver: Solver) -> None:
    w = weights(12, 10, count=3)
    together = solver.solve(problem(LinearReward(w)), (0.1, 0.5), None)
    for n in range(3):
        alone = solver.solve(problem(LinearReward(w[n : n + 1])), (0.1, 0.5), None)
        torch.testing.assert_close(alone.masks[0], together.masks[n], atol=1e-9, rtol=0)


def test_areas_of_the_penalty_solver_do_not_mix() -> None:
    w = weights(12, 10)
    together = Penalty(steps=8).solve(problem(LinearReward(w)), (0.1, 0.5))
    for k, area in enumerate((0.1, 0.5)):
        alone = Penalty(steps=8).solve(problem(LinearReward(w)), (area,))
        torch.testing.assert_close(alone.masks[0, 0], together.masks[0, k], atol=1e-12, rtol=0)


def naive_penalty(w: Tensor, area: float, steps: int, settings: Penalty) -> tuple[Tensor, list[float]]:
    """Section 3.2 of the paper on a signal with one lattice point per place, σ = 3: mask and rewards."""
    size = len(w)
    place = torch.arange(size, dtype=F64)
    distance = (place[:, None] - place).abs()
    kernel = torch.exp(-2 * (distance / 3 - 0.5).clamp_min(0) ** 2)
    near = distance <= 4  # 1 + ⌈σ/s⌉
    beyond = 9 - near.sum(1)  # points of the window outside the lattice: f = 0, exp(f/T) = 1
    rank = (torch.arange(size) >= math.floor(round((1 - area) * size, 6))).to(F64)

    def evaluate(p: Tensor) -> Tensor:
        f = kernel * p
        e = torch.exp(20 * f) * near
        return (f * e).sum(1) / (e.sum(1) + beyond)

    p = torch.ones(size, dtype=F64)
    momentum: Tensor | None = None
    rewards = []
    for t in range(steps):
        p.requires_grad_()
        mask = evaluate(p)
        reward = (w * mask).sum() / size
        penalty = ((mask[torch.argsort(mask.detach())] - rank) ** 2).sum() / size
        (grad,) = torch.autograd.grad(-(reward - settings.weight * settings.growth**t * penalty), p)
        momentum = grad if momentum is None else settings.momentum * momentum + (1 - settings.dampening) * grad
        p = (p.detach() - settings.rate * momentum).clamp(0, 1)
        rewards.append(reward.item())
    return evaluate(p), rewards


@pytest.mark.parametrize(
    "settings", [Penalty(), Penalty(rate=0.05, momentum=0.5, dampening=0.2, weight=20, growth=1.1)]
)
def test_penalty_equals_the_papers_descent_written_out(settings: Penalty) -> None:
    # the first mask, of all-one parameters, is flat but for two places at each border that are higher; equal values may
    # be sorted in any order, so the areas are such that all equal ones lie on one side of the rank
    areas, size = (0.08, 0.17), 23
    w = 30 * weights(size)
    solution = replace(settings, steps=10).solve(problem(LinearReward(w)), areas)
    for k, area in enumerate(areas):
        mask, rewards = naive_penalty(w.flatten(), area, 10, settings)
        torch.testing.assert_close(solution.masks[0, k, 0], mask, atol=1e-9, rtol=0)
        np.testing.assert_allclose(solution.trace.reward[0, k::2].numpy(), rewards, atol=1e-9)
        assert float(mask.std()) > 0.01, "ten steps must have moved the mask"


def test_penalty_with_a_margin_measures_its_area_on_the_image() -> None:
    steps: list[Step] = []
    solution = Penalty(steps=5, padded=True).solve(problem(LinearReward(weights(14, 11))), (0.3,), steps.append)
    assert solution.masks.shape == (1, 1, 1, 14, 11)
    assert float(solution.trace.area[0, 0]) == pytest.approx(float(steps[0].masks.mean()), abs=1e-12)


def test_settings_are_plain_values_that_repeat_the_run() -> None:
    for name, solver in SOLVERS.items():
        values = solver.settings()
        assert values.pop("name") == name == solver.name
        assert {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()} == asdict(solver)  # type: ignore[call-overload]


def test_names() -> None:
    assert get_solver("path") == Path()
    assert get_solver("penalty") == Penalty()
    own = Path(steps=3)
    assert get_solver(own) is own
    with pytest.raises(ExtremalValueError) as unknown:
        get_solver("adam")
    assert str(unknown.value) == "solver must be one of consensus, path, penalty, search or a solver, got 'adam'"
    with pytest.raises(ExtremalTypeError) as wrong:
        get_solver(3)  # type: ignore[arg-type]
    assert str(wrong.value) == (
        "solver must be one of consensus, path, penalty, search or an object with solve(problem, areas, on_step), "
        "got int"
    )
