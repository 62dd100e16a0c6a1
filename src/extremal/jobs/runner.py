"""`run`: a question asked about a data set, with a table that grows and survives whatever ends the run."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from extremal.errors import ExtremalValueError
from extremal.explanations.options import Options
from extremal.explanations.settings import AREAS
from extremal.jobs.engines import processes
from extremal.jobs.plan import WorkUnit, find_items, plan_units
from extremal.jobs.rows import SCHEMA
from extremal.jobs.run_status import StatusWriter, RunStatus, OnStatus
from extremal.jobs.store import MANIFEST, read_manifest, open_store
from extremal.jobs.worker import Worker
from extremal.networks.network import Network
from extremal.networks.resolve import as_network

CPU_BATCH = 8  # pictures a unit on a processor: more are hardly faster there, and a kill costs them
MAX_BATCH = 64  # pictures a unit on a device with memory for them
MIN_UNITS_PER_WORKER = 4  # units a worker, if there are pictures enough: with fewer, the others wait long for the last
ENGINES = ("local", "ray")

Engine = Callable[[Sequence[WorkUnit], threading.Event], processes.Results]  # units, whether to stop


def run(
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    network: str | Network | nn.Module = "embedded",
    weights: str = "",
    target: str = "",
    ask: str = "",
    areas: Sequence[float] = AREAS,
    game: str = "preserve",
    perturbation: str = "blur",
    solver: str = "path",
    score: str = "margin",
    seed: int = 0,
    alternatives: int = 1,
    refine: bool = False,
    engine: str = "local",
    address: str | None = None,
    gpus_per_worker: float | None = None,
    batch: int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    retry: bool = False,
    on_progress: OnStatus | None = None,
) -> RunStatus:
    """Explain a data set into a folder; where rows stand already, only what is missing.

    >>> standing = run("photos", "out", areas=(0.05, 0.1))  # doctest: +SKIP
    >>> import pyarrow.parquet as pq
    >>> pq.read_table("out/parts")  # doctest: +SKIP

    Args:
        images: picture files, folders, manifests (`plan.items_of`); one or several.
        out: the folder of the run (`store`): new, or of a run with the same settings.
        network: a name that `zoo.load` takes; or a `Network` or module, which is asked in this process.
        weights: of a named network: a file, or random; empty: its own.
        target: class, by index or name, of pictures whose manifest tells none; empty: the top class.
        ask: another question than about a class, as `--ask` has it.
        areas, game, perturbation, solver, score, seed, alternatives: as in `explain`, by their short names.
        refine: also bisect for the smallest sufficient area (`smallest_area`).
        engine: local, or ray.
        address: of a Ray cluster; None: one is started on this machine.
        gpus_per_worker: of a Ray cluster's, may be a share of one; None: one where it has any, else none.
        batch: pictures that are explained together and stand or fall together; None: that of the run that is resumed,
            else 8 on a processor, and what a device has memory for, at most 64; fewer where that would leave less than
            4 batches to each of several workers.
        workers: processes or actors; None: as many as there are cores or devices; 0: this process alone.
        threads: of torch in each; None: 1 in processes of their own, else as it is. Rows depend on it in rounding.
        retry: do units again in which a picture failed.
        on_progress: told how far it is, after every unit.

    Returns:
        How far it is: "stopped" where SIGINT or SIGTERM came; what was begun then is finished and written.

    Raises:
        ExtremalValueError, ExtremalTypeError: an option breaks a rule; the folder is another run's, in use, or cannot
            be written; the network cannot be loaded. What was written stays whole.
    """
    name = network if isinstance(network, str) else ""
    shares = ",".join(repr(float(area)) for area in areas)
    options = Options(
        *(name, weights, target, ask, shares, game, perturbation, solver, score, seed, alternatives, refine)
    )
    options.checked()
    given = None if isinstance(network, str) else as_network(network)
    inside = given is not None or workers == 0
    _check_engine(engine, given, workers, threads, batch, gpus_per_worker)
    items = find_items([os.fspath(one) for one in ([images] if isinstance(images, str | os.PathLike) else images)])
    worker = Worker(options, given)
    many = threads or (torch.get_num_threads() if inside else 1)
    count = 1 if inside else workers or _worker_slots(worker)
    size = batch or _stored_batch_size(Path(out)) or auto_batch_size(worker, len(items), count)
    settings = {
        "explain": {**worker.settings(), "threads": many},
        "areas": list(worker.checked.areas),
        "target": target,
        "ask": ask,
        "alternatives": alternatives,
        "refine": refine,
        "batch": size,
    }
    if engine == "ray":
        working = _cluster(worker, workers, many, address, gpus_per_worker)
    else:
        working = _engine(inside, worker, count, many)
    del worker  # where processes work, this one needs no network
    with open_store(Path(out), settings, SCHEMA) as store:
        units = plan_units(store, items, size)
        progress = StatusWriter(store, units, on_progress)
        with stop_on_signals() as stop, _threads(many if inside else None):
            try:
                for unit, rows in working([unit for unit in units if progress.missing(unit, retry)], stop):
                    store.write(unit.name, rows)
                    progress.add(unit, rows)
            finally:
                standing = progress.end()
    return standing


def _cluster(
    worker: Worker, count: int | None, threads: int, address: str | None, gpus_per_worker: float | None
) -> Engine:
    """What works through units on a cluster."""
    from extremal.jobs.engines import ray

    return partial(
        ray.run_on_ray,
        worker.options,
        count=count,
        threads=threads,
        address=address,
        gpus_per_worker=gpus_per_worker,
    )


def _engine(inside: bool, worker: Worker, count: int, threads: int) -> Engine:
    """What works through units on this machine."""
    if inside:
        return partial(processes.run_in_process, worker)
    return partial(processes.run_in_processes, worker.options, count=count, threads=threads)


def auto_batch_size(worker: Worker, pictures: int, workers: int) -> int:
    """How many pictures are explained together where nobody says: as many as are fast, and leave work for all."""
    network = worker.network
    x = network.blank()
    shared = pictures if workers == 1 else -(-pictures // (MIN_UNITS_PER_WORKER * workers))
    if x.device.type == "cpu":
        return max(1, min(CPU_BATCH, shared))
    with network.frozen() as run:
        run.accelerate(x)
        batch_size = run.max_batch_size(x) // max(1, len(worker.checked.areas))
        return max(1, min(MAX_BATCH, shared, batch_size))


def _worker_slots(worker: Worker) -> int:
    """How many workers this machine has room for."""
    if worker.network.anchor.device.type == "cuda":
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stored_batch_size(out: Path) -> int | None:
    """Pictures a unit of the run that stands there."""
    return int(read_manifest(out)["batch"]) if (out / MANIFEST).exists() else None


def _check_engine(
    engine: str,
    given: Network | None,
    workers: int | None,
    threads: int | None,
    batch: int | None,
    gpus_per_worker: float | None,
) -> None:
    if engine not in ENGINES:
        raise ExtremalValueError(f"engine must be {' or '.join(ENGINES)}, got {engine!r}")
    if given is not None and (engine == "ray" or workers):
        raise ExtremalValueError(
            f"workers must load the network themselves, got {given.name} as an object; name it MODULE:FUNCTION, or "
            "pass workers=0"
        )
    if engine == "ray" and workers == 0:
        raise ExtremalValueError("a run with ray must have workers, got 0; leave it out, or take the local engine")
    for name, value, least in (("workers", workers, 0), ("threads", threads, 1), ("batch", batch, 1)):
        if value is not None and value < least:
            raise ExtremalValueError(f"{name} must be at least {least}, got {value}")
    if gpus_per_worker is None:
        return
    if engine != "ray":
        raise ExtremalValueError(f"gpus_per_worker must go with engine ray, got engine {engine}; leave it out")
    if not (0 <= gpus_per_worker <= 1 or gpus_per_worker == int(gpus_per_worker) >= 0):
        raise ExtremalValueError(
            f"gpus_per_worker must be a share of one or a whole number, got {gpus_per_worker:g}; e.g. 0.25"
        )


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that is set by the first SIGINT or SIGTERM; the second SIGINT interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals are the main thread's
        return

    def asked(number: int, _: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    former = {one: signal.signal(one, asked) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for one, handler in former.items():
            signal.signal(one, handler)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """So many threads of torch in this process, as long as it works."""
    former = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(former)
