"""Ray clusters: one of our own on this machine, or one that stands, and how much of it a worker takes."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from extremal.errors import ExtremalValueError

CONNECT_TIMEOUT = 5.0  # s in which a cluster must answer
NOISY_LOGGERS = ("ray", "ray.data")  # loggers of which only errors are shown
LOG_LEVEL_VARIABLE = "RAY_BACKEND_LOG_LEVEL"  # of what Ray's core writes to the terminal
RESOURCE_UNIT = 1e4  # parts of a processor or device that Ray knows


@dataclass(frozen=True)
class Allocation:
    """How many workers there are, and what each takes."""

    count: int
    cpus: float
    gpus: float


def allocate(
    nodes: Sequence[Mapping[str, Any]], count: int | None, threads: int, gpus_per_worker: float | None = None
) -> Allocation:
    """What workers take of a cluster.

    On processors a worker takes one for each of its threads; where that would be all of them, so much less that one
    stays free, for Ray's own tasks wait for a whole one. On devices it takes its share of one, and no processor.

    Args:
        nodes: of the cluster, as Ray tells them.
        count: of workers; None: as many as there is room for.
        threads: of each.
        gpus_per_worker: None: one where the cluster has any, else none.

    Raises:
        ExtremalValueError: no node has so many devices.
    """
    there = [node["Resources"] for node in nodes if node["Alive"]]
    cpus, gpus = ([float(one.get(name, 0)) for one in there] for name in ("CPU", "GPU"))
    wanted = float(any(gpus)) if gpus_per_worker is None else gpus_per_worker
    if wanted > max(gpus, default=0.0):
        raise ExtremalValueError(
            f"gpus_per_worker must be there on a node of the cluster, got {wanted:g} where the largest has "
            f"{max(gpus, default=0.0):g}; take less, or leave it out"
        )
    if wanted:
        return Allocation(count or sum(int(one / wanted + 1 / RESOURCE_UNIT) for one in gpus), 0.0, wanted)
    many = count or max(1, sum(int(one / threads) for one in cpus))
    free = max(sum(cpus) - 1, sum(cpus) / 2)
    return Allocation(many, threads if many * threads <= free else int(RESOURCE_UNIT * free / many) / RESOURCE_UNIT, 0.0)


@contextmanager
def connect(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster and quiet; what this started or connected is undone, and nothing else.

    Args:
        address: HOST:PORT, or auto; None: a cluster of our own, on the loopback, without telemetry or dashboard.

    Raises:
        ExtremalValueError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = _import_ray()
    with ExitStack() as undone:
        if not ray.is_initialized():
            _init_ray(ray, address)
            undone.callback(ray.shutdown)
        undone.enter_context(_silenced())
        yield ray


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise ExtremalValueError(
            "engine ray must have Ray installed, it is not; pip install 'extremal[cluster]', or take the local engine"
        ) from None
    return ray


def _init_ray(ray: Any, address: str | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        check_answers(address)
    with _preserved_sigterm(), _environment(own=address is None):
        try:
            if address is None:
                ray.init("local", include_dashboard=False, **options)
            else:
                ray.init(address, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if address is None:
                raise ExtremalValueError(
                    f"a Ray cluster must be able to start on this machine, it did not: {_one_line(error)}; take the local "
                    "engine, or the address of a cluster"
                ) from None
            raise _unreachable(address, _one_line(error)) from None


def check_answers(address: str) -> None:
    """Somebody must listen there: Ray would ask for minutes.

    Raises:
        ExtremalValueError: nobody does, or it is no address.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ExtremalValueError(f"address must be HOST:PORT of a Ray cluster, or auto, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, _one_line(error)) from None


def _unreachable(address: str, why: str) -> ExtremalValueError:
    return ExtremalValueError(
        f"address must be that of a Ray cluster that runs, {address!r} cannot be reached: {why}; start one with "
        "`ray start --head`, or leave it out"
    )


def _one_line(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(str(error).split()).rstrip(".")[:300]


@contextmanager
def _preserved_sigterm() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it starts; here it stays with whoever had it."""
    main = threading.current_thread() is threading.main_thread()
    former = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main and former is not None:
            signal.signal(signal.SIGTERM, former)


@contextmanager
def _environment(own: bool) -> Iterator[None]:
    """The environment in which Ray is started: no telemetry, and for a cluster of our own the loopback only."""
    from ray._private import ray_constants

    wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    wanted |= {} if LOG_LEVEL_VARIABLE in os.environ else {LOG_LEVEL_VARIABLE: "fatal"}
    if own:  # named for the systems where it is the default: a node that other machines cannot join
        wanted["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    former = {name: os.environ.get(name) for name in wanted}
    cluster = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)  # read from it when Ray was imported
    os.environ.update(wanted)
    if own:
        ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = cluster
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _silenced() -> Iterator[None]:
    """No bars and no news on the terminal: the caller tells how far it is."""
    from ray.data import DataContext

    context = DataContext.get_current()
    wanted = {"enable_progress_bars": False, "print_on_execution_start": False, "enable_auto_log_stats": False}
    former = {name: getattr(context, name) for name in wanted if hasattr(context, name)}
    levels = {name: logging.getLogger(name).level for name in NOISY_LOGGERS}
    for name in former:
        setattr(context, name, wanted[name])
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, value in former.items():
            setattr(context, name, value)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
