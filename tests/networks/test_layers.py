"""Layers from one evaluation: what it keeps, and networks that compute gradients themselves."""

import weakref

import pytest
import torch
from torch import Tensor, nn

from extremal.networks.layers import LayerTrace
from extremal.networks.network import Network

X = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))


class Branch(nn.Module):
    """Adds to its features a gradient that it computes in its forward."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.features, self.classes = kind, nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        if self.kind == "torch.func":
            slope = torch.func.grad(lambda values: values.square().sum())(features)
        else:
            with torch.enable_grad():
                leaf = features.detach().requires_grad_()
                (slope,) = torch.autograd.grad(leaf.square().sum(), leaf)
        output: Tensor = self.classes((features + slope).mean((2, 3)))
        return output


@pytest.mark.parametrize("kind", ["torch.func", "autograd"])
def test_networks_that_compute_gradients_are_evaluated_again(kind: str) -> None:
    with Network(Branch(kind)).frozen() as run:
        trace = LayerTrace(run, X)
        found = [trace.check(module) for module in trace.modules]
        assert run.gradients == 2
    assert [(layer.name, layer.shape, layer.can_split_cleanly) for layer in found] == [
        ("features", (4, 12, 12), True),
        ("classes", (2,), True),
    ]


def test_a_trace_holds_no_activations() -> None:
    outputs = list[weakref.ref[Tensor]]()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model[1].register_forward_hook(lambda _, __, output: outputs.append(weakref.ref(output)))
    with Network(model).frozen() as run:
        trace = LayerTrace(run, X)
        assert [output() for output in outputs] == [None]
        assert [trace.shape(module) for module in trace.modules][:2] == [(4, 22, 22), (4, 22, 22)]
        assert all(trace.check(module).can_split_cleanly for module in trace.modules)
