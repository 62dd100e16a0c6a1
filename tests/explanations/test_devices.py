"""Every computation on another device than the CPU: the same results, and no tensor made on the wrong one.

The device is a fake one of the CPU's values, and each real one that this machine has.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import extremal
from extremal import Network, solvers
from extremal.explanations.preflight.doctor import examine
from extremal.networks.devices import list_devices
from extremal.scores.parse import parse_query
from support.fake_device import fake_device

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
AREAS = (0.1, 0.3)
FAKE = "fake"
REAL = [name for name in list_devices() if name != "cpu"]


def make_network() -> Network:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(16),
        nn.Conv2d(8, 8, 1),
        nn.ReLU(),
    )
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    return Network(model, mirror=True, name="toy", labels=("a", "b", "c"))


@pytest.fixture(params=[FAKE, *REAL])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == FAKE:
        monkeypatch.setattr("extremal.masking.area.MAX_SECTIONS", 16)  # 256 are slow without a GPU
        with fake_device():
            yield "cuda:0"
    else:
        yield request.param


def assert_same(found: Any, expected: Any, names: tuple[str, ...], atol: float = 2e-2) -> None:
    """Check fields that do not depend on the order of a sum."""
    for name in names:
        values = getattr(found, name)
        assert values.device.type == "cpu"
        torch.testing.assert_close(values, getattr(expected, name), atol=atol, rtol=1e-3, equal_nan=True)


SOLVERS: dict[str, Any] = {
    "consensus": solvers.Consensus(steps=3, least=6),
    "path": solvers.Path(steps=6, polish=4, rounds=2, search=3),
    "penalty": solvers.Penalty(steps=5),
}


@pytest.mark.parametrize(("name", "game"), [*((name, "preserve") for name in SOLVERS), ("consensus", "delete")])
def test_explain(device: str, name: str, game: str) -> None:
    options: dict[str, Any] = {"areas": AREAS, "solver": SOLVERS[name], "game": game}
    expected = extremal.explain(make_network(), X, **options)
    found = extremal.explain(make_network().to(device), X, **options)
    assert found.settings["device"] == device
    assert_same(found, expected, ("masks", "scores", "binary_scores", "unseen_scores", "control_scores", "agreement"))
    assert found.verdict == expected.verdict


@pytest.mark.slow
def test_explain_with_regions_units_and_groups(device: str) -> None:
    within = torch.zeros(32, 32, dtype=torch.bool)
    within[4:28, 4:28] = True
    units = torch.arange(32 * 32).view(32, 32) // 64
    for more in ({"within": within}, {"units": units}, {"target": [["a", "c"]]}, {"alternatives": 2}):
        options: dict[str, Any] = {"areas": AREAS, "solver": SOLVERS["consensus"], **more}
        expected = extremal.explain(make_network(), X[:1], **options)
        assert_same(extremal.explain(make_network().to(device), X[:1], **options), expected, ("masks", "scores"))


def test_the_query_of_a_unit(device: str) -> None:
    target = parse_query(make_network(), "", "unit:4:0")
    options: dict[str, Any] = {"areas": AREAS, "solver": SOLVERS["consensus"]}
    expected = extremal.explain(make_network(), X, target, **options)
    assert_same(extremal.explain(make_network().to(device), X, target, **options), expected, ("masks", "scores"))


@pytest.mark.slow
def test_judge_smallest_area_minimal_and_stability(device: str) -> None:
    net, moved = make_network(), make_network().to(device)
    masks = torch.rand(2, 2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    names = ("scores", "binary_scores", "unseen_scores", "control_scores", "agreement")
    expected = extremal.judge(net, X, masks, areas=AREAS)
    found = extremal.judge(moved, X, masks, areas=AREAS)
    assert_same(found, expected, names)
    options: dict[str, Any] = {"areas": AREAS, "solver": SOLVERS["consensus"]}
    expected, found = extremal.explain(net, X, **options), extremal.explain(moved, X, **options)
    for a, b in zip(extremal.smallest_area(net, expected), extremal.smallest_area(moved, found), strict=True):
        assert (a and a.area) == (b and b.area)
    for a, b in zip(extremal.minimal(net, expected, budget=40), extremal.minimal(moved, found, budget=40), strict=True):
        assert (a is None and b is None) or torch.equal(a.mask, b.mask)
    stable = extremal.stability(moved, X, found, copies=2)
    torch.testing.assert_close(stable.median_iou, extremal.stability(net, X, expected, copies=2).median_iou)


def test_channels(device: str) -> None:
    options: dict[str, Any] = {"counts": (1, 2, 4)}
    expected = extremal.explain_channels(make_network(), X, "2", **options)
    found = extremal.explain_channels(make_network().to(device), X, "2", **options)
    assert_same(found, expected, ("masks", "scores", "binary_scores", "random_scores", "rankings", "maps"))
    assert torch.equal(found.smallest_mask, expected.smallest_mask)


def test_doctor(device: str) -> None:
    found = examine(make_network().to(device), X[:1])
    assert [(f.name, f.level) for f in found.findings] == [
        (f.name, f.level) for f in examine(make_network(), X[:1]).findings
    ]


def shorten(method: Any) -> Any:
    """Return a method with few steps: on the fake device each operation takes a hundred times as long."""
    name = getattr(method, "name", "")
    if name in SOLVERS:
        return replace(method, areas=(0.2, 0.4), solver=SOLVERS[name])
    return replace(method, masks=60) if hasattr(method, "masks") else method


@pytest.mark.usefixtures("one_thread")  # the order of sums on two moves the masks of `path`
@pytest.mark.parametrize("name", list(extremal.baselines.METHODS))
def test_rival_methods(device: str, name: str) -> None:
    method, target = shorten(extremal.baselines.METHODS[name]), [0, 1]
    expected = method(make_network(), X, target)
    found = method(make_network().to(device), X.to(device), target)
    torch.testing.assert_close(found.values.cpu(), expected.values, atol=1e-4, rtol=1e-3)
    assert found.evaluations == expected.evaluations
