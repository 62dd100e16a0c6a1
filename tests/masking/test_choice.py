"""The choice of `consensus`: candidates around the next smaller mask, and their mean."""

import math

import torch
from torch import Tensor

from extremal.masking.area import cut
from extremal.masking.domain import Domain
from extremal.masking.solvers import Consensus, Problem
from extremal.masking.solvers.choice import average_best
from extremal.masking.solvers.problem import Orientation, WayIndex

SHAPE = (16, 20)
AREAS = (0.06, 0.3)


def seeded(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_a_larger_area_may_contain_the_smaller_mask_and_indifferent_places() -> None:
    """Where every other place harms, the larger mask adds those that destroying does not change."""
    w = torch.full((1, 1, *SHAPE), -1.0)
    w[..., 4:8, 4:8] = 20.0
    w[..., :, 12:] = -0.01
    differences = torch.ones(1, 1, *SHAPE)
    differences[..., 12:] = 0.0

    def reward(masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        return (w * masks).flatten(2).mean(2)

    problem = Problem(reward, 1, Domain(SHAPE), True, torch.float32, torch.device("cpu"), differences=differences)
    masks = Consensus(steps=1, least=1, rate=0.01).solve(problem, AREAS).masks
    mask = cut(masks, AREAS)[0, 1]
    assert float(mask[0, 4:8, 4:8].mean()) > 0.8
    assert float(mask[0, :, 12:].sum()) > 0.5 * float(mask.sum())


def test_candidates_of_nearly_equal_rewards_are_averaged() -> None:
    candidates, spans = seeded(2, 3, 1, 4, 4), torch.tensor([10.0, 1.0])
    rewards = torch.tensor([[5.0, 5.0, 0.0], [5.0, 5.0, 4.9]])
    mean = average_best(candidates, rewards, spans, tolerance=0.1)
    torch.testing.assert_close(mean[0, 0], candidates[0, :2].mean(0), atol=0.05, rtol=0)
    third = math.exp(-1.0) / (2 + math.exp(-1.0))
    torch.testing.assert_close(mean[1, 0], (1 - third) * candidates[1, :2].mean(0) + third * candidates[1, 2])


def test_candidates_without_a_finite_reward_do_not_count() -> None:
    candidates = seeded(2, 3, 1, 4, 4)
    rewards = torch.tensor([[1.0, math.nan, -math.inf], [math.nan] * 3])
    mean = average_best(candidates, rewards, torch.ones(2), tolerance=0.1)
    torch.testing.assert_close(mean[0, 0], candidates[0, 0])
    torch.testing.assert_close(mean[1, 0], candidates[1].mean(0))


def test_without_a_known_effect_the_best_candidate_is_taken() -> None:
    candidates = seeded(1, 3, 1, 4, 4)
    mean = average_best(candidates, torch.tensor([[0.1, 0.3, 0.2]]), None, tolerance=0.1)
    torch.testing.assert_close(mean[:, 0], candidates[:, 1])
