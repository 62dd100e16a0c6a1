"""`search` against RISE and Grad-CAM on planted targets, with the network as a black box in onnxruntime.

Use: python benchmarks/black_box.py --cutouts STAMPS [--targets 40] [--methods search-500,rise-500,...] [--table]

Masks and maps are cut to the same exact areas and judged alike (`extremal.judge`); maps point as in `extremal bench`.
One JSON line a target and method goes to benchmarks/results/black_box.jsonl as soon as it is measured; what stands
there is not measured again. RISE asks about both objects of a scene at once, and counts its evaluations for each. The
table goes to docs/black_box.md. STAMPS: see solvers.py. Needs onnx and onnxruntime.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import extremal
import records
from extremal import Explanation, explain, judge, zoo
from extremal.benchmark import metrics
from extremal.benchmark.baselines import GradCam, Rise
from extremal.benchmark.baselines.ours import SALIENCY_SMOOTH
from extremal.benchmark.data import FieldsOfView, Scenes
from extremal.explanations.verdict import MIN_SPAN
from extremal.masking import area
from extremal.masking.solvers import Search
from extremal.networks.network import Network
from performance import DOCS, format_interval

AREAS = (0.05, 0.1, 0.2, 0.4)
RESULTS, PAGE = records.FOLDER / "black_box.jsonl", DOCS / "black_box.md"
SEARCHES = {"search-500": Search(evaluations=500), "search-2000": Search(evaluations=2000)}
RISES = {"rise-500": Rise(masks=500), "rise-2000": Rise(masks=2000)}
METHODS = ("grad-cam", *RISES, *SEARCHES)
TOLERANCE = metrics.pointing.POINTING_TOLERANCE


class OnnxModule(nn.Module):
    """An ONNX session as a module, without a gradient."""

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores (B, classes) of inputs (B, C, H, W)."""
        (scores,) = self._session.run(None, {"x": x.detach().contiguous().numpy()})
        return torch.from_numpy(scores)


def export_network(network: Network, folder: Path, threads: int) -> Network:
    """Return a network in onnxruntime, with the same preprocessing."""
    path, axes = folder / "network.onnx", {name: {0: "batch"} for name in ("x", "y")}
    with network.frozen():
        torch.onnx.export(
            *(network.model, (network.example_input(224),), path),
            input_names=["x"],
            output_names=["y"],
            dynamic_axes=axes,
            dynamo=False,
        )
    return Network(
        OnnxModule(path, threads),
        preprocess=network.preprocess,
        labels=network.labels,
        name="embedded in onnxruntime",
        mean=network.mean,
        std=network.std,
        mirror=network.mirror,
        gradient=False,
    )


@contextmanager
def exported_network() -> Iterator[tuple[Network, Network, Path]]:
    """Yield the embedded network on one thread, the same in onnxruntime, and the folder of `network.onnx`."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    network = zoo.load("embedded")
    with tempfile.TemporaryDirectory() as folder:
        yield network, export_network(network, Path(folder), torch.get_num_threads()), Path(folder)


def main() -> None:
    """Measure the targets that are missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=Path)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--targets", type=int, default=40)
    parser.add_argument("--maps", type=Path, help="a folder in which maps of RISE are kept")
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args()
    if not options.table:
        with exported_network() as (network, box, _):
            measure_all(network, box, Scenes(options.cutouts, count=options.targets // 2), options)
    write_table()


def measure_all(network: Network, box: Network, scenes: Scenes, options: argparse.Namespace) -> None:
    """Measure every method on both objects of every scene."""
    fields = FieldsOfView(network)
    for method in options.methods.split(","):
        for seed in range(options.targets // 2):
            done = {(row["target"], row["method"]) for row in records.read(RESULTS)}
            picture, objects = scenes.scene(seed)
            names = [f"scene {seed}: {label}" for label in objects]
            if all((name, method) in done for name in names):
                continue
            x, field = network.prepare(picture), fields.get((picture.height, picture.width))
            classes = [network.index(label) for label in objects]
            begin = time.perf_counter()
            maps = find_maps(method, network, box, x, classes, options.maps, seed)
            for k, (name, region) in enumerate(zip(names, objects.values(), strict=True)):
                if (name, method) in done:
                    continue
                if method in SEARCHES:
                    begin = time.perf_counter()
                    result = explain(box, x, classes[k], areas=AREAS, solver=SEARCHES[method])
                    values, cost = result.saliency(SALIENCY_SMOOTH), result.settings["evaluations"]["forwards"]
                else:
                    values, cost = maps[0][k : k + 1], maps[1]
                    result = judge_map(box, x, values, classes[k])
                truth = torch.from_numpy(np.ascontiguousarray(field.region(region)))[None]
                curve = result.curve()
                row = {
                    "target": name,
                    "method": method,
                    "seconds": round(time.perf_counter() - begin, 2),
                    "evaluations": cost,
                    "span": round(float(result.score_full[0] - result.score_blank[0]), 4),
                    "binary": [round(value, 4) for value in curve.binary],
                    "unseen": [round(value, 4) for value in curve.unseen],
                    "hit": float(metrics.pointing_game(values, truth, torch.tensor([field.tolerance(TOLERANCE)]))),
                    "version": extremal.__version__,
                }
                records.append(RESULTS, row)
                print(
                    f"{name:28s} {method:12s} {row['seconds']:6.1f} s  {row['binary']} hit {row['hit']:g}", flush=True
                )


def judge_map(network: Network, x: Tensor, values: Tensor, index: int) -> Explanation:
    """Judge a map (1, 1, H, W), cut to the areas."""
    columns = values.unsqueeze(1).expand(-1, len(AREAS), -1, -1, -1)
    return judge(network, x, area.cut(columns, AREAS), index, areas=AREAS)


def find_maps(
    method: str, network: Network, box: Network, x: Tensor, classes: list[int], folder: Path | None, seed: int
) -> tuple[Tensor, int]:
    """Return a rival's maps of one input for several classes, and the evaluations; of RISE the stored maps, if any."""
    if method in SEARCHES:
        return x, 0
    inputs = x.expand(len(classes), -1, -1, -1).contiguous()
    if method == "grad-cam":
        maps = GradCam()(network, inputs, classes)
        return maps.values, maps.evaluations // len(classes)
    path = None if folder is None else folder / f"{method}-{seed}.pt"
    if path is not None and path.exists():
        values, evaluations = torch.load(path, weights_only=True)
        return values, evaluations
    maps = RISES[method](box, inputs, classes)
    return maps.values, maps.evaluations


def write_table() -> None:
    """Write one table for the methods that have all targets, and one for all methods on the targets that all have."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in records.read(RESULTS):
        if row["span"] >= MIN_SPAN:
            found.setdefault(row["method"], {})[row["target"]] = row
    most = max(map(len, found.values()))
    complete = [method for method in METHODS if len(found.get(method, ())) == most]
    measured = [method for method in METHODS if method in found]
    lines = format_tables(found, complete)
    if measured != complete:
        lines += ["", *format_tables(found, measured)]
    records.write_table(PAGE, "search", lines)
    print("\n".join(lines))


def format_tables(found: dict[str, dict[str, dict[str, Any]]], methods: list[str]) -> list[str]:
    """Format medians over the targets that these methods have, and how often `search` is above each of them."""
    names = sorted(set.intersection(*(set(found[method]) for method in methods)))
    searches = [name for name in SEARCHES if name in methods]
    lines = []
    for kind, title in (("binary", "ways of the run (mixed)"), ("unseen", "unseen perturbations")):
        header = f"| {len(names)} targets: effect at the exact area, {title} | evaluations | "
        lines += [header + " | ".join(f"{a:.0%}" for a in AREAS) + " |", "|---|---:|" + "---:|" * len(AREAS)]
        for method in methods:
            values = np.array([found[method][name][kind] for name in names])
            cost = np.median([found[method][name]["evaluations"] for name in names])
            cells = [format_interval(values[:, k]) for k in range(len(AREAS))]
            lines.append(f"| {method} | {cost:.0f} | {' | '.join(cells)} |")
        lines.append("")
    lines.append("| method | points at its object | " + " | ".join(f"below {name}" for name in searches) + " |")
    lines.append("|---|---:|" + "---:|" * len(searches))
    for method in methods:
        hits = format_interval(np.array([found[method][name]["hit"] for name in names]), np.mean)
        cells = [_count_wins(found, names, search, method) for search in searches]
        lines.append(f"| {method} | {hits} | {' | '.join(cells)} |")
    return lines


def _count_wins(found: dict[str, dict[str, dict[str, Any]]], names: list[str], search: str, method: str) -> str:
    """Return the share of targets on which a search's mean effect over areas is above a method's, of both kinds."""
    if search not in found or method == search:
        return "·"
    cells = []
    for kind in ("binary", "unseen"):
        ours, theirs = (np.array([np.mean(found[which][name][kind]) for name in names]) for which in (search, method))
        cells.append(f"{np.mean(ours > theirs):.0%}")
    return " / ".join(cells)


if __name__ == "__main__":
    main()
