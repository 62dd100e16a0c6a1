"""The last stage of `consensus`: masks that hold smaller ones, their mean, and the repair of effects that fall."""

import itertools
import math
from dataclasses import replace

import torch
from torch import Tensor

from extremal.masking.area import cut
from extremal.masking.domain import Domain
from extremal.masking.solvers import Consensus, Problem
from extremal.masking.solvers.problem import Orientation, RewardMasks, WayIndex
from extremal.masking.solvers.refinement import average_best

SHAPE = (16, 20)
AREAS = (0.06, 0.3)


def seeded(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Linear:
    """The mean of w·m for each input."""

    def __init__(self, w: Tensor) -> None:
        self.w = w  # (N, 1, *S)

    def __call__(self, masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        return (self.w.unsqueeze(1) * masks).flatten(2).mean(2)


class Surroundings:
    """The share of a square that is kept, less what its surroundings harm; kept as a whole, they do not harm.

    Places to the right do not count.
    """

    def __init__(self, harms: tuple[float, ...]) -> None:
        self.harms = harms  # of each input
        self.gradients = 0  # number of masks that needed one

    def __call__(self, masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        self.gradients += masks.requires_grad * masks.shape[0] * masks.shape[1]
        square = masks[..., 4:8, 4:8].flatten(2).mean(2)
        around = (masks[..., :12].flatten(2).sum(2) - masks[..., 4:8, 4:8].flatten(2).sum(2)) / (12 * 16 - 16)
        return square - masks.new_tensor(self.harms).unsqueeze(1) * around * (1 - around)


class DividedSurroundings(Surroundings):
    """The same, where each input can be asked about alone."""

    def at_input(self, n: int) -> "Surroundings":
        self.part = Surroundings(self.harms[n : n + 1])
        return self.part


def problem_of(reward: RewardMasks, count: int = 1, **options: object) -> Problem:
    alone = {"reward_at_input": getattr(reward, "at_input", None), "spans": torch.ones(count)}
    return Problem(reward, count, Domain(SHAPE), True, torch.float32, torch.device("cpu"), **alone, **options)


def differences(count: int) -> Tensor:
    """Return how much destroying changes each place: nothing to the right."""
    values = torch.ones(count, 1, *SHAPE)
    values[..., 12:] = 0.0
    return values


def test_a_larger_area_may_contain_the_smaller_mask_and_indifferent_places() -> None:
    """Where every other place harms, the larger mask adds those that destroying does not change."""
    w = torch.full((1, 1, *SHAPE), -1.0)
    w[..., 4:8, 4:8] = 20.0
    w[..., :, 12:] = -0.01
    settings = Consensus(steps=1, least=1, rate=0.01, polish_steps=0, repair_steps=0)
    (mask,) = cut(settings.solve(problem_of(Linear(w), differences=differences(1)), AREAS).masks, AREAS)[:, 1]
    assert float(mask[0, 4:8, 4:8].mean()) > 0.8
    assert float(mask[0, :, 12:].sum()) > 0.5 * float(mask.sum())


def test_polishing_raises_the_reward_of_larger_areas_and_keeps_the_smallest_mask() -> None:
    w = torch.nn.functional.avg_pool2d(seeded(4, 1, *SHAPE), 5, 1, 2)
    settings = Consensus(steps=1, least=1, repair_steps=0, polish_steps=0)
    plain, polished = (
        value.solve(problem_of(Linear(w), 4), (0.05, 0.1, 0.3)).masks
        for value in (settings, replace(settings, polish_steps=6))
    )
    gains = (w.unsqueeze(1) * (polished - plain)).flatten(2).mean(2)
    assert bool((gains[:, 1:].mean(0) > 0).all())
    assert torch.equal(plain[:, 0], polished[:, 0])


def test_masks_hold_the_next_smaller_ones() -> None:
    areas = (0.05, 0.1, 0.3)
    w = torch.nn.functional.avg_pool2d(seeded(3, 1, *SHAPE), 5, 1, 2)
    masks = cut(Consensus().solve(problem_of(Linear(w), 3), areas).masks, areas)
    for smaller, larger in itertools.pairwise(masks.unbind(1)):
        assert float((smaller * larger).sum() / smaller.sum()) > 0.9


ONE_CANDIDATE = Consensus(steps=1, least=1, rate=0.01, candidates=1, polish_steps=0)


def test_an_effect_that_falls_is_repaired() -> None:
    reward, options = Surroundings((4.0,)), {"differences": differences(1)}
    fallen, repaired = (
        reward(cut(settings.solve(problem_of(reward, **options), AREAS).masks, AREAS), False)[0]
        for settings in (replace(ONE_CANDIDATE, repair_steps=0), ONE_CANDIDATE)
    )
    assert float(fallen[1]) < float(fallen[0]) - 0.2
    assert float(repaired[1]) > float(repaired[0]) - 0.05
    assert float(repaired[0]) == float(fallen[0])


def test_only_the_inputs_whose_effect_falls_are_searched_again() -> None:
    reward, whole = DividedSurroundings((0.0, 4.0)), Surroundings((0.0, 4.0))
    masks, unrepaired = (
        ONE_CANDIDATE.solve(problem_of(value, 2, differences=differences(2)), AREAS).masks for value in (reward, whole)
    )
    assert torch.equal(masks[0], unrepaired[0])
    assert reward.gradients == whole.gradients
    assert reward.part.gradients == ONE_CANDIDATE.repair_steps
    after, before = (reward(cut(values, AREAS), False) for values in (masks, unrepaired))
    assert float(after[1, 1]) > float(before[1, 1]) + 0.2


def test_candidates_of_nearly_equal_rewards_are_averaged() -> None:
    candidates, spans = seeded(2, 1, 3, 1, 4, 4), torch.tensor([10.0, 1.0])
    rewards = torch.tensor([[[5.0, 5.0, 0.0]], [[5.0, 5.0, 4.9]]])
    mean = average_best(candidates, rewards, spans, tolerance=0.1)[:, 0]
    torch.testing.assert_close(mean[0], candidates[0, 0, :2].mean(0), atol=0.05, rtol=0)
    third = math.exp(-1.0) / (2 + math.exp(-1.0))
    torch.testing.assert_close(mean[1], (1 - third) * candidates[1, 0, :2].mean(0) + third * candidates[1, 0, 2])


def test_candidates_without_a_finite_reward_do_not_count() -> None:
    candidates = seeded(2, 1, 3, 1, 4, 4)
    rewards = torch.tensor([[[1.0, math.nan, -math.inf]], [[math.nan] * 3]])
    mean = average_best(candidates, rewards, torch.ones(2), tolerance=0.1)[:, 0]
    torch.testing.assert_close(mean[0], candidates[0, 0, 0])
    torch.testing.assert_close(mean[1], candidates[1, 0].mean(0))


def test_without_a_known_effect_the_best_candidate_of_each_area_is_taken() -> None:
    candidates = seeded(1, 2, 3, 1, 4, 4)
    mean = average_best(candidates, torch.tensor([[[0.1, 0.3, 0.2], [0.3, 0.1, 0.2]]]), None, tolerance=0.1)
    torch.testing.assert_close(mean[0, 0], candidates[0, 0, 1])
    torch.testing.assert_close(mean[0, 1], candidates[0, 1, 0])
