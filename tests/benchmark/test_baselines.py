"""The other attribution methods against naive derivations, and the contract of all methods."""

import math

import pytest
import torch
from torch import nn

from extremal import Network
from extremal.benchmark.baselines import (
    METHODS,
    Centre,
    ExcitationBackprop,
    ExplanationMap,
    GradCam,
    Gradient,
    Maps,
    MaskGradient,
    Occlusion,
    PenaltyMap,
    Random,
    Rise,
    get_method,
)
from extremal.benchmark.baselines.method import check_unique
from extremal.masking.solvers.path import Path
from extremal.masking.solvers.penalty import Penalty
from support.errors import message_of
from support.residual import CLASSES
from support.toys import Boxes, texture

QUICK_METHODS = [name for name in METHODS if name not in ("path", "penalty", "rise", "occlusion")]


def test_occlusion_is_the_mean_drop_over_the_squares_that_cover_a_place(residual, x):
    method = Occlusion(side=4 * 224 / 12, step=2 * 224 / 12)
    maps = method(Network(residual), x, [1, 3])
    for i, target in enumerate((1, 3)):
        total, count = torch.zeros(12, 14, dtype=torch.float64), torch.zeros(12, 14, dtype=torch.float64)
        with torch.no_grad():
            full = residual(x[i : i + 1])[0, target]
            for top in range(0, 12 - 4 + 1, 2):
                for left in range(0, 14 - 4 + 1, 2):
                    covered = x[i : i + 1].clone()
                    covered[..., top : top + 4, left : left + 4] = 0
                    total[top : top + 4, left : left + 4] += full - residual(covered)[0, target]
                    count[top : top + 4, left : left + 4] += 1
        torch.testing.assert_close(
            maps.values[i, 0], (total / count).clamp_min(0), rtol=1e-4, atol=1e-6
        )  # captum computes in single precision


def test_rise_equals_its_formula_in_any_batch(residual, x):
    method = Rise(masks=90, seed=5)
    network = Network(residual)
    both = method(network, torch.cat([x[:1], x[:1], x[1:]]), [1, 3, 0])
    assert both.evaluations == 2 * 90  # of the two different inputs
    masks = torch.cat(list(method.draw_masks((12, 14), x)))
    assert masks.shape == (90, 1, 12, 14)
    assert 0 <= float(masks.min()) < float(masks.max()) <= 1
    for row, (image, target) in enumerate(((0, 1), (0, 3), (1, 0))):
        total = torch.zeros(1, 12, 14, dtype=torch.float64)
        with torch.no_grad():
            for mask in masks:
                total += residual(x[image : image + 1] * mask).softmax(1)[0, target] * mask
        torch.testing.assert_close(both.values[row], total / 45)


def test_centre_points_at_the_middle_and_random_depends_on_seed_and_input_only(x):
    network = Network(nn.Identity())
    centre = Centre()(network, x[..., :13, :13], 0).values
    assert divmod(int(centre[0].argmax()), centre.shape[3]) == (5, 6) or centre.shape[2] % 2
    noise = Random()(network, x, 0).values
    torch.testing.assert_close(noise, torch.cat([Random()(network, single[None], 0).values for single in x]))
    assert not torch.allclose(noise, Random(seed=1)(network, x, 0).values)
    assert not torch.allclose(noise[0], noise[1])


def test_mask_gradient_finds_the_box_that_the_network_reads():
    image = texture(1, 3, 32, 32)
    box = (slice(8, 16), slice(16, 24))
    maps = MaskGradient()(Network(Boxes(image, [box])), image, 0)
    inside = float(maps.values[0, 0][box].sum() / maps.values.sum())
    assert inside > 0.6
    assert maps.evaluations == 8 + 2  # gradients, and the scores of the input and the destroyed one


@pytest.mark.parametrize(
    "method",
    [ExplanationMap((0.1,), Path(steps=8, polish=2, search=0)), PenaltyMap((0.1,), Penalty(300, rate=0.05, weight=30))],
)
def test_extremal_maps_find_the_box_that_the_network_reads(method):
    image = texture(1, 3, 32, 32)
    box = (slice(8, 18), slice(14, 24))
    maps = method(Network(Boxes(image, [box])), image, 0)
    row, column = divmod(int(maps.values[0, 0].argmax()), 32)
    assert 8 <= row < 18
    assert 14 <= column < 24
    assert maps.evaluations > 10


@pytest.mark.parametrize("name", QUICK_METHODS)
def test_every_method_returns_a_map_per_input_and_leaves_the_network_unchanged(name):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, stride=4, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    )
    network = Network(model, labels=("a", "b", "c", "d"))

    def state():
        modules = list(model.modules())
        return (
            network.weight_hash(),
            [type(m) for m in modules],
            [m.training for m in modules],
            list(model.parameters()),
        )

    before = state()
    inputs = torch.rand(3, 3, 48, 64)
    copy = inputs.clone()
    generator = torch.get_rng_state()
    maps = METHODS[name](network, inputs, ["a", "d", 1])
    assert isinstance(maps, Maps)
    assert maps.values.shape == (3, 1, 48, 64)
    assert bool(torch.isfinite(maps.values).all())
    again = METHODS[name](network, inputs, ["a", "d", 1])
    assert torch.equal(maps.values, again.values)
    assert maps.evaluations == again.evaluations
    *same, parameters = state()
    assert same == list(before[:3])
    assert all(a is b for a, b in zip(parameters, before[3], strict=True))
    assert torch.equal(inputs, copy)
    assert torch.equal(generator, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_messages(x):
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 14, 2)).double(), name="toy")
    cases = {
        "a method must be one of centre, random": lambda: get_method("gradcam"),
        "a method must be asked about a class index or name, got function; `explain` takes other targets": lambda: (
            Gradient()(network, x, lambda output: output[:, 0])
        ),
        "target must lie in 0..1 for toy, got 7; classes are counted from 0": lambda: Gradient()(network, x, 7),
        "target must be one class, or one for each of 2 inputs, got 3": lambda: Gradient()(network, x, [0, 1, 0]),
        "Grad-CAM must find a layer of maps, toy has none that all of the answer passes through; "
        "name one with layer=...": lambda: GradCam()(network, x, 0),
        "excitation backprop must be read at a layer of a 16th of the input's sides without negative values, toy has "
        "none that all of the answer passes through; name one with layer=...": lambda: ExcitationBackprop()(
            network, x, 0
        ),
        "a layer must give maps (B, K, *S) or square tokens (B, T, K), 1 of toy gives shape (1, 2); `extremal layers` "
        "lists others": lambda: GradCam("1")(network, x, 0),
        "methods must be distinct, got path twice; leave one out": lambda: check_unique(["path", " path"]),
        "methods must name at least one, got none; e.g. grad-cam,path": lambda: check_unique([""]),
    }
    for message, call in cases.items():
        assert message_of(call).startswith(message)
    assert "did you mean grad-cam" in message_of(get_method, "gradcam")


def test_short_names_are_those_of_the_methods():
    assert all(method.name == name for name, method in METHODS.items())
    assert all(0 <= method.smooth < 1 and not math.isnan(method.smooth) for method in METHODS.values())
    assert get_method(METHODS["rise"]) is METHODS["rise"]
