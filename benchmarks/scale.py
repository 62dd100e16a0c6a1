"""Measure how data-set runs scale with the number of workers.

Use: python benchmarks/scale.py ray [--images 16] [--workers 1,2] [--repeats 1]

`ray` simulates a cluster on this machine (`ray.cluster_utils.Cluster`): a head without processors, and for each worker
a node of one; the embedded network, two areas, one image per unit. The rate is measured from the moment when every
worker has finished its first image to the last image, so it excludes loading the network. The efficiency is the rate
of several workers divided by their number times the rate of one. It is meaningful only if as many cores are free: the
load is recorded with each run.
Each run is appended to benchmarks/results/scale.jsonl.
"""

import os

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # nodes that listen on this machine alone
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # its name in Ray; else Ray's workers stand back behind whatever else runs

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import skimage.data
from PIL import Image

import records
from extremal.jobs import RunStatus
from extremal.jobs.runner import run
from timing import machine

RESULTS = records.FOLDER / "scale.jsonl"
AREAS = (0.05, 0.2)
PHOTOGRAPHS = ("chelsea", "coffee", "rocket", "astronaut")


def write_photographs(folder: Path, count: int) -> Path:
    """Write photographs of scikit-image, and crops of them."""
    folder.mkdir()
    for index in range(count):
        turn, photo = divmod(index, len(PHOTOGRAPHS))
        whole = Image.fromarray(getattr(skimage.data, PHOTOGRAPHS[photo])())
        margin = 6 * turn
        box = (margin, margin, whole.width - margin, whole.height - margin)
        whole.crop(box).save(folder / f"{PHOTOGRAPHS[photo]}-{turn}.png")
    return folder


@contextmanager
def start_cluster(nodes: int) -> Iterator[str]:
    """Start a cluster of nodes with one core each and a head without any, and yield its address."""
    from ray.cluster_utils import Cluster

    ray_cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            ray_cluster.add_node(num_cpus=1)
        ray_cluster.wait_for_nodes()
        yield ray_cluster.address
    finally:
        ray_cluster.shutdown()


def measure_run(folder: Path, out: Path, workers: int) -> dict[str, float]:
    """Return the images per second of one run, and its duration in seconds."""
    moments: list[tuple[int, float]] = []  # pictures done, s

    def record_status(status: RunStatus) -> None:
        moments.append((status.done, time.perf_counter()))

    begin = time.perf_counter()
    with start_cluster(workers) as address:
        run(
            folder, out, areas=AREAS, engine="ray", address=address, workers=workers, batch=1, on_progress=record_status
        )
    first, last = next(moment for moment in moments if moment[0] >= workers), moments[-1]
    return {
        "rate": (last[0] - first[0]) / (last[1] - first[1]),
        "whole": time.perf_counter() - begin,
        "until_first": first[1] - begin,
    }


def measure_ray(arguments: argparse.Namespace) -> None:
    """Measure runs on simulated clusters with different numbers of workers, in turns."""
    counts = [int(word) for word in arguments.workers.split(",")]
    rates: dict[int, list[float]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as place:
        folder = write_photographs(Path(place) / "pictures", arguments.images)
        for repeat in range(arguments.repeats):
            for count in counts:
                result = measure_run(folder, Path(place) / f"run-{repeat}-{count}", count)
                rates[count].append(result["rate"])
                load = os.getloadavg()[0]
                row = {"kind": "ray", "workers": count, "images": arguments.images, "areas": AREAS, "load": load}
                records.append(RESULTS, {**row, **result, "cores": os.cpu_count(), "machine": machine()})
                print(
                    f"{count} workers: {result['rate']:.3f} images/s, {result['until_first']:.0f} s until each had its "
                    f"first, {result['whole']:.0f} s in all; load {load:.1f}"
                )
    one = statistics.median(rates[counts[0]])
    for count in counts[1:]:
        gain = statistics.median(rates[count]) / one
        print(f"from {counts[0]} to {count} workers: {gain:.2f} times, efficiency {gain * counts[0] / count:.0%}")


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    on_ray = commands.add_parser("ray", help="on simulated Ray clusters")
    on_ray.add_argument("--images", type=int, default=16)
    on_ray.add_argument("--workers", default="1,2", help="numbers of workers, with commas")
    on_ray.add_argument("--repeats", type=int, default=1)
    on_ray.set_defaults(measure=measure_ray)
    arguments = parser.parse_args()
    arguments.measure(arguments)


if __name__ == "__main__":
    main()
