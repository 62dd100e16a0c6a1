"""Nothing waits for the device within a step: counted on a fake device, for which every transfer is seen."""

from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import extremal
from extremal import Network, solvers
from extremal.explanations import evidence
from extremal.masking.solvers.problem import CHECK_INTERVAL
from extremal.masking.solvers.repair import STEPS_BETWEEN
from support.fake_device import FakeDevice, fake_device

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MAX_WAITS = 1  # of a step


@pytest.fixture(autouse=True)
def few_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extremal.masking.area.MAX_SECTIONS", 16)  # 256 are slow without a GPU


def make_network() -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    return Network(model, mirror=True)


class Waits:
    """Waits between the reports of a run."""

    def __init__(self, fake: FakeDevice) -> None:
        self.fake = fake
        self.steps = list[Counter[str]]()  # of each step but the first, which includes the preparation
        self.evidence = list[Counter[str]]()  # of each part of the evidence but the first

    def on_step(self, step: Any) -> None:
        self.steps += [self._take()] if step.index else []
        self.fake.waits.clear()

    def on_evidence(self, done: int, total: int) -> None:
        self.evidence.append(self._take())

    def _take(self) -> Counter[str]:
        waits = Counter(self.fake.waits)
        self.fake.waits.clear()
        return waits


def count_waits(solver: Any = None, **options: Any) -> Waits:
    with fake_device() as fake:
        waits = Waits(fake)
        callbacks = {"on_step": waits.on_step, "on_evidence": waits.on_evidence}
        network = make_network().to("cuda:0")
        if solver is None:
            extremal.explain_channels(network, X, "1", counts=(1, 2), **callbacks)
        else:
            extremal.explain(network, X, areas=(0.1, 0.3), solver=solver, **callbacks, **options)
    return waits


SOLVERS = {
    "consensus": solvers.Consensus(steps=11, least=18),
    "path": solvers.Path(steps=10, polish=6, rounds=2, search=2),
    "penalty": solvers.Penalty(steps=12),
    "channels": None,
}


@cache
def count_waits_of(name: str) -> Waits:
    return count_waits(SOLVERS[name])


@pytest.mark.parametrize("name", SOLVERS)
def test_a_step_waits_at_most_once_for_the_device(name: str) -> None:
    waits = count_waits_of(name)
    assert len(waits.steps) >= 10
    for number, step in enumerate(waits.steps, start=1):
        assert step.total() <= MAX_WAITS, f"step {number}: {step}"
    assert sum(step.total() for step in waits.steps) <= 1 + len(waits.steps) // CHECK_INTERVAL


def find_waits(waits: Waits) -> list[str]:
    """The places at which the evidence waits after its preparation, one for each wait."""
    return [place for part in waits.evidence[1:] for place in part.elements()]


@pytest.mark.parametrize("name", SOLVERS)
def test_the_evidence_waits_once_to_know_which_controls_are_needed(name: str) -> None:
    waits = count_waits_of(name)
    assert len(waits.evidence) >= 4
    places = find_waits(waits)
    assert len(places) == (0 if name == "channels" else 1)  # all controls of channels are scored
    assert all("explanations/controls.py" in place for place in places)


@pytest.mark.parametrize("game", ["delete", "dual"])
def test_other_games_and_units_wait_no_more_often(game: str) -> None:
    units = torch.arange(256).view(16, 16) // 16
    for options in ({"game": game}, {"units": units}):
        waits = count_waits(SOLVERS["consensus"], **options)
        assert max(step.total() for step in waits.steps) <= MAX_WAITS
        assert len(find_waits(waits)) == 1


def test_the_preparation_of_the_evidence_waits_once_for_each_perturbation() -> None:
    first = count_waits_of("consensus").evidence[0]
    assert first.total() <= evidence.N_UNSEEN + 1


def test_a_step_of_a_repair_waits_at_most_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extremal.masking.solvers.repair.MAX_FALL", -10.0)  # no search is enough
    plain, repaired = (count_waits(solvers.Consensus(steps=8, least=18, repair_steps=n)).steps for n in (0, 8))
    repairs = [step.total() for step in repaired[len(plain) :]]
    assert len(repairs) == 2 * 3 * 8  # three searches for each of two inputs
    for first in range(0, len(repairs), 8):  # the first step includes the preparation of the input or the search
        later = repairs[first + 1 : first + 8]
        assert max(later) <= MAX_WAITS
        assert sum(later) <= 8 // STEPS_BETWEEN


def test_waits_are_found() -> None:
    class Waiting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = x.mean((2, 3))
            return self.gain * scores * (2 if float(scores.detach().sum()) > 0 else 1)

    with fake_device() as fake:
        waits, network = Waits(fake), Network(Waiting()).to("cuda:0")
        solver = solvers.Consensus(steps=2, least=4)
        extremal.explain(network, X, areas=(0.3,), solver=solver, on_step=waits.on_step)
    assert any("value to Python" in kind for step in waits.steps for kind in step)
