"""Exchanges of single places: never worse, exact sizes, and the best single place is found."""

import pytest
import torch
from torch import Tensor

from extremal.masking.domain import Domain
from extremal.masking.solvers.problem import Problem
from extremal.masking.solvers.swap import swap_places

TOTAL = 12
WORTH = torch.rand(2, TOTAL, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def linear(masks: Tensor, mirrored: bool) -> Tensor:
    assert not mirrored
    return (masks[:, :, 0] * WORTH.unsqueeze(1)).sum(2)


def deceitful(masks: Tensor, mirrored: bool) -> Tensor:
    """The slope tells the contrary of the worth: only trying helps."""
    value = (masks[:, :, 0] * WORTH.unsqueeze(1)).sum(2)
    return 2 * value.detach() - value


def problem(reward: object) -> Problem:
    return Problem(reward, 2, Domain((TOTAL,), has_neighbours=False), False, torch.float64, torch.device("cpu"))  # type: ignore[arg-type]


def start(sizes: list[int]) -> Tensor:
    rows = torch.stack([(torch.arange(TOTAL) < size).double() for size in sizes])
    return rows[None, :, None].expand(2, -1, -1, -1).clone()


def best(size: int) -> Tensor:
    return WORTH.topk(size, dim=1).values.sum(1)


def test_a_linear_reward_is_solved() -> None:
    sets, paid = swap_places(problem(linear), start([1, 3, 6]), linear(start([1, 3, 6]), False), 8)
    assert sets.sum(-1)[:, :, 0].tolist() == [[1, 3, 6]] * 2
    for column, size in enumerate([1, 3, 6]):
        torch.testing.assert_close(paid[:, column], best(size))
    torch.testing.assert_close(linear(sets, False), paid)


def test_the_best_single_place_is_found_though_the_slopes_mislead() -> None:
    sets, paid = swap_places(problem(deceitful), start([1]), deceitful(start([1]), False), 8)
    torch.testing.assert_close(paid[:, 0], best(1))
    assert sets.sum(-1).tolist() == [[[1.0]]] * 2


@pytest.mark.parametrize("rounds", [0, 1])
def test_nothing_gets_worse_and_scores_that_are_not_finite_are_not_taken(rounds: int) -> None:
    def broken(masks: Tensor, mirrored: bool) -> Tensor:
        value = linear(masks, mirrored)
        return torch.where(masks[:, :, 0, 0] > 0, value, value * torch.nan)

    before = start([2, 11])
    sets, paid = swap_places(problem(broken), before, broken(before, False), rounds)
    assert paid.isfinite().all()
    assert (paid >= broken(before, False)).all()
    assert (sets[:, :, 0, 0] == 1).all()


def test_evaluations_are_counted() -> None:
    rows: list[tuple[int, bool]] = []

    def counted(masks: Tensor, mirrored: bool) -> Tensor:
        rows.append((masks.shape[1], masks.requires_grad))
        return linear(masks, mirrored)

    swap_places(problem(counted), start([2, 5]), linear(start([2, 5]), False), 3)
    assert rows == [(2, True), (12, False)] * 3
