"""The page of two runs over the same images: which explanations moved."""

from collections.abc import Mapping, Sequence

from extremal.jobs.run_comparison import MOVED_IOU, Comparison, ImagePair
from extremal.jobs.run_summary import ImageSummary
from extremal.report.html import render_template
from extremal.report.run_page import (
    NOTHING,
    Table,
    Tile,
    area_words,
    count_column,
    counted,
    labelled,
    number_column,
    spread_words,
)
from extremal.report.table_widget import Column, Thumbnail, picture_chunks, script, style, table_json
from extremal.report.text import area_percent, decimal, percent

N_LOWEST_OVERLAP, MAX_LISTED_KEYS = 8, 200  # pairs shown and keys told before the table
RUN_LABELS = ("First run, what is kept of", "Second run, what is kept of")

Thumbnails = Mapping[str, Thumbnail]  # by key


def render(found: Comparison, first: Thumbnails, second: Thumbnails, *, title: str | None = None) -> str:
    """The page as the text of an HTML file.

    Args:
        found: of the runs.
        first, second: JPEGs of either run by key; None where there is none.
        title: heading of the page; the names of the runs if None.
    """
    total = max(1, len(found.pairs))
    verdicts = [(_arrow(one, other), n) for one, other, n in found.verdicts]
    judged = sorted((pair for pair in found.pairs if pair.mean is not None), key=lambda pair: pair.mean or 0.0)
    return render_template(
        "compared.html.j2",
        script(),
        style(),
        settings=dict(found.common),
        title=title or f"{found.first} and {found.second}",
        summary={"headline": headline(found), "caution": caution(found)},
        found=found,
        verdicts=[(label, "", count, count / total) for label, count in verdicts],
        sizes=[(name, "", count, count / total) for name, count in found.sizes.items()],
        spreads=_spreads(found),
        chance=", ".join(f"{area / (2 - area):.2f} at {area_percent(area)}" for area in found.areas),
        moved=f"{MOVED_IOU:g}",
        least=[_tile(pair, first, second) for pair in judged[:N_LOWEST_OVERLAP]],
        absent=_absent(found),
        listed=MAX_LISTED_KEYS,
        classes=_classes(found),
        images=_images(found, first, second),
    )


def headline(found: Comparison) -> str:
    """What came of it, in one or two sentences."""
    if found.mean.median is None:
        return "No image was explained in both runs."
    changed = sum(count for one, other, count in found.verdicts if one != other)
    share = percent(found.moved / len(found.pairs))
    return (
        f"{found.moved:,} of {counted(len(found.pairs), 'explanation')} moved ({share}); the median of the mean IoU is "
        f"{overlap(found.mean.median)}. {counted(changed, 'verdict')} changed."
    )


def caution(found: Comparison) -> str:
    """What speaks against taking the two side by side; empty where nothing does."""
    told = [
        (found.target_changed, "asked about another class in the second run"),
        (len(found.failed), "failed in one of them"),
        (len(found.only_first) + len(found.only_second), "in one run only"),
    ]
    lines = [f"{counted(count, 'image')} {what}" for count, what in told if count]
    return "; ".join(lines) + "." if lines else ""


def overlap(value: float | None) -> str:
    """An IoU with two decimals, or that there is none."""
    return NOTHING if value is None else f"{value:.2f}"


def _arrow(one: str, other: str) -> str:
    return one if one == other else f"{one} → {other}"


def _spreads(found: Comparison) -> list[tuple[str, int, list[str]]]:
    named = [*((f"IoU at {area_percent(area)}", one) for area, one in zip(found.areas, found.iou, strict=True))]
    named.append(("Mean IoU", found.mean))
    told = [(name, one.count, spread_words(one, overlap)) for name, one in named]
    return [*told, ("Change of the whole image's score", found.scores.count, spread_words(found.scores, decimal))]


def _absent(found: Comparison) -> list[tuple[str, tuple[str, ...]]]:
    told = [
        ("Failed in one of the runs", found.failed),
        ("Only in the first run", found.only_first),
        ("Only in the second run", found.only_second),
    ]
    return [(heading, keys) for heading, keys in told if keys]


def _tile(pair: ImagePair, first: Thumbnails, second: Thumbnails) -> Tile:
    key = pair.first.key
    note = f"{_arrow(pair.first.name, pair.second.name)}, mean IoU {overlap(pair.mean)}"
    return Tile(key, note, labelled((RUN_LABELS[0], first.get(key)), (RUN_LABELS[1], second.get(key))))


def _classes(found: Comparison) -> Table:
    classes = found.classes
    columns = [
        Column("Class", [one.name for one in classes], "minmax(160px, 2fr)"),
        count_column("Images", [one.images for one in classes]),
        count_column("Moved", [one.moved for one in classes]),
        count_column("Verdicts changed", [one.verdicts for one in classes]),
        number_column("Least IoU", [one.iou.min for one in classes], overlap, "96px"),
        number_column("Median IoU", [one.iou.median for one in classes], overlap, "96px"),
    ]
    return Table(table_json("classes", columns, sort=(5, False)))


def _images(found: Comparison, first: Thumbnails, second: Thumbnails) -> Table:
    pairs = found.pairs
    columns = [
        Column("Image", [pair.first.key for pair in pairs], "minmax(120px, 1.3fr)"),
        Column(
            *("Class", [pair.first.name for pair in pairs], "minmax(110px, 1fr)"),
            notes=["" if one.first.target == one.second.target else f"→ {one.second.name}" for one in pairs],
            choice=True,
        ),
        Column(
            *("IoU", [pair.mean for pair in pairs], "minmax(190px, 1.3fr)"),
            shown=[overlap(pair.mean) for pair in pairs],
            notes=[_each(pair, found.areas) for pair in pairs],
        ),
        Column("Verdict", [_arrow(pair.first.verdict, pair.second.verdict) for pair in pairs], "150px", choice=True),
        Column(
            *("Smallest area", [_size(pair.second) - _size(pair.first) for pair in pairs], "130px"),
            shown=[_arrow(area_words(pair.first.area), area_words(pair.second.area)) for pair in pairs],
        ),
        _scores(pairs),
    ]
    parts = picture_chunks((first.get(pair.first.key), second.get(pair.first.key)) for pair in pairs)
    return Table(table_json("images", columns, pictures=RUN_LABELS, sort=(2, False)), list(parts))


def _each(pair: ImagePair, areas: Sequence[float]) -> str:
    if pair.iou is None:
        return "a run was not finite"
    return ", ".join(f"{overlap(one)} at {area_percent(area)}" for area, one in zip(areas, pair.iou, strict=True))


def _size(image: ImageSummary) -> float:
    return 2.0 if image.area is None else image.area


def _scores(pairs: Sequence[ImagePair]) -> Column:
    scores = [(pair.first.score, pair.second.score) for pair in pairs]
    assert all(score is not None for both in scores for score in both)
    told = [(one or 0.0, other or 0.0) for one, other in scores]
    shown = [f"{decimal(one)} → {decimal(other)}" for one, other in told]
    return Column("Score", [other - one for one, other in told], "150px", shown=shown)


__all__ = ["render"]
