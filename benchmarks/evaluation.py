"""The paper's evaluation: all methods on planted scenes, mosaics and photographs, and the resulting tables.

Use: python benchmarks/evaluation.py --cutouts FOLDER [--runs FOLDER] [--tables]

Each run is one `extremal bench`, resumable, in its own folder below FOLDER; with --tables nothing runs and the tables
are made of what is there. Rows are kept in results/evaluation/, a file a run, so that tables can be made, and compared
with later ones, without running all again. Tables go to docs/evaluation.md, each between its two marks, figures beside
it. What a slow method has not reached is not in the first table; the scenes that it has are told again with all.
FOLDER: see solvers.py.
"""

import argparse
import functools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import skimage.data
from matplotlib.figure import Figure
from PIL import Image

from extremal.benchmark import figure
from extremal.benchmark.baselines import METHODS
from extremal.benchmark.data.scenes import TUXPAINT_CUTOUTS
from extremal.benchmark.metrics.estimate import mean_paired_difference, quantile
from extremal.benchmark.table import Table, build_table
from extremal.benchmark.tasks.sanity import CHANGED_CORRELATION, similarity_curves
from extremal.benchmark.tasks.stability import STABILITY_AREAS
from extremal.benchmark.tasks.task import TableColumn
from extremal.jobs.store import read_manifest
from extremal.report.figure_style import ACCENT_COLOUR, CONTROL_COLOUR, DPI
from performance import DOCS
from records import FOLDER, replace_table

PAGE, STORED_RUNS = DOCS / "evaluation.md", FOLDER / "evaluation"
SCENES, MANY = "scenes:{cutouts} --count 100", "centre,gradient,guided-backprop,integrated-gradients,grad-cam"
OURS = "consensus"
STABILITY = "--cutouts {cutouts} --count 17"
MORE = "stability-more"
EFFORT_RUNS = {"fast": "stability-fast", "normal": MORE, "thorough": "stability-thorough"}
EXCITATION = "contrastive-excitation"
STABLE = "stability", "stability-consensus", "stability-maps"  # runs of one table
GRID = "--data folder:{pictures} --cell 112 --batch 1"
FAITH, SANITY = "--data folder:{pictures} --batch 1", "--data folder:{few} --batch 1"
CONFIDENT = f"{MANY},contrastive-excitation,mask-gradient,path"
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "clock", "coffee", "coins", "horse", "moon", "page", "rocket")
FEW = (
    *("photographs/camera", "photographs/coffee"),
    *("cutouts/drake", "cutouts/fire_engine", "cutouts/basketball", "cutouts/brown_bear"),
)
COMPARED = (("hit", 100, True), ("hit_smoothed", 100, True), ("energy", 1, False), ("iou", 1, False))

Target = tuple[str, str]  # image, and name of the class


@dataclass(frozen=True)
class Run:
    """One run of `extremal bench`."""

    task: str
    options: str


RUNS = {
    "fast": Run(
        "pointing",
        f"--data {SCENES} --methods centre,random,gradient,grad-cam,contrastive-excitation,excitation,mask-gradient,"
        "deconvnet,guided-backprop",
    ),
    "consensus": Run("pointing", f"--data {SCENES} --methods consensus"),
    "path": Run("pointing", f"--data {SCENES} --methods path"),
    "slow": Run("pointing", f"--data {SCENES} --methods integrated-gradients,occlusion"),
    "rise": Run("pointing", f"--data {SCENES} --batch 1 --methods rise"),
    "penalty": Run("pointing", f"--data {SCENES} --limit 4 --batch 1 --methods penalty"),
    "grid2": Run("grid", f"{GRID} --count 10 --methods {CONFIDENT}"),
    "grid3": Run("grid", f"--side 3 {GRID} --count 2 --methods {CONFIDENT}"),
    "faith": Run("faithfulness", f"{FAITH} --methods random,{CONFIDENT}"),
    "sanity": Run(
        "sanity",
        f"{SANITY} --methods gradient,guided-backprop,grad-cam,contrastive-excitation,mask-gradient,path",
    ),
    "grid2-consensus": Run("grid", f"{GRID} --count 10 --methods consensus"),
    "grid3-consensus": Run("grid", f"--side 3 {GRID} --count 2 --methods consensus"),
    "faith-consensus": Run("faithfulness", f"{FAITH} --methods consensus"),
    "sanity-consensus": Run("sanity", f"{SANITY} --methods consensus"),
    "stability": Run("stability", f"{STABILITY} --methods path,contrastive-excitation,grad-cam"),
    "stability-more": Run(
        "stability", "--cutouts {cutouts} --count 40 --methods consensus,contrastive-excitation,grad-cam"
    ),
    "stability-fast": Run("stability", "--cutouts {cutouts} --count 40 --methods consensus --effort fast"),
    "stability-thorough": Run("stability", "--cutouts {cutouts} --count 40 --methods consensus --effort thorough"),
    "stability-maps": Run("stability", f"{STABILITY} --methods mask-gradient,integrated-gradients,occlusion"),
}


def main() -> None:
    """Run what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--tables", action="store_true", help="only make the tables")
    options = parser.parse_args()
    if not options.tables:
        if options.cutouts is None:
            raise SystemExit("planted scenes need --cutouts FOLDER, or --tables for what has run")
        pictures = draw_images(options.cutouts, options.runs / "pictures")
        few = link_subset(pictures, options.runs / "few")
        for name, run in RUNS.items():
            arguments = run.options.format(cutouts=options.cutouts, pictures=pictures, few=few).split()
            command = [Path(sys.executable).with_name("extremal"), "bench", run.task, *arguments]
            subprocess.run([*command, "--out", options.runs / name], check=True)
    for name in RUNS:
        store_run(name, options.runs / name)
    store_targets()
    write_docs()


def draw_images(cutouts: Path, folder: Path) -> Path:
    """Write photographs of scikit-image and cut-outs on grey as files, among which confident images are found."""
    for name in PHOTOGRAPHS:
        save(Image.fromarray(getattr(skimage.data, name)()).convert("RGB"), folder / "photographs" / f"{name}.png")
    for path, label in TUXPAINT_CUTOUTS.items():
        cutout = Image.open(cutouts / path).convert("RGBA")
        cutout = cutout.crop(cutout.getbbox())
        side = int(max(cutout.size) * 1.15)
        ground = Image.new("RGBA", (side, side), (128, 128, 128, 255))
        ground.alpha_composite(cutout, ((side - cutout.width) // 2, (side - cutout.height) // 2))
        small = ground.convert("RGB").resize((448, 448), Image.Resampling.LANCZOS)
        save(small, folder / "cutouts" / f"{label.replace(' ', '_')}.png")
    return folder


def link_subset(pictures: Path, folder: Path) -> Path:
    """Link some of the images into a folder, for tasks that take long."""
    for name in FEW:
        save(Image.open(pictures / f"{name}.png"), folder / f"{name}.png")
    return folder


def save(picture: Image.Image, path: Path) -> None:
    """Write an image as PNG, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def store_run(name: str, run: Path) -> None:
    """Store the rows and the table's header of a run in one file, if it has finished."""
    if (run / "parts").exists() and any((run / "parts").glob("*.parquet")):
        told = run / "table.json"
        table = json.loads(told.read_text(encoding="utf-8")) if told.exists() else {}
        head = {"methods": list(read_manifest(run)["methods"]), "measures": table.get("measures", [])}
        rows = pq.read_table(run / "parts").replace_schema_metadata({"run": json.dumps(head)})
        STORED_RUNS.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, STORED_RUNS / f"{name}.parquet", compression="zstd")


def store_targets() -> None:
    """Store the rows of our method about the images of the table on stability, from the run on more images."""
    rivals, ours, _ = STABLE
    if has_run(rivals) and has_run(MORE):
        rows, keys = read_rows(MORE), pc.unique(read_rows(rivals)["key"])
        rows = rows.filter(pc.and_(pc.equal(rows["method"], OURS), pc.is_in(rows["key"], keys)))
        head = {**read_head(MORE), "methods": [OURS]}
        rows = rows.replace_schema_metadata({"run": json.dumps(head)})
        pq.write_table(rows, STORED_RUNS / f"{ours}.parquet", compression="zstd")


def read_rows(name: str) -> pa.Table:
    """Return the rows of a run."""
    return pq.read_table(STORED_RUNS / f"{name}.parquet")


def join_rows(runs: list[str]) -> pa.Table:
    """Return the rows of several runs."""
    return pa.concat_tables([read_rows(name).replace_schema_metadata() for name in runs])


def read_head(name: str) -> dict[str, Any]:
    """Return the methods and table columns of a run; empty if it has not finished."""
    head: dict[str, Any] = json.loads(pq.read_schema(STORED_RUNS / f"{name}.parquet").metadata[b"run"])
    return head


def write_docs() -> None:
    """Write the tables into the page, and the figures next to it."""
    text = PAGE.read_text(encoding="utf-8")
    pointing = [name for name, run in RUNS.items() if run.task == "pointing" and has_run(name)]
    for mark, method in (("scenes", ""), ("rise", "rise"), ("penalty", "penalty")):
        if has_run(method or OURS):
            table, scenes = join_tables(pointing, method)
            text = replace_table(text, mark, f"{scenes} scenes.\n\n{table.markdown()}")
            if not method:
                figure.write_png(figure.draw_bars(table, f"{scenes} planted scenes"), DOCS / "evaluation.png")
                text = replace_table(text, "differences", format_differences(pointing))
    for mark in ("grid2", "grid3", "faith", "sanity"):
        names = [name for name in (mark, f"{mark}-{OURS}") if has_run(name)]
        if any(read_head(name)["measures"] for name in names):
            table, _ = join_tables(names)
            text = replace_table(text, mark, table.markdown())
    if has_run(MORE):
        text = replace_table(text, MORE, format_effects(MORE))
    if all(has_run(name) for name in EFFORT_RUNS.values()):
        text = replace_table(text, "stability-efforts", format_efforts())
    stability = [name for name in STABLE if has_run(name)]
    if stability:
        table, images = join_tables(stability)
        text = replace_table(text, "stability", f"{images} images.\n\n{table.markdown()}")
        figure.write_png(draw_costs(stability), DOCS / "costs.png")
    sanity = [name for name in ("sanity", f"sanity-{OURS}") if has_run(name) and read_head(name)["measures"]]
    if sanity:
        methods = [method for name in sanity for method in read_head(name)["methods"]]
        stages, curves = similarity_curves(join_rows(sanity), methods)
        title = "Maps while the network forgets, from the top"
        figure.write_png(figure.draw_curves(stages, curves, title, CHANGED_CORRELATION), DOCS / "sanity.png")
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)


def draw_costs(runs: list[str]) -> Figure:
    """Draw what the masks of each method keep, and how still they hold, against its cost."""
    rows = join_rows(runs)
    panels = {
        "effect kept under unseen perturbations, median": ("unseen", 0.5),
        "the same, worst tenth": ("unseen", 0.1),
        "IoU with a copy with noise, median": ("noise", 0.5),
    }
    drawn = Figure(figsize=(11, 3.8), dpi=DPI, layout="constrained")
    for axes, (title, (measure, share)) in zip(drawn.subplots(1, len(panels)), panels.items(), strict=True):
        for method in rows["method"].unique().to_pylist():
            found = rows.filter(pc.equal(rows["method"], method))
            means = np.mean([found[f"{measure}_{area}"].to_numpy() for area in (5, 10, 20, 40)], 0)
            passes, value = np.median(found["evaluations"]) / 3, np.nanquantile(means, share)
            colour = ACCENT_COLOUR if method in figure.HIGHLIGHTED_METHODS else CONTROL_COLOUR
            axes.plot(passes, value, "o", color=colour)
            axes.annotate(method, (passes, value), (4, 4), textcoords="offset points", fontsize=7)
        axes.set_xscale("log")
        axes.set_xlim(0.6, 3000)
        axes.set_xlabel("evaluations of an explanation", size=8)
        axes.set_title(title, size=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.grid(color="0.92")
    return drawn


def format_effects(run: str) -> str:
    """Format what the masks of each method keep under unseen perturbations, and the differences of our method."""
    targets = list_targets(run, OURS)
    effects = {method: read_values(run, method, "unseen", targets) for method in index_rows(run)}
    judged = int(np.isfinite(effects[OURS][:, 0]).sum())
    lines = [f"{len(targets)} targets; {judged} have an effect to share.", "", *format_heads("median")]
    for method, found in effects.items():
        lines.append(f"| {method} | {' | '.join(f'{value:.3f}' for value in np.nanmedian(found, 0))} |")
    for method, found in effects.items():
        if method != OURS:
            cells = format_paired(effects[OURS] - found, targets)
            lines.append(f"| `{OURS}` less {method}, target by target | {cells} |")
    return "\n".join(lines) + "\n"


def format_efforts() -> str:
    """Format how still the masks of each effort hold, what they keep, and how much more than a rival's they keep."""
    targets = list_targets(MORE, OURS)
    lines = [
        "| effort | evaluations | IoU, noise | worst tenth | IoU, shift | unseen | worst tenth |",
        "|---|---:|---|---|---|---|---|",
    ]
    for effort, run in EFFORT_RUNS.items():
        noise, shift, unseen = (read_values(run, OURS, measure, targets) for measure in ("noise", "shift", "unseen"))
        cells = [
            join_areas(np.nanquantile(values, share, 0))
            for values, share in ((noise, 0.5), (noise, 0.1), (shift, 0.5), (unseen, 0.5), (unseen, 0.1))
        ]
        evaluations = np.mean([row["evaluations"] for row in index_rows(run)[OURS].values()]) / 3
        lines.append(f"| `{effort}` | {evaluations:.0f} | {' | '.join(cells)} |")
    rival = read_values(MORE, EXCITATION, "unseen", targets)
    lines += ["", *format_heads(f"unseen, less {EXCITATION}, target by target")]
    for effort, run in EFFORT_RUNS.items():
        differences = read_values(run, OURS, "unseen", targets) - rival
        lines.append(f"| `{effort}` | {format_paired(differences, targets)} |")
    return "\n".join(lines) + "\n"


def format_heads(title: str) -> list[str]:
    """Return the head of a table with a column for each area."""
    heads = " | ".join(f"{100 * area:g} %" for area in STABILITY_AREAS)
    return [f"| {title} | {heads} |", "|---|" + "---:|" * len(STABILITY_AREAS)]


def format_paired(differences: np.ndarray, targets: list[Target]) -> str:
    """Format the medians of differences (targets, areas) with intervals over images, and how many are positive."""
    cells = []
    for column in differences.T:
        estimate = quantile(column, 0.5, groups=[key for key, _ in targets])
        higher = np.mean(column[np.isfinite(column)] > 0)
        cells.append(f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}], higher on {higher:.0%}")
    return " | ".join(cells)


def join_areas(values: np.ndarray) -> str:
    """Join one value for each area in one cell."""
    return " / ".join(f"{value:.2f}" for value in values)


def list_targets(run: str, method: str) -> list[Target]:
    """Return the image and the class of each row of a method."""
    return list(index_rows(run)[method])


def read_values(run: str, method: str, measure: str, targets: list[Target]) -> np.ndarray:
    """Return a measure of the masks of a method: (targets, areas)."""
    found = index_rows(run)[method]
    columns = [f"{measure}_{100 * area:g}" for area in STABILITY_AREAS]
    return np.array([[found[target][name] for name in columns] for target in targets], float)


@functools.cache
def index_rows(run: str) -> dict[str, dict[Target, dict[str, Any]]]:
    """Return the judged rows of a run by method, and by image and class."""
    by_method: dict[str, dict[Target, dict[str, Any]]] = {}
    for row in read_rows(run).to_pylist():
        if row["status"] == "ok":
            by_method.setdefault(row["method"], {})[row["key"], row["label"]] = row
    return by_method


def has_run(name: str) -> bool:
    """Return whether a run is stored."""
    return (STORED_RUNS / f"{name}.parquet").exists()


def join_tables(runs: list[str], covered_by: str = "") -> tuple[Table, int]:
    """Return one table of several runs, over the images that one method ran on, and the number of images.

    Without a method: over all images, for the methods that ran on all of them.
    """
    rows = join_rows(runs)
    keys = set(rows["key"].to_pylist())
    images = {
        method: set(rows.filter(pc.equal(rows["method"], method))["key"].to_pylist())
        for method in METHODS
        if pc.any(pc.equal(rows["method"], method)).as_py()
    }
    images_used = images[covered_by] if covered_by else keys
    methods = [method for method, method_images in images.items() if method_images >= images_used]
    rows = rows.filter(pc.is_in(rows["key"], pa.array(sorted(images_used))))
    measures = next(read_head(name)["measures"] for name in runs if read_head(name)["measures"])
    return build_table([TableColumn(**measure) for measure in measures], methods, rows), len(images_used)


def format_differences(runs: list[str]) -> str:
    """Format the differences of our method from each other one over the same targets, with intervals."""
    rows = [row for name in runs for row in read_rows(name).to_pylist() if row["status"] == "ok"]
    by_item = {(row["method"], row["key"], row["label"]): row for row in rows}
    targets = [(key, label) for method, key, label in by_item if method == OURS]
    keys, labels = zip(*targets, strict=True)
    lines = [f"| `{OURS}` less | pointing, points | both blurred | energy | IoU |", "|---|---:|---:|---:|---:|"]
    for method in METHODS:
        if method != OURS and all((method, *target) in by_item for target in targets):
            cells = []
            for column, scale, by_class in COMPARED:
                ours, theirs = ([by_item[name, *target][column] for target in targets] for name in (OURS, method))
                estimate = mean_paired_difference(ours, theirs, classes=labels if by_class else None, groups=keys)
                digits = 1 if by_class else 3
                value, low, high = (
                    f"{scale * number:+.{digits}f}" for number in (estimate.value, estimate.low, estimate.high)
                )
                cells.append(f"{value} [{low}, {high}]")
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
