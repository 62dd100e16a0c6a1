"""Create the gallery of the guide: runs of the embedded network on scikit-image's photographs, including failures.

Usage: python examples/gallery.py [--words]      (some ten minutes on one core; --words only writes the page)

Numbers of the runs are stored in gallery/numbers.json, pictures in gallery/; `gallery_page.py` writes gallery.md from
the numbers. The script stops if the verdict of a run differs from the one that its commentary in
`gallery_entries.py` was written for.
"""

import json
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import skimage.data
import torch
from gallery_entries import ENTRIES, PHOTOS, SURVEY, ChannelRun, Entry, ImageRun
from gallery_page import KINDS, Record, page, shown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter
from PIL import Image

import extremal
from extremal.explanations.verdict import SUFFICIENT_EFFECT
from extremal.report.figure_style import ACCENT_COLOUR, CONTROL_COLOUR, THRESHOLD_COLOUR, UNSEEN_COLOUR, hide_axes
from extremal.report.plots import draw_mask
from extremal.report.text import area_percent, percent
from extremal.scores.parse import parse_class

AREAS = (0.025, 0.05, 0.1, 0.2, 0.4)
LOW, HIGH = -1.0, 2.0  # limits of the effects drawn
WIDE, TALL, DPI, QUALITY = 9.0, 2.6, 100, 88  # 900 px


def photograph(name: str) -> Image.Image:
    """Return one of scikit-image's photographs, as `photograph.py` writes it."""
    return Image.fromarray(getattr(skimage.data, name)())


@cache
def network(name: str, weights: str) -> extremal.Network:
    """Load a network by name."""
    return extremal.zoo.load(name or "embedded", weights or None)


@cache
def explain(run: ImageRun) -> extremal.Explanation:
    """Run `extremal.explain` as the command does."""
    options = {name: run.options[name] for name in ("game", "perturbation", "solver") if name in run.options}
    settings = extremal.Settings(areas=AREAS, alternatives=int(run.alternatives or 1), **options)
    net = network(run.network, run.weights)
    return extremal.explain(net, photograph(run.photo), parse_class(net, run.target), settings=settings)


def to_record(net: extremal.Network, result: extremal.Explanation) -> Record:
    """Return the numbers of the first input of a run."""
    curve = result.curve()
    names = ("area", "soft", "binary", "unseen", "control", "control_best")
    columns = (curve.areas, curve.soft, curve.binary, curve.unseen, curve.control, curve.control_best)
    rows = [dict(zip(names, map(round_value, values), strict=True)) for values in zip(*columns, strict=True)]
    for row, count, verdict, status in zip(
        rows, result.count_controls(), result.verdict[0], result.status[0], strict=True
    ):
        row |= {"controls": count, "verdict": str(verdict), "reason": verdict.reason, "status": str(status)}
    regions = (
        [{"area": r.area, "effect": round_value(r.effect)} for r in result.regions()] if result.alternatives else []
    )
    return describe_target(net, result) | {
        "keeps": result.keeps,
        "rows": rows,
        "regions": regions,
        "answers": 1 + len(result.alternatives),
    }


def to_channel_record(net: extremal.Network, result: extremal.ChannelExplanation) -> Record:
    """Return the numbers of a run over channels."""
    curve, certificate = result.curve(), result.smallest()
    rows = [
        {
            "count": count,
            "binary": round_value(curve.binary[k]),
            "control_best": round_value(curve.random_best[k]),
            "ranked": {name: round_value(values[k]) for name, values in curve.ranked.items()},
            "verdict": str(result.verdict[0][k]),
            "reason": result.verdict[0][k].reason,
        }
        for k, count in enumerate(result.counts)
    ]
    smallest = {
        "count": certificate.count,
        "channels": list(certificate.channels),
        "effect": round_value(certificate.effect),
    }
    return describe_target(net, result) | {
        "layer": result.layer,
        "total": result.total,
        "rows": rows,
        "smallest": smallest,
    }


def describe_target(net: extremal.Network, result: Any) -> Record:
    """Return class, probability, rank and scores of the whole image; of a group, its own among the other classes."""
    with torch.no_grad(), net.frozen() as frozen:
        scores = frozen(result.inputs)[0].softmax(0)
    (target, *_) = result.target
    members = list(target) if isinstance(target, tuple) else [target]
    probability = scores[members].sum()
    scores[members] = 0.0
    return {
        "class": result.target_names[0],
        "probability": float(f"{float(probability):.3g}"),
        "rank": 1 + int((scores > probability).sum()),
        "classes": len(scores),
        "score_full": round_value(float(result.score_full[0])),
        "score_blank": round_value(float(result.score_blank[0])),
    }


def round_value(value: float) -> float:
    """Round a number to the recorded precision."""
    return round(value, 4)


# Pictures


def draw_entry(entry: Entry, result: Any, record: Record, path: Path) -> None:
    """Draw one entry: the photograph, the regions, the evidence curve."""
    tiles = (
        region_tiles(result, record) if isinstance(entry.run, ImageRun) else channel_tiles(entry.run, result, record)
    )
    drawing = Figure(figsize=(WIDE, TALL), dpi=DPI, layout="constrained")
    ratios = [1.0] * (1 + len(tiles)) + [1.75 if len(tiles) < 3 else 1.4]
    axes = drawing.subplots(1, len(ratios), width_ratios=ratios)
    axes[0].imshow(result.pictures[0].numpy())
    axes[0].set_title("as the network sees it" if len(tiles) < 3 else "input", size=9)
    hide_axes(axes[0])
    for place, (title, draw) in zip(axes[1:], tiles, strict=False):
        draw(place)
        place.set_title(title, size=9)
        hide_axes(place)
    draw_curve(axes[-1], record)
    drawing.savefig(path, pil_kwargs={"quality": QUALITY, "optimize": True})


def region_tiles(result: extremal.Explanation, record: Record) -> list[tuple[str, Any]]:
    """Return titles and draw functions of the regions of sufficient explanations, or of the row shown."""
    verb = "kept" if record["keeps"] else "removed"
    explanations = [(region.source, region.area) for region in result.regions()] if result.alternatives else []
    tiles = []
    for source, area in explanations or [(0, result.areas[record["rows"].index(shown(record))])]:
        explanation = (result, *result.alternatives)[source]
        column = explanation.areas.index(area)
        tiles.append((f"{area_percent(area)} {verb}", lambda axes, e=explanation, k=column: draw_mask(axes, e, 0, k)))
    return tiles


def channel_tiles(run: ChannelRun, result: extremal.ChannelExplanation, record: Record) -> list[tuple[str, Any]]:
    """Return tiles of a set of channels: its map over the photograph, and inversions of the set and of the rest."""
    count = shown(record)["count"]
    inversion = extremal.invert("embedded", run.layer, result.inputs, result.binary(count))
    backdrop = Image.fromarray(result.pictures[0].numpy()).convert("L")

    def draw_map(axes: Axes) -> None:
        axes.imshow(backdrop, cmap="gray", vmin=0, vmax=255)
        axes.imshow(result.map(count).numpy(), cmap="inferno", alpha=0.6)

    pictures = {part: inversion.pictures[0, k].numpy() for k, part in enumerate(inversion.parts)}
    return [
        (f"{count} channels", draw_map),
        ("they carry", lambda axes: axes.imshow(pictures["kept"])),
        ("the rest", lambda axes: axes.imshow(pictures["removed"])),
    ]


def draw_curve(axes: Axes, record: Record) -> None:
    """Draw the evidence curve, with the shown size ringed."""
    rows, channels = record["rows"], "layer" in record
    sizes = [row["count" if channels else "area"] for row in rows]
    lines = {
        "binary": ("cut", ACCENT_COLOUR, "o-"),
        "soft": ("as found", ACCENT_COLOUR, ".:"),
        "unseen": ("unseen", UNSEEN_COLOUR, "s--"),
        "control_best": ("best random", CONTROL_COLOUR, "^-"),
    }
    for key, (label, colour, style) in lines.items():
        if key in rows[0]:
            heights = [min(HIGH, max(LOW, row[key])) for row in rows]
            axes.plot(sizes, heights, style, color=colour, label=label, markersize=4, linewidth=1.4)
    row = shown(record)
    place = sizes[rows.index(row)], min(HIGH, max(LOW, row["binary"]))
    axes.plot(*place, "o", markersize=11, markerfacecolor="none", markeredgecolor=THRESHOLD_COLOUR, label="shown")
    axes.axhline(
        SUFFICIENT_EFFECT,
        color=THRESHOLD_COLOUR,
        linewidth=0.9,
        linestyle=":",
        label=f"enough, {percent(SUFFICIENT_EFFECT)}",
    )
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size}" if channels else f"{100 * size:g}" for size in sizes], size=8)
    axes.minorticks_off()
    axes.yaxis.set_major_locator(MultipleLocator(0.5))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    axes.tick_params(labelsize=8)
    done = "kept" if record.get("keeps", True) else "removed"
    axes.set_xlabel(f"channels {done}" if channels else f"area {done} / %", size=8)
    axes.set_title("effect / %", size=9, loc="left")
    axes.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1.6)
    axes.spines[["top", "right"]].set_visible(False)


# Runs


def run_entry(entry: Entry) -> tuple[Any, Record]:
    """Return the result of an entry and its numbers, checked against its commentary."""
    run = entry.run
    if isinstance(run, ChannelRun):
        net = network("", "")
        result: Any = extremal.explain_channels(net, photograph(run.photo), run.layer, counts=run.counts)
        record = to_channel_record(net, result)
    else:
        first = explain(run)
        result = (first, *first.alternatives)[entry.answer]
        record = to_record(network(run.network, run.weights), result)
        if entry.answer:
            record["answer"] = f"{entry.answer + 1} of {1 + len(first.alternatives)}"
        if entry.area:
            record["shown"] = result.areas.index(entry.area)
    check(entry, record)
    return result, record


def check(entry: Entry, record: Record) -> None:
    """Stop if the commentary would contradict the run."""
    row = shown(record)
    if not f"{row['verdict']}: {row['reason']}".startswith(entry.verdict):
        raise SystemExit(
            f"{entry.name} is written for {entry.verdict!r}, its run found {row['verdict']}: {row['reason']}"
        )


def kind(verdict: Any) -> str:
    """Return the column of the survey that a verdict belongs to."""
    return next(name for name, begins in KINDS.items() if f"{verdict}: {verdict.reason}".startswith(begins))


def count_verdicts() -> Record:
    """Count the verdicts over all photographs and areas."""
    counts = {}
    for name, options in SURVEY.items():
        verdicts = [verdict for photo in PHOTOS for verdict in explain(ImageRun(photo, **options)).verdict[0]]
        counts[name] = dict(Counter(map(kind, verdicts)))
        print(name, counts[name], flush=True)
    return counts


def write(docs: Path) -> None:
    """Write the page from the recorded numbers."""
    numbers = json.loads((docs / "gallery" / "numbers.json").read_text(encoding="utf-8"))
    (docs / "gallery.md").write_text(page(numbers), encoding="utf-8")


def main(docs: Path) -> None:
    """Run everything; write numbers, pictures and page."""
    torch.set_num_threads(1)  # other numbers of threads round differently and find other masks
    folder = docs / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    records = {}
    for entry in ENTRIES:
        result, records[entry.name] = run_entry(entry)
        draw_entry(entry, result, records[entry.name], folder / f"{entry.name}.jpg")
        print(entry.name, shown(records[entry.name]), flush=True)
    numbers = {"entries": records, "survey": count_verdicts()}
    (folder / "numbers.json").write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write(docs)


if __name__ == "__main__":
    (write if "--words" in sys.argv else main)(Path("docs"))
