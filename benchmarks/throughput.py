"""Measure data-set runs: images per second by batch and engine, time outside the network, and memory over time.

Use: python benchmarks/throughput.py batch|engines|share|memory|both [--images 24] [--areas 0.1] [--network NAME]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image

import records
from extremal import explain, jobs, keep_freed_memory, zoo
from extremal.cli.parse import parse_areas
from extremal.explanations.settings import Settings
from extremal.jobs.items import RunItem, find_items
from extremal.jobs.worker import Worker, WorkerConfig
from extremal.networks.network import Network

RESULTS = records.FOLDER / "throughput.jsonl"
PHOTOGRAPHS = ("chelsea", "coffee", "rocket", "astronaut")


def write_photographs(folder: Path, count: int) -> Path:
    """Write different crops of real photographs, as JPEG files of 500 px."""
    import skimage.data

    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture = Image.fromarray(getattr(skimage.data, PHOTOGRAPHS[index % 4])())
        step = index // 4
        side = min(picture.size) - 8 * (step % 12)
        left, top = (picture.width - side) * (step % 5) // 4, (picture.height - side) * (step % 3) // 2
        cut = picture.crop((left, top, left + side, top + side)).resize((500, 500))
        cut.save(folder / f"{PHOTOGRAPHS[index % 4]}-{step:03d}.jpg", quality=92)
    return folder


def write_scenes(folder: Path, cutouts: Path, count: int) -> None:
    """Write planted scenes to the same folder."""
    from extremal.benchmark.data.scenes import Scenes

    dataset = Scenes(cutouts, count=count)
    for seed in range(count):
        dataset.scene(seed)[0].save(folder / f"scene-{seed:03d}.png")


def make_config(areas: str, network: str = "embedded", weights: str = "") -> WorkerConfig:
    """Return a worker's configuration with default settings."""
    return WorkerConfig(network, weights, settings=Settings(areas=parse_areas(areas)).as_dict())


def measure_batches(folder: Path, areas: str, repeats: int) -> None:
    """Measure the seconds per image of one worker of one thread for several batch sizes, in turns."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as workers do
    worker, items = Worker(make_config(areas)), find_items([str(folder)])[:8]
    decoded = worker.prepare(items)
    worker.explain(decoded[:1])  # warm
    seconds: dict[int, list[float]] = {1: [], 2: [], 4: [], 8: []}
    for _ in range(repeats):
        for size, times in seconds.items():
            begin = time.perf_counter()
            for start in range(0, len(decoded), size):
                worker.explain(decoded[start : start + size])
            times.append((time.perf_counter() - begin) / len(decoded))
    medians = {size: statistics.median(times) for size, times in seconds.items()}
    record(kind="batch", areas=areas, seconds=medians, all=seconds)


def measure_engines(folder: Path, areas: str, repeats: int) -> None:
    """Measure the seconds per image of `explain` in a loop and of a run with one worker per core, in turns."""
    parsed_areas = parse_areas(areas)
    items = find_items([str(folder)])
    network = zoo.load("embedded")
    explain(network, items[0].path, areas=parsed_areas)  # warm

    def loop() -> None:
        for item in items:
            explain(network, item.path, areas=parsed_areas)

    def run() -> None:
        with tempfile.TemporaryDirectory() as out:
            jobs.run(folder, Path(out) / "run", areas=parsed_areas)

    kinds: dict[str, Callable[[], None]] = {"loop": loop, "run": run}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind, work in kinds.items():
            begin = time.perf_counter()
            work()
            seconds[kind].append(time.perf_counter() - begin)
            print(kind, round(seconds[kind][-1], 1), flush=True)
    medians = {kind: statistics.median(times) / len(items) for kind, times in seconds.items()}
    ratio = medians["loop"] / medians["run"]
    record(kind="engines", areas=areas, images=len(items), seconds=medians, ratio=ratio, all=seconds)


def measure_overhead(folder: Path, areas: str, repeats: int) -> None:
    """Measure the part of a worker's time outside the network: masks, evidence, row, thumbnail, decoding."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as workers do
    worker, items = Worker(make_config(areas)), find_items([str(folder)])
    worker.explain(worker.prepare(items[:1]))  # warm
    outside = []
    for repeat in range(repeats):
        part = items[4 * repeat : 4 * repeat + 4]
        with network_timer(worker.network) as spent:
            begin = time.perf_counter()
            worker.explain(worker.prepare(part))
            total = time.perf_counter() - begin
        outside.append(1 - spent() / total)
    record(kind="share", areas=areas, outside=statistics.median(outside), all=outside)


def compare_engines(folder: Path, areas: str, network: str, weights: str) -> None:
    """Explain all images, twelve of them broken, with both engines, and compare the rows."""
    for broken in sorted(folder.iterdir())[::-25][:12]:
        broken.write_bytes(broken.read_bytes()[:1500])
    parsed_areas = parse_areas(areas)
    tables, seconds = [], {}
    with tempfile.TemporaryDirectory() as out:
        for engine in ("local", "ray"):
            begin = time.perf_counter()
            jobs.run(folder, Path(out) / engine, areas=parsed_areas, network=network, weights=weights, engine=engine)
            seconds[engine] = time.perf_counter() - begin
            tables.append(jobs.table(Path(out) / engine).drop_columns(["seconds"]))
            print(engine, tables[-1].num_rows, round(seconds[engine]), flush=True)
    failed = [table["status"].to_pylist().count("failed") for table in tables]
    same = tables[0].equals(tables[1])
    record(
        kind="both", network=network, areas=areas, rows=tables[0].num_rows, failed=failed, same=same, seconds=seconds
    )


@contextmanager
def network_timer(network: Network) -> Iterator[Callable[[], float]]:
    """Time the network, forward and backward, on a CPU, where nothing runs asynchronously."""
    spent, started_at = [0.0], [0.0]

    def begin(*_: object) -> None:
        started_at[0] = time.perf_counter()

    def end(*_: object) -> None:
        spent[0] += time.perf_counter() - started_at[0]

    model = network.model
    hooks = [
        model.register_forward_pre_hook(begin),
        model.register_forward_hook(end),
        model.register_full_backward_pre_hook(begin),
        model.register_full_backward_hook(end),
    ]
    try:
        yield lambda: spent[0]
    finally:
        for hook in hooks:
            hook.remove()


def measure_memory(folder: Path, areas: str, count: int) -> None:
    """Measure the resident memory of one worker after every hundred images, which repeat under new keys."""
    torch.set_num_threads(1)
    keep_freed_memory()
    worker, items = Worker(make_config(areas, "timm:mobilenetv3_small_050", "random")), find_items([str(folder)])
    megabytes = []
    for start in range(0, count, 4):
        part = [items[(start + k) % len(items)] for k in range(4)]
        unique = [RunItem(f"{start + k}-{item.key}", item.path) for k, item in enumerate(part)]
        worker.explain(worker.prepare(unique))
        if (start + 4) % 100 == 0:
            megabytes.append(get_resident_memory())
            print(start + 4, round(megabytes[-1]), flush=True)
    record(kind="memory", areas=areas, images=count, megabytes=megabytes, growth=megabytes[-1] / megabytes[1] - 1)


def get_resident_memory() -> float:
    """Return the resident memory of this process in MB."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def record(**row: object) -> None:
    """Append a record to the results, and print it."""
    records.append(RESULTS, row)
    print(row, flush=True)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("batch", "engines", "share", "memory", "both"))
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--areas", default="0.025,0.05,0.1,0.2,0.4")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--network", default="embedded", help="of `both`")
    parser.add_argument("--weights", default="")
    parser.add_argument("--cutouts", type=Path, help="of `both`: a third of the pictures are planted scenes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        count = 48 if options.what == "memory" else options.images
        planted = count // 3 if options.cutouts else 0
        folder = write_photographs(Path(name), count - planted)
        if planted:
            write_scenes(folder, options.cutouts, planted)
        if options.what == "memory":
            measure_memory(folder, options.areas, options.images)
        elif options.what == "both":
            compare_engines(folder, options.areas, options.network, options.weights)
        else:
            {"batch": measure_batches, "engines": measure_engines, "share": measure_overhead}[options.what](
                folder, options.areas, options.repeats
            )


if __name__ == "__main__":
    main()
