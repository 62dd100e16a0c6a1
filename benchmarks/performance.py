"""Write the tables and plots of docs/performance.md from the measurements of the other benchmarks.

Use: python benchmarks/performance.py
Every method is compared with `path` on the targets that both have; medians with 95 % bootstrap intervals over targets.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

import app_time
import command_time
import records
import seeds
import solvers
import timing
import whole_time

mpl.use("agg")
from matplotlib import pyplot as plt

DOCS = Path(__file__).parent.parent / "docs"
AREAS = np.array(solvers.AREAS)
MIN_SPAN = 1.0  # logits of margin between the whole and the destroyed picture
FEW = 5  # targets, below which a median is not drawn
ORDER = {name: k for k, name in enumerate(solvers.METHODS)}


def interval(values: np.ndarray, statistic: Any = np.median, draws: int = 2000) -> tuple[float, float, float]:
    """Return a statistic over targets with its 95 % bootstrap interval."""
    generator = np.random.default_rng(0)
    resampled = [statistic(values[generator.integers(0, len(values), len(values))]) for _ in range(draws)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(statistic(values)), float(low), float(high)


def format_interval(values: np.ndarray, statistic: Any = np.median) -> str:
    """Format a statistic with its interval, as `0.52 (0.41–0.63)`."""
    middle, low, high = interval(values, statistic)
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def area_under(curves: np.ndarray) -> np.ndarray:
    """Return the mean height of evidence curves (T, A) over log-area: (T,)."""
    logs = np.log(AREAS)
    return np.trapezoid(curves, logs, axis=1) / (logs[-1] - logs[0])


def current_rows(least_span: float = MIN_SPAN) -> dict[str, dict[str, dict[str, Any]]]:
    """Return method -> target -> row, for the current settings of the methods.

    A class that scores no higher with the whole picture than with the destroyed one is not there to be found: its rows
    are left out.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in records.read(solvers.RESULTS):
        if row["settings"] == solvers.hash_settings(row["method"]) and row["span"] >= least_span:
            found.setdefault(row["method"], {})[row["target"]] = row
    return dict(sorted(found.items(), key=lambda item: ORDER[item[0]]))


def column(rows: dict[str, dict[str, Any]], names: list[str], key: str) -> np.ndarray:
    """Return a measure of all targets: (T, ...)."""
    return np.array([rows[name][key] for name in names], dtype=float)


def quality(found: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Format scores at exact areas, and the fraction of targets on which a method wins."""
    lines = []
    for key, title in (
        ("binary", "Binary effect at the exact area (0: destroyed input, 1: whole input), median over targets"),
        ("soft", "Soft effect of the masks as found; the reference's areas are up to 1.35 × nominal"),
        ("unseen", "Binary effect under perturbations that no method was optimised for (median of them)"),
    ):
        lines += [f"### {title}", "", "| method | targets | " + " | ".join(f"{a:.1%}" for a in AREAS) + " |"]
        lines += ["|---|---|" + "---|" * len(AREAS)]
        for method, rows in found.items():
            values = column(rows, list(rows), key)
            lines.append(
                f"| {method} | {len(rows)} | "
                + " | ".join(format_interval(values[:, k]) for k in range(len(AREAS)))
                + " |"
            )
        lines.append("")
    lines += ["### `path` against each method, on the same targets", ""]
    lines += [
        "| rival | targets | " + " | ".join(f"{a:.1%}: path / rival" for a in AREAS) + " | area under curve higher |"
    ]
    lines += ["|---|---|" + "---|" * (len(AREAS) + 1)]
    path = found["path"]
    for method, rows in found.items():
        names = [name for name in rows if name in path]
        if method == "path" or not names:
            continue
        ours, theirs = column(path, names, "binary"), column(rows, names, "binary")
        wins = (area_under(ours) > area_under(theirs)).astype(float)
        cells = [f"{np.median(ours[:, k]):.2f} / {np.median(theirs[:, k]):.2f}" for k in range(len(AREAS))]
        lines.append(f"| {method} | {len(names)} | " + " | ".join(cells) + f" | {format_interval(wins, np.mean)} |")
    return [*lines, ""]


def shape(found: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Format compactness and cost of the masks; `evaluation.py` measures their position."""
    lines = ["### Shape", "", "[evaluation.md](evaluation.md) measures how well the maps locate objects.", ""]
    lines += ["| method | targets | fraction lost by an opening of 5 px | passes |", "|---|---|---|---|"]
    for method, rows in found.items():
        names = list(rows)
        lines.append(
            f"| {method} | {len(names)} | {np.median(column(rows, names, 'opened')):.1%} "
            f"| {np.median(column(rows, names, 'passes')):.0f} |"
        )
    return [*lines, ""]


def draw(found: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """Draw median evidence curves with their intervals."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for method, rows in found.items():
        if len(rows) < FEW:
            continue
        values = column(rows, list(rows), "binary")
        middle, low, high = np.array([interval(values[:, k]) for k in range(len(AREAS))]).T
        axes.plot(100 * AREAS, middle, marker="o", label=f"{method}, n = {len(rows)}")
        axes.fill_between(100 * AREAS, low, high, alpha=0.15)
    axes.set(xscale="log", xlabel="area, % of the image", ylabel="binary effect, median over targets")
    axes.minorticks_off()
    axes.set_xticks(100 * AREAS, [f"{100 * a:g}" for a in AREAS])
    axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def gpus() -> list[str]:
    """Format the results of gpu.py, or say that there are none."""
    lines = ["## GPUs", ""]
    path = Path(__file__).parent / "results" / "gpu.jsonl"
    results = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    if not results:
        return [*lines, "Not measured yet. `python benchmarks/gpu.py` measures one in under four minutes.", ""]
    for result in results:
        machine = result["machine"]
        lines += [f"### {machine['device']}, torch {machine['torch']}", ""]
        lines += ["| network | batch | precision | seconds per image | outside of the network | peak memory, MiB |"]
        lines += ["|---|---|---|---|---|---|"]
        for row in result["speed"]:
            peak = "" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 2**20:.0f}"
            lines.append(
                f"| {row['network']} | {row['batch']} | {row['precision']} | {row['seconds_per_image']:.3f} "
                f"| {row['outside_network']:.0%} | {peak} |"
            )
        lines.append("")
    return lines


def main() -> None:
    """Write docs/performance.md, and its plot."""
    found = current_rows()
    if "path" not in found:
        raise SystemExit("nothing is measured with the present settings of `path`: run benchmarks/solvers.py first")
    DOCS.mkdir(exist_ok=True)
    draw(found, DOCS / "performance.png")
    days = sorted({row["day"] for rows in found.values() for row in rows.values()})
    text = [
        "# Performance",
        "",
        f"Measured {days[0]} to {days[-1]} on {timing.machine()}; EfficientNet-Lite0, 224 px.",
        "Made by `benchmarks/performance.py` from `benchmarks/results/`, which `benchmarks/solvers.py` and",
        "`benchmarks/timing.py` write. `reference` is the paper's package, installed as published and run in a "
        "separate",
        "environment. Brackets: 95 % bootstrap intervals over targets. Targets whose class the network does not "
        "recognise",
        f"(the image's margin is less than {MIN_SPAN:g} above the destroyed image's) are excluded.",
        "",
        "Up to [Whole explanations](#whole-explanations), this page measures `path` under the blur, the former "
        "default, unless",
        "another solver is named. [Evaluation](evaluation.md#masks-that-hold-still) compares it with `consensus`, the "
        "default.",
        "",
        "![Evidence curves](performance.png)",
        "",
        *quality(found),
        *shape(found),
        *seeds.lines(),
        *timing.lines(),
        *whole_time.lines(),
        *command_time.lines(),
        *app_time.lines(),
        *gpus(),
    ]
    (DOCS / "performance.md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")
    print("docs/performance.md, docs/performance.png")


if __name__ == "__main__":
    main()
