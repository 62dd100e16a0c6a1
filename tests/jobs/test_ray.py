"""The Ray engine: the rows of the local engine, from actors that may crash."""

import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from extremal import jobs
from extremal.errors import ExtremalValueError
from extremal.explanations.settings import Settings
from extremal.jobs.crashes import UnitMode
from extremal.jobs.engines import ray as rays
from extremal.jobs.engines import ray_cluster
from extremal.jobs.engines.ray_cluster import Allocation, allocate, connect
from extremal.jobs.items import RunItem
from extremal.jobs.plan import WorkUnit
from extremal.jobs.runner import run
from extremal.jobs.stop import StopRequest
from extremal.jobs.worker import WorkerConfig
from support.datasets import (
    DEADLY,
    HANGING,
    NETWORK,
    SLOW,
    UNLOADABLE,
    comparable_rows,
    write_black_image,
    write_images,
)
from support.errors import message_of

QUICK: dict[str, Any] = {"areas": (0.1, 0.2), "perturbation": "fade", "threads": 1}


def make_config(network: str) -> WorkerConfig:
    settings = Settings(areas=(0.1, 0.2), perturbation="fade", score="logit")
    return WorkerConfig(network, settings=settings.as_dict())


def single_item_units(folder: Path) -> list[WorkUnit]:
    """Return units of one image each."""
    return [WorkUnit(f"{n:08d}", (RunItem(path.name, str(path)),)) for n, path in enumerate(sorted(folder.iterdir()))]


def find_actors() -> list[int]:
    """Return the processes of actors in the cluster that this process started."""

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


@pytest.mark.cluster
def test_a_network_that_actors_cannot_load_is_told_and_no_other_cluster_is_started(tmp_path: Path) -> None:
    """Before the cluster of the other tests: Ray Data's iterator, if collected later, would start a second one."""
    units = single_item_units(write_images(tmp_path / "two", 2))
    assert message_of(list, rays.run_on_ray(make_config(UNLOADABLE), units, StopRequest(), count=1)) == (
        "a network's callable must work without arguments, 'support.datasets:unloadable' raised RuntimeError: no "
        "weights here; correct it, or wrap it in a function that passes its arguments"
    )
    gc.collect()
    assert not sys.modules["ray"].is_initialized()


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Start one cluster for all tests; this takes seconds."""
    with connect(None) as started:
        yield started


@pytest.mark.cluster
def test_the_own_cluster_is_reached_from_this_machine_alone_and_leaves_no_traces(ray: Any) -> None:
    (node,) = ray.nodes()
    assert node["NodeManagerAddress"] == "127.0.0.1"
    ports = {f"{node[name]:04X}" for name in ("NodeManagerPort", "ObjectManagerPort")}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    listening = {line[1].split(":")[1]: line[1].split(":")[0] for line in lines if line[3] == "0A"}
    assert {listening[port][-8:] for port in ports} == {"0100007F"}  # 127.0.0.1
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.cluster
@pytest.mark.usefixtures("ray")
class TestActors:
    def test_rows_are_those_of_the_local_engine_and_the_cluster_stays(
        self, tmp_path: Path, ray: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rays, "MIN_UNITS_PER_STAGE", 3)  # two portions of the four units
        monkeypatch.setattr(rays, "UNITS_PER_WORKER", 1)
        folder = write_images(tmp_path / "seven", 7, broken=(1,))
        shared: dict[str, Any] = {"network": NETWORK, "batch": 2, **QUICK}
        done = run(folder, tmp_path / "ray", engine="ray", workers=2, **shared)
        assert (done.state, done.done, done.failed) == ("done", 7, 1)
        run(folder, tmp_path / "local", workers=0, **shared)
        rows = comparable_rows(jobs.table(tmp_path / "ray"))
        assert rows == comparable_rows(jobs.table(tmp_path / "local"))
        assert rows[1]["error"].startswith("an image must be readable to its end, got ")
        assert ray.is_initialized()

    def test_actors_that_are_killed_are_replaced_and_nothing_is_lost_or_doubled(self, tmp_path: Path) -> None:
        folder, killed = write_images(tmp_path / "eight", 8), list[int]()

        def kill(standing: jobs.RunStatus) -> None:
            if standing.done and not killed:
                killed.extend(find_actors())
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
        monkeypatch.setattr(rays, "MAX_CRASHES", 2)
        folder = write_images(tmp_path / "four", 4)
        write_black_image(folder / "picture-001.png")
        done = run(folder, tmp_path / "ray", engine="ray", workers=1, network=DEADLY, batch=1, **QUICK)
        assert (done.state, done.done, done.failed) == ("done", 4, 1)
        rows = comparable_rows(jobs.table(tmp_path / "ray"))
        assert [row["status"] for row in rows] == ["done", "failed", "done", "done"]
        assert rows[1]["error"] == (
            "several workers crashed on its batch; run again with --retry, and with fewer --workers if memory is short"
        )

    def test_an_actor_whose_unit_takes_too_long_is_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rays, "MAX_CRASHES", 2)
        folder = write_images(tmp_path / "three", 3)
        write_black_image(folder / "picture-001.png")
        shared: dict[str, Any] = {"network": HANGING, "batch": 1, "unit_timeout": 8, **QUICK}
        done = run(folder, tmp_path / "ray", engine="ray", workers=1, **shared)
        assert (done.state, done.done, done.failed) == ("done", 3, 1)
        errors = jobs.table(tmp_path / "ray")["error"].to_pylist()
        assert [error is None for error in errors] == [True, False, True]
        assert "did not finish it within the unit timeout of 8 s" in errors[1]

    def test_once_stopped_what_was_begun_is_finished_and_no_more_is_begun(self, tmp_path: Path) -> None:
        units, stop = single_item_units(write_images(tmp_path / "many", 12)), StopRequest()
        begun = []
        for unit, rows in rays.run_on_ray(make_config(SLOW), units, stop, count=1):
            begun.append(unit.name)
            assert [row["status"] for row in rows] == ["done"]
            stop.set()
        assert 1 <= len(begun) <= 6
        assert set(begun) <= {unit.name for unit in units[: len(begun) + 1]}  # two at a time, done in any order
        assert list(rays.run_on_ray(make_config(SLOW), units, stop, count=1)) == []


@pytest.mark.parametrize(
    ("mode", "before_the_next"),
    [
        (UnitMode.EXCLUSIVE, ["start a", "explain a", "finish a", "start b", "explain b", "finish b"]),
        (UnitMode.CONCURRENT, ["explain a", "finish a", "explain b", "finish b"]),
    ],
)
def test_a_unit_counts_as_finished_before_one_that_may_crash_the_actor(
    monkeypatch: pytest.MonkeyPatch, mode: UnitMode, before_the_next: list[str]
) -> None:
    """Otherwise the crash of a unit is counted for the one before it too, which is abandoned with it in the end."""
    events, started = list[str](), threading.Event()

    class Recorder:
        def prepare(self, items: tuple[RunItem, ...]) -> list[str]:
            return [item.key for item in items]

        def explain(self, keys: list[str]) -> list[Any]:
            events.append(f"explain {keys[0]}")
            return []

    def call_tracker(_: object, method: str, name: str) -> str:
        started.set()
        if method == "finish":
            time.sleep(0.1)  # the tracker is in another process
        events.append(f"{method} {name}")
        return mode

    actor = object.__new__(rays._Actor)
    actor._decoding, actor._explaining = threading.Lock(), threading.Lock()
    monkeypatch.setattr(rays._Actor, "_call_tracker", call_tracker)
    first, second = (
        threading.Thread(target=actor._run, args=(Recorder(), WorkUnit(name, (RunItem(name, name),)))) for name in "ab"
    )
    first.start()
    assert started.wait(5)
    second.start()
    first.join()
    second.join()
    assert [event for event in events if event in before_the_next] == before_the_next


def node(cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}}


@pytest.mark.parametrize(
    ("nodes", "count", "threads", "gpus", "expected"),
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
    nodes: list[dict[str, Any]], count: int | None, threads: int, gpus: float | None, expected: Allocation
) -> None:
    assert allocate(nodes, count, threads, gpus) == expected


class TestMessages:
    def test_devices_that_are_not_there(self) -> None:
        assert message_of(allocate, [node(2, 1), node(2)], None, 1, 2) == (
            "gpus_per_worker must be available on a node of the cluster, got 2, the largest node has 1; request "
            "less, or leave it out"
        )

    @pytest.mark.parametrize(
        ("engine", "gpus", "message"),
        [
            ("local", 1.0, "gpus_per_worker must be used with engine ray, got engine local; leave it out"),
            ("ray", 1.5, "gpus_per_worker must be a fraction of one or a whole number, got 1.5; e.g. 0.25"),
            ("ray", -1.0, "gpus_per_worker must be a fraction of one or a whole number, got -1; e.g. 0.25"),
            ("ray", "1", "gpus_per_worker must be a number, got '1'; e.g. 0.25"),
        ],
    )
    def test_shares_that_are_none(self, tmp_path: Path, engine: str, gpus: float, message: str) -> None:
        assert message_of(run, "a.png", tmp_path / "out", engine=engine, gpus_per_worker=gpus) == message

    def test_a_cluster_that_would_listen_on_the_network_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ended = []
        fake_ray = ModuleType("ray")
        members = {
            "is_initialized": lambda: False,
            "init": lambda *_, **__: None,
            "nodes": lambda: [{"NodeManagerAddress": "192.0.2.7"}],
            "shutdown": lambda: ended.append(True),
        }
        for name, member in members.items():
            setattr(fake_ray, name, member)
        monkeypatch.setitem(sys.modules, "ray", fake_ray)
        monkeypatch.setitem(sys.modules, "ray.data", ModuleType("ray.data"))
        with pytest.raises(ExtremalValueError) as error, connect(None):
            pass
        assert str(error.value) == (
            "a Ray cluster that a run starts must listen on this machine alone, this one listens on 192.0.2.7, since "
            "Ray was imported before the run; call ray.init() before the run to use a cluster of your own, or set "
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before Ray is imported"
        )
        assert ended == [True]
        assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ

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
        assert message_of(ray_cluster.check_reachable, address) == (
            f"address must be that of a running Ray cluster, {address!r} cannot be reached: [Errno 111] Connection "
            "refused; start one with `ray start --head`, or leave it out"
        )

    @pytest.mark.parametrize("address", ["head", ":6379", "ray://head", "head:port"])
    def test_no_address(self, address: str) -> None:
        assert (
            message_of(ray_cluster.check_reachable, address)
            == f"address must be HOST:PORT of a Ray cluster, or auto, got {address!r}"
        )
