"""Measure channel explanations: inversion, activation maximisation, and the channels that a class needs.

Use: python benchmarks/seeing.py [--cutouts STAMPS] [--pictures]

One JSON line a kind goes to benchmarks/results/seeing.jsonl; a kind that stands there is not measured again. The
pictures go to docs/; --pictures only makes them again. STAMPS: see solvers.py; without them the classes are left out.
"""

import argparse
import itertools
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor

import records
from channels import LAYERS, PAGE, hash_settings
from extremal import class_channels, explain_channels, invert, keep_freed_memory, visualise, zoo
from extremal.benchmark.data import Scenes
from extremal.explanations.channels.class_ranking import ClassChannels, class_overlap
from extremal.explanations.channels.controls import random_sets
from extremal.networks.layers import get_module
from extremal.networks.network import Network
from extremal.networks.split import compute_activations, split
from passes import run_passes
from performance import DOCS

RESULTS = records.FOLDER / "seeing.jsonl"
PHOTOGRAPHS = (("chelsea", "tiger cat"), ("coffee", "espresso"), ("rocket", "missile"), ("stereo_motorcycle", "moped"))
PATCHES, CHANNELS = 500, 32
CLASSES, IMAGES = ("tiger", "parachute", "strawberry", "gorilla", "balloon"), 8
CLASS_LAYER, TOP = "blocks.5", 10


def photographs() -> Iterator[Image.Image]:
    """Yield the colour photographs of scikit-image that need no download."""
    for name in ("astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle"):
        pixels = getattr(skimage.data, name)()
        yield Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels).convert("RGB")


def patches(count: int) -> Iterator[Image.Image]:
    """Yield squares of random size and place from these photographs."""
    draw, pictures = np.random.default_rng(0), list(photographs())
    for _ in range(count):
        picture = pictures[draw.integers(len(pictures))]
        side = int(draw.uniform(0.15, 1.0) * min(picture.size))
        left, top = (int(draw.integers(0, length - side + 1)) for length in picture.size)
        yield picture.crop((left, top, left + side, top + side))


def measure_inversions(network: Network) -> dict[str, Any]:
    """Measure the correlation of inverted activations with the target: all, kept and removed channels."""
    rows, found = {}, []
    for name, label in PHOTOGRAPHS:
        pixels = getattr(skimage.data, name)()
        picture = Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels).convert("RGB")
        for layer in LAYERS.values():
            begin = time.perf_counter()
            mask = explain_channels(network, picture, layer, label).smallest_mask
            inversion = invert(network, layer, picture, mask)
            rows[f"{name} {layer}"] = {
                **dict(zip(inversion.parts, np.round(inversion.correlation[0].tolist(), 4).tolist(), strict=True)),
                "channels": int(mask.sum()),
                "seconds": round(time.perf_counter() - begin, 1),
            }
            print(name, layer, rows[f"{name} {layer}"], flush=True)
            found.append(np.concatenate([inversion.originals[0], *inversion.pictures[0]], 1))
    Image.fromarray(np.concatenate(found[:6], 0)).save(DOCS / "inversion.jpg", quality=88)
    return rows


@torch.no_grad()
def best_of_patches(network: Network, layer: str) -> Tensor:
    """Return the largest activation of each channel over places and patches: (K,)."""
    with network.frozen() as run:
        module = get_module(network, layer)
        found = [
            compute_activations(run, module, network.prepare(patch)).flatten(2).amax(2)[0] for patch in patches(PATCHES)
        ]
    return torch.stack(found).amax(0)


def measure_maximisations(network: Network) -> dict[str, Any]:
    """Compare maximised channels of three layers with the best natural patches."""
    rows, shown = {}, []
    generator = torch.Generator().manual_seed(0)
    shares = (CHANNELS // 3, CHANNELS // 3, CHANNELS - 2 * (CHANNELS // 3))
    for layer, count in zip(LAYERS.values(), shares, strict=True):
        best = best_of_patches(network, layer)
        chosen = torch.randperm(len(best), generator=generator)[:count].tolist()
        found = visualise(network, layer, chosen, images=list(photographs()))
        for m, channel in enumerate(chosen):
            rows[f"{layer} {channel}"] = [round(float(found.activations[m]), 3), round(float(best[channel]), 3)]
        raised = sum(rows[f"{layer} {channel}"][0] > rows[f"{layer} {channel}"][1] for channel in chosen)
        print(layer, f"{raised} of {count} above the best of {PATCHES} patches", flush=True)
        for m in range(3):
            side = found.pictures.shape[1]
            beside = [np.asarray(Image.fromarray(patch.numpy()).resize((side, side))) for patch in found.patches[m]]
            shown.append(np.concatenate([found.pictures[m].numpy(), *beside], 1))
    Image.fromarray(np.concatenate(shown, 0)).resize((224 * 5 // 2, 224 * 9 // 2)).save(
        DOCS / "maximisation.jpg", quality=88
    )
    return rows


def measure_splits(network: Network) -> dict[str, Any]:
    """Time a run at each layer with and without the split, and compare the results."""
    rows = {}
    x = network.prepare(Image.fromarray(skimage.data.chelsea()))
    for layer in LAYERS.values():
        seconds: dict[str, list[float]] = {"run": [], "whole": []}
        for _ in range(3):
            begin = time.perf_counter()
            found = explain_channels(network, x, layer, "tiger cat")
            seconds["run"].append(time.perf_counter() - begin)
            spent = found.settings["evaluations"]
            begin = time.perf_counter()
            with network.frozen() as run:
                run.accelerate(x)
                run_passes(run, x, 4, (spent["gradients"] + spent["evidence_gradients"]) // 4, 4)
                with torch.no_grad():
                    run_passes(run, x, 4, (spent["forwards"] + spent["evidence_forwards"]) // 4, 4)
            seconds["whole"].append(time.perf_counter() - begin)
        with network.frozen() as run, torch.no_grad():
            made = split(run, layer, x)
            gap = (run(x) - made(made.activations * 1.0, torch.zeros(1, dtype=torch.int64))).abs().max()
        rows[layer] = {name: round(float(np.median(values)), 2) for name, values in seconds.items()} | {
            "gap": float(gap)
        }
        print(layer, rows[layer], flush=True)
    return rows


def scenes_with(cutouts: Path, label: str, count: int, first: int = 0) -> list[Image.Image]:
    """Return planted scenes with an object of this class."""
    found = map(Scenes(cutouts).scene, itertools.count(first))
    return list(itertools.islice((picture for picture, objects in found if label in objects), count))


def measure_class_channels(network: Network, cutouts: Path) -> dict[str, Any]:
    """Measure the drop of a class's logit when its top channels, those of another class, or random ones are removed.

    The channels are ranked on eight scenes of each class, and removed in eight others.
    """
    ranked: dict[str, ClassChannels] = {}
    for label in CLASSES:
        begin = time.perf_counter()
        ranked[label] = class_channels(network, scenes_with(cutouts, label, IMAGES), CLASS_LAYER, label)
        print(label, ranked[label].ranking()[:TOP], f"{time.perf_counter() - begin:.1f} s", flush=True)
    drops = {}
    for label in CLASSES:
        others = scenes_with(cutouts, label, IMAGES, first=1000)
        x = torch.cat([network.prepare(picture) for picture in others])
        with network.frozen() as run, torch.no_grad():
            made = split(run, CLASS_LAYER, x)
            index, images = network.index(label), torch.arange(len(x))
            whole = made(made.activations.clone(), images)[:, index]
            total = made.activations.shape[1]
            random = random_sets(total, (TOP / total,), 0, x)[0, 0]

            def drop(removed: Tensor) -> float:
                left = made.activations * (1 - removed).view(1, -1, 1, 1)  # noqa: B023
                return float((whole - made(left, images)[:, index]).mean())  # noqa: B023

            drops[label] = {other: round(drop(top_mask(ranked[other])), 3) for other in CLASSES}
            drops[label]["random"] = round(float(np.mean([drop(one) for one in random])), 3)
        print(label, drops[label], flush=True)
    return {"drops": drops, "overlap": class_overlap(list(ranked.values())).round(decimals=3).tolist()}


def top_mask(one: ClassChannels) -> Tensor:
    """Return ones at the channels that a class needs most: (K,)."""
    mask = torch.zeros(len(one.mean))
    mask[list(one.ranking()[:TOP])] = 1
    return mask


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=Path)
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    network, settings = zoo.load("embedded"), hash_settings()
    if options.pictures:
        measure_maximisations(network)
        measure_inversions(network)
        return
    kinds = {
        "splitting": lambda: measure_splits(network),
        "maximisation": lambda: measure_maximisations(network),
        "inversion": lambda: measure_inversions(network),
    }
    if options.cutouts:
        kinds = {"classes": lambda: measure_class_channels(network, options.cutouts), **kinds}
    done = {row["kind"] for row in records.read(RESULTS) if row["settings"] == settings}
    for kind, measure in kinds.items():
        if kind not in done:
            records.append(RESULTS, {"kind": kind, "settings": settings, "rows": measure()})
    write_docs()


def write_docs() -> None:
    """Write the tables of docs/channels.md about classes and images."""
    found = {row["kind"]: row["rows"] for row in records.read(RESULTS) if row["settings"] == hash_settings()}
    if "inversion" in found:
        rows = found["inversion"]
        lines = [
            "| photograph, layer | all channels | kept | removed | channels kept | seconds |",
            "|---|---|---|---|---|---|",
        ]
        for name, row in rows.items():
            cells = [f"{row[part]:.2f}" for part in ("all", "kept", "removed")]
            lines.append(f"| {name} | {' | '.join(cells)} | {row['channels']} | {row['seconds']:.0f} |")
        records.write_table(PAGE, "inversions", lines)
    if "maximisation" in found:
        pairs = [(name.split()[0], made > best, made / best) for name, (made, best) in found["maximisation"].items()]
        lines = [
            f"| layer | channels | above the best of {PATCHES} patches | median of the ratio |",
            "|---|---|---|---|",
        ]
        for layer in LAYERS.values():
            rows = [pair for pair in pairs if pair[0] == layer]
            middle = np.median([ratio for _, _, ratio in rows])
            lines.append(f"| `{layer}` | {len(rows)} | {sum(won for _, won, _ in rows)} | {middle:.1f} |")
        records.write_table(PAGE, "maximisations", lines)
    if "splitting" in found:
        lines = [
            "| layer | a run, s | its passes through the whole network, s | ratio | largest difference of a logit |"
        ]
        lines += ["|---|---|---|---|---|"]
        for layer, row in found["splitting"].items():
            ratio = row["whole"] / row["run"]
            lines.append(f"| `{layer}` | {row['run']:.1f} | {row['whole']:.1f} | {ratio:.1f}× | {row['gap']:.1e} |")
        records.write_table(PAGE, "splits", lines)
    if "classes" in found:
        drops = found["classes"]["drops"]
        lines = [
            "| logit of, with removed: | " + " | ".join([*CLASSES, "random"]) + " |",
            "|---|" + "---|" * (1 + len(CLASSES)),
        ]
        for label, row in drops.items():
            cells = [
                f"**{row[other]:.2f}**" if other == label else f"{row[other]:.2f}" for other in (*CLASSES, "random")
            ]
            lines.append(f"| {label} | {' | '.join(cells)} |")
        shared = np.array(found["classes"]["overlap"])
        apart = shared[~np.eye(len(shared), dtype=bool)]
        lines += [
            "",
            f"Overlap of two classes' channels: {apart.min():.2f} to {apart.max():.2f}, median {np.median(apart):.2f}.",
        ]
        records.write_table(PAGE, "classes", lines)


if __name__ == "__main__":
    main()
