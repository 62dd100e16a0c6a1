"""Load test of the app: many users at once, each served in turn, while the page stays fast and memory bounded.

Use: python benchmarks/crowd.py [--users 20] [--seconds 120]

Each user does over HTTP what the page does: opens it, uploads an image, has it classified, requests an explanation of
one area and follows it to its end; then again, in a new session. Users who are in the queue when the time is up are
still served. Meanwhile the page and one of its files are requested twice a second.
Each run is appended to benchmarks/results/crowd.jsonl. The exit code is 1 if a promise is broken: no errors, requests
served in order, the page within 300 ms in 95 % of all cases, memory that does not grow.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import torch

import records

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.app_client import serve_app
from support.app_load import MEMORY_INTERVAL, run_users, summarise

RESULTS = records.FOLDER / "crowd.jsonl"
MAX_PAGE_MS = 300.0  # of the 95th percentile
MAX_MEMORY_GROWTH = 1.15  # factor since the warm-up


def broken_promises(row: dict[str, Any]) -> list[str]:
    """Return the promises that a run has broken, as text."""
    memory = row["memory"]
    warm = memory[min(2, len(memory) - 1)]  # after a minute
    promises = {
        f"{len(row['errors'])} errors": not row["errors"],
        f"{row['users'] - row['served']} users without a result": row["served"] == row["users"],
        f"{row['overtaken']} requests overtaken": row["overtaken"] == 0,
        f"the page takes {row['ms']['page']['p95']} ms": row["ms"]["page"]["p95"] <= MAX_PAGE_MS,
        f"memory grew from {warm} to {memory[-1]} MB": memory[-1] <= MAX_MEMORY_GROWTH * warm,
    }
    return [name for name, is_kept in promises.items() if not is_kept]


def print_row(row: dict[str, Any]) -> None:
    """Print a run as a table."""
    print(f"{row['users']} users, {row['answers']} results, {len(row['errors'])} errors, {row['overtaken']} overtaken")
    print(f"{'ms':8s}{'p50':>8s}{'p95':>8s}{'max':>8s}")
    for name, values in row["ms"].items():
        print(f"{name:8s}" + "".join(f"{values[key]:8.0f}" for key in ("p50", "p95", "max")))
    print(f"from request to result, s: {row['wait']} (median, maximum); running time: {row['run']}")
    print(f"memory, MB, every {MEMORY_INTERVAL:g} s: {row['memory']}")
    for error in row["errors"][:10]:
        print(error)


def main() -> None:
    """Run the load test, and print and record its measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with serve_app() as (address, process):
        measurements = asyncio.run(run_users(address, process, options.users, options.seconds))
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    run = {"users": options.users, "seconds": options.seconds, "threads": threads, "load": round(load, 1)}
    row = {**run, **summarise(measurements)}
    records.append(RESULTS, {**row, "torch": torch.__version__})
    print_row(row)
    if broken := broken_promises(row):
        sys.exit("; ".join(broken))


if __name__ == "__main__":
    main()
