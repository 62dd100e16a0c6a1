"""The solver without gradients: its budget, its turns, and what it finds for rewards whose best masks are known."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.area import cut
from extremal.masking.domain import Domain
from extremal.masking.solvers import Problem, Search, uses_gradients
from extremal.masking.solvers.problem import Orientation, Step, WayIndex

SHAPE = (28, 30)
AREAS = (0.05, 0.1, 0.3)


class Reward:
    """A function of the means of w·m by each way; counts masks, ways and orientations, and refuses gradients."""

    def __init__(self, w: Tensor, shape: Callable[[Tensor], Tensor] = lambda values: values) -> None:
        self.w, self.shape = w, shape  # (N, W, *S)
        self.turns: list[tuple[bool, int]] = []

    def __call__(self, masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        assert not masks.requires_grad
        assert way is not None
        count = masks.shape[1]
        ways = [way] * count if isinstance(way, int) else list(way)
        flips = [mirrored] * count if isinstance(mirrored, bool) else list(mirrored)
        self.turns += zip(flips, ways, strict=True)
        return self.shape((self.w[:, ways].unsqueeze(2) * masks).flatten(2).mean(2))


def problem(reward: Reward, domain: Domain | None = None, *, seed: int = 0, mirror: bool = False) -> Problem:
    count, ways = reward.w.shape[:2]
    domain = Domain(tuple(reward.w.shape[2:])) if domain is None else domain
    return Problem(reward, count, domain, mirror, torch.float32, torch.device("cpu"), seed=seed, ways=ways)


def box_weights(*, ways: int = 1, harm: float = -0.2) -> Tensor:
    """Weights (1, W, *S) of 10 % of the places, of which others harm."""
    w = torch.full((1, ways, *SHAPE), harm)
    w[..., 8:15, 6:18] = 1.0
    return w


@pytest.mark.parametrize("evaluations", [50, 63, 200, 501])
@pytest.mark.parametrize("ways", [1, 3])
@pytest.mark.parametrize("areas", [(0.3,), AREAS])
def test_it_takes_exactly_the_evaluations_that_are_set(evaluations: int, ways: int, areas: tuple[float, ...]) -> None:
    reward = Reward(box_weights(ways=ways))
    settings = Search(evaluations=evaluations, batch=7)
    steps: list[Step] = []
    solution = settings.solve(problem(reward), areas, steps.append)
    chosen = settings.count_candidates(areas, ways) * len(areas) * ways
    assert len(reward.turns) == sum(draw.count for draw in settings.schedule(areas, ways)) + chosen
    assert len(reward.turns) == evaluations
    assert [step.index for step in steps] == list(range(steps[0].total))
    assert solution.trace.area.shape[1] == len(reward.turns) - chosen + chosen // ways


def test_ways_and_orientations_take_turns() -> None:
    reward = Reward(box_weights(ways=3))
    settings = Search(evaluations=120)
    settings.solve(problem(reward, mirror=True), (0.1,))
    drawn = reward.turns[: sum(draw.count for draw in settings.schedule((0.1,), 3))]
    counts = [drawn.count(turn) for turn in itertools.product((False, True), range(3))]
    assert max(counts) - min(counts) <= 1


def test_areas_fall_from_wide_ones_to_the_smallest_and_then_take_turns() -> None:
    draws = Search(evaluations=400).schedule(AREAS, 1)
    stages = [stage for stage, _ in itertools.groupby(draw.stage for draw in draws)]
    assert stages == ["screening", "descent", "refinement"]
    wide, falling, turns = ([draw.areas for draw in draws if draw.stage == stage] for stage in stages)
    assert all(0.2 <= area <= 0.5 for areas in wide for area in areas)
    assert [areas[0] for areas in falling] == sorted((areas[0] for areas in falling), reverse=True)
    assert falling[-1][0] == pytest.approx(AREAS[0])
    assert {areas[0] for areas in turns} == set(AREAS)


@pytest.mark.parametrize(
    "shape", [lambda values: values, lambda values: torch.tanh(40 * values), lambda values: 3.0 - 100 * (1 - values)]
)
def test_it_finds_the_places_that_are_rewarded_at_exact_areas(shape: Callable[[Tensor], Tensor]) -> None:
    w = box_weights(ways=2)
    solution = Search(evaluations=400).solve(problem(Reward(w, shape)), AREAS)
    masks = cut(solution.masks, AREAS)
    assert [round(float(mask.sum())) for mask in masks[0]] == [round(area * SHAPE[0] * SHAPE[1]) for area in AREAS]
    assert solution.masks.flatten(2).mean(2)[0].tolist() == pytest.approx(AREAS, abs=1e-4)
    inside = (masks[0, :, 0] * (w[0, 0] > 0)).flatten(1).sum(1)
    assert float(inside[0] / masks[0, 0].sum()) > 0.95  # nothing else
    assert float(inside[1] / (w[0, 0] > 0).sum()) > 0.8  # most of it
    assert float(inside[2] / (w[0, 0] > 0).sum()) > 0.95  # all of it


def test_it_finds_both_of_two_places_that_are_needed_together() -> None:
    w = torch.zeros(2, 1, *SHAPE)
    w[0, 0, 2:8, 3:9] = w[1, 0, 18:24, 20:26] = 1.0

    def reward(masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        first, second = ((masks * part).flatten(2).sum(2) / 36 for part in w.unbind(0))
        return torch.minimum(first, second)

    problem_ = Problem(reward, 1, Domain(SHAPE), False, torch.float32, torch.device("cpu"))
    (mask,) = cut(Search(evaluations=800).solve(problem_, (0.12,)).masks, (0.12,))[:, 0]
    assert min(float((mask * part).sum() / 36) for part in w) > 0.7


def test_the_support_is_highest_where_places_are_rewarded() -> None:
    w = box_weights()
    support = Search(evaluations=300).solve(problem(Reward(w)), (0.1,)).support
    assert support is not None
    assert float(support.min()) >= 0
    assert bool(w.flatten()[support.flatten().argmax()] > 0)


def test_the_same_seed_gives_the_same_masks_and_another_seed_others() -> None:
    solve = Search(evaluations=80).solve
    first, again, other = (solve(problem(Reward(box_weights()), seed=seed), AREAS).masks for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_inputs_of_a_batch_do_not_change_each_other() -> None:
    w = torch.randn(3, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    together = Search(evaluations=100).solve(problem(Reward(w)), AREAS).masks
    alone = torch.cat([Search(evaluations=100).solve(problem(Reward(one[None])), AREAS).masks for one in w])
    assert torch.allclose(together, alone, atol=1e-3)


@pytest.mark.parametrize(
    ("domain", "w"),
    [
        (Domain((60,)), (slice(20, 26),)),
        (Domain((10, 16, 18), spacing=(2.0, 1.0, 1.0)), (slice(2, 7), slice(4, 12), slice(4, 12))),
        (Domain((16, 16), units=torch.arange(256).view(16, 16) // 16), (slice(3, 5),)),
        (Domain((16, 16), within=torch.ones(16, 16).tril().bool()), (slice(9, 14), slice(2, 7))),
        (Domain((40,), has_neighbours=False), (slice(7, 11),)),
    ],
    ids=["signal", "volume", "units", "within", "channels"],
)
def test_every_domain(domain: Domain, w: tuple[slice, ...]) -> None:
    weights = torch.zeros(1, 1, *domain.shape)
    weights[(0, 0, *w)] = 1.0
    area = 1.25 * float(weights.mean())
    solution = Search(evaluations=500).solve(problem(Reward(weights), domain), (area,))
    mask = domain.exact_area_family(weights).cut(solution.masks, (area,))
    assert float((mask[0, 0, 0] * weights[0, 0]).sum() / weights.sum()) > 0.8
    if domain.within is not None:
        assert float((solution.masks * ~domain.within).sum()) == 0


def test_an_input_whose_rewards_are_not_finite_does_not_spoil_the_others() -> None:
    w = box_weights().repeat(2, 1, 1, 1)
    clean = Search(evaluations=60).solve(problem(Reward(w)), AREAS)

    def spoil(values: Tensor) -> Tensor:
        return values.where(torch.tensor([[True], [False]]), torch.nan)

    spoiled = Search(evaluations=60).solve(problem(Reward(w, spoil)), AREAS)
    assert spoiled.finite.tolist() == [True, False]
    assert torch.allclose(spoiled.masks[0], clean.masks[0], atol=1e-3)
    assert not spoiled.masks[1].any()


def test_a_run_ends_once_no_input_is_finite() -> None:
    reward = Reward(box_weights(), lambda values: values * torch.nan)
    solution = Search(evaluations=500).solve(problem(reward), AREAS)
    assert solution.finite.tolist() == [False]
    assert len(reward.turns) <= 16 * 2


def test_constant_rewards_give_masks_of_the_areas() -> None:
    solution = Search(evaluations=60).solve(problem(Reward(torch.zeros(1, 1, *SHAPE))), AREAS)
    assert solution.masks.flatten(2).mean(2)[0].tolist() == pytest.approx(AREAS, abs=1e-4)
    assert bool(torch.isfinite(solution.masks).all())


def test_more_evaluations_do_not_score_less() -> None:
    w = torch.nn.functional.avg_pool2d(torch.randn(4, 1, *SHAPE, generator=torch.Generator().manual_seed(1)), 5, 1, 2)

    def reached(evaluations: int) -> float:
        masks = cut(Search(evaluations=evaluations).solve(problem(Reward(w)), AREAS).masks, AREAS)
        return float((w.unsqueeze(1) * masks).flatten(2).sum(2).mean())

    assert reached(60) < reached(300) < 1.05 * reached(1200)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"evaluations": 3}, ExtremalValueError, "evaluations of search must be at least 50, got 3"),
        ({"batch": 0}, ExtremalValueError, "batch of search must be at least 1, got 0"),
        ({"choice": 0.6}, ExtremalValueError, r"choice of search must lie in \(0, 0.5\], got 0.6"),
        ({"choice": 0.0}, ExtremalValueError, "choice of search must be above 0 and finite, got 0"),
        ({"reach": 0.0}, ExtremalValueError, "reach of search must be above 0 and finite, got 0"),
        ({"evaluations": 1e3}, ExtremalTypeError, "evaluations of search must be a whole number, got 1000.0"),
    ],
)
def test_settings_that_break_a_rule(options: dict[str, float], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^{message}"):
        replace(Search(), **options)


def test_it_needs_no_gradient() -> None:
    assert not uses_gradients(Search())
