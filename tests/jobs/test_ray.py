"""The engine on Ray Data: the rows of the local engine, from actors that may die."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extremal import jobs
from extremal.errors import ExtremalValueError
from extremal.explanations.options import Options
from extremal.jobs.engines import ray as rays
from extremal.jobs.engines import ray_cluster
from extremal.jobs.engines.ray_cluster import Allocation, connect, allocate
from extremal.jobs.plan import RunItem, WorkUnit
from extremal.jobs.runner import run
from extremal.networks.network import Network
from support.datasets import DEADLY, NETWORK, write_black_image, write_images, comparable_rows, sound

SLOW, SPOILED = "test_rays:slow", "test_rays:spoiled"
QUICK: dict[str, Any] = {"areas": (0.1, 0.2), "perturbation": "fade", "threads": 1}


def slow() -> Network:
    """As `sound`, but half a second a picture."""
    network = sound()
    known = network.preprocess
    assert known is not None
    return Network(
        network.model,
        lambda picture: (time.sleep(0.5), known(picture))[1],
        network.labels,
        "slow",
        network.mean,
        network.std,
    )


def spoiled() -> Network:
    """One that no worker can load."""
    raise RuntimeError("no weights here")


def options(network: str) -> Options:
    return Options(network, "", "", "", "0.1,0.2", "preserve", "fade", "path", "logit", 0, 1, False)


def single(folder: Path) -> list[WorkUnit]:
    """Units of one picture each."""
    return [WorkUnit(f"{n:08d}", (RunItem(path.name, str(path)),)) for n, path in enumerate(sorted(folder.iterdir()))]


def actors_here() -> list[int]:
    """The processes of actors in the cluster that this process has started."""

    def parent(pid: int) -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    found = []
    for entry in Path("/proc").iterdir():
        try:
            if b"_Actor" in (entry / "cmdline").read_bytes() and parent(parent(int(entry.name))) == os.getpid():
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue  # no process, or one that has just ended
    return found


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster for all of these; its start takes seconds."""
    with connect(None) as started:
        yield started


def test_the_own_cluster_is_reached_from_this_machine_alone_and_leaves_no_traces(ray: Any) -> None:
    (node,) = ray.nodes()
    assert node["NodeManagerAddress"] == "127.0.0.1"
    ports = {f"{node[name]:04X}" for name in ("NodeManagerPort", "ObjectManagerPort")}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    listening = {line[1].split(":")[1]: line[1].split(":")[0] for line in lines if line[3] == "0A"}
    assert {listening[port][-8:] for port in ports} == {"0100007F"}  # 127.0.0.1
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.usefixtures("ray")
class TestActors:
    def test_rows_are_those_of_the_local_engine_and_the_cluster_stays(
        self, tmp_path: Path, ray: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rays, "LEAST", 3)  # two portions of the four units
        monkeypatch.setattr(rays, "EACH", 1)
        folder = write_images(tmp_path / "seven", 7, broken=(1,))
        shared: dict[str, Any] = {"network": NETWORK, "batch": 2, **QUICK}
        done = run(folder, tmp_path / "ray", engine="ray", workers=2, **shared)
        assert (done.state, done.done, done.failed) == ("done", 7, 1)
        run(folder, tmp_path / "local", workers=0, **shared)
        told = comparable_rows(jobs.table(tmp_path / "ray"))
        assert told == comparable_rows(jobs.table(tmp_path / "local"))
        assert told[1]["error"].startswith("an image must be readable to its end, got ")
        assert ray.is_initialized()

    def test_actors_that_are_killed_are_replaced_and_nothing_is_lost_or_doubled(self, tmp_path: Path) -> None:
        folder, killed = write_images(tmp_path / "eight", 8), list[int]()

        def kill(standing: jobs.RunStatus) -> None:
            if standing.done and not killed:
                killed.extend(actors_here())
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

        shared: dict[str, Any] = {"network": SLOW, "batch": 1, **QUICK}
        done = run(folder, tmp_path / "ray", engine="ray", workers=1, on_progress=kill, **shared)
        assert len(killed) == 1
        assert (done.state, done.done, done.failed) == ("done", 8, 0)
        table = jobs.table(tmp_path / "ray")
        assert table["key"].to_pylist() == [f"picture-{n:03d}.png" for n in range(8)]
        assert set(table["status"].to_pylist()) == {"done"}

    def test_a_unit_that_ends_its_workers_is_given_up_and_no_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rays, "DEATHS", 2)
        folder = write_images(tmp_path / "four", 4)
        write_black_image(folder / "picture-001.png")
        done = run(folder, tmp_path / "ray", engine="ray", workers=1, network=DEADLY, batch=1, **QUICK)
        assert (done.state, done.done, done.failed) == ("done", 4, 1)
        told = comparable_rows(jobs.table(tmp_path / "ray"))
        assert [row["status"] for row in told] == ["done", "failed", "done", "done"]
        assert told[1]["error"] == (
            "one worker after another ended on its batch; run again with --retry, where memory is short with fewer "
            "--workers"
        )

    def test_once_stopped_what_was_begun_is_finished_and_no_more_is_begun(self, tmp_path: Path) -> None:
        units, stop = single(write_images(tmp_path / "many", 12)), threading.Event()
        begun = []
        for unit, told in rays.run_on_ray(options(SLOW), units, stop, count=1):
            begun.append(unit.name)
            assert [row["status"] for row in told] == ["done"]
            stop.set()
        assert 1 <= len(begun) <= 6
        assert sorted(begun) == [unit.name for unit in units[: len(begun)]]  # two at a time, done in any order
        assert list(rays.run_on_ray(options(SLOW), units, stop, count=1)) == []

    def test_a_network_that_actors_cannot_load_is_told(self, tmp_path: Path) -> None:
        units = single(write_images(tmp_path / "two", 2))
        with pytest.raises(ExtremalValueError) as raised:
            list(rays.run_on_ray(options(SPOILED), units, threading.Event(), count=1))
        assert str(raised.value) == (
            "a network's callable must work without arguments, 'test_rays:spoiled' raised RuntimeError: no weights "
            "here; mend it, or wrap it in a function that gives it what it needs"
        )


class TestLedger:
    def test_a_unit_that_ended_workers_is_done_alone_then_given_up(self) -> None:
        ledger = rays.CrashTracker(deaths=2, workers=1)
        assert [ledger.start("a") for _ in range(4)] == [rays.CONCURRENT, rays.EXCLUSIVE, rays.ABANDONED, rays.ABANDONED]

    def test_one_that_is_finished_is_blamed_for_nothing(self) -> None:
        ledger = rays.CrashTracker(deaths=2, workers=1)
        for _ in range(5):
            assert ledger.start("a") == rays.CONCURRENT
            ledger.finish("a")

    def test_once_closed_only_what_was_begun_goes_on(self) -> None:
        ledger = rays.CrashTracker(deaths=2, workers=1)
        ledger.start("a")
        ledger.close()
        assert (ledger.start("b"), ledger.start("a")) == (rays.STOPPED, rays.EXCLUSIVE)

    def test_workers_that_end_while_they_load_are_not_replaced_without_end(self) -> None:
        ledger = rays.CrashTracker(deaths=2, workers=2)
        assert [ledger.load_started() for _ in range(4)] == [""] * 4
        assert ledger.load_started() == (
            "workers must have memory for the network, 4 of them ended while they loaded it; take fewer workers, or "
            "another network"
        )
        ledger.load_finished()
        assert ledger.load_started() == ""


def node(cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}}


@pytest.mark.parametrize(
    ("nodes", "count", "threads", "gpus", "wanted"),
    [
        ([node(2)], None, 1, None, Allocation(2, 0.5, 0.0)),  # one processor is left to Ray
        ([node(1)], None, 1, None, Allocation(1, 0.5, 0.0)),
        ([node(2)], 6, 1, None, Allocation(6, 0.1666, 0.0)),
        ([node(16), node(8), node(64, alive=False)], 8, 2, None, Allocation(8, 2, 0.0)),
        ([node(16), node(8)], None, 4, None, Allocation(6, 3.8333, 0.0)),
        ([node(16, 4), node(8, 1), node(8)], None, 1, None, Allocation(5, 0.0, 1.0)),
        ([node(16, 4), node(8, 1)], None, 1, 0.25, Allocation(20, 0.0, 0.25)),
        ([node(16, 1)], 3, 1, 0.3, Allocation(3, 0.0, 0.3)),
        ([node(4, 1)], 2, 1, 0.0, Allocation(2, 1, 0.0)),
    ],
)
def test_workers_share_what_there_is(
    nodes: list[dict[str, Any]], count: int | None, threads: int, gpus: float | None, wanted: Allocation
) -> None:
    assert allocate(nodes, count, threads, gpus) == wanted


class TestMessages:
    def test_devices_that_are_not_there(self) -> None:
        with pytest.raises(ExtremalValueError) as raised:
            allocate([node(2, 1), node(2)], None, 1, 2)
        assert str(raised.value) == (
            "gpus_per_worker must be there on a node of the cluster, got 2 where the largest has 1; take less, or "
            "leave it out"
        )

    @pytest.mark.parametrize(
        ("engine", "gpus", "message"),
        [
            ("local", 1.0, "gpus_per_worker must be used with engine ray, got engine local; leave it out"),
            ("ray", 1.5, "gpus_per_worker must be a fraction of one or a whole number, got 1.5; e.g. 0.25"),
            ("ray", -1.0, "gpus_per_worker must be a fraction of one or a whole number, got -1; e.g. 0.25"),
        ],
    )
    def test_shares_that_are_none(self, tmp_path: Path, engine: str, gpus: float, message: str) -> None:
        with pytest.raises(ExtremalValueError) as raised:
            run("a.png", tmp_path / "out", engine=engine, gpus_per_worker=gpus)
        assert str(raised.value) == message

    def test_ray_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(ExtremalValueError) as raised, connect(None):
            pass
        assert str(raised.value) == (
            "engine ray must have Ray installed, it is not; pip install 'extremal[cluster]', or use the local engine"
        )

    def test_nobody_listens_there(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"  # bound, but it does not listen
            with pytest.raises(ExtremalValueError) as raised:
                ray_cluster.check_reachable(address)
        assert str(raised.value) == (
            f"address must be that of a running Ray cluster, {address!r} cannot be reached: [Errno 111] Connection "
            "refused; start one with `ray start --head`, or leave it out"
        )

    @pytest.mark.parametrize("address", ["head", ":6379", "ray://head", "head:port"])
    def test_no_address(self, address: str) -> None:
        with pytest.raises(ExtremalValueError) as raised:
            ray_cluster.check_reachable(address)
        assert str(raised.value) == f"address must be HOST:PORT of a Ray cluster, or auto, got {address!r}"
