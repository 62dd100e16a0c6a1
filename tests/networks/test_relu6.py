"""Layers with a quicker way while a run lasts: the same answer, less memory, and the model as it was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from extremal import explain
from extremal.masking.solvers import Path
from extremal.networks.acceleration.onednn import Convolution, available
from extremal.networks.acceleration.relu6 import shortened
from extremal.networks.memory import activation_bytes
from extremal.networks.network import Network

pytestmark = pytest.mark.skipif(not available(), reason="no oneDNN in this build of PyTorch")

X = torch.rand(8, 3, 9, 9, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)


@pytest.fixture
def led(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each convolution that went another way."""
    seen, usual = list[int](), Convolution.__call__

    def watched(convolve: Convolution, x: Tensor) -> Tensor:
        seen.append(len(x))
        return usual(convolve, x)

    monkeypatch.setattr(Convolution, "__call__", watched)
    return seen


def net(*rest: nn.Module) -> nn.Module:
    """A pointwise convolution whose outputs are far to both sides, and what follows."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 5, 1)
    first.weight.data *= 30
    return nn.Sequential(first, *rest).eval().requires_grad_(False)


def gradient(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and gradient of a sum that weighs places differently."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    output = model(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return output.detach(), torch.autograd.grad((output * weights).sum(), x)[0]


def assert_alike(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    for new, old in zip(found, wanted, strict=True):
        torch.testing.assert_close(new, old, atol=1e-5 * float(old.detach().abs().max()), rtol=0)


@pytest.mark.parametrize("make", [nn.ReLU6, lambda inplace: nn.Hardtanh(-2.0, 0.5, inplace)])
@pytest.mark.parametrize("inplace", [True, False])
def test_rectifiers_give_the_same_to_the_last_bit(make: Callable[..., nn.Module], inplace: bool) -> None:
    model, x = nn.Sequential(nn.InstanceNorm2d(3), make(inplace=inplace), nn.Conv2d(3, 2, 3)), 30 * X - 15
    model.requires_grad_(False)
    wanted = gradient(model, x)
    with shortened(model, lambda: model(x)) as layers:
        assert layers == 1
        found = gradient(model, x)
        assert torch.equal(model(x), wanted[0])  # without a gradient as well
    assert all(map(torch.equal, found, wanted))
    assert 0.1 < float((model[:1](x) > 0.5).float().mean()) < 0.9


def test_no_gradient_passes_on_a_bound() -> None:
    model, x = nn.Sequential(nn.Identity(), nn.ReLU6(inplace=True)), torch.tensor([-1.0, 0.0, 1.0, 6.0, 7.0])
    with shortened(model, lambda: model(x.clone())):
        x.requires_grad_()
        (found,) = torch.autograd.grad(model(x * 1).sum(), x)
    assert found.tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("rows", [1, 8])
def test_a_rectifier_holds_its_output_once(rows: int) -> None:
    model, x = net(nn.ReLU6(inplace=True), nn.Conv2d(5, 2, 3)), X[:rows]
    held = [activation_bytes(lambda: gradient(model, x), tuple(model.parameters()))]
    with shortened(model, lambda: model(x)):
        held.append(activation_bytes(lambda: gradient(model, x), tuple(model.parameters())))
    assert held[0] - held[1] == rows * 5 * 9 * 9 * 4


@pytest.mark.parametrize(("rows", "calls"), [(1, 0), (2, 2), (8, 2)])
def test_a_convolution_takes_its_rectifier_along(rows: int, calls: int, led: list[int]) -> None:
    model, x = net(nn.BatchNorm2d(5).eval(), nn.ReLU6(), nn.Conv2d(5, 6, 3), nn.Identity(), nn.ReLU6(True)), X[:rows]
    model[1] = nn.Sequential()  # what is left of a norm that was folded
    wanted = gradient(model, x)
    with shortened(model, lambda: model(X[:1])) as layers:
        found = gradient(model, x)
        assert layers == 4
        assert torch.equal(model[2](-X[:1]), -X[:1])  # its work is done
    assert_alike(found, wanted)
    assert led == [rows] * calls


class Skipping(nn.Module):
    """Has another use for the convolution's output, or for the rectifier's."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.conv, self.act, self.last = nn.Conv2d(3, 3, 1), nn.ReLU6(), nn.Conv2d(3, 2, 3)
        self.conv.weight.data *= 30
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.act(y)
        if self.use == "before":
            return self.last(z + y)
        if self.use == "changed":
            z += x
        return self.last(z)


@pytest.mark.parametrize(
    ("use", "layers", "rows"), [("", 2, 8), ("before", 2, 8), ("changed", 1, 8), ("changed", 1, 1)]
)
def test_other_uses_keep_them_apart(use: str, layers: int, rows: int, led: list[int]) -> None:
    torch.manual_seed(0)
    model, x = Skipping(use).requires_grad_(False), X[:rows]
    wanted = gradient(model, x)
    with shortened(model, lambda: model(X[:1])) as found:
        assert found == layers
        assert torch.equal(model.act(-X), torch.zeros_like(X)) == (use != "")
        assert_alike(gradient(model, x), wanted)
    assert led == [8] * (rows == 8)  # the pointwise one alone is led as well


def test_a_layer_that_is_wanted_keeps_its_output_and_its_gradient() -> None:
    model = nn.Sequential(net(nn.ReLU6()), nn.Conv2d(5, 6, 3), nn.ReLU6()).requires_grad_(False)
    found = []
    for whole in ((), ("0",), ("0.0",)):
        with shortened(model, lambda: model(X), *whole) as layers:
            assert layers == 4
            x = X.clone(memory_format=torch.preserve_format).requires_grad_()
            y = model[0](x)
            found.append((y, *torch.autograd.grad(model[1:](y).sum(), (y, x))))
            assert (model[0][0](X).min() < 0) == (whole == ("0.0",))
    x = X.clone().requires_grad_()
    wanted = (y := model[0](x), *torch.autograd.grad(model[1:](y).sum(), (y, x)))
    assert_alike(found[1], wanted)
    assert_alike(found[2], wanted)
    assert not torch.equal(found[0][1], wanted[1])  # where nobody looks it is masked where it lies


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(3, 4, 1, stride=2),
        nn.Conv2d(3, 4, 1, padding=1),
        nn.Conv2d(3, 6, 1, groups=3),
        nn.Conv2d(3, 4, 1, padding="same"),
        nn.Conv2d(3, 4, 1, padding=1, padding_mode="circular"),
    ],
    ids=["3x3", "stride", "padding", "groups", "named", "circular"],
)
def test_other_convolutions_go_their_own(layer: nn.Module) -> None:
    with shortened(layer.requires_grad_(False), lambda: layer(X)) as layers:
        assert layers == 0


class Mapped(nn.Module):
    """Maps its layers over another axis."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = net(nn.ReLU6(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        mapped: Tensor = torch.func.vmap(self.layers)(x[None])
        return mapped[0]


def test_transforms_of_functions_go_the_layers_own_way() -> None:
    model = Mapped().requires_grad_(False)
    wanted = gradient(model, X)
    with shortened(model, lambda: model(X)) as layers:
        assert layers == 2
        assert_alike(gradient(model, X), wanted)


class Leaky(nn.ReLU6):
    """A user's own, made of one that has a quicker way."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.1 * x


def test_what_users_made_is_left_alone_and_hooks_are_called() -> None:
    patched, plain = nn.ReLU6(inplace=True), nn.ReLU6(inplace=True)
    patched.forward = lambda x: x - 1
    seen: list[tuple[object, ...]] = []
    model = net(Leaky(), patched, plain)
    plain.register_forward_hook(lambda *all_: seen.append(all_[2]))
    wanted = gradient(model, X[:1])  # of one row every convolution goes its own way
    with shortened(model, lambda: model(X)) as layers:
        assert layers == 2  # the convolution and the plain one
        seen.clear()
        assert all(map(torch.equal, gradient(model, X[:1]), wanted))
    assert len(seen) == 1
    assert "forward" in vars(patched)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_model_comes_back(error: type[BaseException] | None) -> None:
    model = net(nn.ReLU6(inplace=True))
    before = [set(vars(module)) for module in model.modules()]

    def use() -> None:
        with shortened(model, lambda: model(X)):
            assert "forward" in vars(model[0])
            if error is not None:
                raise error

    if error is None:
        use()
    else:
        with pytest.raises(error):
            use()
    assert [set(vars(module)) for module in model.modules()] == before


def test_an_explanation_is_the_same_with_and_without(led: list[int]) -> None:
    model = net(nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    solver = Path(steps=12, polish=4, draws=2, search=4)
    both = [explain(Network(model, fuse=fuse), X[:4], 1, areas=(0.2,), solver=solver) for fuse in (True, False)]
    assert led
    torch.testing.assert_close(both[0].masks, both[1].masks, atol=1e-3, rtol=0)
    torch.testing.assert_close(both[0].binary_scores, both[1].binary_scores, atol=1e-3, rtol=0)
