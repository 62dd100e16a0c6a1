"""Stages: few layers, at which the network can be split, and none that does nothing."""

import pytest
import torch
from torch import nn

from extremal import Layer, layers
from extremal.networks.stages import MAX_STAGES, find_stages


def made(*names: str, shape: tuple[int, ...] = (8, 4, 4)) -> list[Layer]:
    return [Layer(name, "Module", shape) for name in names]


def test_parts_of_a_few_containers_are_opened() -> None:
    blocks = [f"blocks.{k}" for k in range(12)]
    found = find_stages(made("stem", *blocks, "blocks", "head"))
    assert [layer.name for layer in found] == ["stem", *blocks, "head"]


def test_a_container_with_too_many_parts_alike_is_one_stage() -> None:
    blocks = [f"blocks.{k}" for k in range(40)]
    found = find_stages(made("stem", *blocks, "blocks", "head"))
    assert [layer.name for layer in found] == ["stem", "blocks", "head"]


def test_of_too_many_parts_those_remain_before_the_shape_changes() -> None:
    parts = [Layer(f"features.{k}", "Conv2d", (2 ** (k // 10), 4, 4)) for k in range(30)]
    found = find_stages([*parts, *made("features", "head")])
    assert [layer.name for layer in found] == ["features.9", "features.19", "features.29", "head"]


def test_what_does_nothing_or_cannot_be_split_is_left_out() -> None:
    entries = [
        Layer("a", "Identity", (1,)),
        Layer("b", "Conv2d", (1,), "problem"),
        Layer("c", "Conv2d", (1,), "", True),
    ]
    assert find_stages([*entries, *made("d")]) == made("d")
    assert find_stages([]) == []


@pytest.mark.parametrize("depth", [1, 5, 60])
def test_there_are_never_many(depth: int) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()) for _ in range(depth)))
    network = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Identity(), nn.Linear(3, 2))
    known = layers(network, torch.zeros(1, 3, 16, 16))
    found = find_stages(known)
    assert 0 < len(found) <= MAX_STAGES
    assert set(found) <= set(known)
    assert found[-1].name == "4"
