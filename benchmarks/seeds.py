"""Agreement between seeds: intersection over union of the cut 10 % masks of five runs of `path`, for each pair.

Use: python benchmarks/seeds.py [--targets 9] [--cutouts FOLDER]

Appends one JSON line per target to benchmarks/results/seeds.jsonl; recorded targets are not run again.
"""

import argparse
import itertools
import statistics
import warnings
from pathlib import Path

import torch

import records
from extremal import explain, keep_freed_memory, zoo
from solvers import AREAS, hash_settings, list_targets

RESULTS = records.FOLDER / "seeds.jsonl"
SEEDS, AREA = range(5), 0.1


def main() -> None:
    """Run the targets that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=Path)
    parser.add_argument("--targets", type=int, default=9)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    keep_freed_memory()
    network, settings = zoo.load("embedded"), hash_settings("path")
    done = {row["target"] for row in records.read(RESULTS) if row["settings"] == settings}
    for target in list_targets(options.cutouts, options.targets):
        if target.name in done:
            continue
        masks = []
        for seed in SEEDS:
            result = explain(
                network,
                network.prepare(target.picture),
                target.label,
                areas=AREAS,
                solver="path",
                perturbation="blur",
                seed=seed,
            )
            masks.append(result.binary(AREA) > 0)
        pairs = [float((a & b).sum() / (a | b).sum()) for a, b in itertools.combinations(masks, 2)]
        row = {"target": target.name, "settings": settings, "median": round(statistics.median(pairs), 4)}
        row |= {"pairs": [round(pair, 4) for pair in pairs], "threads": torch.get_num_threads()}
        records.append(RESULTS, row)
        print(row, flush=True)


def lines() -> list[str]:
    """Return the paragraph for docs/performance.md."""
    medians = [row["median"] for row in records.read(RESULTS) if row["settings"] == hash_settings("path")]
    if not medians:
        return []
    return [
        "### Agreement over seeds",
        "",
        f"Intersection over union of the cut {AREA:.0%} masks of {len(SEEDS)} seeds, its median over pairs: over "
        f"{len(medians)} targets {statistics.median(medians):.2f}, lowest {min(medians):.2f}.",
        "",
    ]


if __name__ == "__main__":
    main()
