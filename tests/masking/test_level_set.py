"""Level sets of exactly a given area."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extremal.masking.area import level
from extremal.masking.level_set import LevelSet
from extremal.masking.scaling import standardise
from support import oracles
from support.tensors import draw_normal

F64 = torch.float64


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
    mask = family(draw_normal(2, 1, *family.parameter_shape, seed=seed, dtype=dtype), areas, temperature)
    assert mask.shape == (2, 1, *shape)
    assert mask.dtype == dtype
    assert mask.min() >= 0
    assert mask.max() <= 1 + 1e-6
    assert float((mask.flatten(1).mean(1) - areas).abs().max()) <= (1e-9 if double else 1e-5)


@pytest.mark.parametrize("shape", [(224, 224), (224, 301), (160, 97)])
def test_a_level_set_is_exact_at_the_sizes_of_photographs(shape: tuple[int, int]) -> None:
    family = LevelSet(shape)
    areas = torch.tensor([0.025, 0.4])
    mask = family(draw_normal(2, 1, *family.parameter_shape, dtype=torch.float32), areas, 0.05)
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
    parameters = draw_normal(2, 1, *family.parameter_shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: family(p, areas, 0.4), parameters, atol=1e-7, fast_mode=len(shape) > 1)


def test_a_level_set_is_the_standardised_smooth_field_cut_at_its_level() -> None:
    # grid = input, so that only blur, standardisation and level remain
    family = LevelSet((6, 7), step=1.0, grid_step=1.0, width=0.7, dtype=F64)
    parameters = draw_normal(1, 1, 6, 7)
    field = oracles.gaussian_blur(parameters[0, 0].numpy(), 0.7)
    field = (field - field.mean()) / (field.std() + 1e-3)
    mask = family(parameters, torch.tensor([0.3], dtype=F64), 0.25)
    np.testing.assert_allclose(mask[0, 0].numpy(), oracles.level_set(field, 0.3, 0.25), atol=1e-9)


@given(scale=st.floats(0.5, 1e4), shift=st.floats(-100, 100))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_level_set_does_not_depend_on_the_scale_of_its_parameters(scale: float, shift: float) -> None:
    family = LevelSet((12, 15), dtype=F64)
    parameters, areas = 10 * draw_normal(1, 1, *family.parameter_shape), torch.tensor([0.2], dtype=F64)
    transformed = family(parameters * scale + shift, areas, 0.3)
    torch.testing.assert_close(transformed, family(parameters, areas, 0.3), atol=2e-3, rtol=0)


def test_to_places_is_the_field_without_area() -> None:
    family = LevelSet((30, 20), dtype=F64)
    constant = torch.full((1, 1, *family.parameter_shape), 0.4, dtype=F64)
    torch.testing.assert_close(family.to_places(constant), torch.full((1, 1, 30, 20), 0.4, dtype=F64))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_standardise_gives_rows_mean_zero_and_deviation_one(dtype: torch.dtype) -> None:
    field = standardise(
        torch.stack([5 + 2 * draw_normal(1, 8, 9), 1e3 * draw_normal(1, 8, 9, seed=1)]).to(dtype), floor=0.0
    )
    torch.testing.assert_close(field.flatten(1).mean(1), torch.zeros(2, dtype=dtype), atol=1e-5, rtol=0)
    torch.testing.assert_close(field.flatten(1).square().mean(1), torch.ones(2, dtype=dtype), atol=1e-5, rtol=0)


def test_a_flat_field_is_standardised_to_zero_and_cut_to_grey() -> None:
    assert float(standardise(torch.full((1, 1, 5, 5), 7.0)).abs().max()) == 0.0
    family = LevelSet((10, 10), dtype=F64)
    mask = family(torch.zeros(1, 1, *family.parameter_shape, dtype=F64), torch.tensor([0.2], dtype=F64), 0.05)
    torch.testing.assert_close(mask, level(torch.zeros(1, 1, 10, 10, dtype=F64), torch.tensor([0.2], dtype=F64), 0.05))
