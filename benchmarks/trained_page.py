"""The tables and pictures of docs/trained.md, from the rows and pictures of trained.py."""

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evaluation import has_run, join_tables, store_run
from extremal.explanations.display import choose_column
from performance import DOCS
from records import replace_table

PAGE = DOCS / "trained.md"
SIDE, LABEL_HEIGHT, GAP = 200, 22, 8  # px of a picture
SHORT = {"embedded": "Lite0", "efficientnet-lite1": "Lite1", "efficientnet-lite2": "Lite2"}
SCENE_RUNS = {  # network and number of scenes -> folder of `extremal bench`
    "Lite0, 20": "scenes-lite0",
    "Lite2, 20": "scenes-lite2",
    "Lite2, 6": "scenes-lite2-consensus",
}
MIN_EFFECT = 0.9  # that a sufficient region keeps

Row = dict[str, Any]


def write_page(rows: list[Row], packages: Path) -> None:
    """Write the tables into the page, and the pictures beside it.

    Args:
        rows: of results/trained.jsonl, the latest of each kind last.
        packages: folder with the pictures of the cases.
    """
    text = PAGE.read_text(encoding="utf-8")
    tables = {
        "lite": format_lite(select(rows, "lite")),
        "transfer": format_transfer(select(rows, "transfer")),
        "sounds": format_cases(select(rows, "sound")),
        "faces": format_cases(select(rows, "face")),
        "text": format_cases(select(rows, "text")),
        "loading": format_loading(select(rows, "loading")),
    }
    for run in SCENE_RUNS.values():
        store_run(run, packages / run)
    tables["scenes"] = format_scenes()
    for mark, lines in tables.items():
        text = replace_table(text, mark, "\n".join(lines))
    PAGE.write_text(text, encoding="utf-8")
    draw_lite(select(rows, "lite"), packages, DOCS / "trained_lite.jpg")
    tiles = [("R-Net, face", "rnet.png"), ("O-Net, face", "onet.png"), ("text of line 2", "page.png")]
    join_pictures([tiles], packages, DOCS / "trained_others.jpg")
    join_sounds(packages, DOCS / "trained_sounds.png")
    print(PAGE)


def select(rows: list[Row], kind: str) -> list[Row]:
    """Return the rows of a kind, the latest of each question in the order of the first."""
    keys = ("case", "network", "origin", "asked", "file")
    return list({tuple(row.get(key) for key in keys): row for row in rows if row["kind"] == kind}.values())


def smallest(row: Row) -> str:
    """Return the smallest sufficient area of a row as text."""
    areas = (area for area, verdict in zip(row["areas"], row["verdicts"], strict=True) if verdict == "sufficient")
    found = next(areas, None)
    return "none" if found is None else f"{100 * found:.3g} %"


def label_shown(row: Row) -> str:
    """Return the area that the picture of a row shows, and its verdict."""
    column = choose_column(row["effects"], MIN_EFFECT)
    return f"{100 * row['areas'][column]:.3g} %, {row['verdicts'][column]}"


def in_percent(values: list[float]) -> str:
    """Return shares as text."""
    return " · ".join(f"{100 * value:.0f}" for value in values).replace("-", "−")


def format_lite(rows: list[Row]) -> list[str]:
    """Return the table of the photographs."""
    areas = " · ".join(f"{100 * area:.3g}" for area in rows[0]["areas"])
    lines = [
        f"| photograph, class | network | probability | effect at {areas} %, in % | best random | stable IoU | "
        "smallest sufficient area | seconds |",
        "|---|---|---:|---|---|---|---:|---:|",
    ]
    for row in rows:
        stable = " · ".join(f"{value:.2f}" for value in row["stable_iou"])
        lines.append(
            f"| {row['case'].replace('_', ' ')}, {row['asked']} | {SHORT[row['network']]} | {row['probability']:.2f} | "
            f"{in_percent(row['effects'])} | {in_percent(row['best_random'])} | {stable} | {smallest(row)} | "
            f"{row['seconds']:.0f} |"
        )
    return lines


def format_transfer(rows: list[Row]) -> list[str]:
    """Return the table of regions of one network judged on another, medians over the photographs."""
    lines = [
        "| region of | judged on | area | its own effect | effect there | that of the region found there | "
        "best random | IoU of the two regions | at least 90 % of the effect | photographs |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    pairs = sorted({(row["origin"], row["network"]) for row in rows}, key=lambda pair: [*map(list(SHORT).index, pair)])
    for origin, network in pairs:
        chosen = [row for row in rows if (row["origin"], row["network"]) == (origin, network)]
        for k, area in enumerate(chosen[0]["areas"]):
            cells = [
                f"{100 * median(row[name][k] for row in chosen):.0f} %"
                for name in ("own", "effects", "theirs", "best_random")
            ]
            held = sum(row["effects"][k] >= MIN_EFFECT for row in chosen)
            overlap = median(row["iou"][k] for row in chosen)
            lines.append(
                f"| {SHORT[origin]} | {SHORT[network]} | {100 * area:.3g} % | {' | '.join(cells)} | {overlap:.2f} | "
                f"{held} | {len(chosen)} |"
            )
    held = [(row["effects"][row["smallest"]], row["case"]) for row in rows if row["smallest"] is not None]
    kept = sum(effect >= MIN_EFFECT for effect, _ in held)
    lines += [
        "",
        f"Of {len(held)} pairs of a smallest sufficient region and another network, the region keeps 90 % of the "
        f"effect or more in {kept}; the median is {100 * median(effect for effect, _ in held):.0f} %, the least "
        f"{100 * min(held)[0]:.0f} % ({min(held)[1].replace('_', ' ')}).",
    ]
    return lines


def format_cases(rows: list[Row]) -> list[str]:
    """Return the table of other networks."""
    lines = [
        "| network | asked | score | areas, % | effect, % | unseen, % | best random, % | verdicts | stable IoU | "
        "right place | seconds |",
        "|---|---|---:|---|---|---|---|---|---|---|---:|",
    ]
    for row in rows:
        areas = " · ".join(f"{100 * area:.3g}" for area in row["areas"])
        verdicts = ", ".join(dict.fromkeys(row["verdicts"]))
        score = f"{row['score']:.3g}".replace("-", "−") if "score" in row else "–"
        stable = " · ".join(f"{value:.2f}" for value in row.get("stable_iou", ()))
        place = "".join(
            f"{name} {' · '.join(f'{value:.2f}' for value in row[key])}"
            for key, name in (("iou", "IoU"), ("inside", "inside"))
            if key in row
        )
        lines.append(
            f"| {row['network']} | {row['case']}: {row['asked']} | {score} | {areas} | {in_percent(row['effects'])} | "
            f"{in_percent(row['unseen'])} | {in_percent(row['best_random'])} | {verdicts}; smallest sufficient: "
            f"{smallest(row)} | {stable or '–'} | {place or '–'} | {row['seconds']:.0f} |"
        )
    return lines


def format_loading(rows: list[Row]) -> list[str]:
    """Return the table of files that were only loaded."""
    lines = ["| file | outcome |", "|---|---|"]
    return lines + [f"| `{row['file']}` | {row['message'] or 'loads'} |" for row in rows]


def format_scenes() -> list[str]:
    """Return the table of the pointing task on planted scenes; runs that are not stored are left out."""
    lines: list[str] = []
    for network, run in SCENE_RUNS.items():
        if has_run(run):
            head, rule, *rows = join_tables([run])[0].markdown().strip().splitlines()
            lines = lines or [f"| network, scenes {head}", f"|---{rule}"]
            lines += [f"| {network} {row}" for row in rows if row.startswith("|")]
    return lines


def draw_lite(rows: list[Row], packages: Path, path: Path) -> None:
    """Draw the regions of the Lite networks: a row for each photograph."""
    photographs = list(dict.fromkeys(row["case"] for row in rows))
    tiles = [
        [
            (
                f"{SHORT[row['network']]}: {label_shown(row)}",
                f"{photo}-{row['network']}.png",
            )
            for row in rows
            if row["case"] == photo
        ]
        for photo in photographs
    ]
    join_pictures(tiles, packages, path)


def join_pictures(tiles: list[list[tuple[str, str]]], packages: Path, path: Path) -> None:
    """Join pictures with labels to one."""
    height = SIDE + LABEL_HEIGHT + GAP
    columns = max(map(len, tiles))
    canvas = Image.new("RGB", (columns * (SIDE + GAP) - GAP, len(tiles) * height - GAP), "white")
    drawing, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for i, row in enumerate(tiles):
        for j, (label, file) in enumerate(row):
            left, top = j * (SIDE + GAP), i * height
            if (packages / file).exists():
                picture = Image.open(packages / file).convert("RGB")
                picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
                canvas.paste(picture, (left, top + LABEL_HEIGHT))
            drawing.text((left, top + 3), label, fill="black", font=font)
    canvas.save(path, quality=86)


def join_sounds(packages: Path, path: Path) -> None:
    """Join the drawings of sounds, one below the other."""
    files = [
        packages / f"tones-{name}.png" for name in ("anywhere-440", "how long-440", "how long-262", "how long-600")
    ]
    files += [packages / f"voice-{found}.png" for found in (True, False)]
    pictures = [np.asarray(Image.open(file).convert("RGB")) for file in files if file.exists()]
    if pictures:
        Image.fromarray(np.concatenate(pictures)).quantize(64).save(path, optimize=True)
