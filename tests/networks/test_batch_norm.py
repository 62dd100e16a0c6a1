"""Batch norms folded into convolutions: the same output, and the model restored."""

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from extremal import explain
from extremal.masking.solvers import Path
from extremal.networks.acceleration.batch_norm import fused_batch_norms
from extremal.networks.network import Network

SHORT = Path(steps=12, polish=4, draws=2, search=4)
X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def stirred(model: nn.Module) -> nn.Module:
    """The model with statistics and weights that are not the fresh ones."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 1.5, generator=generator)
    return model.eval().requires_grad_(False)


def snapshot(model: nn.Module) -> tuple[dict[str, Tensor], list[tuple[str, int]], list[tuple[str, int]]]:
    """Values, and which objects are where."""
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = [(name, id(module)) for name, module in model.named_modules()]
    return values, modules, [(name, id(parameter)) for name, parameter in model.named_parameters()]


def assert_unchanged(model: nn.Module, before: tuple) -> None:
    values, modules, parameters = snapshot(model)
    assert (modules, parameters) == before[1:]
    assert list(values) == list(before[0])
    assert all(torch.equal(values[name], before[0][name]) for name in values)


class Residual(nn.Module):
    """Uses the convolution's output a second time: folding would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (self.norm(y) + y).mean((2, 3))


class Twice(nn.Module):
    """One norm after two convolutions, and one convolution called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.second(self.norm(self.first(x))))
        return self.other(self.first(x)).mean((2, 3))


@pytest.mark.parametrize(
    ("make", "pairs"),
    [
        (lambda: torchvision.models.resnet18(weights=None), 20),
        (lambda: timm.create_model("tf_efficientnet_lite0", pretrained=False), 49),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False), nn.Flatten()), 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()), 0),
        (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten()), 0),
        (Residual, 0),
        (Twice, 0),
    ],
)
def test_the_output_is_the_same_to_rounding(make, pairs: int) -> None:
    torch.manual_seed(0)
    model = stirred(make())
    expected, before = model(X), snapshot(model)
    with fused_batch_norms(model, lambda: model(X[:1])) as folded:
        found = model(X)
        assert folded == pairs
        assert torch.is_grad_enabled()
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    assert_unchanged(model, before)
    assert torch.equal(model(X), expected)


def test_the_gradient_is_the_same_to_rounding() -> None:
    model = stirred(torchvision.models.resnet18(weights=None)).double()
    grads = []
    x = X.double().requires_grad_()
    grads.append(torch.autograd.grad(model(x)[:, 3].sum(), x)[0])
    with fused_batch_norms(model, lambda: model(X[:1].double())):
        grads.append(torch.autograd.grad(model(x)[:, 3].sum(), x)[0])
    torch.testing.assert_close(grads[0], grads[1], atol=1e-9 * float(grads[0].abs().max()), rtol=1e-7)


def test_restored_after_an_exception() -> None:
    model = stirred(torchvision.models.resnet18(weights=None))
    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt), fused_batch_norms(model, lambda: model(X[:1])):
        raise KeyboardInterrupt
    assert_unchanged(model, before)


def test_modules_with_hooks_are_left_alone() -> None:
    model = stirred(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    recorded: list[Tensor] = []
    model[1].register_forward_hook(lambda *_: recorded.append(_[2]))
    with fused_batch_norms(model, lambda: model(X[:1])) as folded:
        assert folded == 0
        model(X)
    assert len(recorded) == 2  # one while looking for pairs, one of the call


def test_an_explanation_is_the_same_folded_or_not() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    model = stirred(nn.Sequential(*layers)).double()
    before = snapshot(model)
    both = [
        explain(
            Network(model, accelerate=level),
            X.double(),
            1,
            areas=(0.1, 0.3),
            solver=Path(steps=12, polish=4, draws=2, search=4),
        )
        for level in ("portable", "off")
    ]
    assert_unchanged(model, before)
    torch.testing.assert_close(both[0].masks, both[1].masks, atol=1e-6, rtol=0)
    torch.testing.assert_close(both[0].binary_scores, both[1].binary_scores, atol=1e-6, rtol=0)
    assert [result.settings["accelerate"] for result in both] == ["portable", "off"]


@pytest.mark.parametrize("count", [0, 2])
def test_outputs_without_values_and_of_other_shapes(count: int) -> None:
    """A detector may find nothing, and folding may change how many boxes it finds."""

    class Finder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = stirred(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
            self.calls = 0

        def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
            self.calls += 1
            scores = self.body(x).flatten()[: count * self.calls]
            return [{"scores": scores}]

    model = Finder().eval()
    with fused_batch_norms(model, lambda: model(X)) as pairs:
        assert pairs == (1 if count == 0 else 0)
