"""Modules that hand their output to one other, as it is."""

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
        seen = observe(model, lambda: model(X), first, second, keep)
        assert torch.equal(seen.output, model(X))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in named)
    return [(named[maker], named[taker]) for maker, taker in seen.pairs]


@pytest.mark.parametrize(
    ("between", "wanted"), [("", [("conv", "act")]), ("in place", []), ("anew", []), ("twice", [])]
)
def test_the_output_must_be_handed_over_as_it_is_and_once(between: str, wanted: list[tuple[str, str]]) -> None:
    assert names(Net(between)) == wanted


def test_modules_that_do_nothing_may_stand_between() -> None:
    assert names(nn.Sequential(nn.Conv2d(2, 2, 1), nn.Identity(), nn.Sequential(), nn.ReLU6())) == [("0", "3")]


@pytest.mark.parametrize("watched", ["conv", "act"])
@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_none_is_watched(watched: str, hook: str) -> None:
    model = Net()
    handle = getattr(getattr(model, watched), hook)(lambda *_: None)
    with torch.no_grad():
        assert observe(model, lambda: model(X), {model.conv}, {model.act}).pairs == []
    handle.remove()
    assert names(model) == [("conv", "act")]


@pytest.mark.parametrize(
    ("whole", "left"),
    [("0.0", False), ("0.1", False), ("0", False), ("1", True), ("1.0", False), ("2", True), ("2.0", True)],
)
def test_no_output_that_is_wanted_stands_between(whole: str, left: bool) -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 2, 1)), nn.Sequential(nn.ReLU6()), nn.Sequential(nn.Conv2d(2, 2, 1))
    )
    model[0].append(nn.Identity())
    assert (("0.0", "1.0") in names(model, whole)) == left


class Shifted(Net):
    """Adds to the rectifier's output."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.between == "after":
            return y.add_(1)
        return y + 1


@pytest.mark.parametrize(("between", "changed"), [("after", True), ("", False)])
@torch.no_grad()
def test_what_is_changed_in_place_afterwards(between: str, changed: bool) -> None:
    model = Shifted(between)
    seen = observe(model, lambda: model(X), {model.conv}, {model.act})
    assert seen.overwritten == ({model.act} if changed else set())
    assert seen.pairs == [(model.conv, model.act)]
