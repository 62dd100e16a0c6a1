"""The memory-saving gradient of in-place ReLU6 and Hardtanh: the same numbers in less memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from extremal.networks.acceleration import accelerated
from extremal.networks.acceleration.rectifiers import overwrite_gradients
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


class Twice(nn.Module):
    """Uses a rectifier's output in two ways, or in none that gives its gradient a tensor of its own."""

    def __init__(self, use: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = (nn.Conv2d(3, 3, 1) for _ in range(2))
        self.act, self.use, self.outputs = nn.ReLU6(inplace=True), use, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.first(x))
        self.outputs.append(y)
        return self.use(y, self.second(y))


@pytest.mark.parametrize(
    ("use", "is_wanted", "overwritten"),
    [
        (lambda _, z: z * z, False, True),
        (lambda _, z: z * z, True, False),  # the gradient of the rectifier's output is asked for
        (lambda y, z: z + y, False, False),  # the sum passes one tensor on to both of its parts
        (lambda y, z: z * y, False, False),
        (lambda y, _: y + 1, False, False),
        (lambda y, _: y, False, False),
    ],
)
def test_a_gradient_is_overwritten_where_a_convolution_alone_uses_the_output(
    use: Callable[[Tensor, Tensor], Tensor], is_wanted: bool, overwritten: bool
) -> None:
    model, held = Twice(use).eval().requires_grad_(False), list[tuple[Tensor, Tensor]]()

    def find_gradients(*, overwrite: bool) -> list[Tensor]:
        model.outputs.clear()
        x = (8 * X - 4).requires_grad_()
        value = model(x).square().sum()
        wanted = [x, *model.outputs] if is_wanted else [x]
        model.outputs[0].register_hook(lambda gradient: held.append((gradient, gradient.clone())))
        if overwrite:
            overwrite_gradients(value, wanted)
        return list(torch.autograd.grad(value, wanted))

    with accelerated(model, model, X):
        expected, actual = find_gradients(overwrite=False), find_gradients(overwrite=True)
    assert all(map(torch.equal, actual, expected))
    assert [not torch.equal(*pair) for pair in held] == [False, overwritten]


def test_a_gradient_that_is_differentiated_again_is_not_overwritten() -> None:
    model = Twice(lambda _, z: z**3).eval().requires_grad_(False)
    x = X.clone().requires_grad_()
    with accelerated(model, model, X):
        value = model(x).sum()
        overwrite_gradients(value, [x])
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
    plain = model(x).sum()
    (expected,) = torch.autograd.grad(torch.autograd.grad(plain, x, create_graph=True)[0].square().sum(), x)
    assert float(expected.abs().max()) > 0
    torch.testing.assert_close(second, expected)


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
