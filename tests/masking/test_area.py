"""Ranking loss, exact level, exact cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extremal.masking.area import (
    count_kept,
    cut_one,
    find_level_by_sections,
    find_level_by_steps,
    level,
    ranking_loss,
)
from support import oracles
from support.tensors import draw_normal

SHAPES = [(17,), (5, 6), (3, 4, 3)]


def place_weights(*shape: int, seed: int = 1) -> torch.Tensor:
    """Unequal positive weights with sum 1: (1, 1, *shape)."""
    weights = 0.2 + torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return weights / weights.sum()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("areas", [(0.1, 0.5), (0.33, 0.9)])
def test_ranking_loss_equals_the_sorted_sum(shape: tuple[int, ...], areas: tuple[float, float]) -> None:
    mask = draw_normal(2, 1, *shape).sigmoid()
    losses = ranking_loss(mask, torch.tensor(areas, dtype=torch.float64))
    expected = [oracles.ranking_loss(mask[i].numpy(), areas[i]) for i in range(2)]
    np.testing.assert_allclose(losses.numpy(), expected, atol=1e-12)
    single = ranking_loss(mask.float(), torch.tensor(areas))
    np.testing.assert_allclose(single.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("area", [0.1, 0.3, 0.7])
def test_ranking_loss_is_zero_only_for_the_exact_binary_mask(area: float) -> None:
    # (1 − 0.7)·10 is below 3 in floating point; which must not change the count of zeros
    mask = cut_one(draw_normal(1, 1, 10), area)
    areas = torch.tensor([area], dtype=torch.float64)
    assert float(ranking_loss(mask, areas)) == 0.0
    assert float(ranking_loss(mask.float(), areas.float())) == 0.0
    mask[mask == 0] = 0.1
    assert float(ranking_loss(mask, areas)) == pytest.approx(0.01 * (1 - area))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_level_equals_scalar_root_finding(shape: tuple[int, ...], weighted: bool) -> None:
    field = draw_normal(2, 1, *shape)
    weights = place_weights(*shape) if weighted else None
    mask = level(field, torch.tensor([0.07, 0.6], dtype=torch.float64), 0.2, weights)
    for row, area in enumerate((0.07, 0.6)):
        expected = oracles.level_set(field[row].numpy(), area, 0.2, None if weights is None else weights[0].numpy())
        np.testing.assert_allclose(mask[row].numpy(), expected, atol=1e-9)


@given(
    shape=st.lists(st.integers(2, 9), min_size=1, max_size=3).map(tuple),
    area=st.floats(0.01, 0.99),
    temperature=st.floats(0.02, 3.0),
    scale=st.sampled_from([1e-3, 1.0, 10.0]),
    double=st.booleans(),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_level_has_exactly_its_area(
    *, shape: tuple[int, ...], area: float, temperature: float, scale: float, double: bool, seed: int
) -> None:
    dtype = torch.float64 if double else torch.float32
    field = draw_normal(2, 1, *shape, seed=seed, dtype=dtype) * scale
    areas = torch.tensor([area, 1 - area], dtype=dtype)
    tolerance = 1e-9 if double else 1e-5 * max(1.0, scale * 0.02 / temperature)
    for weights in (None, place_weights(*shape).to(dtype)):
        mask = level(field, areas, temperature, weights)
        means = (mask / mask[0].numel() if weights is None else mask * weights).flatten(1).sum(1)
        assert mask.dtype == dtype
        assert mask.min() >= 0
        assert mask.max() <= 1
        assert float((means - areas).abs().max()) <= tolerance


def test_level_of_a_flat_field_is_the_area_everywhere() -> None:
    mask = level(torch.zeros(1, 1, 4, 4, dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64), 0.3)
    torch.testing.assert_close(mask, torch.full_like(mask, 0.3), atol=1e-12, rtol=0)


@given(shift=st.floats(-50, 50), area=st.floats(0.05, 0.95))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_level_ignores_a_constant_added_to_the_field(shift: float, area: float) -> None:
    field, areas = draw_normal(1, 1, 6, 5), torch.tensor([area], dtype=torch.float64)
    torch.testing.assert_close(level(field + shift, areas, 0.3), level(field, areas, 0.3), atol=1e-9, rtol=0)


@pytest.mark.parametrize("shape", [(6,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_level_has_its_gradient(shape: tuple[int, ...], weighted: bool) -> None:
    weights = place_weights(*shape) if weighted else None
    areas = torch.tensor([0.2, 0.55], dtype=torch.float64)
    field = draw_normal(2, 1, *shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: level(f, areas, 0.4, weights), field, eps=1e-6, atol=1e-7)


def test_the_mean_of_a_level_has_no_gradient() -> None:
    weights = place_weights(4, 5)
    field = draw_normal(1, 1, 4, 5).requires_grad_()
    mask = level(field, torch.tensor([0.3], dtype=torch.float64), 0.3, weights)
    (grad,) = torch.autograd.grad((mask * weights).sum(), field)
    assert float(grad.abs().max()) < 1e-14


@given(
    values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40),
    area=st.floats(0.001, 0.999),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_cut_has_exactly_its_count_and_the_first_of_equals(values: list[float], area: float) -> None:
    mask = torch.tensor(values, dtype=torch.float64).view(1, 1, -1)
    cut = cut_one(mask, area)
    assert cut.dtype == mask.dtype
    assert set(cut.unique().tolist()) <= {0.0, 1.0}
    assert int(cut.sum()) == count_kept(area, len(values)) == max(1, round(area * len(values)))
    np.testing.assert_array_equal(cut[0, 0].numpy(), oracles.cut_one(mask[0, 0].numpy(), area))


def test_rows_with_and_without_equals_are_cut_alike() -> None:
    rows = torch.stack([torch.arange(100.0), torch.arange(100.0) // 7, torch.full((100,), 0.5)]).unsqueeze(1)
    together = cut_one(rows, 0.3)
    assert torch.equal(together, torch.cat([cut_one(row, 0.3) for row in rows.split(1)]))
    assert together.sum(2).flatten().tolist() == [30, 30, 30]


def test_cut_keeps_the_order_of_equals_in_an_image() -> None:
    # sorting networks for long rows are where an unstable sort would show
    cut = cut_one(torch.zeros(2, 1, 60, 70), 0.3)
    assert torch.equal(cut.flatten(1), (torch.arange(4200) < 1260).float().expand(2, -1))


def test_each_row_is_cut_separately() -> None:
    masks = draw_normal(3, 1, 4, 6).sigmoid()
    cut = cut_one(masks, 0.25)
    for row in range(3):
        np.testing.assert_array_equal(cut[row].numpy(), oracles.cut_one(masks[row].numpy(), 0.25))


@pytest.mark.parametrize(("area", "total", "expected"), [(0.05, 50176, 2509), (1e-6, 50176, 1), (0.9999, 10, 10)])
def test_count_kept(area: float, total: int, expected: int) -> None:
    assert count_kept(area, total) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("places", [1, 2, 8, 64, 1500])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 0.05, 0.005])
def test_levels_by_a_fixed_number_of_operations_are_the_levels(
    places: int, temperature: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(5, places, generator=generator, dtype=dtype)
    field = (field - field.mean(1, keepdim=True)) / temperature
    weights = torch.rand(1, places, generator=generator, dtype=dtype) + 0.1
    weights = weights / weights.sum()
    bracket = field.amin(1) - 40, field.amax(1) + 40
    atol = 3e-6 if dtype == torch.float32 else 1e-13
    for area in (0.002, 0.05, 0.5, 0.95):
        areas = torch.full((5,), area, dtype=dtype)
        for solve in (find_level_by_steps, find_level_by_sections):
            mask = torch.sigmoid(field - solve(field, areas, weights, bracket)[:, None])
            torch.testing.assert_close((mask * weights).sum(1), areas, atol=atol, rtol=0)


def test_on_a_plateau_the_exact_set_is_found() -> None:
    field = torch.tensor([[-100.0, -90.0, 80.0, 100.0]])
    weights, bracket = torch.full((1, 4), 0.25), (torch.tensor([-120.0]), torch.tensor([120.0]))
    levels = [
        float(solve(field, torch.tensor([0.5]), weights, bracket))
        for solve in (find_level_by_steps, find_level_by_sections)
    ]
    mask = torch.sigmoid(field - levels[1])
    assert mask.round().tolist() == [[0.0, 0.0, 1.0, 1.0]]
    assert abs(float(mask.mean()) - 0.5) < 1e-6


@pytest.mark.parametrize("sections", [8, 64, 256])
def test_the_number_of_sections_makes_no_difference(sections: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extremal.masking.area.MIN_SECTIONS", sections)
    monkeypatch.setattr("extremal.masking.area.MAX_SECTIONS", sections)
    field = 20 * torch.randn(3, 2000, generator=torch.Generator().manual_seed(1))
    areas, weights = torch.tensor([0.01, 0.3, 0.9]), torch.full((1, 2000), 1 / 2000)
    bracket = field.amin(1) - 20, field.amax(1) + 20
    expected = find_level_by_steps(field, areas, weights, bracket)
    torch.testing.assert_close(find_level_by_sections(field, areas, weights, bracket), expected, atol=1e-3, rtol=1e-5)
