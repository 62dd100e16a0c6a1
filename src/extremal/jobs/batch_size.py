"""Number of images that are explained together, and of the workers that a machine has room for."""

import os
from collections.abc import Sequence

from torch import Tensor

from extremal.jobs.items import RunItem
from extremal.jobs.worker import Worker
from extremal.networks.devices import AUTO, count_devices
from extremal.networks.stacks.readers import ClipReader, VolumeReader

CPU_BATCH = 8  # images per unit on a CPU: more are hardly faster there, and are lost together in a crash
MAX_BATCH = 64  # images per unit on a GPU with enough memory
MIN_UNITS_PER_WORKER = 4  # if there are enough images: with fewer, workers wait long for the last one to finish
MAX_EXAMPLES = 8  # items that are read to find one that can be


def auto_batch_size(worker: Worker, items: Sequence[RunItem], workers: int) -> int:
    """Return a number of images to explain together that is fast and leaves units for all workers.

    Clips and volumes are explained one by one on a CPU, where several at once take memory and save hardly any time.
    """
    network = worker.network
    images_per_unit = len(items) if workers == 1 else -(-len(items) // (MIN_UNITS_PER_WORKER * workers))
    if network.anchor.device.type == "cpu":
        takes_stacks = isinstance(network.reader, ClipReader | VolumeReader)
        return 1 if takes_stacks else max(1, min(CPU_BATCH, images_per_unit))
    x = _find_example(worker, items)
    if x is None:
        return 1
    with network.frozen() as run:
        run.accelerate(x)
        max_images = run.max_batch_size(x) // max(1, len(worker.settings.areas))
        return max(1, min(MAX_BATCH, images_per_unit, max_images))


def _find_example(worker: Worker, items: Sequence[RunItem]) -> Tensor | None:
    """Return an input of a run: made up if it takes pictures, else the first that can be read; None: there is none."""
    network = worker.network
    if network.reader is None or network.preprocess is not None:
        return network.example_input()
    for item in items[:MAX_EXAMPLES]:
        (decoded,) = worker.prepare([item])
        if decoded.x is not None:
            return decoded.x.to(network.anchor)
    return None


def count_slots(worker: Worker) -> int:
    """Return the number of workers for which this machine has room."""
    kind = worker.network.anchor.device.type
    if kind != "cpu":
        return max(1, count_devices(kind)) if worker.config.device == AUTO else 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
