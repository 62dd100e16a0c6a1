"""How data-set runs scale: from one worker to more.

Use: python benchmarks/scale.py ray [--images 16] [--workers 1,2] [--repeats 1]

`ray` simulates a cluster on this machine (`ray.cluster_utils.Cluster`): a head without processors, and for each worker
a node of one; the embedded network, two areas, a picture a unit. The rate is that between the moment when every
worker has brought its first picture and the last picture, so that loading the network is told apart from it. The
efficiency is the rate of a number of workers over as many times that of one. It means something where so many cores
are free: the load is kept with each run.
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


def pictures(folder: Path, count: int) -> Path:
    """So many photographs: those of scikit-image, and crops of them."""
    folder.mkdir()
    for index in range(count):
        turn, photo = divmod(index, len(PHOTOGRAPHS))
        whole = Image.fromarray(getattr(skimage.data, PHOTOGRAPHS[photo])())
        margin = 6 * turn
        box = (margin, margin, whole.width - margin, whole.height - margin)
        whole.crop(box).save(folder / f"{PHOTOGRAPHS[photo]}-{turn}.png")
    return folder


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """The address of a cluster of so many nodes with one processor each, and a head that has none."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=1)
        made.wait_for_nodes()
        yield made.address
    finally:
        made.shutdown()


def measured(folder: Path, out: Path, workers: int) -> dict[str, float]:
    """Pictures a second of one run, and the seconds that it took in all."""
    moments: list[tuple[int, float]] = []  # pictures done, s

    def told(standing: RunStatus) -> None:
        moments.append((standing.done, time.perf_counter()))

    begin = time.perf_counter()
    with cluster(workers) as address:
        run(folder, out, areas=AREAS, engine="ray", address=address, workers=workers, batch=1, on_progress=told)
    first, last = next(moment for moment in moments if moment[0] >= workers), moments[-1]
    return {
        "rate": (last[0] - first[0]) / (last[1] - first[1]),
        "whole": time.perf_counter() - begin,
        "until_first": first[1] - begin,
    }


def ray(arguments: argparse.Namespace) -> None:
    """Runs on simulated clusters, numbers of workers in turn."""
    counts = [int(word) for word in arguments.workers.split(",")]
    rates: dict[int, list[float]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as place:
        folder = pictures(Path(place) / "pictures", arguments.images)
        for repeat in range(arguments.repeats):
            for count in counts:
                found = measured(folder, Path(place) / f"run-{repeat}-{count}", count)
                rates[count].append(found["rate"])
                load = os.getloadavg()[0]
                row = {"kind": "ray", "workers": count, "images": arguments.images, "areas": AREAS, "load": load}
                records.append(RESULTS, {**row, **found, "cores": os.cpu_count(), "machine": machine()})
                print(
                    f"{count} workers: {found['rate']:.3f} pictures/s, {found['until_first']:.0f} s until each had its "
                    f"first, {found['whole']:.0f} s in all; load {load:.1f}"
                )
    one = statistics.median(rates[counts[0]])
    for count in counts[1:]:
        gain = statistics.median(rates[count]) / one
        print(f"from {counts[0]} to {count} workers: {gain:.2f} times, efficiency {gain * counts[0] / count:.0%}")


def main() -> None:
    """Measure what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    on_ray = commands.add_parser("ray", help="on simulated Ray clusters")
    on_ray.add_argument("--images", type=int, default=16)
    on_ray.add_argument("--workers", default="1,2", help="numbers of workers, with commas")
    on_ray.add_argument("--repeats", type=int, default=1)
    on_ray.set_defaults(measure=ray)
    arguments = parser.parse_args()
    arguments.measure(arguments)


if __name__ == "__main__":
    main()
