"""Gradient methods against naive derivations on a residual network."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extremal import Network
from extremal.benchmark.baselines import Deconvnet, Gradient, GuidedBackprop, IntegratedGradients
from extremal.benchmark.baselines.gradients import relu6_as_relu
from support.errors import message_of
from support.residual import CLASSES, Residual


def naive_gradient(model: Residual, x: Tensor, target: int, rule: str) -> Tensor:
    """Compute the modified gradient of one input, each step written out."""

    def rectified(gradient: Tensor, before: Tensor) -> Tensor:
        if rule == "deconvnet":
            return gradient.clamp_min(0)
        passed = gradient * (before > 0)
        return passed.clamp_min(0) if rule == "guided" else passed

    with torch.no_grad():
        first = model.a(x)
        h = first.clamp_min(0)
        second = model.b(h) + h
        places = second[0, 0].numel()
        gradient = (model.classes.weight[target] / places).view(1, -1, 1, 1).expand_as(second)
        gradient = rectified(gradient, second)
        gradient = gradient + F.conv_transpose2d(gradient, model.b.weight, padding=1)
        gradient = rectified(gradient, first)
        return F.conv_transpose2d(gradient, model.a.weight, padding=1)


@pytest.mark.parametrize(
    ("method", "rule"), [(Gradient(), "plain"), (GuidedBackprop(), "guided"), (Deconvnet(), "deconvnet")]
)
def test_rules_of_rectifiers_hold_in_a_residual_network(method, rule, residual, x):
    maps = method(Network(residual), x, [1, 3])
    expected = torch.cat([naive_gradient(residual, x[i : i + 1], target, rule) for i, target in enumerate((1, 3))])
    torch.testing.assert_close(maps.values, expected.abs().amax(1, keepdim=True))
    assert maps.evaluations == 2


def test_three_rules_differ(residual, x):
    maps = [method(Network(residual), x, 1).values for method in (Gradient(), GuidedBackprop(), Deconvnet())]
    assert not torch.allclose(maps[0], maps[1])
    assert not torch.allclose(maps[1], maps[2])


def test_relu6_is_a_rectifier_below_a_ceiling(x):
    torch.manual_seed(0)
    low, high = Residual(nn.ReLU6()).double(), Residual().double()
    high.load_state_dict(low.state_dict())
    assert float(low.a(x).detach().max()) < 6
    guided = [GuidedBackprop()(Network(model), x, 1).values for model in (low, high)]
    torch.testing.assert_close(guided[0], guided[1])
    with relu6_as_relu(low, "guided-backprop") as count:
        assert count == 1
    assert isinstance(low.rectifier, nn.ReLU6)


def test_without_rectifiers_guided_backprop_is_refused(x):
    model = Residual(nn.SiLU()).double()
    assert message_of(GuidedBackprop(), Network(model), x, 1) == (
        "guided-backprop must find rectifiers to change (modules nn.ReLU or nn.ReLU6), this network has none; it would "
        "be the plain gradient: use gradient, or write the activations as modules"
    )


def test_integrated_gradients_of_a_linear_network_are_its_terms(x):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 14, CLASSES)).double()
    maps = IntegratedGradients(steps=4)(Network(model), x, [0, 2])
    terms = x * model[1].weight[[0, 2]].view(2, 3, 12, 14)
    torch.testing.assert_close(maps.values, terms.sum(1, keepdim=True).abs().detach())
    assert maps.evaluations == 2 * 4
