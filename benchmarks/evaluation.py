"""Judged as the paper judges: every method on planted scenes, mosaics and photographs, and the tables of that.

Use: python benchmarks/evaluation.py --cutouts STAMPS [--runs FOLDER] [--tables]

Each run is one `extremal bench`, resumable, in its own folder below FOLDER; with --tables nothing runs and the tables
are made of what is there. Rows are kept in results/evaluation/, a file a run, so that tables can be made, and compared
with later ones, without running all again. Tables go to docs/evaluation.md, each between its two marks, figures beside
it. What a slow method has not reached is not in the first table; the scenes that it has are told again with all.
STAMPS: see solvers.py.
"""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import skimage.data
from PIL import Image

from extremal.benchmark import figure
from extremal.benchmark.baselines import METHODS
from extremal.benchmark.data.scenes import TUXPAINT_CUTOUTS
from extremal.benchmark.metrics.estimate import mean_paired_difference
from extremal.benchmark.table import Table, build_table
from extremal.benchmark.tasks.sanity import CHANGED_CORRELATION, similarity_curves
from extremal.benchmark.tasks.task import TableColumn
from extremal.jobs.store import read_manifest
from performance import DOCS
from records import FOLDER

PAGE, KEPT = DOCS / "evaluation.md", FOLDER / "evaluation"
SCENES, MANY = "scenes:{cutouts} --count 100", "centre,gradient,guided-backprop,integrated-gradients,grad-cam"
CONFIDENT = f"{MANY},contrastive-excitation,mask-gradient,path"
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "clock", "coffee", "coins", "horse", "moon", "page", "rocket")
FEW = (
    *("photographs/camera", "photographs/coffee"),
    *("cutouts/drake", "cutouts/fire_engine", "cutouts/basketball", "cutouts/brown_bear"),
)
COMPARED = (("hit", 100, True), ("hit_smoothed", 100, True), ("energy", 1, False), ("iou", 1, False))


@dataclass(frozen=True)
class Run:
    """One `extremal bench`."""

    task: str
    options: str


RUNS = {
    "fast": Run(
        "pointing",
        f"--data {SCENES} --methods centre,random,gradient,grad-cam,contrastive-excitation,excitation,mask-gradient,"
        "deconvnet,guided-backprop",
    ),
    "path": Run("pointing", f"--data {SCENES} --methods path"),
    "slow": Run("pointing", f"--data {SCENES} --methods integrated-gradients,occlusion"),
    "rise": Run("pointing", f"--data {SCENES} --batch 1 --methods rise"),
    "penalty": Run("pointing", f"--data {SCENES} --limit 4 --batch 1 --methods penalty"),
    "grid2": Run("grid", f"--data folder:{{pictures}} --cell 112 --count 10 --batch 1 --methods {CONFIDENT}"),
    "grid3": Run("grid", f"--data folder:{{pictures}} --side 3 --cell 112 --count 2 --batch 1 --methods {CONFIDENT}"),
    "faith": Run("faithfulness", f"--data folder:{{pictures}} --batch 1 --methods random,{CONFIDENT}"),
    "sanity": Run(
        "sanity",
        "--data folder:{few} --batch 1 --methods gradient,guided-backprop,grad-cam,contrastive-excitation,"
        "mask-gradient,path",
    ),
}


def main() -> None:
    """Run what is missing, then make the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--tables", action="store_true", help="only make the tables")
    options = parser.parse_args()
    if not options.tables:
        if options.cutouts is None:
            raise SystemExit("planted scenes need --cutouts FOLDER, or --tables for what has run")
        pictures = drawn(options.cutouts, options.runs / "pictures")
        few = chosen(pictures, options.runs / "few")
        for name, run in RUNS.items():
            arguments = run.options.format(cutouts=options.cutouts, pictures=pictures, few=few).split()
            command = [Path(sys.executable).with_name("extremal"), "bench", run.task, *arguments]
            subprocess.run([*command, "--out", options.runs / name], check=True)
    for name in RUNS:
        keep(name, options.runs / name)
    write()


def drawn(cutouts: Path, folder: Path) -> Path:
    """Photographs of scikit-image and the cut-outs on grey, as files: what confident pictures are looked for in."""
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


def chosen(pictures: Path, folder: Path) -> Path:
    """A few of them, for what takes long."""
    for name in FEW:
        save(Image.open(pictures / f"{name}.png"), folder / f"{name}.png")
    return folder


def save(picture: Image.Image, path: Path) -> None:
    """As PNG, in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def keep(name: str, run: Path) -> None:
    """Its rows and what its table tells in one file, where it has run."""
    if (run / "parts").exists() and any((run / "parts").glob("*.parquet")):
        told = run / "table.json"
        table = json.loads(told.read_text(encoding="utf-8")) if told.exists() else {}
        head = {"methods": list(read_manifest(run)["methods"]), "measures": table.get("measures", [])}
        rows = pq.read_table(run / "parts").replace_schema_metadata({"run": json.dumps(head)})
        KEPT.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, KEPT / f"{name}.parquet", compression="zstd")


def rows_of(name: str) -> pa.Table:
    """The rows of a run."""
    return pq.read_table(KEPT / f"{name}.parquet")


def head_of(name: str) -> dict[str, Any]:
    """Its methods, and the measures of its table; none where it has not run to its end."""
    head: dict[str, Any] = json.loads(pq.read_schema(KEPT / f"{name}.parquet").metadata[b"run"])
    return head


def write() -> None:
    """The tables into the page, and the figures beside it."""
    text = PAGE.read_text(encoding="utf-8")
    pointing = [name for name, run in RUNS.items() if run.task == "pointing" and there(name)]
    for mark, wanted in (("scenes", ""), ("rise", "rise"), ("penalty", "penalty")):
        if there(wanted or "path"):
            table, scenes = joined(pointing, wanted)
            text = placed(text, mark, f"{scenes} scenes.\n\n{table.markdown()}")
            if not wanted:
                figure.write_png(figure.draw_bars(table, f"{scenes} planted scenes"), DOCS / "evaluation.png")
                text = placed(text, "differences", differences(pointing))
    for name in ("grid2", "grid3", "faith", "sanity"):
        if there(name) and head_of(name)["measures"]:
            found, _ = joined([name])
            text = placed(text, name, found.markdown())
    if there("sanity") and head_of("sanity")["measures"]:
        stages, lines = similarity_curves(rows_of("sanity"), head_of("sanity")["methods"])
        title = "Maps while the network forgets, from the top"
        figure.write_png(figure.draw_curves(stages, lines, title, CHANGED_CORRELATION), DOCS / "sanity.png")
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)


def there(name: str) -> bool:
    """Whether it has run."""
    return (KEPT / f"{name}.parquet").exists()


def joined(runs: list[str], as_far_as: str = "") -> tuple[Table, int]:
    """One table of several runs, over the pictures that the run of one method has, and how many these are.

    Without a name: over all pictures, of the methods that were asked about all.
    """
    rows = pa.concat_tables([rows_of(name).replace_schema_metadata() for name in runs])
    keys = set(rows["key"].to_pylist())
    pictures = {
        method: set(rows.filter(pc.equal(rows["method"], method))["key"].to_pylist())
        for method in METHODS
        if pc.any(pc.equal(rows["method"], method)).as_py()
    }
    wanted = pictures[as_far_as] if as_far_as else keys
    methods = [method for method, own in pictures.items() if own >= wanted]
    rows = rows.filter(pc.is_in(rows["key"], pa.array(sorted(wanted))))
    measures = next(head_of(name)["measures"] for name in runs if head_of(name)["measures"])
    return build_table([TableColumn(**measure) for measure in measures], methods, rows), len(wanted)


def differences(runs: list[str]) -> str:
    """`path` less each other method, target by target; where an interval holds 0, they are not told apart."""
    rows = [row for name in runs for row in rows_of(name).to_pylist() if row["status"] == "ok"]
    found = {(row["method"], row["key"], row["label"]): row for row in rows}
    targets = [(key, label) for method, key, label in found if method == "path"]
    keys, labels = zip(*targets, strict=True)
    lines = ["| `path` less | pointing, points | both blurred | energy | IoU |", "|---|---:|---:|---:|---:|"]
    for method in METHODS:
        if method != "path" and all((method, *target) in found for target in targets):
            cells = []
            for column, scale, by_class in COMPARED:
                ours, theirs = ([found[name, *target][column] for target in targets] for name in ("path", method))
                told = mean_paired_difference(ours, theirs, classes=labels if by_class else None, groups=keys)
                digits = 1 if by_class else 3
                value, low, high = (f"{scale * one:+.{digits}f}" for one in (told.value, told.low, told.high))
                cells.append(f"{value} [{low}, {high}]")
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def placed(text: str, mark: str, table: str) -> str:
    """The page with a table between `<!-- mark -->` and `<!-- /mark -->`."""
    found, count = re.subn(
        rf"(<!-- {mark} -->).*?(<!-- /{mark} -->)", lambda m: f"{m[1]}\n{table}{m[2]}", text, flags=re.DOTALL
    )
    if count != 1:
        raise SystemExit(f"{PAGE} must have one place for {mark!r}, it has {count}")
    return found


if __name__ == "__main__":
    main()
