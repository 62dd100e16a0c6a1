"""Where the time of one `extremal explain` goes, from the start of the process to its end.

Use: python benchmarks/command_time.py [--runs 5] [--image FILE] [OPTION ...]

Each run is a fresh process; further options are passed to `extremal explain`. Prints the median seconds of each stage,
and their share of the whole, and appends them to benchmarks/results/command_time.jsonl; the latest counts.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import skimage.data
from PIL import Image

import records

RESULTS = records.FOLDER / "command_time.jsonl"
STAGES = {  # module and function whose time a stage is, without that of stages inside it
    "torch": ("torch import", "import torch"),
    "extremal.cli.networks.load": ("network", "load its weights"),
    "extremal.explanations.preparation.prepare_run": ("image", "decode and prepare it, hash the weights"),
    "extremal.explanations.preparation.PreparedRun.build_objectives": ("set-up", "first passes, target, checks"),
    "extremal.masking.solvers.consensus.find_start": ("start", "gradients at constant masks"),
    "extremal.masking.solvers.consensus.Consensus._descend": ("descent", "steps of all areas"),
    "extremal.masking.solvers.consensus.choose_fields": ("choice", "candidates of each area"),
    "extremal.masking.solvers.consensus.repair_falls": ("repair", "cut masks, and searches where an effect falls"),
    "extremal.explanations.judge.build_explanation": ("evidence", "cut masks, unseen perturbations, controls"),
    "extremal.report.plots.write_figure": ("figure", "matplotlib"),
    "extremal.report.explanation_page.write": ("report", "the page"),
    "extremal.report.result_files.write_result": ("files", "explanation and masks"),
}
REST = ("rest", "interpreter, other imports, printing, exit")
CHILD = """
import functools, importlib, json, sys, time
begin, path, stages, arguments = json.loads(sys.argv[1])
seconds, open_stages = {}, []
def enter(name):
    open_stages.append([name, time.perf_counter(), 0.0])
def leave():
    name, start, inside = open_stages.pop()
    spent = time.perf_counter() - start
    seconds[name] = seconds.get(name, 0.0) + spent - inside
    if open_stages:
        open_stages[-1][2] += spent
def timed(function, name):
    @functools.wraps(function)
    def run(*args, **options):
        enter(name)
        try:
            result = function(*args, **options)
        finally:
            leave()
        return iterate(result, name) if hasattr(result, "__next__") else result
    return run
def iterate(values, name):
    while True:
        enter(name)
        try:
            value = next(values)
        except StopIteration:
            return
        finally:
            leave()
        yield value
enter("torch import")
import torch
leave()
for name, label in stages:
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            owner = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        break
    for part in parts[cut:-1]:
        owner = getattr(owner, part)
    setattr(owner, parts[-1], original := timed(getattr(owner, parts[-1]), label))
    for module in list(sys.modules.values()):  # that imported the function by name
        if getattr(module, parts[-1], None) is getattr(original, "__wrapped__", None):
            setattr(module, parts[-1], original)
from extremal.cli.main import main
sys.argv = ["extremal", "explain", *arguments]
try:
    main()
except SystemExit as error:
    code = error.code
json.dump({"seconds": seconds, "code": code}, open(path, "w"))
"""


def main() -> None:
    """Time the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--image", type=Path)
    options, passed = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = options.image or folder / "coffee.png"
        if options.image is None:
            Image.fromarray(skimage.data.coffee()).save(image)
        runs = [time_run(image, folder, passed) for _ in range(options.runs)]
    labels = [*dict.fromkeys(label for label, _ in STAGES.values()), REST[0]]
    medians = {label: statistics.median(run.get(label, 0.0) for run in runs) for label in labels}
    whole = statistics.median(run["whole"] for run in runs)
    records.append(RESULTS, {"seconds": medians, "whole": whole, "runs": len(runs), "options": passed})
    print("\n".join(lines()))


def lines() -> list[str]:
    """Return the table for docs/performance.md."""
    text, rows = ["## One command", ""], records.read(RESULTS)
    if not rows:
        return [*text, "Not measured yet: `python benchmarks/command_time.py`.", ""]
    row, words = rows[-1], dict([*STAGES.values(), REST])
    command = " ".join(["extremal explain coffee.png", *row["options"]])
    text += [
        f"`{command}` in a fresh process, from key press to picture: medians of {row['runs']}. The libraries",
        "of figure and report are imported in a separate thread while the network computes.",
        "",
        "| stage | seconds | share |",
        "|---|---|---|",
    ]
    for label, seconds in row["seconds"].items():
        text.append(f"| {label} ({words[label]}) | {seconds:.2f} | {seconds / row['whole']:.0%} |")
    return [*text, f"| **whole command** | {row['whole']:.2f} | |", ""]


def time_run(image: Path, folder: Path, options: list[str]) -> dict[str, float]:
    """Return the seconds of each stage of one command, of the rest, and of the whole."""
    times = folder / "times.json"
    stages = [(name, label) for name, (label, _) in STAGES.items() if name != "torch"]
    begin = time.perf_counter()
    passed = [str(image), "--out", str(folder / "out"), "--force", *options]
    argument = json.dumps([begin, str(times), stages, passed])
    finished = subprocess.run([sys.executable, "-c", CHILD, argument], capture_output=True, text=True, check=False)
    whole = time.perf_counter() - begin
    found = json.loads(times.read_text(encoding="utf-8")) if finished.returncode == 0 else {"code": -1}
    if found["code"]:
        raise SystemExit(f"the command should succeed, it printed: {finished.stderr}")
    seconds: dict[str, float] = found["seconds"]
    return {**seconds, REST[0]: whole - sum(seconds.values()), "whole": whole}


if __name__ == "__main__":
    main()
