"""Check that a data-set run whose workers and driver are killed at random moments yields the same table.

Use: python benchmarks/chaos.py [--kills 20] [--images 48] [--seed 0] [--network embedded] [--areas 0.1]
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import records
from extremal import jobs
from throughput import write_photographs

RESULTS = records.FOLDER / "chaos.jsonl"


def main() -> None:
    """Run with and without kills, and compare the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", default="embedded")
    parser.add_argument("--areas", default="0.1")
    options = parser.parse_args()
    draw, killed = random.Random(options.seed), {"worker": 0, "driver": 0}
    with tempfile.TemporaryDirectory() as name:
        folder, once, often = Path(name, "pictures"), Path(name, "once"), Path(name, "often")
        write_photographs(folder, options.images)
        for broken in list(folder.iterdir())[:2]:
            broken.write_bytes(broken.read_bytes()[:1000])
        begin = time.monotonic()
        subprocess.run(build_command(options, folder, once), check=True, capture_output=True)
        duration = time.monotonic() - begin
        print(f"undisturbed: {len(find_parts(once))} parts in {duration:.0f} s", flush=True)
        while sum(killed.values()) < options.kills:
            disturb(options, folder, often, draw, killed, duration)
        subprocess.run(build_command(options, folder, often), check=True, capture_output=True)
        tables = [jobs.table(out).drop_columns(["seconds"]) for out in (once, often)]
        keys = tables[1]["key"].to_pylist()
        if len(set(keys)) != len(keys) or not tables[0].equals(tables[1]):
            raise SystemExit(f"the tables differ: {tables[0].num_rows} rows, and {tables[1].num_rows} after {killed}")
        print(f"{len(keys)} equal rows after {killed['worker']} workers and {killed['driver']} drivers were killed")
        records.append(RESULTS, {"kind": "killed", **killed, "images": options.images, "rows": len(keys), "same": True})


def disturb(
    options: argparse.Namespace, folder: Path, out: Path, draw: random.Random, killed: dict[str, int], duration: float
) -> None:
    """Start the run, and kill a worker or the driver at a random moment."""
    child = subprocess.Popen(build_command(options, folder, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ready = len(find_parts(out))
    while (
        child.poll() is None and len(find_parts(out)) == ready and sum(killed.values()) % 3
    ):  # some are killed before a part is written
        time.sleep(0.02)
    while child.poll() is None and sum(killed.values()) < options.kills:
        time.sleep(draw.uniform(0, 1.5 * duration / options.kills))
        workers = find_workers(child.pid)
        if workers and draw.random() < 0.6:
            os.kill(draw.choice(workers), signal.SIGKILL)
            killed["worker"] += 1
            print(f"worker killed, {len(find_parts(out))} parts written", flush=True)
        elif child.poll() is None:
            child.kill()
            killed["driver"] += 1
            print(f"driver killed, {len(find_parts(out))} parts written", flush=True)
            break
    child.wait()
    if child.returncode == 0 and sum(killed.values()) < options.kills:
        raise SystemExit(f"finished after {killed}: more --images, or another --seed")


def build_command(options: argparse.Namespace, folder: Path, out: Path) -> list[str]:
    """Return the command of the run; two images per unit, so that kills hit many units."""
    program = str(Path(sys.executable).with_name("extremal"))
    arguments = ["--areas", options.areas, "--network", options.network, "--batch", "2", "--workers", "2"]
    return [program, "run", str(folder), *arguments, "--out", str(out)]


def find_parts(out: Path) -> list[Path]:
    """Return the parts that are written."""
    return list((out / "parts").glob("0*.parquet"))


def find_workers(pid: int) -> list[int]:
    """Return the worker processes of a driver."""
    workers = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in map(int, task.read_text().split()):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    workers.append(child)
        except OSError:  # one of them has ended
            continue
    return workers


if __name__ == "__main__":
    main()
