"""Smooth max-convolution and level sets."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extremal.masking import smooth_max
from extremal.masking.area import level
from extremal.masking.level_set import LevelSet, standardise
from extremal.masking.smooth_max import SmoothMax
from support import oracles

F64 = torch.float64


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


CASES = [  # shape, step, sigma: odd sizes, steps that do not divide them, σ that no step divides
    ((11,), None, None),
    ((29,), 3.0, 9.0),
    ((13,), 2.5, 4.0),
    ((9, 14), 3.0, 7.0),
    ((7, 5), 2.0, 3.1),
    ((5, 4, 6), 2.0, 2.5),
]


@pytest.mark.parametrize(("shape", "step", "sigma"), CASES)
@pytest.mark.parametrize("padded", [False, True])
def test_smooth_max_equals_the_formula(
    shape: tuple[int, ...], step: float | None, sigma: float | None, padded: bool
) -> None:
    mask = SmoothMax(shape, step=step, sigma=sigma, padded=padded, dtype=F64)
    parameters = draw(2, 1, *mask.parameter_shape).sigmoid()
    # the margin goes ⌊σ⌋ px beyond the first and the last lattice point, and covers the input in any case
    margin = math.floor(mask.sigmas[0]) if padded else 0
    places = [
        range(-margin, max(math.floor(mask.steps[0] * (points - 1)) + margin + 1 if padded else size, size))
        for size, points in zip(shape, mask.parameter_shape, strict=True)
    ]
    whole = mask.evaluate_with_margin(parameters)
    for row in range(2):
        wanted = oracles.smooth_max(parameters[row, 0].numpy(), places, mask.steps[0], mask.sigmas[0])
        np.testing.assert_allclose(whole[row, 0].numpy(), wanted, atol=1e-10)
    on_input = oracles.smooth_max(
        parameters[0, 0].numpy(), [range(size) for size in shape], mask.steps[0], mask.sigmas[0]
    )
    np.testing.assert_allclose(mask(parameters)[0, 0].numpy(), on_input, atol=1e-10)
    single = SmoothMax(shape, step=step, sigma=sigma, padded=padded)(parameters.float())
    assert single.dtype == torch.float32
    # hundreds of terms are summed one after the other in float32; the error stays below a thousandth of a grey level
    np.testing.assert_allclose(single[0, 0].numpy(), on_input, atol=1e-5 if len(shape) > 1 else 1e-6)


@pytest.mark.parametrize(("shape", "step", "sigma"), [((9,), 2.0, 3.0), ((5, 6), 2.0, 2.5), ((3, 3, 4), 2.0, 2.0)])
@pytest.mark.parametrize("padded", [False, True])
def test_smooth_max_has_its_gradient(shape: tuple[int, ...], step: float, sigma: float, padded: bool) -> None:
    mask = SmoothMax(shape, step=step, sigma=sigma, temperature=0.2, padded=padded, dtype=F64)
    parameters = draw(2, 1, *mask.parameter_shape).sigmoid().requires_grad_()
    assert torch.autograd.gradcheck(mask.evaluate_with_margin, parameters, atol=1e-7, fast_mode=len(shape) > 1)


def test_smooth_max_does_without_its_kernel_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = draw(1, 1, 3, 4).sigmoid()
    kept = SmoothMax((9, 11), step=3.0, dtype=F64)
    twice = kept(parameters), kept(parameters)
    monkeypatch.setattr(smooth_max, "MAX_KERNEL_CACHE_BYTES", 0)
    assert torch.equal(SmoothMax((9, 11), step=3.0, dtype=F64)(parameters), twice[0])
    assert torch.equal(*twice)


def test_smooth_max_has_the_papers_sizes_at_224() -> None:
    mask = SmoothMax((224, 224), padded=True)
    assert (mask.steps[0], mask.sigmas[0], mask.radius, mask.parameter_shape) == (7.0, 21.0, 4, (32, 32))
    assert mask.evaluate_with_margin(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 260, 260)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_smooth_max_of_equal_parameters_stays_below_them(value: float) -> None:
    mask = SmoothMax((20, 20), step=2.0, dtype=F64)(torch.full((1, 1, 10, 10), value, dtype=F64))
    assert float(mask.max()) <= value + 1e-12
    assert float(mask.min()) >= 0.0
    if value == 1.0:
        assert float(mask[..., 8:12, 8:12].min()) > 0.95  # far from the border the maximum is nearly reached


SIZES = st.one_of(
    st.tuples(st.integers(2, 300)),
    st.tuples(st.integers(2, 70), st.integers(2, 70)),
    st.tuples(st.integers(2, 12), st.integers(2, 20), st.integers(2, 20)),
)


@given(
    shape=SIZES,
    area=st.floats(0.02, 0.98),
    temperature=st.sampled_from([0.05, 0.3]),
    double=st.booleans(),
    seed=st.integers(0, 9999),
)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_a_level_set_has_exactly_its_area_on_the_input(
    shape: tuple[int, ...], area: float, temperature: float, double: bool, seed: int
) -> None:
    dtype = F64 if double else torch.float32
    family = LevelSet(shape, dtype=dtype)
    areas = torch.tensor([area, 1 - area], dtype=dtype)
    mask = family(draw(2, 1, *family.parameter_shape, seed=seed, dtype=dtype), areas, temperature)
    assert mask.shape == (2, 1, *shape)
    assert mask.dtype == dtype
    assert mask.min() >= 0
    assert mask.max() <= 1 + 1e-6
    assert float((mask.flatten(1).mean(1) - areas).abs().max()) <= (1e-9 if double else 1e-5)


@pytest.mark.parametrize("shape", [(224, 224), (224, 301), (160, 97)])
def test_a_level_set_is_exact_at_the_sizes_of_photographs(shape: tuple[int, int]) -> None:
    family = LevelSet(shape)
    areas = torch.tensor([0.025, 0.4])
    mask = family(draw(2, 1, *family.parameter_shape, dtype=torch.float32), areas, 0.05)
    assert float((mask.flatten(1).double().mean(1) - areas).abs().max()) <= 1e-5


@pytest.mark.parametrize(
    ("shape", "lattice", "grid"),
    [
        ((224, 224), (32, 32), (56, 56)),
        ((448, 448), (32, 32), (56, 56)),
        ((112, 112), (32, 32), (56, 56)),
        ((224, 448), (32, 64), (56, 112)),
        ((16, 16), (16, 16), (16, 16)),
        ((1000,), (32,), (56,)),
        ((64, 64, 128), (32, 32, 64), (56, 56, 112)),
    ],
)
def test_the_lattice_scales_with_the_input(
    shape: tuple[int, ...], lattice: tuple[int, ...], grid: tuple[int, ...]
) -> None:
    family = LevelSet(shape)
    assert (family.parameter_shape, family.grid) == (lattice, grid)


@pytest.mark.parametrize("shape", [(9,), (5, 7), (3, 4, 3)])
def test_a_level_set_has_its_gradient(shape: tuple[int, ...]) -> None:
    family = LevelSet(shape, step=2.0, grid_step=1.5, dtype=F64)
    areas = torch.tensor([0.2, 0.6], dtype=F64)
    parameters = draw(2, 1, *family.parameter_shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: family(p, areas, 0.4), parameters, atol=1e-7, fast_mode=len(shape) > 1)


def test_a_level_set_is_the_standardised_smooth_field_cut_at_its_level() -> None:
    # grid = input, so nothing but blur, standardisation and level is left
    family = LevelSet((6, 7), step=1.0, grid_step=1.0, width=0.7, dtype=F64)
    parameters = draw(1, 1, 6, 7)
    field = oracles.gaussian_blur(parameters[0, 0].numpy(), 0.7)
    field = (field - field.mean()) / (field.std() + 1e-3)
    found = family(parameters, torch.tensor([0.3], dtype=F64), 0.25)
    np.testing.assert_allclose(found[0, 0].numpy(), oracles.level_set(field, 0.3, 0.25), atol=1e-9)


@given(scale=st.floats(0.5, 1e4), shift=st.floats(-100, 100))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_level_set_does_not_see_the_scale_of_its_parameters(scale: float, shift: float) -> None:
    family = LevelSet((12, 15), dtype=F64)
    parameters, areas = 10 * draw(1, 1, *family.parameter_shape), torch.tensor([0.2], dtype=F64)
    moved = family(parameters * scale + shift, areas, 0.3)
    torch.testing.assert_close(moved, family(parameters, areas, 0.3), atol=2e-3, rtol=0)


def test_smooth_is_the_field_without_area() -> None:
    family = LevelSet((30, 20), dtype=F64)
    constant = torch.full((1, 1, *family.parameter_shape), 0.4, dtype=F64)
    torch.testing.assert_close(family.to_places(constant), torch.full((1, 1, 30, 20), 0.4, dtype=F64))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_standardised_rows_have_mean_zero_and_deviation_one(dtype: torch.dtype) -> None:
    field = standardise(torch.stack([5 + 2 * draw(1, 8, 9), 1e3 * draw(1, 8, 9, seed=1)]).to(dtype), floor=0.0)
    torch.testing.assert_close(field.flatten(1).mean(1), torch.zeros(2, dtype=dtype), atol=1e-5, rtol=0)
    torch.testing.assert_close(field.flatten(1).square().mean(1), torch.ones(2, dtype=dtype), atol=1e-5, rtol=0)


def test_a_flat_field_is_standardised_to_zero_and_cut_to_grey() -> None:
    assert float(standardise(torch.full((1, 1, 5, 5), 7.0)).abs().max()) == 0.0
    family = LevelSet((10, 10), dtype=F64)
    mask = family(torch.zeros(1, 1, *family.parameter_shape, dtype=F64), torch.tensor([0.2], dtype=F64), 0.05)
    torch.testing.assert_close(mask, level(torch.zeros(1, 1, 10, 10, dtype=F64), torch.tensor([0.2], dtype=F64), 0.05))
