"""Explain a data set into a table, resumably: plan units, run an engine, and write rows."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations.settings import Settings, SettingsOptions, merge_settings
from extremal.file_checks import find_kind, quote, to_path
from extremal.jobs.batch_size import auto_batch_size, count_slots
from extremal.jobs.engines import in_process, processes
from extremal.jobs.finished import find_finished_units, keep_explained
from extremal.jobs.items import find_items, select_items, to_sources
from extremal.jobs.plan import WorkUnit, plan_units
from extremal.jobs.rows import SCHEMA, Row
from extremal.jobs.run_options import RunOptions
from extremal.jobs.run_status import OnStatus, RunStatus, StatusWriter
from extremal.jobs.run_table import settings as read_settings
from extremal.jobs.stop import StopRequest, stop_on_signals
from extremal.jobs.store import MANIFEST, open_store
from extremal.jobs.worker import Worker, WorkerConfig
from extremal.networks.devices import AUTO, DeviceLike, check_device_name
from extremal.networks.inputs import find_input_kinds
from extremal.networks.network import Network
from extremal.networks.resolve import as_network
from extremal.number_checks import validate_bool, validate_callbacks

OnRows = Callable[[Sequence[Row]], None]
Engine = Callable[[Sequence[WorkUnit], StopRequest], in_process.Results]  # units, whether to stop


def run(
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    network: str | Network | nn.Module = "embedded",
    weights: str = "",
    device: DeviceLike = AUTO,
    target: str = "",
    ask: str = "",
    prompt: str = "",
    settings: Settings | None = None,
    refine: bool = False,
    stability: bool = False,
    engine: str = "local",
    address: str | None = None,
    gpus_per_worker: float | None = None,
    batch: int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    unit_timeout: float | None = None,
    retry: bool = False,
    on_progress: OnStatus | None = None,
    on_rows: OnRows | None = None,
    **options: Unpack[SettingsOptions],
) -> RunStatus:
    """Explain a data set into a folder, or resume an earlier run there.

    >>> status = run("photos", "out", areas=(0.05, 0.1))  # doctest: +SKIP
    >>> import pyarrow.parquet as pq
    >>> pq.read_table("out/parts")  # doctest: +SKIP

    Args:
        images: image files, folders, manifests (`items.find_items`); one or several. Sounds, clips or volumes for a
            network with a reader of these; from folders, the files that the network takes.
        out: folder of the run (`store`): new, or of a run with the same settings.
        network: a name that `zoo.load` takes; or a `Network` or module, which is evaluated in this process.
        weights: of a named network: a file, or random; empty: its own.
        device: of a named network: auto, cpu, cuda, cuda:N, mps or xpu; auto spreads workers over all devices of the
            fastest kind available.
        target: class index or name, name of a group, or classes joined by `|`, for images without one in a manifest;
            empty: the top class.
        ask: a query other than a class, as for `--ask`.
        prompt: to a model of images and text, for the queries `answer` and `token`.
        settings: of the explanations; None: made from `options`.
        refine: also search for the smallest sufficient area (`smallest_area`).
        stability: also explain four copies of each image with one grey level of noise (`stability`).
        engine: local, or ray.
        address: of a Ray cluster; None: one is started on this machine.
        gpus_per_worker: GPUs of each worker on a Ray cluster, may be a fraction; None: one if there are any, else none.
        batch: number of images explained together, in one unit of work; None: that of the run that is resumed. In a new
            run, None means 8 on a CPU (1 for clips and volumes), and on a GPU as many as fit into memory, at most 64;
            fewer if any of several workers would get fewer than 4 batches.
        workers: processes or actors; None: one for each core or device; 0: this process alone.
        threads: of torch in each worker; None: 1 in processes, else unchanged. Rounding in the rows depends on it.
        unit_timeout: seconds that a unit may take, after which its worker is replaced as if it had crashed; None: no
            limit. Needs workers.
        retry: run units again if one of their images failed or has changed since; an image that was explained keeps its
            rows if it fails now without having changed.
        on_progress: called with the status after every unit.
        on_rows: called with the rows of every unit once they are written, in this process.
        **options: as in `explain`: areas, game, perturbation, solver, score, effort, alternatives, seed.

    Returns:
        The final status: "stopped" after SIGINT, SIGTERM or SIGHUP. Units that finish within 2.5 s of the signal are
        written; after this time, or at a second signal, the others are abandoned; they run again on resuming.

    Raises:
        ExtremalValueError, ExtremalTypeError: an option breaks a rule; a source does not exist; the folder belongs to
            another run, is in use, or cannot be written; the network cannot be loaded, or workers cannot start. Rows
            that were written are kept.
    """
    processes.end_unguarded_worker()
    settings = merge_settings(settings, options)
    _check_plain(settings)
    run_options = RunOptions(
        engine=engine,
        address=address,
        gpus_per_worker=gpus_per_worker,
        batch=batch,
        workers=workers,
        threads=threads,
        unit_timeout=unit_timeout,
    )
    name = network if isinstance(network, str) else ""
    network_object = None if isinstance(network, str) else as_network(network)
    if network_object is not None:
        run_options.check_network(network_object)
        if weights:
            raise ExtremalValueError(
                f"weights must be those of a network passed by its name, got {quote(weights)} with "
                f"{network_object.name} as an object; load them into it"
            )
    for option, value in (("refine", refine), ("stability", stability), ("retry", retry)):
        validate_bool(value, option)
    validate_callbacks(on_progress=on_progress, on_rows=on_rows)
    in_this_process = network_object is not None or workers == 0
    if engine == "local" and not in_this_process:
        processes.check_can_start_workers()
    folder = to_path(out, "an output")
    _check_texts(out=os.fspath(folder), weights=weights, target=target, ask=ask, prompt=prompt)
    items = find_items(to_sources(images))
    device_name = check_device_name(device)
    config = WorkerConfig(name, weights, target, ask, settings.as_dict(), refine, stability, device_name, prompt)
    worker = Worker(config, network_object)
    items = select_items(items, find_input_kinds(worker.network), worker.network.name)
    n_threads = int(threads or 0) or (torch.get_num_threads() if in_this_process else 1)
    n_workers = 1 if in_this_process else int(workers or 0) or count_slots(worker)
    batch_size = int(batch or 0) or _read_batch_size(folder) or auto_batch_size(worker, items, n_workers)
    manifest = _build_manifest(worker, n_threads, batch_size)
    if engine == "ray":
        run_units = _build_ray_engine(config, run_options, n_threads)
    elif in_this_process:
        run_units = partial(in_process.run_in_process, worker)
    else:
        run_units = partial(
            processes.run_in_processes, config, count=n_workers, threads=n_threads, unit_timeout=unit_timeout
        )
    del worker  # if workers are processes, this one needs no network
    with open_store(folder, manifest, SCHEMA) as store, _torch_threads(n_threads if in_this_process else None):
        units = plan_units(store, items, batch_size)
        finished = find_finished_units(store, units)
        status_writer = StatusWriter(store, units, finished, on_progress)
        due = [unit for unit in units if status_writer.is_due(unit, retry)]
        with stop_on_signals() as stop:
            try:
                for unit, found in run_units(due, stop):
                    stored = store.read_part(unit.name).to_pylist() if unit.name in finished.names else []
                    rows = keep_explained(stored, found)
                    store.write(unit.name, rows)
                    if on_rows is not None:
                        on_rows(rows)
                    status_writer.add(unit, rows)
            finally:
                status = status_writer.end()
    return status


def _build_manifest(worker: Worker, threads: int, batch: int) -> dict[str, Any]:
    """Return the settings of a run, which a resumed run must have as well.

    Args:
        worker: with the network, and the options of its explanations.
        threads: of torch in each worker.
        batch: images of a unit of work.
    """
    config = worker.config
    return {
        "explain": {**worker.provenance(), "threads": threads},
        "areas": list(worker.settings.areas),
        "target": config.target,
        "ask": config.ask,
        **({"prompt": config.prompt} if config.prompt else {}),
        "alternatives": worker.settings.alternatives,
        "refine": config.refine,
        **({"stability": True} if config.stability else {}),
        "batch": batch,
    }


def _check_texts(**texts: str) -> None:
    """Raise unless texts can be stored and passed to other programs."""
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ExtremalTypeError(f"{name} must be text, got {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ExtremalValueError(
                f"{name} must be UTF-8, got {quote(text)}; rename it, or correct its encoding"
            ) from None


def _check_plain(settings: Settings) -> None:
    """Raise unless the settings can be stored in the manifest and sent to workers."""
    for name in ("within", "units"):
        if getattr(settings, name) is not None:
            raise ExtremalValueError(
                f"{name} must not be passed to a data-set run, which explains inputs of any size; leave it out, or "
                "call explain for each image"
            )
    for name, value in settings.as_dict().items():
        try:
            Settings.from_dict({name: value})
        except ExtremalValueError:
            raise ExtremalValueError(
                f"{name} of a data-set run must have a short name, got {value!r}; call explain for each image"
            ) from None


def _build_ray_engine(config: WorkerConfig, options: RunOptions, threads: int) -> Engine:
    from extremal.jobs.engines import ray

    return partial(
        ray.run_on_ray,
        config,
        count=options.workers,
        threads=threads,
        address=options.address,
        unit_timeout=options.unit_timeout,
        gpus_per_worker=options.gpus_per_worker,
    )


def _read_batch_size(out: Path) -> int | None:
    """Return the batch size of the run in this folder; None if there is no run."""
    return int(read_settings(out)["batch"]) if find_kind(out / MANIFEST, "the manifest of a run") else None


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    """Set the number of torch's threads in this process; None: leave it unchanged."""
    previous = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(previous)
