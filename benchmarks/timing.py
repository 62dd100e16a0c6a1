"""Cost of a run at four areas: seconds per image next to the paper's package, overhead over the network, memory.

Use: python benchmarks/timing.py [--reference PYTHON] [--repeats 3] [--solver consensus]

A solver is timed with its set-up and without evidence, for the package gathers none. The package's time is that of 40
of its 800 steps, times twenty: every step costs the same. It is timed as published, and with its memory kept as ours is
(glibc's settings of `keep_freed_memory`). The network's own share is what the same passes, recorded, take with nothing
around them. Single steps are those of `path`.
Each run is appended to benchmarks/results/timing.jsonl; the latest of each kind counts.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor

import records
from extremal import keep_freed_memory, zoo
from extremal.explanations.build_objective import build_objective, build_problem
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.preparation import prepare_run
from extremal.explanations.settings import Settings
from extremal.masking.domain import evaluate_masks
from extremal.masking.level_set import LevelSet
from extremal.masking.solvers import Problem
from extremal.masking.solvers.path import Descent
from extremal.networks.network import Network
from extremal.scores.class_query import ClassQuery
from extremal.scores.classes import margin
from parity import ask_reference
from passes import record_passes, run_passes, time_passes

AREAS = (0.025, 0.05, 0.1, 0.2)
SWEEPS = {
    "consensus": Settings(areas=AREAS),
    "path": Settings(areas=AREAS, solver="path", perturbation="blur"),
}
RESULTS = records.FOLDER / "timing.jsonl"
PART = 40  # steps of the package that are timed


def machine() -> str:
    """Describe processor, threads and versions."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].split(":")[1].strip() if names else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def make_batch(network: Network, count: int, size: int = 224) -> Tensor:
    """Return crops of photographs: (count, 3, size, size)."""
    pictures = [skimage.data.chelsea(), skimage.data.coffee(), skimage.data.rocket(), skimage.data.astronaut()]
    wide = [Image.fromarray(p).resize((size, size), Image.Resampling.BICUBIC) for p in pictures]
    pixels = [torch.from_numpy(np.array(p)).movedim(-1, 0) / 127.5 - 1 for p in wide]
    return torch.stack([pixels[k % len(pixels)] for k in range(count)])


def time_sweep(network: Network, x: Tensor, settings: Settings) -> float:
    """Return seconds per image of one run of a solver, its set-up included, without evidence."""
    start_time = time.perf_counter()
    prepared = prepare_run(network, x, None, settings)
    with prepared.net.frozen(settings.seed) as run:
        for batch, objective, _ in prepared.build_objectives(run, settings):
            reward = ChunkedReward(objective, batch.max_rows)
            problem = build_problem(reward, objective, prepared.mirror, settings.seed)
            settings.solver.solve(problem, settings.areas, None)
    return (time.perf_counter() - start_time) / len(x)


def time_steps(network: Network, x: Tensor, times: int = 15) -> dict[str, float]:
    """Return median seconds of a step of the sweep, of its network pass, and of its masks, measured in turns."""
    shape, seconds = tuple(x.shape[2:]), {"step": [0.0], "alone": [0.0], "masks": [0.0]}
    with network.frozen() as run:
        run.accelerate(x)
        most = run.max_batch_size(x)
        objective = build_objective(run, x, ClassQuery(None, margin), Settings(perturbation="blur"))
        problem = Problem(ChunkedReward(objective, most), len(x), objective.domain, True, x.dtype, x.device)
        lattice = LevelSet(shape)
        start = torch.randn(len(x), 1, 1, *lattice.parameter_shape, generator=torch.Generator().manual_seed(0))
        descent = Descent(problem, lattice, start, 0.1)

        def masks() -> object:
            """Run mask, area and perturbation forward and backward."""
            inputs = objective.ways.perturb(evaluate_masks(lattice, descent.parameters, (0.1,), 0.15), 0)
            return torch.autograd.grad(inputs, descent.parameters, torch.ones_like(inputs))

        works: dict[str, Callable[[], object]] = {
            "masks": masks,
            "step": lambda: descent.step((0.1,), 0.15),
            "alone": lambda: run_passes(run, x, 1, 1, most),
        }
        for index in range(times + 1):
            for name, work in works.items():
                start_time = time.perf_counter()
                work()
                if index:  # the first is warm-up
                    seconds[name].append(time.perf_counter() - start_time)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def time_reference(python: str, network: str, x: Tensor, keep_freed: bool) -> float:
    """Return seconds per image of the paper's package, all areas in one batch, 800 steps."""
    task = {"input": x[:1].numpy(), "target": 282, "areas": AREAS, "steps": PART, "network": network}
    answer = ask_reference(python, keep_freed=keep_freed, **task)
    return float(answer["seconds"]) * 800 / PART


def measure_peak_memory(size: int, solver: str) -> float:
    """Return the peak memory in MB of a process that explains one image of size × size, without evidence."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import timing; from extremal import zoo\n"
        "timing.keep_freed_memory()\n"
        f"net = zoo.load('embedded'); x = timing.make_batch(net, 1, {size})\n"
        f"print(timing.time_sweep(net, x, timing.SWEEPS[{solver!r}]), timing.max_resident_memory())\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent)]
    seconds, memory = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    record(kind="memory", network="embedded", solver=solver, size=size, megabytes=memory, seconds=seconds)
    return memory


def max_resident_memory() -> float:
    """Return the peak memory of this process in MB (getrusage would include that of its parent)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def record(**row: Any) -> None:
    """Append one row."""
    records.append(RESULTS, {**row, "machine": machine()})
    print(row, flush=True)


def main() -> None:
    """Measure all kinds in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference")
    parser.add_argument("--repeats", type=int, default=3, help="of whole runs; 0: only single steps")
    parser.add_argument("--networks", default="embedded,resnet50")
    parser.add_argument("--solver", default="consensus", choices=SWEEPS)
    parser.add_argument("--sizes", default="224,512,1024", help="px of the memory measurements")
    parser.add_argument("--batches", default="1,8")
    options = parser.parse_args()
    keep_freed_memory()
    solver, settings = options.solver, SWEEPS[options.solver]
    for name in filter(None, options.networks.split(",")):
        network = zoo.load("embedded") if name == "embedded" else zoo.load("torchvision:resnet50", "random")
        one = make_batch(network, 1)
        gradients = 0
        kinds: dict[str, Callable[[], float]] = {}
        for count in map(int, options.batches.split(",")):
            x = make_batch(network, count)
            kinds[f"{solver} {count}"] = partial(time_sweep, network, x, settings)
            passes = record_passes(network, kinds[f"{solver} {count}"])
            gradients = sum(found.rows for found in passes if found.has_backward) // count
            kinds[f"network {count}"] = partial(time_passes, network, x, passes)
        if options.reference:
            for kind, keep in (("reference", False), ("reference, memory kept", True)):
                kinds[kind] = partial(time_reference, options.reference, name, one, keep)
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(options.repeats):
            for kind, measure in kinds.items():
                seconds[kind].append(measure())
                print(name, kind, f"{seconds[kind][-1]:.2f}", flush=True)
        if options.repeats:
            middle = {kind: statistics.median(values) for kind, values in seconds.items()}
            record(kind="time", network=name, solver=solver, passes=gradients, seconds=middle, all=seconds)
        for count in map(int, options.batches.split(",")):
            record(kind="step", network=name, batch=count, **time_steps(network, make_batch(network, count)))
    for size in filter(None, options.sizes.split(",")):
        measure_peak_memory(int(size), solver)


def lines() -> list[str]:
    """Return the tables for docs/performance.md."""
    rows = records.read(RESULTS)
    latest = {
        (row["kind"], row.get("solver", "path"), row["network"], row.get("size", row.get("batch"))): row for row in rows
    }
    text = ["### Time of a four-area sweep, seconds per image (medians, measured alternately)", ""]
    text += [
        "Without evidence; passes are those with a gradient. The network alone takes all passes, with the set-up.",
        "",
        "| network | solver | passes | seconds | in the network | package as published | ratio | "
        "with freed memory kept | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (kind, solver, network, _), row in sorted(latest.items(), key=lambda item: item[0][:2]):
        if kind == "time":
            seconds, batches = row["seconds"], [name for name in row["seconds"] if name.startswith(solver)]
            for name in batches:
                own, alone = seconds[name], seconds[name.replace(solver, "network")]
                cells = [f"{network}, batch {name.removeprefix(solver).strip()}", f"`{solver}`", row["passes"]]
                cells += [f"{own:.2f}", f"{alone / own:.0%}"]
                for other in (seconds.get("reference"), seconds.get("reference, memory kept")):
                    cells += [f"{other:.0f}", f"{other / own:.0f}×"] if other else ["–", "–"]
                text.append(f"| {' | '.join(map(str, cells))} |")
    text += ["", "### A step of `path` compared with the network's own pass", ""]
    text += ["| network, batch | ms | network alone | mask, area and perturbation |"]
    text += ["|---|---|---|---|"]
    for (kind, _, network, batch), row in latest.items():
        if kind == "step":
            step, alone = 1e3 * row["step"], 1e3 * row["alone"]
            masks = f"{1e3 * row['masks']:.1f} ({row['masks'] / row['step']:.0%})" if "masks" in row else "–"
            text.append(f"| {network}, {batch} | {step:.1f} | {alone:.1f} | {masks} |")
    text += [
        "",
        "### Size of the image (embedded network, one image, four areas)",
        "",
        "| solver | px | seconds | peak memory, MB |",
        "|---|---|---|---|",
    ]
    for (kind, solver, _, size), row in sorted(latest.items(), key=lambda item: (item[0][1], item[0][3] or 0)):
        if kind == "memory":
            seconds = f"{row['seconds']:.1f}" if row["seconds"] else "not timed"  # where other work ran beside it
            text.append(f"| `{solver}` | {size} | {seconds} | {row['megabytes']:.0f} |")
    return [*text, ""]


if __name__ == "__main__":
    main()
