"""Quality of masks: `path`, `penalty`, the paper's package, Grad-CAM and RISE on the same targets.

Where they lie is measured by `extremal bench pointing` (`evaluation.py`).

Use: python benchmarks/solvers.py --cutouts STAMPS [--reference PYTHON] [--methods path,grad-cam,...] [--targets 40]

Every method's masks are cut to the same exact areas and judged alike (`extremal.judge`). One JSON line a target and
method goes to benchmarks/results/quality.jsonl as soon as it is measured; what stands there is not measured again, so
a run may be stopped and called again. `performance.py` makes the tables. STAMPS: a folder of cut-outs as
`extremal.benchmark.data.Scenes` takes it, e.g. that of Debian's package tuxpaint-stamps-default.
"""

import argparse
import hashlib
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import skimage.morphology
import torch
from PIL import Image
from torch import Tensor

import extremal
import records
from extremal import explain, judge, zoo
from extremal.benchmark.baselines import GradCam, Rise
from extremal.benchmark.data import Scenes
from extremal.masking import area
from extremal.masking.grid import scale_length
from extremal.masking.solvers import SOLVERS
from extremal.networks.network import Network
from parity import ask_reference

AREAS = (0.025, 0.05, 0.1, 0.2)
RESULTS = records.FOLDER / "quality.jsonl"
METHODS = ("path", "penalty", "reference", "grad-cam", "rise")
RIVALS = {"grad-cam": GradCam(), "rise": Rise(masks=2000)}
PHOTOGRAPHS = (
    ("chelsea", "tiger cat"),
    ("chelsea", "Egyptian cat"),
    ("chelsea", "tabby"),
    ("coffee", "espresso"),
    ("coffee", "cup"),
    ("rocket", "missile"),
    ("camera", "tripod"),
    ("stereo_motorcycle", "moped"),
    ("stereo_motorcycle", "disk brake"),
)


@dataclass(frozen=True, eq=False)
class Target:
    """An image, and the class whose smallest part is looked for."""

    name: str
    picture: Image.Image
    label: str


def list_targets(cutouts: Path | None, count: int) -> Iterator[Target]:
    """Yield photographs with their classes, then both objects of planted scenes."""
    for name, label in PHOTOGRAPHS[:count]:
        pixels = getattr(skimage.data, name)()
        pixels = pixels[0] if isinstance(pixels, tuple) else pixels  # of a stereo pair the left one
        yield Target(f"{name}: {label}", Image.fromarray(pixels).convert("RGB"), label)
    wanted = (count - len(PHOTOGRAPHS) + 1) // 2 if cutouts else 0
    if wanted > 0:
        scenes = Scenes(cutouts, count=wanted)  # type: ignore[arg-type]
        for seed in range(wanted):
            picture, objects = scenes.scene(seed)
            for label in objects:
                yield Target(f"scene {seed}: {label}", picture, label)


def main() -> None:
    """Measure the targets that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=Path)
    parser.add_argument("--reference", help="the interpreter of the paper's package (`make reference`)")
    parser.add_argument("--methods", default="path,grad-cam,rise")
    parser.add_argument("--targets", type=int, default=49)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th target from the i-th on, for n processes")
    parser.add_argument("--keep", type=Path, help="a folder for the explanations of `path`")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    extremal.keep_freed_memory()
    network = zoo.load("embedded")
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    done = {(row["target"], row["method"], row["settings"]) for row in records.read(RESULTS)}
    shard, shards = map(int, options.shard.split("/"))
    for target in islice(list_targets(options.cutouts, options.targets), shard, None, shards):
        x = network.prepare(target.picture)
        index = network.index(target.label)
        for method in options.methods.split(","):
            settings = hash_settings(method)
            if (target.name, method, settings) in done:
                continue
            row = {"target": target.name, "method": method, "settings": settings}
            keep = options.keep / f"{target.name.replace(': ', '-')}.safetensors" if options.keep else None
            row |= measure(method, network, x, index, options.reference, keep)
            records.append(RESULTS, row)
            print(f"{target.name:28s} {method:10s} {row['seconds']:6.1f} s  binary {row['binary']}", flush=True)


def hash_settings(method: str) -> str:
    """Return a short hash of a method's settings, by which its rows are recognised."""
    settings = SOLVERS[method].settings() if method in SOLVERS else {}
    return hashlib.sha256(json.dumps([method, settings, AREAS]).encode()).hexdigest()[:8]


def measure(
    method: str,
    network: Network,
    x: Tensor,
    index: int,
    reference: str | None,
    keep: Path | None,
) -> dict[str, Any]:
    """Compute the masks of a method for a target, and judge them."""
    begin, result = time.perf_counter(), None
    if method == "path":
        result = explain(network, x, index, areas=AREAS, solver=method, perturbation="blur")
        masks, passes = result.masks, result.settings["evaluations"]["gradients"]
        if keep is not None:
            result.save(keep)
    elif method == "penalty":
        found = explain(
            network, x, index, areas=AREAS, solver=method, perturbation="blur", score="logit"
        )  # as the paper asks
        masks, passes = found.masks, found.settings["evaluations"]["gradients"]
    elif method == "reference":
        if reference is None:
            raise SystemExit("the method `reference` needs --reference PYTHON; `make reference` builds it")
        answer = ask_reference(reference, keep_freed=True, input=x.numpy(), target=index, areas=AREAS, steps=800)
        masks, passes = torch.from_numpy(answer["masks"])[None], 800 * len(AREAS)
    else:
        maps = RIVALS[method](network, x, [index])
        passes = maps.evaluations
        masks = area.cut(maps.values[:, None].expand(-1, len(AREAS), -1, -1, -1), AREAS)
    seconds = time.perf_counter() - begin  # with the evidence, where the method is ours
    if result is None:
        result = judge(network, x, masks.clamp(0, 1), index, areas=AREAS)
    return {
        "seconds": round(seconds, 2),
        "passes": passes,
        "span": round(float(result.score_full[0] - result.score_blank[0]), 4),
        "threads": torch.get_num_threads(),
        **{name: _to_floats(getattr(result.curve(), name)) for name in ("soft", "binary", "unseen", "control_best")},
        "mask_areas": _to_floats(result.mask_areas[0].tolist()),
        "opened": _to_floats([_thin_fraction(result.binary(a)[0, 0].numpy()) for a in AREAS]),
        "version": extremal.__version__,
    }


def _to_floats(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]


def _thin_fraction(mask: np.ndarray) -> float:
    """Return the fraction of a cut mask that an opening of radius 5 px removes, i.e. thin or small parts."""
    radius = round(scale_length(5.0, mask.shape))
    padded = np.pad(mask > 0, 2 * radius, mode="edge")
    opened = skimage.morphology.opening(padded, skimage.morphology.disk(radius))
    inner = opened[2 * radius : -2 * radius, 2 * radius : -2 * radius]
    return 1 - float(inner.sum() / (mask > 0).sum())


if __name__ == "__main__":
    main()
