"""Lengths that scale, blur, linear resizing."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extremal.masking.grid import (
    MAX_DENSE_SIZE,
    MAX_DIRECT_RADIUS,
    gaussian_blur,
    lattice_shape,
    resize,
    resize_weights,
    scale_length,
)
from support import oracles
from support.tensors import draw_normal

SHAPES = {1: (13,), 2: (7, 10), 3: (4, 5, 6)}


@pytest.mark.parametrize(
    ("shape", "length", "expected"),
    [
        ((224, 224), 7.0, 7.0),
        ((448, 500), 7.0, 14.0),
        ((300, 112), 20.0, 10.0),
        ((56,), 4.0, 1.0),
        ((64, 32, 96), 7, 2),
    ],
)
def test_a_length_scales_with_the_short_side(shape: tuple[int, ...], length: float, expected: float) -> None:
    assert scale_length(length, shape) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("shape", "step", "expected"),
    [
        ((224, 224), 7.0, (32, 32)),
        ((224, 300), 7.0, (32, 43)),
        ((225,), 7.0, (33,)),
        ((5, 3), 0.2, (5, 3)),  # never more lattice points than places
        ((5, 3), 100.0, (1, 1)),  # never none
        ((6, 6, 6), 0.1 * 3 / 0.1, (2, 2, 2)),  # a step of 3 that rounding made larger or smaller
    ],
)
def test_lattice_shape(shape: tuple[int, ...], step: float, expected: tuple[int, ...]) -> None:
    assert lattice_shape(shape, step) == expected


@given(st.integers(8, 700))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_square_of_any_size_has_the_lattice_of_224(side: int) -> None:
    points = lattice_shape((side, side), scale_length(7.0, (side, side)))
    assert points == (min(side, 32),) * 2


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("sigma", [0.4, 0.9])
def test_blur_equals_the_full_kernel(dims: int, sigma: float) -> None:
    x = draw_normal(2, 3, *SHAPES[dims])
    blurred = gaussian_blur(x, sigma).numpy()
    for n, c in np.ndindex(2, 3):
        np.testing.assert_allclose(blurred[n, c], oracles.gaussian_blur(x[n, c].numpy(), sigma), atol=1e-12)


def test_blur_with_a_kernel_longer_than_the_input() -> None:
    x = draw_normal(1, 1, 5)
    expected = oracles.gaussian_blur(x[0, 0].numpy(), 3.0)
    np.testing.assert_allclose(gaussian_blur(x, 3.0)[0, 0].numpy(), expected, atol=1e-12)


def test_blur_of_a_line_too_long_for_a_matrix() -> None:
    x = draw_normal(1, 2, MAX_DENSE_SIZE + 7)
    ends = torch.cat([x[..., :40], x[..., -40:]], 1)
    expected = gaussian_blur(ends, 2.0)  # exact where the kernel, of radius 8, does not reach the cut
    blurred = gaussian_blur(x, 2.0)
    torch.testing.assert_close(blurred[..., : 40 - 8], expected[:, :2, : 40 - 8])
    torch.testing.assert_close(blurred[..., -40 + 8 :], expected[:, 2:, 8:])


@pytest.mark.parametrize("sigma", [MAX_DIRECT_RADIUS / 4 - 1, MAX_DIRECT_RADIUS / 4 + 1, 900.0])
def test_blur_of_a_long_line_by_a_wide_kernel(sigma: float) -> None:
    x = draw_normal(1, 1, MAX_DENSE_SIZE + 7)
    radius = math.ceil(4 * sigma)
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    padded = np.pad(x[0, 0].numpy(), radius, mode="edge")
    expected = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    np.testing.assert_allclose(gaussian_blur(x, sigma)[0, 0].numpy(), expected, atol=1e-12)
    single = gaussian_blur(x.float(), sigma)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single[0, 0].numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_blur_keeps_a_constant_to_the_border_and_the_dtype(dims: int, dtype: torch.dtype) -> None:
    x = torch.full((1, 2, *SHAPES[dims]), 3.25, dtype=dtype)
    blurred = gaussian_blur(x, 2.5)
    assert blurred.dtype == dtype
    assert float((blurred - x).abs().max()) <= 16 * torch.finfo(dtype).eps


def test_no_blur_is_the_input_itself() -> None:
    x = draw_normal(1, 1, 6)
    assert gaussian_blur(x, 0.0) is x


def test_blur_has_its_gradient() -> None:
    x = draw_normal(1, 2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gaussian_blur(x, 0.8), x)


def test_resize_takes_points_at_cell_centres() -> None:
    # two cells of width 2 on a line of 4: centres at ½ and 2½, beyond them the end value
    out = resize(torch.tensor([[[0.0, 1.0]]], dtype=torch.float64), (4,))
    torch.testing.assert_close(out[0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("small", "large"), [((3,), (11,)), ((4, 3), (9, 13)), ((2, 3, 2), (5, 6, 7)), ((4, 4), (4, 4))]
)
def test_resize_weights_give_the_mean_after_resizing(small: tuple[int, ...], large: tuple[int, ...]) -> None:
    weights = resize_weights(small, large, torch.empty(0, dtype=torch.float64))
    x = draw_normal(5, 1, *small)
    means = resize(x, large).flatten(1).mean(1)
    torch.testing.assert_close((x * weights).flatten(1).sum(1), means, atol=1e-12, rtol=0)
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
    assert float(weights.min()) > 0


def test_resize_weights_need_no_gradient_mode() -> None:
    with torch.no_grad():
        weights = resize_weights((3, 3), (7, 8), torch.empty(0, dtype=torch.float64))
    assert not weights.requires_grad
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
