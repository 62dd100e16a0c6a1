"""The Ray engine, for clusters: Ray Data actors, each of which loads the network once, on the devices that there are.

Ray sends units to actors, queues the others while these are busy, and replaces actors that crash; their units are run
again. A crash tracker, in an actor of its own, counts what is running: so a run stops without losing units in
progress, and a unit that crashes one worker after another is abandoned.

An actor has two units at once: it decodes one while it explains the other. Decoding is cheap in comparison (12 MP:
0.1 s of a core; two areas: 7 s), so only names and rows pass through Ray's object store, and images are preprocessed by
the network that explains them. If a device is faster than decoding, several workers can share it.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import asdict
from enum import StrEnum
from typing import Any

import pyarrow as pa
import torch

from extremal.errors import ExtremalValueError
from extremal.jobs.crashes import MAX_CRASHES, CrashTracker, UnitMode, build_abandoned_rows
from extremal.jobs.engines.in_process import (
    MIN_LOAD_TIMEOUT,
    POLL_INTERVAL,
    PREFETCH,
    Decoded,
    Results,
    decode_unit,
    explain_decoded,
    load_worker,
)
from extremal.jobs.engines.ray_cluster import Allocation, allocate, connect
from extremal.jobs.items import RunItem
from extremal.jobs.plan import WorkUnit
from extremal.jobs.rows import SCHEMA, Row
from extremal.jobs.stop import StopNow, StopRequest
from extremal.jobs.worker import Worker, WorkerConfig
from extremal.networks.memory import keep_freed_memory

MIN_UNITS_PER_STAGE = 1000  # units given to Ray at once, if there are as many; each delays its start by 1.5 ms
UNITS_PER_WORKER = 50  # of a stage, if that is more: in each stage every actor loads the network again


class MessageKind(StrEnum):
    """Kind of message that an actor returns for a unit."""

    ROWS = "rows"
    STOPPED = "stopped"
    LOAD_FAILED = "load failed"


def run_on_ray(
    config: WorkerConfig,
    units: Sequence[WorkUnit],
    stop: StopRequest,
    *,
    count: int | None = None,
    threads: int = 1,
    unit_timeout: float | None = None,
    address: str | None = None,
    gpus_per_worker: float | None = None,
) -> Results:
    """Run units in actors of a Ray cluster.

    If this process is already connected to a cluster, that one is used and left as it is.

    Args:
        config: of the workers.
        units: sent in order, finished in any order.
        stop: once it is set, units in progress are finished and no further unit is started; once it is urgent, units
            in progress are given up.
        count: of actors; None: as many as the cluster has room for.
        threads: of torch in each.
        unit_timeout: seconds that a unit may take, after which its actor ends; None: any time.
        address: of a cluster, HOST:PORT, or auto for the one of this machine; None: one is started here, which
            listens on this machine alone and ends with the run.
        gpus_per_worker: may be a fraction of one; None: one if the cluster has any, else none.

    Raises:
        ExtremalValueError: Ray is not installed, the cluster cannot be reached or has no such devices, or an actor
            cannot load the network.
    """
    if not units or stop.is_set():
        return
    with suppress(StopNow), connect(address) as ray:
        allocation = allocate(ray.nodes(), count, threads, gpus_per_worker)
        tracker = _start_tracker(ray, allocation.count)
        stage_size = max(MIN_UNITS_PER_STAGE, UNITS_PER_WORKER * allocation.count)
        with _closed_on_stop(tracker, stop):
            for start in range(0, len(units), stage_size):
                if stop.is_set():
                    return
                stage = units[start : start + stage_size]
                yield from _run_stage(config, stage, allocation, threads, tracker, stop, unit_timeout)


def _run_stage(
    config: WorkerConfig,
    units: Sequence[WorkUnit],
    allocation: Allocation,
    threads: int,
    tracker: Any,
    stop: StopRequest,
    unit_timeout: float | None,
) -> Results:
    """Run units and yield their rows as they arrive."""
    import ray.data

    units_by_name = {unit.name: unit for unit in units}
    tasks = [{"name": unit.name, "items": [asdict(item) for item in unit.items]} for unit in units]
    actor_class: Any = _Actor  # instantiated by Ray
    messages: Any = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map(
        actor_class,
        fn_constructor_args=(config, threads, tracker, list(sys.path), unit_timeout),
        compute=ray.data.ActorPoolStrategy(
            size=min(allocation.count, len(units)),
            max_tasks_in_flight_per_actor=PREFETCH,
            max_concurrent_calls_per_actor=PREFETCH,
            enable_true_multi_threading=True,
        ),
        num_cpus=allocation.cpus,
        num_gpus=allocation.gpus,
    )  # Ray Data replaces actors and repeats their tasks without limit; the tracker sets one
    batches = iter(messages.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    with closing(batches):  # left to the garbage collector, it would start another cluster once this one is shut down
        while (batch := _wait_for_next(batches, stop)) is not None:
            for message in batch.to_pylist():
                if message["kind"] == MessageKind.LOAD_FAILED:
                    raise ExtremalValueError(message["error"])
                if message["kind"] == MessageKind.ROWS:
                    yield units_by_name[message["name"]], pa.ipc.open_stream(message["rows"]).read_all().to_pylist()


def _wait_for_next(batches: Iterator[Any], stop: StopRequest) -> Any:
    """Return the next batch of messages, None after the last.

    Raises:
        StopNow: the run is to end at once.
    """
    with stop.interruptible():
        return next(batches, None)


class _Watchdog:
    """Ends this process if anything that is timed takes too long, even while it holds the interpreter.

    Args:
        limit: seconds.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._lock, self._deadlines = threading.Lock(), dict[int, float]()
        threading.Thread(target=self._watch, name="extremal-watchdog", daemon=True).start()

    @contextmanager
    def timed(self, limit: float) -> Iterator[None]:
        """End the process if this block takes longer."""
        with self._lock:
            number = max(self._deadlines, default=0) + 1
            self._deadlines[number] = time.monotonic() + limit
        try:
            yield
        finally:
            with self._lock:
                del self._deadlines[number]

    def _watch(self) -> None:
        while True:
            with self._lock:
                first = min(self._deadlines.values(), default=float("inf"))
            if time.monotonic() > first:
                os.kill(os.getpid(), signal.SIGKILL)
            faulthandler.dump_traceback_later(self.limit + 1, exit=True)  # unless this thread comes here again
            time.sleep(min(POLL_INTERVAL, self.limit / 4))


class _Actor:
    """A worker in a Ray actor: units in, rows out. Ray calls it from two threads."""

    _unit_timeout: float | None = None
    _watchdog: _Watchdog | None = None

    def __init__(
        self,
        config: WorkerConfig,
        threads: int,
        tracker: Any,
        path: Sequence[str],
        unit_timeout: float | None = None,
    ) -> None:
        sys.path += [folder for folder in path if folder not in sys.path]  # so that the caller's networks are found
        keep_freed_memory()  # the process belongs to the actor
        torch.set_num_threads(threads)
        self._tracker = tracker
        self._decoding, self._explaining = threading.Lock(), threading.Lock()
        if unit_timeout is not None:
            self._unit_timeout, self._watchdog = unit_timeout, _Watchdog(unit_timeout)
        with self._timed(MIN_LOAD_TIMEOUT):
            self._worker, self._load_error = self._load(config)

    def _timed(self, minimum: float = 0.0) -> AbstractContextManager[None]:
        """End this process if a block takes longer than the limit of a unit."""
        if self._watchdog is None or self._unit_timeout is None:
            return nullcontext()
        return self._watchdog.timed(max(minimum, self._unit_timeout))

    def _load(self, config: WorkerConfig) -> tuple[Worker | None, str]:
        """Return the worker, or why there is none; an exception would be wrapped by Ray."""
        refusal = self._call_tracker("load_started")
        if refusal:
            return None, refusal
        worker = load_worker(config)  # on the device that Ray assigns to this actor
        if isinstance(worker, str):
            return None, worker
        self._call_tracker("load_finished")
        return worker, ""

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        unit = WorkUnit(task["name"], tuple(RunItem(**item) for item in task["items"]))
        if self._worker is None:
            return _message(unit, MessageKind.LOAD_FAILED, error=self._load_error)
        return self._run(self._worker, unit)

    def _run(self, worker: Worker, unit: WorkUnit) -> dict[str, Any]:
        with self._decoding:
            mode = self._call_tracker("start", unit.name)
            if mode == UnitMode.STOPPED:
                return _message(unit, MessageKind.STOPPED)
            if mode == UnitMode.ABANDONED:
                return _message(unit, MessageKind.ROWS, build_abandoned_rows(unit, unit_timeout=self._unit_timeout))
            if mode == UnitMode.EXCLUSIVE:
                with self._explaining:
                    return self._explain(worker, unit, self._decode(worker, unit))
            decoded = self._decode(worker, unit)
        with self._explaining:
            return self._explain(worker, unit, decoded)

    def _decode(self, worker: Worker, unit: WorkUnit) -> Decoded:
        with self._timed():
            return decode_unit(worker, unit)

    def _explain(self, worker: Worker, unit: WorkUnit, decoded: Decoded) -> dict[str, Any]:
        """Explain a unit and count it as finished, before a unit that may crash this actor is explained."""
        with self._timed():
            rows = explain_decoded(worker, unit, decoded)
        self._call_tracker("finish", unit.name)
        return _message(unit, MessageKind.ROWS, rows)

    def _call_tracker(self, method: str, *args: str) -> str:
        import ray

        result: str = ray.get(getattr(self._tracker, method).remote(*args))
        return result


def _message(unit: WorkUnit, kind: MessageKind, rows: Sequence[Row] = (), error: str = "") -> dict[str, Any]:
    """Return the message of an actor about a unit; rows are an Arrow stream, which is read without running code."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as stream:
        stream.write_table(pa.Table.from_pylist([dict(row) for row in rows], SCHEMA))
    return {"name": unit.name, "kind": str(kind), "rows": sink.getvalue().to_pybytes(), "error": error}


def _start_tracker(ray: Any, workers: int) -> Any:
    """Start a crash tracker in an actor on the node of this process, for as long as the run lasts."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(CrashTracker)
    return remote.remote(MAX_CRASHES, workers)


@contextmanager
def _closed_on_stop(tracker: Any, stop: StopRequest) -> Iterator[None]:
    """Close the tracker as soon as the run is to stop, even while the caller waits for rows."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(POLL_INTERVAL):
            if stop.is_set():
                tracker.close.remote()
                return

    watcher = threading.Thread(target=watch, name="extremal-stop", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
