"""The memory-saving gradient of in-place ReLU6 and Hardtanh: the same numbers, less memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from extremal.networks.acceleration import accelerated
from extremal.networks.memory import activation_bytes
from support.gradients import output_and_gradient, patched_modules

X = torch.rand(8, 3, 9, 9, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)


def convolution_and(*rest: nn.Module) -> nn.Module:
    """Return a 1x1 convolution whose outputs are far beyond both bounds, and what follows it."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 5, 1)
    first.weight.data *= 30
    return nn.Sequential(first, *rest).eval().requires_grad_(False)


@pytest.mark.parametrize("make", [nn.ReLU6, lambda inplace: nn.Hardtanh(-2.0, 0.5, inplace)])
@pytest.mark.parametrize("inplace", [True, False])
def test_rectifiers_are_the_same_to_the_last_bit(make: Callable[..., nn.Module], inplace: bool) -> None:
    model, x = nn.Sequential(nn.InstanceNorm2d(3), make(inplace=inplace), nn.Conv2d(3, 2, 1)), 30 * X - 15
    model.requires_grad_(False)
    expected = output_and_gradient(model, x)
    with accelerated(model, model, x):
        assert patched_modules(model) == [model[1]]
        actual = output_and_gradient(model, x)
        assert torch.equal(model(x), expected[0])  # without a gradient as well
    assert all(map(torch.equal, actual, expected))
    assert 0.1 < float((model[:1](x) > 0.5).float().mean()) < 0.9


def test_no_gradient_passes_on_a_bound() -> None:
    model, x = nn.Sequential(nn.Identity(), nn.ReLU6(inplace=True)), torch.tensor([-1.0, 0.0, 1.0, 6.0, 7.0])
    with accelerated(model, model, x.clone()):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(model(x * 1).sum(), x)
    assert gradient.tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("level", ["portable", "onednn"])
@pytest.mark.parametrize("rows", [1, 8])
def test_a_rectifier_saves_its_output_once(rows: int, level: str) -> None:
    model, x = convolution_and(nn.ReLU6(inplace=True), nn.Conv2d(5, 2, 3)), X[:rows]
    before = activation_bytes(lambda: output_and_gradient(model, x), tuple(model.parameters()))
    with accelerated(model, model, x, level=level):
        after = activation_bytes(lambda: output_and_gradient(model, x), tuple(model.parameters()))
    assert before - after == rows * 5 * 9 * 9 * 4


class AddsToOutput(nn.Module):
    """Overwrites the rectifier's output, from which its gradient can no longer be taken."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x * 8 - 1).add_(x)


def test_a_rectifier_whose_output_is_overwritten_is_left_alone() -> None:
    model = AddsToOutput()
    expected = output_and_gradient(model, X)
    with accelerated(model, model, X):
        assert patched_modules(model) == []
        assert all(map(torch.equal, output_and_gradient(model, X), expected))


class Mapped(nn.Module):
    """Maps its layers over another axis."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = convolution_and(nn.ReLU6(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        mapped: Tensor = torch.func.vmap(self.layers)(x[None])
        return mapped[0]


@pytest.mark.parametrize(("level", "layers"), [("portable", 1), ("onednn", 2)])
def test_function_transforms_use_the_original_forwards(level: str, layers: int) -> None:
    model = Mapped().requires_grad_(False)
    expected = output_and_gradient(model, X)
    with accelerated(model, model, X, level=level):
        assert len(patched_modules(model)) == layers
        actual = output_and_gradient(model, X)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()), rtol=0)


class Leaky(nn.ReLU6):
    """A user's subclass."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.1 * x


@pytest.mark.parametrize(("level", "layers"), [("portable", 1), ("onednn", 2)])
def test_user_code_is_left_alone_and_hooks_are_called(level: str, layers: int) -> None:
    patched, plain = nn.ReLU6(inplace=True), nn.ReLU6(inplace=True)
    patched.forward = lambda x: x - 1
    outputs: list[object] = []
    model = convolution_and(Leaky(), patched, plain)
    plain.register_forward_hook(lambda *arguments: outputs.append(arguments[2]))
    expected = output_and_gradient(model, X[:1])  # oneDNN does not run single rows
    with accelerated(model, model, X, level=level):
        assert len(patched_modules(model)) == layers + 1  # the user's own, and with oneDNN the convolution
        outputs.clear()
        assert all(map(torch.equal, output_and_gradient(model, X[:1]), expected))
    assert len(outputs) == 1
    assert patched_modules(model) == [patched]


@pytest.mark.parametrize("level", ["portable", "onednn"])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_model_is_restored(error: type[BaseException] | None, level: str) -> None:
    model = convolution_and(nn.ReLU6(inplace=True))
    before = [set(vars(module)) for module in model.modules()]

    def use() -> None:
        with accelerated(model, model, X, level=level):
            assert "forward" in vars(model[1])
            if error is not None:
                raise error

    if error is None:
        use()
    else:
        with pytest.raises(error):
            use()
    assert [set(vars(module)) for module in model.modules()] == before
