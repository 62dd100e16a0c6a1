"""Quality of channel sets: `explain_channels` against all controls, at three layers.

Use: python benchmarks/channels.py [--cutouts STAMPS] [--targets 15]

One JSON line a target and layer goes to benchmarks/results/channels.jsonl as soon as it is measured; what stands there
is not measured again. The tables of docs/channels.md and its plot are made from it.
STAMPS: see solvers.py.
"""

import argparse
import hashlib
import json
import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

import records
from extremal import explain_channels, keep_freed_memory, zoo
from extremal.explanations.channels.explain import DEFAULT_FRACTIONS
from extremal.masking.solvers import SOLVERS
from performance import DOCS, format_interval
from solvers import list_targets

mpl.use("agg")
from matplotlib import pyplot as plt

RESULTS, PAGE = records.FOLDER / "channels.jsonl", DOCS / "channels.md"
LAYERS = {"early": "blocks.1", "middle": "blocks.3", "late": "blocks.5"}
LEAST_SPAN = 1.0  # of the margin between the whole layer and the layer at zero
TIE = 1e-3  # of the effect: the same set, but for rounding
CONTROLS = ("random", "activation × gradient", "activation", "ablation")


def hash_settings() -> str:
    """Return a short hash of the settings, by which rows are recognised."""
    settings = [SOLVERS["path"].settings(), DEFAULT_FRACTIONS, "exchange 3"]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=Path)
    parser.add_argument("--targets", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    network, settings = zoo.load("embedded"), hash_settings()
    done = {(row["target"], row["layer"]) for row in records.read(RESULTS) if row["settings"] == settings}
    for target in list_targets(options.cutouts, options.targets):
        x = network.prepare(target.picture)
        for layer in LAYERS.values():
            if (target.name, layer) in done:
                continue
            begin = time.perf_counter()
            found = explain_channels(network, x, layer, target.label)
            curve, smallest = found.curve(), found.smallest()
            row: dict[str, Any] = {
                "target": target.name,
                "layer": layer,
                "settings": settings,
                "seconds": round(time.perf_counter() - begin, 2),
                "span": float(found.score_full[0] - found.score_blank[0]),
                "channels": found.total,
                "counts": curve.counts,
                "found": curve.binary,
                "soft": curve.soft,
                "random": curve.random,
                "random_best": curve.random_best,
                **curve.ranked,
                "smallest": smallest.count,
                "below": [smallest.below_count, smallest.below_effect],
                "evaluations": found.settings["evaluations"],
            }
            records.append(RESULTS, row)
            print(f"{target.name:28s} {layer} {row['seconds']:5.1f} s", np.round(curve.binary, 2), flush=True)
    write_docs()


def current_rows() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each layer with current settings whose class has an effect to keep."""
    rows = [row for row in records.read(RESULTS) if row["settings"] == hash_settings() and row["span"] >= LEAST_SPAN]
    return {name: [row for row in rows if row["layer"] == layer] for name, layer in LAYERS.items()}


def format_table(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """Format medians of the solver and of all controls, and how often the solver beats the best control."""
    counts = rows[0]["counts"]
    lines = [f"### {name.capitalize()}: `{LAYERS[name]}`, {rows[0]['channels']} channels, {len(rows)} targets", ""]
    header = " | ".join(f"{count} channel{'' if count == 1 else 's'}" for count in counts)
    lines += [f"| set | {header} |", "|---|" + "---|" * len(counts)]
    for key, title in (("found", "**found**"), *((control, control) for control in CONTROLS)):
        values = np.array([row[key] for row in rows])
        lines.append(f"| {title} | " + " | ".join(format_interval(column) for column in values.T) + " |")
    found, best = (np.array(part) for part in zip(*((row["found"], best_control(row)) for row in rows), strict=True))
    beats, equals = (found > best + TIE).mean(0), (np.abs(found - best) <= TIE).mean(0)
    told = [f"{won:.0%}" + (f" ({same:.0%} equal)" if same else "") for won, same in zip(beats, equals, strict=True)]
    lines.append(f"| found beats the best of these | {' | '.join(told)} |")
    sizes = np.array([row["smallest"] for row in rows])
    lines += ["", f"Smallest sufficient set: {np.median(sizes):.0f} channels on the median, {sizes.min()} to"]
    lines[-1] += f" {sizes.max()}; {np.median([row['seconds'] for row in rows]):.1f} s a target."
    return [*lines, ""]


def best_control(row: dict[str, Any]) -> list[float]:
    """Return the best control at each count; random sets enter with their median."""
    return [max(values) for values in zip(*(row[control] for control in CONTROLS), strict=True)]


def draw(found: dict[str, list[dict[str, Any]]]) -> None:
    """Draw the median effect against count, one panel per layer."""
    figure, panels = plt.subplots(1, len(found), figsize=(12, 3.8), sharey=True)
    for axes, (name, rows) in zip(panels, found.items(), strict=True):
        counts = rows[0]["counts"]
        for key, colour in zip(("found", *CONTROLS), ("C0", "0.5", "C1", "C2", "C3"), strict=True):
            middle = np.median([row[key] for row in rows], axis=0)
            axes.plot(counts, middle, color=colour, marker="o", linewidth=2.2 if key == "found" else 1.2, label=key)
        axes.axhline(1.0, color="0.6", linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_title(f"{name}: {LAYERS[name]}, {rows[0]['channels']} channels", size=10)
        axes.set_xlabel("channels kept")
    panels[0].set_ylabel("effect, median over targets")
    panels[0].legend(frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(DOCS / "channels.png", dpi=110)


def write_docs() -> None:
    """Write the tables of docs/channels.md and the plot."""
    found = current_rows()
    draw(found)
    records.write_table(PAGE, "measured", [line for name, rows in found.items() for line in format_table(name, rows)])


if __name__ == "__main__":
    main()
