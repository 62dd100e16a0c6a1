"""ReX, another search for sufficient regions, next to `consensus`, `search`, Grad-CAM and contrastive excitation.

Use: python benchmarks/rex.py --rex ENVIRONMENT/bin/ReX --images FOLDER [--count 12] [--table]

ReX (`pip install rex-xai==0.4.1`, in an environment of its own) runs by its command with its default settings, on the
ONNX export of the network and on the picture as the network sees it. It explains the class that the network finds; all
methods are asked about it. Its map of responsibility is cut to the same exact areas as the others' maps, and judged
alike (`extremal.judge`); its own region is judged at its own area. FOLDER is that of `evaluation.py`. One JSON line a
picture goes to benchmarks/results/rex.jsonl; what stands there is not measured again. The table goes to
docs/comparison.md.
"""

import argparse
import os
import sqlite3
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import records
from black_box import AREAS, exported_network, judge_map
from extremal import Explanation, explain, judge
from extremal.benchmark.baselines import METHODS
from extremal.explanations.verdict import MIN_SPAN
from extremal.masking.solvers import Search
from extremal.networks.network import Network
from performance import DOCS, format_interval

RESULTS, PAGE = records.FOLDER / "rex.jsonl", DOCS / "comparison.md"
RIVALS = ("grad-cam", "contrastive-excitation")
MIN_PROBABILITY = 0.5  # of the class that a picture is recognised as
CONFIG = """
[rex]
gpu = false
seed = 0
[rex.onnx]
means = {mean}
stds = {std}
norm = 255.0
"""


def main() -> None:
    """Measure the pictures that are missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rex", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args()
    if not options.table:
        with exported_network() as (network, box, folder):
            measure_all(options, network, box, folder)
    write_table()


def measure_all(options: argparse.Namespace, network: Network, box: Network, folder: Path) -> None:
    """Measure all methods on the first pictures, photographs and cut-outs in turn, that the network recognises."""
    (folder / "rex.toml").write_text(CONFIG.format(mean=list(network.mean or ()), std=list(network.std or ())))
    done = {row["picture"] for row in records.read(RESULTS)}
    by_kind = [sorted(kind.glob("*.png")) for kind in sorted(options.images.iterdir(), reverse=True)]
    turns = sorted(((number, path) for paths in by_kind for number, path in enumerate(paths)), key=lambda turn: turn[0])
    n_measured = 0
    for _, path in turns:
        x = network.prepare(Image.open(path).convert("RGB"))
        with network.frozen() as run, torch.no_grad():
            probability, index = run(x).softmax(1)[0].max(0)
        if float(probability) < MIN_PROBABILITY:
            continue
        n_measured += 1
        if n_measured > options.count:
            return
        if path.stem not in done:
            measure(path.stem, x, int(index), network, box, options.rex, folder)


def measure(name: str, x: Tensor, index: int, network: Network, box: Network, rex: Path, folder: Path) -> None:
    """Measure all methods on one picture, and write a row."""
    row: dict[str, Any] = {"picture": name, "class": network.label(index), "methods": {}}
    found = run_rex(x, network, rex, folder)
    if found["target"] != index:
        raise SystemExit(f"ReX sees another class in {name}: {network.label(found['target'])}")
    judged = judge_map(network, x, found["map"][None, None], index)
    row["span"] = round(float(judged.score_full[0] - judged.score_blank[0]), 4)
    row["methods"]["ReX"] = format_scores(judged, found["evaluations"], found["seconds"])
    own_area = float(found["region"].mean())
    own = judge(network, x, found["region"][None, None, None], index, areas=(own_area,))
    curve = own.curve()
    row["region"] = {
        "area": round(own_area, 4),
        "probability": round(found["probability"], 4),
        "binary": round(curve.binary[0], 4),
        "unseen": round(curve.unseen[0], 4),
        "verdict": str(own.verdict[0][0]),
    }
    for method in RIVALS:
        begin = time.perf_counter()
        maps = METHODS[method](network, x, [index])
        seconds = time.perf_counter() - begin
        judged = judge_map(network, x, maps.values, index)
        row["methods"][method] = format_scores(judged, maps.evaluations, seconds)
    for method, asked, solver in (("consensus", network, "consensus"), ("search-500", box, Search(evaluations=500))):
        begin = time.perf_counter()
        result = explain(asked, x, index, areas=AREAS, solver=solver)
        counts = result.settings["evaluations"]
        row["methods"][method] = format_scores(result, sum(counts.values()), time.perf_counter() - begin)
    records.append(RESULTS, row)
    print(name, row["class"], {method: values["unseen"] for method, values in row["methods"].items()}, row["region"])


def run_rex(x: Tensor, network: Network, rex: Path, folder: Path) -> dict[str, Any]:
    """Run ReX on a prepared picture; return its map (H, W), its region (H, W), and their cost."""
    Image.fromarray(network.to_images_or_empty(x)[0].numpy()).save(folder / "picture.png")
    (folder / "rex.db").unlink(missing_ok=True)
    command = [rex.resolve(), "picture.png", "-c", "rex.toml", "--model", "network.onnx", "--database", "rex.db", "-q"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=folder, capture_output=True, env=environment)
    names = ("target", "confidence", "time", "total_work", "responsibility", "sufficiency_mask")
    with sqlite3.connect(folder / "rex.db") as database:
        values = dict(zip(names, database.execute(f"select {', '.join(names)} from rex").fetchone(), strict=True))
    shape = tuple(x.shape[2:])
    region = np.frombuffer(zlib.decompress(values["sufficiency_mask"]), bool).reshape(-1, *shape).any(0)
    responsibility = np.frombuffer(zlib.decompress(values["responsibility"]), np.float32).reshape(shape)
    return {
        "target": values["target"],
        "map": torch.from_numpy(responsibility.copy()),
        "region": torch.from_numpy(region.astype(np.float32)),
        "evaluations": values["total_work"],
        "seconds": values["time"],
        "probability": values["confidence"],
    }


def format_scores(judged: Explanation, evaluations: float, seconds: float) -> dict[str, Any]:
    """Return the effects of masks at the areas, and what they cost."""
    curve = judged.curve()
    return {
        "evaluations": evaluations,
        "seconds": round(seconds, 2),
        "binary": [round(value, 4) for value in curve.binary],
        "unseen": [round(value, 4) for value in curve.unseen],
    }


def write_table() -> None:
    """Write the medians over the pictures into the page."""
    rows = [row for row in records.read(RESULTS) if row["span"] >= MIN_SPAN]
    lines = [f"| {len(rows)} pictures | evaluations | seconds | " + " | ".join(f"{a:.0%}" for a in AREAS) + " |"]
    lines.append("|---|---:|---:|" + "---:|" * len(AREAS))
    for method in ("consensus", "search-500", "ReX", "contrastive-excitation", "grad-cam"):
        values = [row["methods"][method] for row in rows]
        cost, seconds = (np.median([value[name] for value in values]) for name in ("evaluations", "seconds"))
        cells = [format_interval(np.array([value["unseen"][k] for value in values])) for k in range(len(AREAS))]
        lines.append(f"| {method} | {cost:.0f} | {seconds:.1f} | {' | '.join(cells)} |")
    records.write_table(PAGE, "rex", lines)
    regions = [row["region"] for row in rows]
    print("\n".join(lines))
    for name in ("area", "binary", "unseen"):
        print("ReX's own regions,", name, format_interval(np.array([region[name] for region in regions])))
    print("verdicts:", *sorted(str(region["verdict"]) for region in regions))


if __name__ == "__main__":
    main()
