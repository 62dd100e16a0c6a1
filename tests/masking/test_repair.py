"""The repair of `consensus`: only effects that fall are searched for again."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from extremal.masking.area import cut
from extremal.masking.domain import Domain
from extremal.masking.solvers import Consensus, Problem
from extremal.masking.solvers.problem import Orientation, RewardMasks, Step, WayIndex
from extremal.masking.solvers.repair import LEAST_STEPS

SHAPE = (16, 20)
AREAS = (0.06, 0.3)
ONE_FIELD = Consensus(steps=1, least=1, rate=0.01, candidates=1)
UNREPAIRED = replace(ONE_FIELD, repair_steps=0)


class Surroundings:
    """The share of a square that is kept, less what its surroundings harm; kept as a whole, they do not harm.

    Places to the right do not count.
    """

    def __init__(self, harms: tuple[float, ...]) -> None:
        self.harms = harms  # of each input
        self.gradients = 0  # number of masks that needed one
        self.forwards = 0  # number of the others

    def __call__(self, masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        count = masks.shape[0] * masks.shape[1]
        self.gradients += masks.requires_grad * count
        self.forwards += (not masks.requires_grad) * count
        square = masks[..., 4:8, 4:8].flatten(2).mean(2)
        around = (masks[..., :12].flatten(2).sum(2) - masks[..., 4:8, 4:8].flatten(2).sum(2)) / (12 * 16 - 16)
        return square - masks.new_tensor(self.harms).unsqueeze(1) * around * (1 - around)


class DividedSurroundings(Surroundings):
    """The same, where each input can be asked about alone."""

    def at_input(self, n: int) -> Surroundings:
        self.part = Surroundings(self.harms[n : n + 1])
        return self.part


def problem_of(reward: RewardMasks, count: int = 1, *, has_spans: bool = True) -> Problem:
    differences = torch.ones(count, 1, *SHAPE)
    differences[..., 12:] = 0.0  # destroying changes nothing to the right
    return Problem(
        reward,
        count,
        Domain(SHAPE),
        True,
        torch.float32,
        torch.device("cpu"),
        differences=differences,
        spans=torch.ones(count) if has_spans else None,
        reward_at_input=getattr(reward, "at_input", None),
    )


def test_an_effect_that_falls_is_repaired() -> None:
    reward = Surroundings((4.0,))
    fallen, repaired = (
        reward(cut(settings.solve(problem_of(reward), AREAS).masks, AREAS), False)[0]
        for settings in (UNREPAIRED, ONE_FIELD)
    )
    assert float(fallen[1]) < float(fallen[0]) - 0.2
    assert float(repaired[1]) > float(repaired[0]) - 0.05
    assert float(repaired[0]) == float(fallen[0])


def test_the_search_ends_when_the_effect_is_as_high_as_that_of_the_smaller_area() -> None:
    flat, unknown = Surroundings((4.0,)), Surroundings((4.0,))
    masks = ONE_FIELD.solve(problem_of(flat), AREAS).masks
    searched = ONE_FIELD.solve(replace(problem_of(unknown), differences=None), AREAS).masks
    starts = ONE_FIELD.draws * 2 + sum(ONE_FIELD.schedule(len(AREAS))) * len(AREAS)
    assert flat.gradients == starts + LEAST_STEPS  # the flat places were enough
    assert starts + LEAST_STEPS <= unknown.gradients <= starts + ONE_FIELD.repair_steps
    for values, reward in ((masks, flat), (searched, unknown)):
        smaller, larger = reward(cut(values, AREAS), False)[0]
        assert float(larger) > float(smaller) - 0.05


def test_searches_that_fall_short_are_followed_by_others() -> None:
    reward, short = Surroundings((4.0,)), replace(ONE_FIELD, repair_steps=8, repair_rate=0.6)
    harmful = torch.ones(1, 1, *SHAPE)
    harmful[..., :12] = 0.0  # the flat places, from which the first search begins in vain
    problem = replace(problem_of(reward), differences=harmful)
    fallen = reward(cut(UNREPAIRED.solve(problem, AREAS).masks, AREAS), False)[0]
    steps: list[Step] = []
    repaired = reward(cut(short.solve(problem, AREAS, steps.append).masks, AREAS), False)[0]
    assert sum(step.stage == "repair" for step in steps) == 3 * short.repair_steps
    assert float(repaired[1]) > float(fallen[1]) + 0.5


def test_only_the_inputs_whose_effect_falls_are_searched_again() -> None:
    reward, whole = DividedSurroundings((0.0, 4.0)), Surroundings((0.0, 4.0))
    masks, unrepaired = (ONE_FIELD.solve(problem_of(value, 2), AREAS).masks for value in (reward, whole))
    assert torch.equal(masks[0], unrepaired[0])
    assert reward.gradients == whole.gradients
    assert LEAST_STEPS <= reward.part.gradients <= ONE_FIELD.repair_steps
    after, before = (reward(cut(values, AREAS), False) for values in (masks, unrepaired))
    assert float(after[1, 1]) > float(before[1, 1]) + 0.2


def test_each_step_is_reported_so_that_a_run_can_be_cancelled_in_it() -> None:
    steps: list[Step] = []
    ONE_FIELD.solve(problem_of(DividedSurroundings((0.0, 4.0)), 2), AREAS, steps.append)
    repairs = [step for step in steps if step.stage == "repair"]
    assert LEAST_STEPS <= len(repairs) <= ONE_FIELD.repair_steps
    assert {(step.index, step.total) for step in repairs} == {(steps[0].total - 1, steps[0].total)}
    assert {tuple(step.masks.shape) for step in repairs} == {(1, 1, 1, *SHAPE)}


@pytest.mark.parametrize(("settings", "has_spans"), [(UNREPAIRED, True), (ONE_FIELD, False)])
def test_without_steps_or_a_known_effect_nothing_is_evaluated(settings: Consensus, has_spans: bool) -> None:
    reward = Surroundings((4.0,))
    settings.solve(problem_of(reward, has_spans=has_spans), AREAS)
    assert reward.forwards == 0


def test_a_run_that_is_not_finite_is_not_repaired() -> None:
    reward = Surroundings((math.nan,))
    solution = ONE_FIELD.solve(problem_of(reward), AREAS)
    assert reward.forwards == 0
    assert not bool(solution.finite[0])
