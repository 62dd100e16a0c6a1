"""Modules that pass their output unchanged to one other module."""

import pytest
import torch
from torch import Tensor, nn

from extremal.networks.acceleration.observe import observe

X = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A convolution and a rectifier, with more or less between them."""

    def __init__(self, between: str = "") -> None:
        super().__init__()
        self.conv, self.act, self.between = nn.Conv2d(2, 2, 1), nn.ReLU6(inplace=True), between

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.between == "twice":
            return self.act(self.conv(self.act(y)))
        if self.between == "in place":
            y += 1
        if self.between == "anew":
            y = y + 0
        return self.act(y)


def names(model: nn.Module, *keep: str) -> list[tuple[str, str]]:
    """The pairs of a convolution and a rectifier, by name."""
    named = {module: name for name, module in model.named_modules()}
    first = {module for module in named if isinstance(module, nn.Conv2d)}
    second = {module for module in named if isinstance(module, nn.ReLU6)}
    with torch.no_grad():
        recorded = observe(model, lambda: model(X), first, second, keep)
        assert torch.equal(recorded.output, model(X))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in named)
    return [(named[maker], named[taker]) for maker, taker in recorded.pairs]


@pytest.mark.parametrize(
    ("between", "expected"), [("", [("conv", "act")]), ("in place", []), ("anew", []), ("twice", [])]
)
def test_the_output_must_be_passed_on_unchanged_and_once(between: str, expected: list[tuple[str, str]]) -> None:
    assert names(Net(between)) == expected


def test_modules_that_do_nothing_may_lie_between() -> None:
    assert names(nn.Sequential(nn.Conv2d(2, 2, 1), nn.Identity(), nn.Sequential(), nn.ReLU6())) == [("0", "3")]


@pytest.mark.parametrize("hooked", ["conv", "act"])
@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_modules_with_hooks_are_skipped(hooked: str, hook: str) -> None:
    model = Net()
    handle = getattr(getattr(model, hooked), hook)(lambda *_: None)
    with torch.no_grad():
        assert observe(model, lambda: model(X), {model.conv}, {model.act}).pairs == []
    handle.remove()
    assert names(model) == [("conv", "act")]


@pytest.mark.parametrize(
    ("kept", "remains"),
    [("0.0", False), ("0.1", False), ("0", False), ("1", True), ("1.0", False), ("2", True), ("2.0", True)],
)
def test_no_kept_output_lies_between(kept: str, remains: bool) -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 2, 1)), nn.Sequential(nn.ReLU6()), nn.Sequential(nn.Conv2d(2, 2, 1))
    )
    model[0].append(nn.Identity())
    assert (("0.0", "1.0") in names(model, kept)) == remains


def test_a_kept_output_that_is_freed_is_not_taken_for_a_later_one() -> None:
    """A freed tensor's id is that of the next tensor: which pairs were found depended on the state of memory."""
    model = nn.Sequential(
        nn.ReLU(), nn.Tanh(), *(layer for _ in range(4) for layer in (nn.Conv2d(2, 2, 1), nn.ReLU6()))
    )
    assert names(model, "0") == [(f"{n}", f"{n + 1}") for n in range(2, 10, 2)]


class Shifted(Net):
    """Adds to the rectifier's output."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.between == "after":
            return y.add_(1)
        return y + 1


@pytest.mark.parametrize(("between", "changed"), [("after", True), ("", False)])
@torch.no_grad()
def test_outputs_that_are_overwritten_later(between: str, changed: bool) -> None:
    model = Shifted(between)
    recorded = observe(model, lambda: model(X), {model.conv}, {model.act})
    assert recorded.overwritten == ({model.act} if changed else set())
    assert recorded.pairs == [(model.conv, model.act)]
