"""Cascading re-initialisation: stages, seeds, and the caller's network."""

import pytest
import torch
from torch import nn

from extremal.benchmark import metrics
from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.network import Network


def test_stages_go_from_the_top_down_and_large_ones_are_split():
    from extremal import zoo

    names = [name for name, _ in metrics.stages(zoo.load("embedded").model)]
    assert names[:3] == ["classifier", "bn2", "conv_head"]
    assert names[3:10] == [f"blocks.{index}" for index in (6, 5, 4, 3, 2, 1, 0)]
    assert names[-2:] == ["bn1", "conv_stem"]


def test_a_copy_is_reset_at_the_top_and_the_network_is_unchanged():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    model[1].running_mean.fill_(3.0)
    network = Network(model)
    before = network.weight_hash()
    state = torch.get_rng_state()
    one, two, again = (metrics.reinitialise(network, count) for count in (1, 2, 2))
    assert network.weight_hash() == before
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one.model[0].weight, model[0].weight)
    assert torch.equal(one.model[1].running_mean, model[1].running_mean)
    assert not torch.equal(one.model[3].weight, model[3].weight)
    assert torch.equal(one.model[3].weight, two.model[3].weight)
    assert float(two.model[1].running_mean.abs().max()) == 0
    assert two.weight_hash() == again.weight_hash()
    assert metrics.reinitialise(network, 0).weight_hash() == before
    assert metrics.reinitialise(model, 2).weight_hash() == two.weight_hash()
    with pytest.raises(ExtremalValueError, match="count must be at most 3, got 4; Sequential has 3 stages"):
        metrics.reinitialise(network, 4)
    with pytest.raises(ExtremalTypeError, match=r"seed must be a whole number, got '1'; e\.g\. 0"):
        metrics.reinitialise(network, 1, seed="1")  # type: ignore[arg-type]
