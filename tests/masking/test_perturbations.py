"""Blur, fade, constant, noise, and the contract of a caller's own perturbation."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.grid import gaussian_blur, scale_length
from extremal.masking.perturbations import (
    PERTURBATIONS,
    Blur,
    Constant,
    Fade,
    Mosaic,
    Noise,
    Perturbation,
    ScaleChannels,
    get_perturbation,
    mask_shape,
    prepare_perturbation,
    with_spacing,
)
from support import oracles
from support.errors import message_of
from support.tensors import draw_normal

SHAPES = {1: (15,), 2: (8, 11), 3: (4, 5, 6)}
ALL = [Blur(), Blur(levels=2, sigma=60.0), Fade(), Constant(-1.0), Noise(3)]


def full(x: Tensor, value: float, masks: int = 1) -> Tensor:
    return x.new_full((x.shape[0], masks, 1, *x.shape[2:]), value)


@pytest.mark.parametrize("perturbation", ALL, ids=repr)
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mask_one_is_the_input_exactly(
    perturbation: Perturbation, dims: int, channels: int, dtype: torch.dtype
) -> None:
    x = draw_normal(2, channels, *SHAPES[dims], dtype=dtype)
    kept = perturbation(x)(full(x, 1.0, masks=3))
    assert kept.shape == (2, 3, channels, *SHAPES[dims])
    assert kept.dtype == dtype
    assert torch.equal(kept, x.unsqueeze(1).expand_as(kept))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_mask_zero_is_the_input_destroyed_exactly(dims: int) -> None:
    x = draw_normal(2, 3, *SHAPES[dims])
    zero = full(x, 0.0)
    assert torch.equal(Blur()(x)(zero)[:, 0], gaussian_blur(x, scale_length(20.0, SHAPES[dims])))
    assert torch.equal(Fade()(x)(zero)[:, 0], torch.zeros_like(x))
    assert torch.equal(Constant(0.7)(x)(zero)[:, 0], torch.full_like(x, 0.7))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(("levels", "sigma"), [(8, 40.0), (2, 30.0), (3, 60.0)])
def test_blur_equals_the_pyramid_of_the_paper(dims: int, levels: int, sigma: float) -> None:
    x = draw_normal(2, 2, *SHAPES[dims])
    masks = draw_normal(2, 3, 1, *SHAPES[dims], seed=1).sigmoid()
    masks[:, 0, 0].view(2, -1)[:, :2] = torch.tensor([0.0, 1.0], dtype=torch.float64)  # the ends of the pyramid
    perturbed = Blur(levels, sigma)(x)(masks)
    single = Blur(levels, sigma)(x.float())(masks.float())
    largest = scale_length(sigma, SHAPES[dims])
    for n, c in np.ndindex(2, 2):
        for k in range(3 if n == c == 0 else 1):
            expected = oracles.pyramid_perturbation(x[n, c].numpy(), masks[n, k, 0].numpy(), levels, largest)
            np.testing.assert_allclose(perturbed[n, k, c].numpy(), expected, atol=1e-12)
            np.testing.assert_allclose(single[n, k, c].numpy(), expected, atol=2e-6)


def test_fade_equals_its_pyramid() -> None:
    x, masks = draw_normal(1, 1, 6, 7), draw_normal(1, 1, 1, 6, 7, seed=1).sigmoid()
    expected = oracles.fade_pyramid(x[0, 0].numpy(), masks[0, 0, 0].numpy(), 8)
    np.testing.assert_allclose(Fade()(x)(masks)[0, 0, 0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_image_stays_constant_to_the_border_under_blur(dtype: torch.dtype, dims: int, value: float) -> None:
    x = torch.full((1, 3, *SHAPES[dims]), 2.5, dtype=dtype)
    blurred = Blur(sigma=60.0)(x)(full(x, value))
    assert float((blurred[:, 0] - x).abs().max()) <= 16 * torch.finfo(dtype).eps


def test_the_blur_scales_with_the_input() -> None:
    # twice the picture, twice the blur: seen at every second place the result is nearly the same
    line = torch.sin(torch.linspace(0, 3, 112, dtype=torch.float64))[None, None]
    double = torch.sin(torch.linspace(0, 3, 224, dtype=torch.float64))[None, None]
    small, large = Blur()(line)(full(line, 0.0)), Blur()(double)(full(double, 0.0))
    torch.testing.assert_close(large[..., ::2], small, atol=0.02, rtol=0)


def test_noise_is_seeded_and_has_the_moments_of_each_channel() -> None:
    x = 4 + 3 * draw_normal(2, 2, 48, 48)
    x[:, 1] = x[:, 1] * 0.1 - 7
    first, again, other = Noise(5)(x), Noise(5)(x), Noise(6)(x)
    zero = full(x, 0.0)
    assert torch.equal(first(zero), again(zero))
    assert not torch.allclose(first(zero), other(zero))
    destroyed = first(zero)[:, 0]
    torch.testing.assert_close(destroyed.mean((2, 3)), x.mean((2, 3)), atol=0.3, rtol=0)
    torch.testing.assert_close(destroyed.std((2, 3)), x.std((2, 3)), rtol=0.05, atol=0)
    assert torch.equal(Noise(5)(x[1:])(zero[1:]), first(zero)[1:])  # an input's noise does not depend on its batch


def test_noise_leaves_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    Noise(1)(draw_normal(1, 1, 4, 4))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("perturbation", ALL, ids=repr)
def test_a_batch_of_inputs_and_masks_is_each_pair_by_itself(perturbation: Perturbation) -> None:
    x, masks = draw_normal(3, 2, 9, 7), draw_normal(3, 4, 1, 9, 7, seed=2).sigmoid()
    together = perturbation(x)(masks)
    for n in range(3):
        for k in range(4):
            alone = perturbation(x[n : n + 1])(masks[n : n + 1, k : k + 1])
            torch.testing.assert_close(alone[0, 0], together[n, k], atol=1e-12, rtol=0)


@pytest.mark.parametrize("perturbation", [*ALL, Blur(levels=3)], ids=repr)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2)])
def test_gradient_with_respect_to_the_mask(perturbation: Perturbation, shape: tuple[int, ...]) -> None:
    perturb = perturbation(draw_normal(1, 2, *shape))
    masks = (0.05 + 0.9 * draw_normal(1, 2, 1, *shape, seed=4).sigmoid()).requires_grad_()
    assert torch.autograd.gradcheck(perturb, masks, atol=1e-7)


def test_names() -> None:
    assert {name: get_perturbation(name) for name in PERTURBATIONS} == PERTURBATIONS
    assert get_perturbation("blur") == Blur(levels=8, sigma=20.0)
    own = replace(Blur(), sigma=3.0)
    assert get_perturbation(own) is own
    with pytest.raises(ExtremalValueError) as unknown:
        get_perturbation("blurr")
    known = "one of mixed, blur, fade, constant, noise, a callable, or several of these"
    assert str(unknown.value) == f"perturbation must be {known}, got 'blurr'"
    with pytest.raises(ExtremalTypeError) as wrong:
        get_perturbation(3)  # type: ignore[arg-type]
    assert str(wrong.value) == f"perturbation must be {known}, got int"


def test_a_perturbation_of_another_shape_is_refused() -> None:
    x = draw_normal(2, 3, 4, 5)
    with pytest.raises(ExtremalValueError) as error:
        prepare_perturbation(lambda x: lambda mask: mask[:, 0] * x, x)
    assert str(error.value) == (
        "a perturbation maps masks (N, K, 1, *S) to inputs (N, K, C, *S): expected (2, 1, 3, 4, 5) for a mask "
        "(2, 1, 1, 4, 5), got (2, 3, 4, 5)"
    )


def test_a_perturbation_with_the_mask_upside_down_is_refused() -> None:
    x = torch.full((1, 1, 4, 4), 2.0)
    with pytest.raises(ExtremalValueError) as error:
        prepare_perturbation(lambda x: lambda mask: (1 - mask) * x[:, None], x)
    assert str(error.value) == (
        "a perturbation must return the input unchanged where the mask is 1, got a difference of 2; "
        "check that mask 1 keeps and mask 0 destroys"
    )


def test_a_perturbation_that_gives_nan_is_refused() -> None:
    with pytest.raises(ExtremalValueError, match="got a difference of nan"):
        prepare_perturbation(lambda x: lambda mask: mask * x[:, None] * torch.nan, torch.ones(1, 1, 4, 4))


def test_a_perturbation_that_keeps_the_contract_is_taken() -> None:
    x = draw_normal(2, 3, 4, 5)
    perturb = prepare_perturbation(lambda x: lambda mask: mask * x[:, None] + (1 - mask), x)
    assert torch.equal(perturb(full(x, 0.0))[:, 0], torch.ones_like(x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Blur(levels=1), "a blur's levels must be at least 2, got 1; 8 are usual"),
        (lambda: Blur(levels="8"), "a blur's levels must be a whole number, got '8'; 8 are usual"),
        (lambda: Blur(sigma=0.0), "a blur's sigma in px must be above 0 and finite, got 0; 20 is usual"),
        (lambda: Blur(sigma=float("nan")), "a blur's sigma in px must be above 0 and finite, got nan; 20 is usual"),
        (lambda: Blur(sigma="20"), "a blur's sigma in px must be a number, got str; 20 is usual"),
        (lambda: Blur(spacing="12"), "a blur's spacing must be a sequence of numbers, got '12'; e.g. (2, 1, 1)"),
        (lambda: Mosaic(side="28"), "a mosaic's side in px must be a number, got str; 28 is usual"),
        (lambda: Constant("0"), "the value of a constant must be a number, got '0'; e.g. 0.5"),
        (lambda: Constant(float("nan")), "the value of a constant must be finite, got nan; e.g. 0.5"),
        (lambda: Noise(1.5), "the seed of noise must be a whole number, got 1.5; e.g. 1"),
    ],
)
def test_settings_of_perturbations(build: Callable[[], object], message: str) -> None:
    assert message_of(build) == message


class TestOptionalMethods:
    def test_masks_have_the_shape_of_the_input_by_default(self) -> None:
        x = draw_normal(2, 3, 4, 5)
        for perturbation in (*ALL, lambda x: lambda mask: mask * x[:, None]):
            assert mask_shape(perturbation, x) == (4, 5)

    def test_a_perturbation_may_have_masks_of_another_shape(self) -> None:
        assert mask_shape(ScaleChannels(), draw_normal(2, 3, 4, 5)) == (3,)
        assert mask_shape(ScaleChannels(), draw_normal(2, 6, 3)) == (3,)  # tokens

    def test_only_blurs_without_a_spacing_adapt_to_it(self) -> None:
        assert with_spacing(Blur(sigma=9.0), [2, 1]) == Blur(sigma=9.0, spacing=(2, 1))
        for perturbation in (Blur(spacing=(1.0, 3.0)), Fade(), Constant(), lambda x: lambda mask: mask * x[:, None]):
            assert with_spacing(perturbation, [2, 1]) is perturbation
