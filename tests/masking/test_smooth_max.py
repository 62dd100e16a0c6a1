"""Smooth max-convolution."""

import math

import numpy as np
import pytest
import torch

from extremal.masking import smooth_max
from extremal.masking.smooth_max import SmoothMax
from support import oracles
from support.tensors import draw_normal

F64 = torch.float64


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
    family = SmoothMax(shape, step=step, sigma=sigma, padded=padded, dtype=F64)
    parameters = draw_normal(2, 1, *family.parameter_shape).sigmoid()
    # the margin goes ⌊σ⌋ px beyond the first and the last lattice point, and covers the input in any case
    margin = math.floor(family.sigmas[0]) if padded else 0
    places = [
        range(-margin, max(math.floor(family.steps[0] * (points - 1)) + margin + 1 if padded else size, size))
        for size, points in zip(shape, family.parameter_shape, strict=True)
    ]
    padded_masks = family.evaluate_with_margin(parameters)
    for row in range(2):
        expected = oracles.smooth_max(parameters[row, 0].numpy(), places, family.steps[0], family.sigmas[0])
        np.testing.assert_allclose(padded_masks[row, 0].numpy(), expected, atol=1e-10)
    on_input = oracles.smooth_max(
        parameters[0, 0].numpy(), [range(size) for size in shape], family.steps[0], family.sigmas[0]
    )
    np.testing.assert_allclose(family(parameters)[0, 0].numpy(), on_input, atol=1e-10)
    single = SmoothMax(shape, step=step, sigma=sigma, padded=padded)(parameters.float())
    assert single.dtype == torch.float32
    # hundreds of terms are summed one after the other in float32; the error stays below a thousandth of a grey level
    np.testing.assert_allclose(single[0, 0].numpy(), on_input, atol=1e-5 if len(shape) > 1 else 1e-6)


@pytest.mark.parametrize(("shape", "step", "sigma"), [((9,), 2.0, 3.0), ((5, 6), 2.0, 2.5), ((3, 3, 4), 2.0, 2.0)])
@pytest.mark.parametrize("padded", [False, True])
def test_smooth_max_has_its_gradient(shape: tuple[int, ...], step: float, sigma: float, padded: bool) -> None:
    family = SmoothMax(shape, step=step, sigma=sigma, temperature=0.2, padded=padded, dtype=F64)
    parameters = draw_normal(2, 1, *family.parameter_shape).sigmoid().requires_grad_()
    assert torch.autograd.gradcheck(family.evaluate_with_margin, parameters, atol=1e-7, fast_mode=len(shape) > 1)


def test_smooth_max_without_its_kernel_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = draw_normal(1, 1, 3, 4).sigmoid()
    cached = SmoothMax((9, 11), step=3.0, dtype=F64)
    twice = cached(parameters), cached(parameters)
    monkeypatch.setattr(smooth_max, "MAX_KERNEL_CACHE_BYTES", 0)
    assert torch.equal(SmoothMax((9, 11), step=3.0, dtype=F64)(parameters), twice[0])
    assert torch.equal(*twice)


def test_smooth_max_has_the_papers_sizes_at_224() -> None:
    family = SmoothMax((224, 224), padded=True)
    assert (family.steps[0], family.sigmas[0], family.radius, family.parameter_shape) == (7.0, 21.0, 4, (32, 32))
    assert family.evaluate_with_margin(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 260, 260)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_smooth_max_of_equal_parameters_stays_below_them(value: float) -> None:
    mask = SmoothMax((20, 20), step=2.0, dtype=F64)(torch.full((1, 1, 10, 10), value, dtype=F64))
    assert float(mask.max()) <= value + 1e-12
    assert float(mask.min()) >= 0.0
    if value == 1.0:
        assert float(mask[..., 8:12, 8:12].min()) > 0.95  # far from the border the maximum is nearly reached
