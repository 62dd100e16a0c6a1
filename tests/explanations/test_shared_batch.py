"""Several devices that share a batch: the result of one device, whatever happens to a part."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import extremal
from extremal import Network, solvers
from extremal.explanations.preparation import prepare_run
from extremal.explanations.settings import Settings
from extremal.explanations.shared_batch import share_batch
from extremal.networks import zoo
from support.errors import message_of
from support.fake_device import FakeDevice, fake_device

DEVICES = ["cuda:0", "cuda:1"]
X = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SOLVER = solvers.Path(steps=2, polish=1, rounds=1, search=1)  # `consensus` ranks places, and rounding decides ties
OPTIONS: dict[str, Any] = {"areas": (0.1, 0.3), "solver": SOLVER}
FIELDS = ("masks", "fields", "scores", "binary_scores", "unseen_scores", "control_scores", "agreement")


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDevice]:
    monkeypatch.setattr("extremal.masking.area.MAX_SECTIONS", 16)  # 256 are slow without a GPU
    with fake_device(*DEVICES) as fake:
        yield fake


def make_network() -> Network:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 3)).double()  # rounding depends on the number of rows
    return Network(model, mirror=True, name="toy", labels=("a", "b", "c"))


def assert_equal_results(found: Any, expected: Any) -> None:
    for name in FIELDS:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-4, rtol=1e-4)
    assert (found.verdict, found.target) == (expected.verdict, expected.target)


def test_results_are_those_of_one_device_and_of_each_input_alone(two_devices: FakeDevice) -> None:
    network, target, seen = make_network().to("cuda:0"), [0, 1, 2], list[tuple[int, int]]()
    network.model.train()
    before = network.weight_hash()
    masks = list[tuple[int, int]]()
    found = extremal.explain(
        *(network, X, target),
        devices="auto",
        on_step=lambda step: seen.append((step.index, step.total)),
        on_evidence=lambda done, total: masks.append((done, total)),
        **OPTIONS,
    )
    assert found.settings["device"] == "cuda:0, cuda:1"
    assert (network.devices(), network.weight_hash(), network.model.training) == (["cuda:0"], before, True)
    assert_equal_results(found, extremal.explain(make_network(), X, target, **OPTIONS))
    alone = [extremal.explain(make_network(), X[n : n + 1], n, **OPTIONS) for n in range(3)]
    assert_equal_results(found, extremal.Explanation.concatenate(alone))
    for reported in (seen, masks):
        done, totals = zip(*reported, strict=True)
        assert (sorted(done), len(set(totals))) == (list(done), 1)
    assert seen[-1][0] == seen[-1][1] - 1
    assert masks[-1][0] == masks[-1][1]


def test_names_are_shared_networks_and_other_targets_are_not(
    two_devices: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "load", lambda *_: make_network().to("cuda:0"))

    def used(network: Network | str, x: Tensor = X[:2], target: Any = None, devices: Any = None) -> str:
        parts = share_batch(prepare_run(network, x, target, Settings()), network, devices)
        assert [part.net.devices() for part in parts] == [[str(part.x.device)] for part in parts]
        assert torch.equal(torch.cat([part.x.cpu() for part in parts]), x)
        return str(parts[0].provenance["device"])

    def score(output: Tensor) -> Tensor:
        return output[:, 0]

    assert used("named") == "cuda:0, cuda:1"
    assert used("named", X[:1]) == "cuda:0"
    assert used("named", target=score) == "cuda:0"
    assert used("named", target=score, devices="auto") == "cuda:0, cuda:1"
    assert used(make_network().to("cuda:0")) == "cuda:0"
    assert used(make_network(), devices=["cuda:1", "cpu"]) == "cuda:1, cpu"
    assert used(make_network(), devices="cuda:1") == "cuda:1"


class FailingOnSecond(nn.Module):
    """Fails on one device."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        if x.device.index == 1:
            raise torch.OutOfMemoryError("out of memory on cuda:1")
        return self.layer(x.mean((2, 3)))


def test_the_error_of_one_device_is_told(two_devices: FakeDevice) -> None:
    network = Network(FailingOnSecond(), name="failing").to("cuda:0")
    with pytest.raises(Exception, match="memory") as error:
        extremal.explain(network, X[:2], devices=DEVICES, **OPTIONS)
    assert not isinstance(error.value, AssertionError)
    assert extremal.explain(network, X[:1], **OPTIONS).settings["device"] == "cuda:0"  # it was given back


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_an_exception_of_a_callback_ends_all_devices(two_devices: FakeDevice, kind: type[BaseException]) -> None:
    network = make_network().to("cuda:0")

    def stop(_: object) -> None:
        raise kind("enough")

    with pytest.raises(kind, match="enough"):
        extremal.explain(network, X[:2], devices="auto", on_step=stop, **OPTIONS)
    assert network.devices() == ["cuda:0"]


def test_devices_that_are_not_there() -> None:
    message = message_of(lambda: extremal.explain(make_network(), X, devices=["cpu", "cuda:9"], **OPTIONS))
    assert message.startswith("device must be one that this machine has, got 'cuda:9'; there are: ")
