"""Make the gallery of the guide: real runs of the embedded network on scikit-image's photographs, failures included.

Use: python examples/gallery.py [--words]      (some ten minutes on one core; --words writes the page alone, at once)

Numbers of the runs go into gallery/numbers.json, pictures into gallery/, and gallery.md is written from the numbers
alone (`gallery_page.py`). Where a run finds another verdict than its words were written for (`gallery_entries.py`), the
script stops.
"""

import json
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import skimage.data
import torch
from gallery_entries import ENTRIES, PHOTOS, SURVEY, Asked, Channels, Entry
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

AREAS = (0.025, 0.05, 0.1, 0.2, 0.4)
LOW, HIGH = -1.0, 2.0  # effects drawn
WIDE, TALL, DPI, QUALITY = 9.0, 2.6, 100, 88  # 900 px


def photograph(name: str) -> Image.Image:
    """One of scikit-image's, as `photograph.py` writes it."""
    return Image.fromarray(getattr(skimage.data, name)())


@cache
def network(name: str, weights: str) -> extremal.Network:
    """A network by name."""
    return extremal.zoo.load(name or "embedded", weights or None)


@cache
def run(asked: Asked) -> extremal.Explanation:
    """As the command does it."""
    told = {name: asked.options[name] for name in ("game", "perturbation") if name in asked.options}
    count, target = int(asked.alternatives or 1), asked.target or None
    net = network(asked.network, asked.weights)
    return extremal.explain(net, photograph(asked.photo), target, areas=AREAS, alternatives=count, **told)


def recorded(net: extremal.Network, result: extremal.Explanation) -> Record:
    """The numbers of the first input of a run."""
    curve = result.curve()
    names = ("area", "soft", "binary", "unseen", "control", "control_best")
    columns = (curve.areas, curve.soft, curve.binary, curve.unseen, curve.control, curve.control_best)
    rows = [dict(zip(names, map(rounded, values), strict=True)) for values in zip(*columns, strict=True)]
    for row, verdict, status in zip(rows, result.verdict[0], result.status[0], strict=True):
        row |= {"verdict": str(verdict), "reason": verdict.reason, "status": str(status)}
    regions = [{"area": r.area, "effect": rounded(r.effect)} for r in result.regions()] if result.alternatives else []
    return classed(net, result) | {
        "keeps": result.keeps,
        "rows": rows,
        "regions": regions,
        "answers": 1 + len(result.alternatives),
    }


def recorded_channels(net: extremal.Network, result: extremal.ChannelExplanation) -> Record:
    """The numbers of a run over channels."""
    curve, least = result.curve(), result.smallest()
    rows = [
        {
            "count": count,
            "binary": rounded(curve.binary[k]),
            "control_best": rounded(curve.random_best[k]),
            "ranked": {name: rounded(values[k]) for name, values in curve.ranked.items()},
            "verdict": str(result.verdict[0][k]),
            "reason": result.verdict[0][k].reason,
        }
        for k, count in enumerate(result.counts)
    ]
    smallest = {"count": least.count, "channels": list(least.channels), "effect": rounded(least.effect)}
    return classed(net, result) | {"layer": result.layer, "total": result.total, "rows": rows, "smallest": smallest}


def classed(net: extremal.Network, result: Any) -> Record:
    """What the network says of the whole picture."""
    with torch.no_grad(), net.frozen() as frozen:
        scores = frozen(result.inputs)[0].softmax(0)
    (target, *_) = result.target
    return {
        "class": result.target_names[0],
        "probability": float(f"{float(scores[target]):.3g}"),
        "rank": 1 + int((scores > scores[target]).sum()),
        "classes": len(scores),
        "score_full": rounded(float(result.score_full[0])),
        "score_blank": rounded(float(result.score_blank[0])),
    }


def rounded(value: float) -> float:
    """As it is recorded."""
    return round(value, 4)


# Pictures


def picture(entry: Entry, result: Any, record: Record, path: Path) -> None:
    """One entry on a line: the photograph, the regions, the evidence curve."""
    tiles = panels(result, record) if isinstance(entry.asked, Asked) else carried(entry.asked, result, record)
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
    curve(axes[-1], record)
    drawing.savefig(path, pil_kwargs={"quality": QUALITY, "optimize": True})


def panels(result: extremal.Explanation, record: Record) -> list[tuple[str, Any]]:
    """Titles and drawers of the regions: those of the answers that are enough, or the one that is told of."""
    verb = "kept" if record["keeps"] else "removed"
    answers = [(region.source, region.area) for region in result.regions()] if result.alternatives else []
    tiles = []
    for source, area in answers or [(0, result.areas[record["rows"].index(shown(record))])]:
        answer = (result, *result.alternatives)[source]
        column = answer.areas.index(area)
        tiles.append((f"{area_percent(area)} {verb}", lambda axes, a=answer, k=column: draw_mask(axes, a, 0, k)))
    return tiles


def carried(asked: Channels, result: extremal.ChannelExplanation, record: Record) -> list[tuple[str, Any]]:
    """The map of a set of channels over the photograph, and what they and the rest carry, as pictures."""
    count = shown(record)["count"]
    seen = extremal.invert("embedded", asked.layer, result.inputs, result.binary(count))
    backdrop = Image.fromarray(result.pictures[0].numpy()).convert("L")

    def mapped(axes: Axes) -> None:
        axes.imshow(backdrop, cmap="gray", vmin=0, vmax=255)
        axes.imshow(result.map(count).numpy(), cmap="inferno", alpha=0.6)

    pictures = {part: seen.pictures[0, k].numpy() for k, part in enumerate(seen.parts)}
    return [
        (f"{count} channels", mapped),
        ("they carry", lambda axes: axes.imshow(pictures["kept"])),
        ("the rest", lambda axes: axes.imshow(pictures["removed"])),
    ]


def curve(axes: Axes, record: Record) -> None:
    """The evidence curve; the size that is shown is ringed."""
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
    axes.axhline(SUFFICIENT_EFFECT, color=THRESHOLD_COLOUR, linewidth=0.9, linestyle=":", label=f"enough, {percent(SUFFICIENT_EFFECT)}")
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


# All of it


def told(entry: Entry) -> tuple[Any, Record]:
    """The result of an entry and its numbers, which must bear out its words."""
    asked = entry.asked
    if isinstance(asked, Channels):
        net = network("", "")
        result: Any = extremal.explain_channels(net, photograph(asked.photo), asked.layer, counts=asked.counts)
        record = recorded_channels(net, result)
    else:
        whole = run(asked)
        result = (whole, *whole.alternatives)[entry.answer]
        record = recorded(network(asked.network, asked.weights), result)
        if entry.answer:
            record["answer"] = f"{entry.answer + 1} of {1 + len(whole.alternatives)}"
        if entry.area:
            record["shown"] = result.areas.index(entry.area)
    check(entry, record)
    return result, record


def check(entry: Entry, record: Record) -> None:
    """Stop where a text would say what the run did not find."""
    row = shown(record)
    if not f"{row['verdict']}: {row['reason']}".startswith(entry.verdict):
        raise SystemExit(
            f"{entry.name} is written for {entry.verdict!r}, its run found {row['verdict']}: {row['reason']}"
        )


def kind(verdict: Any) -> str:
    """Which column of the survey a verdict belongs to."""
    return next(name for name, begins in KINDS.items() if f"{verdict}: {verdict.reason}".startswith(begins))


def surveyed() -> Record:
    """How often each verdict came up, over every photograph and area."""
    counts = {}
    for name, options in SURVEY.items():
        verdicts = [verdict for photo in PHOTOS for verdict in run(Asked(photo, **options)).verdict[0]]
        counts[name] = dict(Counter(map(kind, verdicts)))
        print(name, counts[name], flush=True)
    return counts


def write(docs: Path) -> None:
    """The page, from the numbers that are recorded."""
    numbers = json.loads((docs / "gallery" / "numbers.json").read_text(encoding="utf-8"))
    (docs / "gallery.md").write_text(page(numbers), encoding="utf-8")


def main(docs: Path) -> None:
    """Run everything, then write numbers, pictures and page."""
    torch.set_num_threads(1)  # more would round otherwise, and find other masks
    folder = docs / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    records = {}
    for entry in ENTRIES:
        result, records[entry.name] = told(entry)
        picture(entry, result, records[entry.name], folder / f"{entry.name}.jpg")
        print(entry.name, shown(records[entry.name]), flush=True)
    numbers = {"entries": records, "survey": surveyed()}
    (folder / "numbers.json").write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write(docs)


if __name__ == "__main__":
    (write if "--words" in sys.argv else main)(Path("docs"))
