"""Devices: their names, those of this machine, and networks that move to them."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import nn

import extremal
from extremal import Network
from extremal.networks import devices, zoo
from extremal.networks.devices import check_device_name, find_device, list_devices
from extremal.networks.resolve import as_network, load_network
from support.errors import message_of
from support.fake_device import FakeDevice, fake_device

SetCounts = Callable[..., None]


@pytest.fixture
def set_counts(monkeypatch: pytest.MonkeyPatch) -> SetCounts:
    """Give this machine devices, none of which can be used for anything but their names."""

    def apply(**counts: int) -> None:
        monkeypatch.setattr(devices, "count_devices", lambda kind: counts.get(kind, 0))
        monkeypatch.setattr(devices, "_check_usable", lambda device, present: None)

    return apply


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12", "mps", "xpu", "xpu:1"])
def test_names_of_devices(name: str) -> None:
    assert check_device_name(name) == name
    if name != "auto":
        assert check_device_name(torch.device(name)) == name


@pytest.mark.parametrize(
    "name", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:1.5", "cuda:0000", "cpu:0", "meta", "a\nb"]
)
def test_other_texts_are_refused(name: str) -> None:
    assert message_of(check_device_name, name) == (f"device must be auto, cpu, cuda, cuda:N, mps or xpu, got {name!r}")


def test_other_types_are_refused() -> None:
    assert message_of(find_device, 0) == "device must be a name or a torch.device, got int; e.g. 'cuda'"


def test_auto_is_the_fastest_and_spreads_workers(set_counts: SetCounts) -> None:
    set_counts()
    assert [str(find_device("auto", number)) for number in range(2)] == ["cpu", "cpu"]
    set_counts(cuda=2, mps=1)
    assert list_devices() == ["cuda:0", "cuda:1", "mps", "cpu"]
    assert [str(find_device("auto", number)) for number in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert [str(find_device("cuda:1", number)) for number in range(2)] == ["cuda:1", "cuda:1"]
    set_counts(mps=1)
    assert str(find_device()) == "mps"


def test_cuda_without_a_number_is_the_current_device(set_counts: SetCounts, monkeypatch: pytest.MonkeyPatch) -> None:
    set_counts(cuda=2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert str(find_device("cuda")) == "cuda:1"


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps", "xpu"])
def test_a_device_that_does_not_exist_is_refused(name: str, set_counts: SetCounts) -> None:
    set_counts()
    expected = f"device must be one that this machine has, got '{name}'; there are: cpu"
    assert message_of(find_device, name) == expected
    assert message_of(zoo.load, "embedded", device=name) == expected
    assert message_of(Network(nn.Linear(2, 2)).to, name) == expected


def test_a_device_without_memory_is_refused(set_counts: SetCounts, monkeypatch: pytest.MonkeyPatch) -> None:
    set_counts(cuda=2)
    monkeypatch.undo()
    monkeypatch.setattr(devices, "count_devices", lambda kind: 2 if kind == "cuda" else 0)

    def refuse(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA error: out of memory\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(torch, "ones", refuse)
    assert message_of(find_device, "cuda:1") == (
        "device must have memory left, cuda:1 cannot be used: CUDA error: out of memory; end other programs on it, or "
        "use one of: cuda:0, cpu"
    )


@pytest.fixture
def fake() -> Iterator[FakeDevice]:
    with fake_device() as device:
        yield device


class Heavy(nn.Module):
    """Does not fit on the device: its second layer cannot be moved there."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
        self.first._apply(fn)
        if self.first.weight.device.type != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 TiB")
        return self


def test_a_network_that_does_not_fit_stays_where_it_was(fake: FakeDevice) -> None:
    network = Network(Heavy(), name="heavy")
    assert message_of(network.to, "cuda:0") == (
        "a network must fit on its device, heavy could not be moved to cuda:0, which has 2.0 GiB left: CUDA out of "
        "memory. Tried to allocate 3 TiB; use another one of: cpu"
    )
    assert network.devices() == ["cpu"]


def test_networks_by_name_go_to_the_fastest_device(fake: FakeDevice) -> None:
    assert zoo.load("timm:resnet18", "random").devices() == ["cuda:0"]
    assert zoo.load("timm:resnet18", "random", device="cpu").devices() == ["cpu"]
    assert load_network("timm:resnet18", "random").devices() == ["cuda:0"]


def test_networks_of_the_users_code_move_unless_it_chose_a_device(
    fake: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = ModuleType("users_code")
    code.build = lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 2))  # type: ignore[attr-defined]
    code.build_there = lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).to("cuda:0")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "users_code", code)
    assert zoo.load("users_code:build").devices() == ["cuda:0"]
    assert zoo.load("users_code:build", device="cpu").devices() == ["cpu"]
    monkeypatch.setattr(devices, "count_devices", lambda kind: 2 if kind == "cuda" else 0)
    assert zoo.load("users_code:build_there", number=1).devices() == ["cuda:0"]
    assert zoo.load("users_code:build_there", device="cpu").devices() == ["cpu"]


def test_modules_of_the_user_stay_where_they_are(fake: FakeDevice) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    assert as_network(module).devices() == ["cpu"]
    assert extremal.explain(module, torch.rand(1, 3, 8, 8), areas=(0.5,)).settings["device"] == "cpu"
    moved = as_network(Network(module).to("cuda:0"))
    assert moved.devices() == ["cuda:0"]
    assert moved.to("cpu").devices() == ["cpu"]
