"""Swaps of single places: rewards never fall, sizes are exact, and the best single place is found."""

import pytest
import torch
from torch import Tensor

from extremal.masking.domain import Domain
from extremal.masking.solvers.problem import Orientation, Problem, WayIndex
from extremal.masking.solvers.swap import swap_places

TOTAL = 12
WORTH = torch.rand(2, TOTAL, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def linear(masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
    """Return the sum of the worth of the kept places."""
    assert not mirrored
    return (masks[:, :, 0] * WORTH.unsqueeze(1)).sum(2)


def misleading(masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
    """Return the same reward with a gradient of opposite sign, so that only trying helps."""
    value = (masks[:, :, 0] * WORTH.unsqueeze(1)).sum(2)
    return 2 * value.detach() - value


def problem(reward: object) -> Problem:
    return Problem(reward, 2, Domain((TOTAL,), has_neighbours=False), False, torch.float64, torch.device("cpu"))  # type: ignore[arg-type]


def first_places(sizes: list[int]) -> Tensor:
    """Return sets of the first places, in these sizes: (2, A, 1, TOTAL)."""
    rows = torch.stack([(torch.arange(TOTAL) < size).double() for size in sizes])
    return rows[None, :, None].expand(2, -1, -1, -1).clone()


def best_reward(size: int) -> Tensor:
    return WORTH.topk(size, dim=1).values.sum(1)


def test_a_linear_reward_is_solved() -> None:
    sets, rewards = swap_places(problem(linear), first_places([1, 3, 6]), linear(first_places([1, 3, 6]), False), 8)
    assert sets.sum(-1)[:, :, 0].tolist() == [[1, 3, 6]] * 2
    for column, size in enumerate([1, 3, 6]):
        torch.testing.assert_close(rewards[:, column], best_reward(size))
    torch.testing.assert_close(linear(sets, False), rewards)


def test_the_best_single_place_is_found_despite_misleading_gradients() -> None:
    sets, rewards = swap_places(problem(misleading), first_places([1]), misleading(first_places([1]), False), 8)
    torch.testing.assert_close(rewards[:, 0], best_reward(1))
    assert sets.sum(-1).tolist() == [[[1.0]]] * 2


@pytest.mark.parametrize("rounds", [0, 1])
def test_rewards_never_fall_and_those_that_are_not_finite_are_ignored(rounds: int) -> None:
    def broken(masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        value = linear(masks, mirrored)
        return torch.where(masks[:, :, 0, 0] > 0, value, value * torch.nan)

    before = first_places([2, 11])
    sets, rewards = swap_places(problem(broken), before, broken(before, False), rounds)
    assert rewards.isfinite().all()
    assert (rewards >= broken(before, False)).all()
    assert (sets[:, :, 0, 0] == 1).all()


def test_evaluations_are_counted() -> None:
    rows: list[tuple[int, bool]] = []

    def counted(masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        rows.append((masks.shape[1], masks.requires_grad))
        return linear(masks, mirrored)

    swap_places(problem(counted), first_places([2, 5]), linear(first_places([2, 5]), False), 3)
    assert rows == [(2, True), (12, False)] * 3
