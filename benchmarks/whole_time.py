"""Time of whole explanations with their evidence, by effort, next to the paper's package and to an earlier version.

Use: python benchmarks/whole_time.py [--reference PYTHON] [--before SRC] [--repeats 5] [--areas 0.025,0.05,0.1,0.2,0.4]

Everything is measured in turns in one run; medians count. `network alone` is what the same passes, recorded in an
explanation of the same images, take with nothing around them. SRC is the `src` folder of an earlier checkout, whose
default is timed in a process of its own. The package's time is that of 40 of its 800 steps, times twenty, without any
evidence. Each run is appended to benchmarks/results/whole_time.jsonl; the latest of each network and number of areas
counts.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from torch import Tensor

import extremal
import records
from extremal import keep_freed_memory, zoo
from extremal.explanations.effort import EFFORTS
from extremal.networks.network import Network
from passes import record_passes, time_passes
from timing import machine, make_batch, time_reference

RESULTS = records.FOLDER / "whole_time.jsonl"
BEFORE = """
import sys, time
import numpy as np, torch
import extremal
x, areas = torch.from_numpy(np.load(sys.argv[1])), [float(area) for area in sys.argv[2].split(",")]
extremal.keep_freed_memory()
network = extremal.zoo.load("embedded")
extremal.explain(network, x, areas=areas)
begin = time.perf_counter()
extremal.explain(network, x, areas=areas)
print((time.perf_counter() - begin) / len(x))
"""


def time_explanation(network: Network, x: Tensor, areas: tuple[float, ...], effort: str) -> float:
    """Return seconds per image of one call of `explain`, after one that is not counted, as for other versions."""
    extremal.explain(network, x, areas=areas, effort=effort)
    start = perf_counter()
    extremal.explain(network, x, areas=areas, effort=effort)
    return (perf_counter() - start) / len(x)


def time_before(source: Path, x: Tensor, areas: tuple[float, ...]) -> float:
    """Return seconds per image of the default of another version, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    with TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npy"
        np.save(inputs, x.numpy())
        command = [sys.executable, "-c", BEFORE, str(inputs), ",".join(map(str, areas))]
        return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main() -> None:
    """Measure all in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--areas", default="0.025,0.05,0.1,0.2,0.4")
    options = parser.parse_args()
    keep_freed_memory()
    areas, network = tuple(map(float, options.areas.split(","))), zoo.load("embedded")
    one = make_batch(network, 1)
    kinds: dict[str, Callable[[], float]] = {}
    for count in map(int, options.batches.split(",")):
        x = make_batch(network, count)
        for effort in EFFORTS if count == 1 else ("normal",):
            kinds[f"{effort} {count}"] = lambda x=x, effort=effort: time_explanation(network, x, areas, effort)
            passes = record_passes(
                network, lambda x=x, effort=effort: extremal.explain(network, x, areas=areas, effort=effort)
            )
            kinds[f"network alone, {effort} {count}"] = lambda x=x, passes=passes: time_passes(network, x, passes)
        if options.before:
            kinds[f"before {count}"] = lambda x=x: time_before(options.before.resolve(), x, areas)
    if options.reference:
        kinds["reference"] = lambda: time_reference(options.reference, "embedded", one, keep_freed=False)
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(options.repeats):
        for kind, measure in kinds.items():
            seconds[kind].append(measure())
            print(kind, f"{seconds[kind][-1]:.2f}", flush=True)
    middle = {kind: statistics.median(values) for kind, values in seconds.items()}
    records.append(
        RESULTS, {"network": "embedded", "areas": len(areas), "seconds": middle, "all": seconds, "machine": machine()}
    )


def lines() -> list[str]:
    """Return the table for docs/performance.md."""
    latest = {(row["network"], row["areas"]): row for row in records.read(RESULTS)}
    text = ["## Whole explanations", ""]
    if not latest:
        return [*text, "Not measured yet: `python benchmarks/whole_time.py`.", ""]
    text += [
        "Seconds per image of `extremal.explain` with `consensus` and its evidence: medians, measured alternately, "
        "each after a run",
        'that is not counted. "In the network" is the share of this time that the same passes at the same sizes take '
        "alone; near",
        "100 %, the rest takes less time than measurements differ by. The earlier version is the last one without "
        "`effort`. The",
        "paper's package collects no evidence.",
        f"Measured {', '.join(sorted({row['day'] for row in latest.values()}))}.",
        "",
        "| areas | effort, batch | seconds | in the network | earlier version | package as published | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for (_, areas), row in sorted(latest.items()):
        seconds: dict[str, Any] = row["seconds"]
        for kind, own in seconds.items():
            effort, _, count = kind.partition(" ")
            if effort not in EFFORTS:
                continue
            before = seconds.get(f"before {count}") if effort == "normal" else None
            reference = seconds.get("reference")
            cells = [str(areas), f"`{effort}`, {count}", f"{own:.2f}"]
            cells += [f"{seconds[f'network alone, {kind}'] / own:.0%}", f"{before:.2f}" if before else "–"]
            cells += [f"{reference:.0f}", f"{reference / own:.0f}×"] if reference else ["–", "–"]
            text.append(f"| {' | '.join(cells)} |")
    return [*text, ""]


if __name__ == "__main__":
    main()
