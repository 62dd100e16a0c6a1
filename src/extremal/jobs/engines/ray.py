"""The engine on Ray Data, for clusters: actors, each of which loads the network once, on whatever devices there are.

Ray hands units to actors, keeps the others back while these are busy, and replaces actors that die; their units are
done again. A ledger, an actor without work of its own, knows what was begun: by it a run stops without losing what is
under way, and a unit that ends one worker after another is given up.

An actor works at two units at once: it decodes one while it explains the other. Decoding is little beside that (12 MP:
0.1 s of a processor; two areas: 7 s), so nothing but names and rows goes through Ray's object store, and what decodes
is the very network that is asked. Where a device outruns it, several workers share the device.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import torch

from extremal.errors import ExtremalValueError
from extremal.explanations.options import Options
from extremal.jobs.engines.processes import MAX_CRASHES, Results, failed_rows
from extremal.jobs.engines.ray_cluster import Allocation, connect, allocate
from extremal.jobs.plan import Item, WorkUnit
from extremal.jobs.rows import SCHEMA
from extremal.jobs.worker import Row, Worker
from extremal.networks.memory import keep_freed_memory

PREFETCH = 2  # units that an actor has: one that it explains, one that it decodes
MIN_UNITS_PER_STAGE = 1000  # units that are given to Ray at once, if there are as many: it takes 1.5 ms for each before it begins
UNITS_PER_WORKER = 50  # of them a worker, where that is more: between such portions every actor loads the network anew
POLL_INTERVAL = 0.2  # s between looks whether to stop

ROWS, STOPPED, LOAD_FAILED = "rows", "stopped", "broken"  # what came of a unit
CONCURRENT, EXCLUSIVE, ABANDONED = "beside", "alone", "given up"  # what is to be done with one, or STOPPED


def run_on_ray(
    options: Options,
    units: Sequence[WorkUnit],
    stop: threading.Event,
    *,
    count: int | None = None,
    threads: int = 1,
    address: str | None = None,
    gpus_per_worker: float | None = None,
) -> Results:
    """Work through units in actors of a Ray cluster.

    Where this process is connected to a cluster already, that one is taken and left as it is.

    Args:
        options: what is asked.
        units: handed out in order, done in any.
        stop: once it is set, what was begun is finished and no more is begun.
        count: of actors; None: as many as the cluster has room for.
        threads: of torch in each.
        address: of a cluster, HOST:PORT, or auto for the one of this machine; None: one is started here, which
            listens on this machine alone and ends with the run.
        gpus_per_worker: may be a share of one; None: one where the cluster has any, else none.

    Raises:
        ExtremalValueError: Ray is not installed, the cluster cannot be reached or has no such devices, or an actor
            cannot load the network.
    """
    if not units or stop.is_set():
        return
    with connect(address) as ray:
        share = allocate(ray.nodes(), count, threads, gpus_per_worker)
        ledger = _start_tracker(ray, share.count)
        portion = max(MIN_UNITS_PER_STAGE, UNITS_PER_WORKER * share.count)
        with _closed_on_stop(ledger, stop):
            for start in range(0, len(units), portion):
                if stop.is_set():
                    return
                yield from _run_stage(options, units[start : start + portion], share, threads, ledger)


def _run_stage(options: Options, units: Sequence[WorkUnit], share: Allocation, threads: int, ledger: Any) -> Results:
    """What comes of these units, as it comes."""
    import ray.data

    known = {unit.name: unit for unit in units}
    rows = [
        {"name": unit.name, "items": [{"key": one.key, "path": one.path, "target": one.target} for one in unit.items]}
        for unit in units
    ]
    size = min(share.count, len(units))
    worker: Any = _Actor  # Ray makes the object
    done: Any = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        worker,
        fn_constructor_args=(options, threads, ledger, list(sys.path)),
        compute=ray.data.ActorPoolStrategy(
            size=size,
            max_tasks_in_flight_per_actor=PREFETCH,
            max_concurrent_calls_per_actor=PREFETCH,
            enable_true_multi_threading=True,
        ),
        num_cpus=share.cpus,
        num_gpus=share.gpus,
    )  # Ray Data replaces actors and tries their tasks again without end; it is the ledger that ends this
    for block in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for told in block.to_pylist():
            if told["kind"] == LOAD_FAILED:
                raise ExtremalValueError(told["words"])
            if told["kind"] == ROWS:
                yield known[told["name"]], pa.ipc.open_stream(told["rows"]).read_all().to_pylist()


class CrashTracker:
    """What was begun and not finished, by name: how often a worker ended on it.

    Args:
        deaths: of workers, after which a unit is given up.
        workers: that there are.
    """

    def __init__(self, deaths: int, workers: int) -> None:
        self._deaths, self._most = deaths, deaths * workers
        self._begun: dict[str, int] = {}  # times since it was last finished
        self._loads = 0  # begun since a network was last loaded
        self._closed = False

    def load_started(self) -> str:
        """Why no more workers may load the network, where so many have tried and none came through; else empty."""
        self._loads += 1
        if self._loads <= self._most:
            return ""
        return (
            f"workers must have memory for the network, {self._most} of them ended while they loaded it; take fewer "
            "workers, or another network"
        )

    def load_finished(self) -> None:
        """A worker has loaded the network."""
        self._loads = 0

    def start(self, name: str) -> str:
        """What a worker does with a unit: one that ended a worker is done alone, so that no other is blamed for it."""
        if self._closed and name not in self._begun:
            return STOPPED
        ended = self._begun.get(name, 0)
        self._begun[name] = ended + 1
        if ended >= self._deaths:
            return ABANDONED
        return EXCLUSIVE if ended else CONCURRENT

    def finish(self, name: str) -> None:
        """A unit is finished; it may be asked for again where its rows are lost on the way."""
        self._begun[name] = 0

    def close(self) -> None:
        """Nothing new is begun."""
        self._closed = True


class _Actor:
    """A worker in an actor: units in, rows out. Two threads of Ray call it at once."""

    def __init__(self, options: Options, threads: int, ledger: Any, path: Sequence[str]) -> None:
        sys.path += [folder for folder in path if folder not in sys.path]  # where the caller's networks are found
        keep_freed_memory()  # the process is the actor's own
        torch.set_num_threads(threads)
        self._ledger = ledger
        self._decoding, self._explaining = threading.Lock(), threading.Lock()
        self._worker, self._why = self._loaded(options)

    def _loaded(self, options: Options) -> tuple[Worker | None, str]:
        """The worker, or why there is none; were it raised here, Ray would tell it in its own way."""
        refused = self._ask("load")
        if refused:
            return None, refused
        try:
            worker = Worker(options)  # on the device that Ray lets this actor see, where it lets it see one
        except Exception as error:
            return None, str(error)
        self._ask("loaded")
        return worker, ""

    def __call__(self, told: dict[str, Any]) -> dict[str, Any]:
        unit = WorkUnit(told["name"], tuple(Item(**one) for one in told["items"]))
        if self._worker is None:
            return _message(unit, LOAD_FAILED, words=self._why)
        return self._done(self._worker, unit)

    def _done(self, worker: Worker, unit: WorkUnit) -> dict[str, Any]:
        with self._decoding:
            how = self._ask("begin", unit.name)
            if how == STOPPED:
                return _message(unit, STOPPED)
            if how == ABANDONED:
                return _message(unit, ROWS, abandoned_rows(unit))
            if how == EXCLUSIVE:
                with self._explaining:
                    rows = worker.rows(worker.prepare(unit.items))
            else:
                ready = worker.prepare(unit.items)
        if how == CONCURRENT:
            with self._explaining:
                rows = worker.rows(ready)
        self._ask("end", unit.name)
        return _message(unit, ROWS, rows)

    def _ask(self, what: str, *words: str) -> str:
        import ray

        answer: str = ray.get(getattr(self._ledger, what).remote(*words))
        return answer


def _message(unit: WorkUnit, kind: str, rows: Sequence[Row] = (), words: str = "") -> dict[str, Any]:
    """What an actor says of a unit; rows as a table in bytes, which the caller reads without running anything."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as stream:
        stream.write_table(pa.Table.from_pylist([dict(row) for row in rows], SCHEMA))
    return {"name": unit.name, "kind": kind, "rows": sink.getvalue().to_pybytes(), "words": words}


def abandoned_rows(unit: WorkUnit) -> list[Row]:
    """The rows of a unit that ended one worker after another."""
    return failed_rows(
        unit,
        "one worker after another ended on its batch; run again with --retry, where memory is short with fewer "
        "--workers",
    )


def _start_tracker(ray: Any, workers: int) -> Any:
    """A ledger in an actor, on the node of this process, where it lives as long as the run does."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(CrashTracker)
    return remote.remote(MAX_CRASHES, workers)


@contextmanager
def _closed_on_stop(ledger: Any, stop: threading.Event) -> Iterator[None]:
    """Close the ledger as soon as the run is to stop, whatever the caller waits for."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL_INTERVAL):
            if stop.is_set():
                ledger.close.remote()
                return

    watching = threading.Thread(target=watch, name="extremal-stop", daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
