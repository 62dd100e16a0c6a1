"""Copies of a network on several devices, and threads that share work among them."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from extremal import BlackBox, Network
from extremal.networks.replicas import CheckStop, Stopped, find_devices, find_shared_devices, replicate, share_work
from support.errors import message_of
from support.fake_device import FakeDevice, fake_device

DEVICES = ["cuda:0", "cuda:1"]


@pytest.fixture
def two_devices() -> Iterator[FakeDevice]:
    with fake_device(*DEVICES) as fake:
        yield fake


def make_network() -> Network:
    shared = nn.Linear(4, 4)
    return Network(nn.Sequential(shared, nn.BatchNorm1d(4), shared), name="toy", labels=("a", "b", "c", "d"))


@pytest.mark.usefixtures("two_devices")
class TestTwoDevices:
    def test_they_refuse_each_other(self) -> None:
        first, second = (torch.ones(2, device=device) for device in DEVICES)
        with pytest.raises(RuntimeError, match="same device, but found at least two devices, cuda:1 and cuda:0"):
            first + second
        assert (first.to("cuda:1") + second).cpu().tolist() == [2, 2]

    def test_devices_by_name(self) -> None:
        assert find_devices("auto") == DEVICES
        assert find_devices(["cuda:1", torch.device("cpu")]) == ["cuda:1", "cpu"]
        assert find_devices("cuda:1") == ["cuda:1"]

    def test_a_network_loaded_by_name_is_shared_unless_its_code_or_the_user_chose_a_device(self) -> None:
        assert find_shared_devices(make_network().to("cuda:0"), "auto") == DEVICES
        assert find_shared_devices(make_network().to("cuda:0"), "cuda:0") == ["cuda:0"]
        assert find_shared_devices(make_network().to("cuda:1"), "auto") == ["cuda:1"]
        assert find_shared_devices(make_network(), "auto") == ["cpu"]
        assert find_shared_devices(Network(nn.ReLU()), "auto") == ["cpu"]

    def test_the_network_itself_is_the_one_on_its_device_and_copies_are_equal_and_independent(self) -> None:
        network = make_network().to("cuda:0")
        itself, copy = replicate(network, DEVICES)
        assert itself is network
        assert (network.devices(), copy.devices()) == (["cuda:0"], ["cuda:1"])
        assert copy.model[0] is copy.model[2]
        assert (copy.name, copy.labels, copy.weight_hash()) == ("toy", network.labels, network.weight_hash())
        before = network.weight_hash()
        with torch.no_grad():
            copy.model[0].weight.add_(1)
        assert network.weight_hash() == before

    def test_a_function_cannot_be_copied(self) -> None:
        linear = nn.Linear(4, 4).to("cuda:0")
        message = (
            "devices must be used with a module, which can be copied to each of them, forward is a function; leave "
            "them out, or pass an nn.Module"
        )

        def forward(x: torch.Tensor) -> torch.Tensor:
            return linear(x)

        assert message_of(replicate, Network(forward), DEVICES) == message  # type: ignore[arg-type]
        assert message_of(replicate, BlackBox(forward), ["cuda:0"]) == message  # type: ignore[arg-type]

    def test_a_module_that_cannot_be_copied_is_told(self) -> None:
        network = make_network().to("cuda:0")
        network.model.lock = threading.Lock()
        assert message_of(replicate, network, DEVICES).startswith(
            "a network must be copied to share devices, toy cannot be: cannot pickle '_thread.lock' object"
        )
        assert network.devices() == ["cuda:0"]


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([], "devices must be one or several different ones, got none; e.g. 'auto' for all of the fastest kind"),
        (
            ["cpu", "cpu"],
            "devices must be one or several different ones, got cpu, cpu; e.g. 'auto' for all of the fastest kind",
        ),
        ("gpu", "device must be auto, cpu, cuda, cuda:N, mps or xpu, got 'gpu'"),
        (3, "device must be a name or a torch.device, got int; e.g. 'cuda'"),
    ],
)
def test_devices_that_are_none(devices: object, message: str) -> None:
    assert message_of(find_devices, devices) == message


class TestSharing:
    def test_each_task_is_done_once_and_workers_work_at_the_same_time(self) -> None:
        together = threading.Barrier(2, timeout=30)

        def call(worker: int, task: int, check_stop: CheckStop) -> tuple[int, int]:
            check_stop()
            if task < 2:
                together.wait()
            return worker, task * task

        found = dict(share_work([10, 20], range(6), call))
        assert [found[index][1] for index in range(6)] == [0, 1, 4, 9, 16, 25]
        assert {found[0][0], found[1][0]} == {10, 20}

    def test_an_error_is_raised_and_ends_the_others(self) -> None:
        begun, ended = list[int](), list[BaseException]()

        def call(worker: int, task: int, check_stop: CheckStop) -> None:
            begun.append(task)
            if task == 1:
                raise ValueError("no memory on the second device")
            try:
                while True:
                    check_stop()
                    time.sleep(0.01)
            except Stopped as error:
                ended.append(error)
                raise

        with pytest.raises(ValueError, match="no memory on the second device"):
            list(share_work([10, 20], range(4), call))
        assert sorted(begun) == [0, 1]
        assert len(ended) == 1

    def test_work_that_is_given_up_ends_its_threads(self) -> None:
        def call(worker: int, task: int, check_stop: CheckStop) -> int:
            while task > 0:
                check_stop()
                time.sleep(0.01)
            return task

        before = threading.active_count()
        work = share_work([10, 20], range(4), call)
        assert next(work) == (0, 0)
        work.close()
        assert threading.active_count() == before
