"""Ray clusters: start one on this machine or connect to one, and allocate its resources to workers."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from extremal.environment import changed_environment
from extremal.errors import ExtremalValueError

CONNECT_TIMEOUT = 5.0  # s in which a cluster must accept a connection
NOISY_LOGGERS = ("ray", "ray.data")  # only their errors are shown
LOG_LEVEL_VARIABLE = "RAY_BACKEND_LOG_LEVEL"  # of what Ray's core writes to the terminal
CLUSTER_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # read when Ray is imported; 0: nodes use the loopback only
RESOURCE_UNIT = 1e4  # Ray counts fractions of a core or device in ten-thousandths


@dataclass(frozen=True)
class Allocation:
    """Number of workers, and the resources of each."""

    count: int
    cpus: float
    gpus: float


def allocate(
    nodes: Sequence[Mapping[str, Any]], count: int | None, threads: int, gpus_per_worker: float | None = None
) -> Allocation:
    """Allocate the resources of a cluster to workers.

    On CPUs a worker gets a core for each of its threads. If that would use all cores, each gets a little less, so that
    one core stays free: Ray's own tasks wait for a whole one. On GPUs a worker gets its part of one, and no core.

    Args:
        nodes: of the cluster, from `ray.nodes`.
        count: of workers; None: as many as there is room for.
        threads: of each.
        gpus_per_worker: None: one if the cluster has any, else none.

    Raises:
        ExtremalValueError: no node has so many GPUs.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    cpus, gpus = ([float(node.get(name, 0)) for node in resources] for name in ("CPU", "GPU"))
    requested = float(any(gpus)) if gpus_per_worker is None else gpus_per_worker
    if requested > max(gpus, default=0.0):
        raise ExtremalValueError(
            f"gpus_per_worker must be available on a node of the cluster, got {requested:g}, the largest node has "
            f"{max(gpus, default=0.0):g}; request less, or leave it out"
        )
    if requested:
        return Allocation(count or sum(int(n / requested + 1 / RESOURCE_UNIT) for n in gpus), 0.0, requested)
    n_workers = count or max(1, sum(int(n / threads) for n in cpus))
    available = max(sum(cpus) - 1, sum(cpus) / 2)
    fits = n_workers * threads <= available
    return Allocation(n_workers, threads if fits else int(RESOURCE_UNIT * available / n_workers) / RESOURCE_UNIT, 0.0)


@contextmanager
def connect(address: str | None) -> Iterator[Any]:
    """Connect Ray to a cluster, without its output; what is started or connected here ends with the `with`.

    Ray decides when it is imported whether nodes use the loopback only. A process that starts a cluster here should
    therefore not connect to another one, and must not have imported Ray before, unless it calls `ray.init` itself.

    Args:
        address: HOST:PORT, or auto; None: a cluster of our own, on the loopback, without telemetry or dashboard.

    Raises:
        ExtremalValueError: Ray is not installed, the cluster cannot be reached, or one of our own would listen on the
            network.
    """
    with ExitStack() as on_exit:
        with changed_environment(_choose_variables(own=address is None)):
            ray = _import_ray()
            if not ray.is_initialized():
                _init_ray(ray, address)
                on_exit.callback(ray.shutdown)
                if address is None:
                    _check_loopback(ray.nodes())
        on_exit.enter_context(_silenced())
        yield ray


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise ExtremalValueError(
            "engine ray must have Ray installed, it is not; pip install 'extremal[cluster]', or use the local engine"
        ) from None
    return ray


def _init_ray(ray: Any, address: str | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        check_reachable(address)
    with _preserved_sigterm():
        try:
            if address is None:
                ray.init("local", include_dashboard=False, **options)
            else:
                ray.init(address, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if address is None:
                raise ExtremalValueError(
                    f"a Ray cluster must be able to start on this machine, it did not: {_one_line(error)}; use the "
                    "local engine, or the address of a cluster"
                ) from None
            raise _unreachable(address, _one_line(error)) from None


def _check_loopback(nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise if other machines can reach the cluster that was started here."""
    for address in (node["NodeManagerAddress"] for node in nodes):
        if not ip_address(address).is_loopback:
            raise ExtremalValueError(
                f"a Ray cluster that a run starts must listen on this machine alone, this one listens on {address}, "
                "since Ray was imported before the run; call ray.init() before the run to use a cluster of your own, "
                f"or set {CLUSTER_VARIABLE}=0 before Ray is imported"
            )


def check_reachable(address: str) -> None:
    """Raise unless something listens at the address; Ray would try for minutes.

    Raises:
        ExtremalValueError: nothing listens there, or it is not an address.
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


def _unreachable(address: str, reason: str) -> ExtremalValueError:
    return ExtremalValueError(
        f"address must be that of a running Ray cluster, {address!r} cannot be reached: {reason}; start one with "
        "`ray start --head`, or leave it out"
    )


def _one_line(error: BaseException) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(error).split()).rstrip(".")[:300]


@contextmanager
def _preserved_sigterm() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces when it starts."""
    is_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if is_main_thread and previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _choose_variables(own: bool) -> dict[str, str]:
    """Return the environment in which Ray starts: without telemetry, and a cluster of our own on the loopback only."""
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    variables |= {} if LOG_LEVEL_VARIABLE in os.environ else {LOG_LEVEL_VARIABLE: "fatal"}
    if own:
        variables[CLUSTER_VARIABLE] = "0"
    return variables


@contextmanager
def _silenced() -> Iterator[None]:
    """Show no progress bars and no messages of Ray: the caller reports progress."""
    from ray.data import DataContext

    context = DataContext.get_current()
    options = {"enable_progress_bars": False, "print_on_execution_start": False, "enable_auto_log_stats": False}
    previous = {name: getattr(context, name) for name in options if hasattr(context, name)}
    levels = {name: logging.getLogger(name).level for name in NOISY_LOGGERS}
    for name in previous:
        setattr(context, name, options[name])
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, value in previous.items():
            setattr(context, name, value)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
