"""Ctrl-C at the worst moments: the model and the random states come back, and no thread waits for ever."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from extremal import explain
from extremal.networks import module_state, randomness
from extremal.networks.randomness import seeded
from extremal.networks.turns import _TURNS, exclusive

X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
OPTIONS: dict[str, Any] = {"areas": (0.3,), "effort": "fast", "perturbation": "fade"}


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def interrupt_after(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with an interrupt as its first call returns."""
    calls = []

    def run(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return result

    return run


@pytest.fixture
def unchanged(model: nn.Sequential) -> Iterator[None]:
    model.train()
    model[0].weight.requires_grad_(False)
    model[0].register_forward_hook(kept := lambda *_: None)
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    yield
    assert all(module.training for module in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(model[0]._forward_hooks.values()) == [kept]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model[1:])
    assert torch.equal(torch.get_rng_state(), random)
    assert not _TURNS._holders
    assert not randomness._SHARED_STATES._runs


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (nn.Module, "register_forward_hook"),
        (nn.Module, "register_forward_pre_hook"),
        (type(_TURNS), "take"),
        (type(_TURNS), "give_back"),
        (type(randomness._SHARED_STATES), "enter"),
        (type(randomness._SHARED_STATES), "leave"),
        (torch, "manual_seed"),
        (module_state, "_restore_entries"),
        (module_state, "_is_same"),
    ],
)
def test_everything_comes_back(model: nn.Sequential, owner: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, name, interrupt_after(getattr(owner, name)))
    with pytest.raises(KeyboardInterrupt):
        explain(model, X, 0, **OPTIONS)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(explain(model, X, 0, **OPTIONS)), daemon=True)
    thread.start()
    thread.join(30)
    assert len(found) == 1, "another thread can use the network"


def test_an_interrupted_turn_gives_back_what_it_took(model: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    with exclusive(model):
        monkeypatch.setattr(type(_TURNS), "take", interrupt_after(type(_TURNS).take))
        with pytest.raises(KeyboardInterrupt), exclusive(model):
            pass
        assert set(_TURNS._holders) >= {id(part) for part in model.modules()}, "the outer turn goes on"
    assert not _TURNS._holders


def test_states_are_left_once() -> None:
    states, run = randomness._SHARED_STATES, object()
    before = torch.get_rng_state()
    with seeded(1):
        inner = torch.get_rng_state()
        states.enter(threading.get_ident(), run, 2)
        states.leave(threading.get_ident(), run)
        assert torch.equal(torch.get_rng_state(), inner)
        torch.rand(1)
        later = torch.get_rng_state()
        states.leave(threading.get_ident(), run)
        assert torch.equal(torch.get_rng_state(), later)
    assert torch.equal(torch.get_rng_state(), before)
