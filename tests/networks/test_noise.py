"""Copies with one grey level of noise: exactly one, in the picture or in prepared units."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from extremal.networks.inputs import prepare
from extremal.networks.network import Network
from extremal.networks.noise import add_grey_noise, prepare_noisy

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def network(**options):
    return Network(nn.Flatten(), **options)


def grey_levels(net, image, seed=0):
    """Return the differences of the noisy input from the prepared one, in grey levels of an unscaled picture."""
    return (prepare_noisy(net, image, seed) - prepare(net, image)) * 255


def pixels(*shape, low=1, high=255):
    return np.random.default_rng(5).integers(low, high, shape).astype(np.uint8)


def assert_uniform_steps(steps):
    """Assert that all values are −1, 0 or 1, a third of each."""
    values, counts = torch.round(steps).unique(return_counts=True)
    torch.testing.assert_close(steps, torch.round(steps), rtol=0, atol=1e-3)
    assert values.tolist() == [-1, 0, 1]
    assert (counts / steps.numel() - 1 / 3).abs().max() < 0.02


@pytest.mark.parametrize("form", ["array", "pillow", "path"])
def test_a_picture_gets_one_grey_level_in_its_own_pixels(form, tmp_path):
    array = pixels(60, 70, 3)
    Image.fromarray(array).save(tmp_path / "picture.png")
    image = {"array": array, "pillow": Image.fromarray(array), "path": tmp_path / "picture.png"}[form]
    steps = grey_levels(network(), image)
    assert steps.shape == (1, 3, 60, 70)
    assert_uniform_steps(steps)


def test_the_preprocessing_receives_the_noisy_picture():
    received = []

    def preprocess(image):
        received.append(np.asarray(image).astype(int))
        return torch.zeros(3, 8, 8)

    array = pixels(60, 70, 3)
    prepare_noisy(network(preprocess=preprocess), array, 0)
    assert_uniform_steps(torch.from_numpy(received[0] - array.astype(int)).double())


def test_black_and_white_stay_in_range():
    array = np.zeros((40, 40, 3), np.uint8)
    array[20:] = 255
    noisy = np.asarray(add_grey_noise(Image.fromarray(array), 0))
    assert set(np.unique(noisy[:20])) == {0, 1}
    assert set(np.unique(noisy[20:])) == {254, 255}


def test_a_normalised_tensor_gets_one_grey_level_of_each_channel():
    net = network(mean=MEAN, std=STD)
    unit = torch.from_numpy(pixels(2, 3, 40, 40)).float() / 255
    x = net.normalise(unit)
    steps = (prepare_noisy(net, x, 0) - x) * torch.tensor(STD).view(-1, 1, 1) * 255
    assert_uniform_steps(steps)
    black = net.normalise(torch.zeros(1, 3, 40, 40))
    assert bool((prepare_noisy(net, black, 0) >= black).all())


def test_a_tensor_between_0_and_1_is_a_picture():
    assert_uniform_steps(grey_levels(network(), torch.from_numpy(pixels(1, 3, 50, 50)).float() / 255))


@pytest.mark.parametrize("shape", [(2, 3, 4000), (1, 2, 16, 16, 16), (1, 5, 50, 50)])
def test_other_inputs_get_a_255th_of_the_range_of_each_channel(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x *= torch.arange(1, shape[1] + 1).view(1, -1, *[1] * (len(shape) - 2)) * 100
    x = x.float()
    places = tuple(range(2, len(shape)))
    step = (x.amax(places, keepdim=True) - x.amin(places, keepdim=True)) / 255
    noisy = prepare_noisy(network(), x, 0)
    steps = (noisy - x) / step
    inside = (x > x.amin(places, keepdim=True) + step) & (x < x.amax(places, keepdim=True) - step)
    assert_uniform_steps(steps[inside])
    assert bool((noisy.amax(places) <= x.amax(places)).all() and (noisy.amin(places) >= x.amin(places)).all())


def test_noise_is_decided_by_seed_and_content():
    array = pixels(30, 30, 3)
    first, second = grey_levels(network(), [array, array[::-1]])
    assert not torch.equal(first, second.flip(1))
    assert torch.equal(second, grey_levels(network(), array[::-1])[0])  # not by the place in the batch
    assert not torch.equal(first, grey_levels(network(), array, seed=(0, 1))[0])
    x = torch.rand(2, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(prepare_noisy(network(), x, 0)[1:], prepare_noisy(network(), x[1:], 0))


def test_the_callers_image_is_not_changed():
    array, x = pixels(8, 8, 3), torch.rand(1, 3, 8, 8)
    copies = array.copy(), x.clone()
    prepare_noisy(network(), [array, x], 0)
    assert np.array_equal(array, copies[0])
    assert torch.equal(x, copies[1])
