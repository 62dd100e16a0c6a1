"""Layers with a quicker way while a run lasts: the same answer, less memory, and the model as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extremal import explain
from extremal.memory import activation_bytes
from extremal.network import Network
from extremal.shortcuts import shortened
from extremal.solvers import Path

X = torch.rand(8, 3, 9, 9, generator=torch.Generator().manual_seed(0))
FEW = X[:3]  # rows that no convolution takes another way


@pytest.fixture
def dilated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each convolution that was led to another kernel."""
    seen, usual = list[int](), F.conv2d

    def watched(x: Tensor, *rest: Any, **options: Any) -> Tensor:
        if options.get("dilation") == 2:
            seen.append(len(x))
        return usual(x, *rest, **options)

    monkeypatch.setattr(F, "conv2d", watched)
    return seen


def net(*rest: nn.Module) -> nn.Module:
    """A pointwise convolution whose outputs are far to both sides, and what follows."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 5, 1)
    first.weight.data *= 30
    return nn.Sequential(first, *rest).eval().requires_grad_(False)


def gradient(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and gradient of a sum that weighs places differently."""
    x = x.clone().requires_grad_()
    output = model(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return output.detach(), torch.autograd.grad((output * weights).sum(), x)[0]


@pytest.mark.parametrize("make", [nn.ReLU6, lambda inplace: nn.Hardtanh(-2.0, 0.5, inplace)])
@pytest.mark.parametrize("inplace", [True, False])
def test_rectifiers_give_the_same_to_the_last_bit(make: Callable[..., nn.Module], inplace: bool) -> None:
    model = net(make(inplace=inplace), nn.Conv2d(5, 2, 3))
    wanted = gradient(model, FEW)
    with shortened(model):
        found = gradient(model, FEW)
        assert torch.equal(model(FEW), wanted[0])  # without a gradient as well
    assert all(map(torch.equal, found, wanted))
    assert 0.1 < float((model[:1](X) > 0.5).float().mean()) < 0.9


def test_no_gradient_passes_on_a_bound() -> None:
    model = nn.Sequential(nn.Identity(), nn.ReLU6(inplace=True))
    with shortened(model):
        x = torch.tensor([-1.0, 0.0, 1.0, 6.0, 7.0], requires_grad=True)
        (found,) = torch.autograd.grad(model(x * 1).sum(), x)
    assert found.tolist() == [0, 0, 1, 0, 0]


def test_a_rectifier_holds_its_output_once() -> None:
    model = net(nn.ReLU6(inplace=True), nn.Conv2d(5, 2, 3))
    held = [activation_bytes(lambda: gradient(model, X), tuple(model.parameters()))]
    with shortened(model):
        held.append(activation_bytes(lambda: gradient(model, X), tuple(model.parameters())))
    assert held[0] - held[1] == 8 * 5 * 9 * 9 * 4


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("rows", "taken"), [(1, False), (3, False), (4, True), (8, True), (15, True), (16, False)])
def test_convolutions_of_so_many_rows_go_another_way(rows: int, taken: bool, dilated: list[int]) -> None:
    model, x = net(nn.Conv2d(5, 2, 1)), torch.cat([X, X])[:rows]
    wanted = gradient(model, x)
    with shortened(model) as layers:
        found = gradient(model, x)
    assert layers == 2
    assert dilated == [rows, rows] * taken
    for new, old in zip(found, wanted, strict=True):
        torch.testing.assert_close(new, old, atol=1e-5 * float(old.abs().max()), rtol=0)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv2d(3, 4, 3), X),
        (nn.Conv2d(3, 4, 1, stride=2), X),
        (nn.Conv2d(3, 4, 1, padding=1), X),
        (nn.Conv2d(3, 6, 1, groups=3), X),
        (nn.Conv2d(3, 4, 1), X[..., :6, :6]),
        (nn.Conv2d(3, 4, 1).double(), X.double()),
        (nn.Conv2d(3, 4, 1), X[0]),
    ],
    ids=["3x3", "stride", "padding", "groups", "few places", "double", "no rows"],
)
def test_other_convolutions_go_their_own(layer: nn.Module, x: Tensor, dilated: list[int]) -> None:
    wanted = layer(x)
    with shortened(layer):
        assert torch.equal(layer(x), wanted)
    assert dilated == []


def test_more_threads_go_their_own(dilated: list[int]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with shortened(model := net()):
            model(X)
    finally:
        torch.set_num_threads(before)
    assert dilated == []


class Leaky(nn.ReLU6):
    """A user's own, made of one that has a quicker way."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.1 * x


def test_what_users_made_is_left_alone_and_hooks_are_called() -> None:
    patched, plain = nn.ReLU6(inplace=True), nn.ReLU6(inplace=True)
    patched.forward = lambda x: x - 1
    model, seen = net(Leaky(), patched, plain), []
    plain.register_forward_hook(lambda *all_: seen.append(all_[2]))
    wanted = gradient(model, FEW)
    with shortened(model) as layers:
        assert layers == 2  # the convolution and the plain one
        assert all(map(torch.equal, gradient(model, FEW), wanted))
    assert len(seen) == 2
    assert "forward" in vars(patched)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_model_comes_back(error: type[BaseException] | None) -> None:
    model = net(nn.ReLU6(inplace=True))
    before = [set(vars(module)) for module in model.modules()]

    def use() -> None:
        with shortened(model):
            assert "forward" in vars(model[0])
            if error is not None:
                raise error

    if error is None:
        use()
    else:
        with pytest.raises(error):
            use()
    assert [set(vars(module)) for module in model.modules()] == before


@pytest.mark.usefixtures("one_thread")
def test_an_explanation_is_the_same_with_and_without(dilated: list[int]) -> None:
    model = net(nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    solver = Path(steps=12, polish=4, draws=2, search=4)
    both = [explain(Network(model, fuse=fuse), X[:4], 1, areas=(0.2,), solver=solver) for fuse in (True, False)]
    assert dilated
    torch.testing.assert_close(both[0].masks, both[1].masks, atol=1e-3, rtol=0)
    torch.testing.assert_close(both[0].binary_scores, both[1].binary_scores, atol=1e-3, rtol=0)
