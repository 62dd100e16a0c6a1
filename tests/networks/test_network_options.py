"""Options of a network: labels, normalisation, spacing and memory, as sequences, arrays and tensors; others refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from extremal import Explanation, ExtremalError, Network, explain, solvers
from extremal.explanations.channels.inversion import invert
from extremal.networks.noise import prepare_noisy
from extremal.networks.stacks.volume import Volume
from support.errors import message_of
from support.toys import build_classifier

SHORT = solvers.Path(steps=2, polish=1, search=1)
X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("make", [tuple, list, np.array, torch.tensor, lambda values: np.array(values, np.float32)])
def test_sequences_of_numbers(make: Callable[[list[float]], object], tmp_path: Path) -> None:
    mean, std, spacing = make([0.5, 0.5, 0.5]), make([0.25, 0.25, 0.25]), make([1.0, 2.0])
    net = Network(build_classifier(), mean=mean, std=std, spacing=spacing)  # type: ignore[arg-type]
    assert (net.mean, net.std, net.spacing) == ((0.5,) * 3, (0.25,) * 3, (1.0, 2.0))
    assert all(type(value) is float for value in (*net.mean, *net.std, *net.spacing))
    images = net.to_images(torch.ones(1, 3, 2, 2))
    assert images is not None
    assert images.unique().tolist() == [191]  # 255·(1·0.25 + 0.5)
    result = explain(net, X, 0, areas=(0.2,), solver=SHORT)
    result.save(tmp_path / "found.safetensors")
    assert Explanation.load(tmp_path / "found.safetensors").settings["spacing"] == [1.0, 2.0]


@pytest.mark.parametrize(
    "labels", [["cat", "dog"], np.array(["cat", "dog"]), {0: "cat", 1: "dog"}.values()], ids=["list", "array", "values"]
)
def test_sequences_of_labels(labels: object) -> None:
    net = Network(build_classifier(), labels=labels)  # type: ignore[arg-type]
    assert explain(net, X, "dog", areas=(0.2,), solver=SHORT).target_names == ("dog",)
    assert net.label(0) == "cat"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": {"cat": 0}}, "the names of the classes, got {'cat': 0}; e.g. tuple(labels.values())"),
        ({"labels": {"cat"}}, "labels must be the names of the classes, got {'cat'}; e.g. ('cat', 'dog')"),
        ({"labels": 2}, "labels must be the names of the classes, got 2; e.g. ('cat', 'dog')"),
        ({"labels": np.array([1, 2])}, "labels must be the names of the classes, got [1, 2]"),
        ({"labels": (label for label in "ab")}, "labels must be the names of the classes, got <generator"),
        ({"mean": 0.5, "std": 0.5}, "mean must be a sequence of numbers, got 0.5; e.g. (0.5, 0.5, 0.5)"),
        ({"mean": "555", "std": "222"}, "mean must be a sequence of numbers, got '555'"),
        ({"mean": (0.5,), "std": (0.0,)}, "std must be above 0 and finite, got 0; e.g. (0.2, 0.2, 0.2)"),
        ({"mean": (float("nan"),), "std": (1.0,)}, "mean must have finite values, got (nan,); e.g. (0.5"),
        ({"mean": (0.5, 0.5)}, "mean and std must have a value for each channel, got 2 and 0; pass both, or neither"),
        ({"mean": torch.ones(3, 1, 1), "std": (1.0,) * 3}, "mean must be a sequence of numbers, got [[[1.0]]"),
        ({"spacing": "12"}, "spacing must be a sequence of numbers, got '12'; e.g. (2, 1, 1)"),
        ({"spacing": 2.0}, "spacing must be a sequence of numbers, got 2; e.g. (2, 1, 1)"),
        ({"spacing": (1.0, 10**400)}, "spacing must have finite values, got"),
        ({"spacing": (1.0, 10**5000)}, "spacing must have finite values, got a tuple with a number of thousands of"),
        ({"memory": "2"}, "memory must be a number, got str; it is in GiB, e.g. 2"),
        ({"memory": 10**400}, "memory must be above 0 and finite, got a number of about 401 digits; it is in GiB"),
    ],
)
def test_other_values(options: dict[str, object], message: str) -> None:
    assert message in message_of(Network, build_classifier(), **options)


@pytest.mark.parametrize(
    "call",
    [
        lambda net: explain(net, X, 0),
        lambda net: net.to_images(X),
        lambda net: net.normalise(X),
        lambda net: invert(net, "1", torch.rand(1, 4, 16, 16), size=(3, 16, 16)),
    ],
    ids=["explain", "to_images", "normalise", "invert"],
)
def test_a_normalisation_of_other_channels(call: Callable[[Network], object]) -> None:
    net = Network(build_classifier(), mean=(0.5, 0.5), std=(0.5, 0.5))
    assert message_of(call, net) == (
        "an input must have a channel for each of the 2 values of mean and std, Sequential got 3; pass an image, or "
        "what network.prepare(image) returns, or correct mean and std"
    )


def test_one_value_normalises_all_channels() -> None:
    one, each = (Network(build_classifier(), mean=(0.5,) * count, std=(0.25,) * count) for count in (1, 3))
    x = each.normalise(X)
    assert torch.equal(one.normalise(X), x)
    assert torch.equal(_images(one, x), _images(each, x))
    assert torch.equal(prepare_noisy(one, x, 0), prepare_noisy(each, x, 0))


def _images(net: Network, x: Tensor) -> Tensor:
    images = net.to_images(x)
    assert images is not None
    return images


@pytest.mark.parametrize("spacing", [np.array([5, 1, 1], np.float32), torch.tensor([5.0, 1.0, 1.0]), [5, 1, 1]])
def test_the_spacing_of_a_volume_is_plain_numbers(spacing: object) -> None:
    volume = Volume(torch.zeros(1, 2, 3, 4), spacing)  # type: ignore[arg-type]
    assert volume.spacing == (5.0, 1.0, 1.0)
    assert {type(gap) for gap in volume.spacing} == {float}
    assert volume.resample(spacing).spacing == volume.spacing  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda volume: Volume(volume.values, "111"), "spacing must be a sequence of numbers, got '111'; e.g. (5.0"),
        (lambda volume: volume.resample(2), "spacing must be a sequence of numbers, got 2; e.g. (5.0"),
        (lambda volume: volume.resample((1, 0, 1)), "spacing must be three distances above 0 mm, got (1.0, 0.0, 1.0)"),
        (lambda volume: volume.resize(4), "the sizes of a volume must be a sequence of whole numbers, got 4; e.g."),
        (lambda volume: volume.resize((4, 4.5, 4)), "the sizes of a volume must be a sequence of whole numbers, got ("),
        (lambda volume: volume.scale("0", "1"), "low and high must be numbers, got '0' and '1'; e.g. -1000 and 400"),
        (lambda volume: volume.scale(0, float("inf")), "low must be below high, and both finite, got 0 and inf"),
    ],
)
def test_numbers_of_volumes(call: Callable[[Volume], object], message: str) -> None:
    volume = Volume(torch.zeros(1, 2, 3, 4), (1.0, 1.0, 1.0))
    with pytest.raises(ExtremalError) as error:
        call(volume)
    assert message in str(error.value)
