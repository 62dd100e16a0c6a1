"""The page that compares two runs over the same images: which explanations moved."""

from collections.abc import Mapping, Sequence

from extremal.jobs.run_comparison import MOVED_IOU, Comparison, ImagePair
from extremal.jobs.run_summary import ImageSummary
from extremal.report.html import render_template
from extremal.report.settings_text import describe_settings
from extremal.report.table_widget import (
    Column,
    EmbeddedTable,
    ImageTile,
    Thumbnail,
    count_column,
    jpeg_uris,
    number_column,
    picture_chunks,
    script,
    style,
    table_json,
)
from extremal.report.text import area_percent, area_text, decimal, iou_text, percent, plural, quantile_texts

N_LOWEST_OVERLAP, MAX_LISTED_KEYS = 8, 200  # pairs and keys shown before the table
RUN_LABELS = ("First run, kept part of", "Second run, kept part of")  # followed by the key of an image

Thumbnails = Mapping[str, Thumbnail]  # by key


def render(comparison: Comparison, first: Thumbnails, second: Thumbnails, *, title: str | None = None) -> str:
    """Render the page as the text of an HTML file.

    Args:
        comparison: of the runs.
        first: JPEGs of the first run by key; None if there is none.
        second: JPEGs of the second run.
        title: heading of the page; the names of the runs by default.
    """
    total = max(1, len(comparison.pairs))
    compared = (pair for pair in comparison.pairs if pair.mean is not None)
    described = _describe_settings(comparison)
    by_overlap = sorted(compared, key=lambda pair: pair.mean or 0.0)
    return render_template(
        "compared.html.j2",
        script(),
        style(),
        settings=dict(comparison.common),
        described=[(name, first) for name, first, second in described if first == second],
        differences=[row for row in described if row[1] != row[2]],
        title=title or f"{comparison.first} and {comparison.second}",
        summary={"headline": headline(comparison), "caution": caution(comparison)},
        comparison=comparison,
        verdicts=[(_change(a, b), "", count, count / total) for a, b, count in comparison.verdicts],
        sizes=[(name, "", count, count / total) for name, count in comparison.sizes.items()],
        quantile_rows=_quantile_rows(comparison),
        random_iou=", ".join(f"{area / (2 - area):.2f} at {area_percent(area)}" for area in comparison.areas),
        moved_iou=f"{MOVED_IOU:g}",
        lowest=[_pair_tile(pair, first, second) for pair in by_overlap[:N_LOWEST_OVERLAP]],
        missing=_missing_images(comparison),
        max_listed=MAX_LISTED_KEYS,
        classes=_class_table(comparison),
        images=_image_table(comparison, first, second),
    )


def _describe_settings(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Return the settings in words: what they are about, in the first run, in the second."""
    first, second = (dict(describe_settings(run["explain"], run["areas"])) for run in comparison.settings)
    return [(name, first.get(name, "–"), second.get(name, "–")) for name in {**first, **second}]


def headline(comparison: Comparison) -> str:
    """Describe the result in one or two sentences."""
    if comparison.mean.median is None:
        return "No image was explained in both runs."
    changes = sum(count for a, b, count in comparison.verdicts if a != b)
    fraction = percent(comparison.moved / len(comparison.pairs))
    return (
        f"{comparison.moved:,} of {plural(len(comparison.pairs), 'explanation')} moved ({fraction}); the median of the "
        f"mean IoU is {iou_text(comparison.mean.median)}. {plural(changes, 'verdict')} changed."
    )


def caution(comparison: Comparison) -> str:
    """Count the images that cannot be compared or differ in their class; empty if there are none."""
    counts = [
        (comparison.target_changed, "explained for another class in the second run"),
        (len(comparison.failed), "failed in at least one of the runs"),
        (len(comparison.only_first) + len(comparison.only_second), "in one run only"),
    ]
    lines = [f"{plural(count, 'image')} {what}" for count, what in counts if count]
    return "; ".join(lines) + "." if lines else ""


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _quantile_rows(comparison: Comparison) -> list[tuple[str, int, list[str]]]:
    by_area = zip(comparison.areas, comparison.iou, strict=True)
    ious = [*((f"IoU at {area_percent(area)}", iou) for area, iou in by_area), ("Mean IoU", comparison.mean)]
    rows = [(label, iou.count, quantile_texts(iou, iou_text)) for label, iou in ious]
    scores = comparison.scores
    return [*rows, ("Change of the whole image's score", scores.count, quantile_texts(scores, decimal))]


def _missing_images(comparison: Comparison) -> list[tuple[str, tuple[str, ...]]]:
    groups = [
        ("Failed in one of the runs", comparison.failed),
        ("Only in the first run", comparison.only_first),
        ("Only in the second run", comparison.only_second),
    ]
    return [(heading, keys) for heading, keys in groups if keys]


def _pair_tile(pair: ImagePair, first: Thumbnails, second: Thumbnails) -> ImageTile:
    key = pair.first.key
    note = f"{_change(pair.first.name, pair.second.name)}, mean IoU {iou_text(pair.mean)}"
    return ImageTile(key, note, jpeg_uris((RUN_LABELS[0], first.get(key)), (RUN_LABELS[1], second.get(key))))


def _class_table(comparison: Comparison) -> EmbeddedTable:
    classes = comparison.classes
    columns = [
        Column("Class", [entry.name for entry in classes], "minmax(160px, 2fr)"),
        count_column("Images", [entry.images for entry in classes]),
        count_column("Moved", [entry.moved for entry in classes]),
        count_column("Verdicts changed", [entry.verdicts for entry in classes]),
        number_column("Lowest IoU", [entry.iou.min for entry in classes], iou_text, "96px"),
        number_column("Median IoU", [entry.iou.median for entry in classes], iou_text, "96px"),
    ]
    return EmbeddedTable(table_json("classes", columns, sort=(5, False)))


def _image_table(comparison: Comparison, first: Thumbnails, second: Thumbnails) -> EmbeddedTable:
    pairs = comparison.pairs
    columns = [
        Column("Image", [pair.first.key for pair in pairs], "minmax(120px, 1.3fr)"),
        Column(
            *("Class", [pair.first.name for pair in pairs], "minmax(110px, 1fr)"),
            notes=["" if pair.first.target == pair.second.target else f"→ {pair.second.name}" for pair in pairs],
            choice=True,
        ),
        Column(
            *("IoU", [pair.mean for pair in pairs], "minmax(190px, 1.3fr)"),
            shown=[iou_text(pair.mean) for pair in pairs],
            notes=[_iou_by_area(pair, comparison.areas) for pair in pairs],
        ),
        Column("Verdict", [_change(pair.first.verdict, pair.second.verdict) for pair in pairs], "150px", choice=True),
        Column(
            *("Smallest area", [_area_sort_key(pair.second) - _area_sort_key(pair.first) for pair in pairs], "130px"),
            shown=[_change(area_text(pair.first.area), area_text(pair.second.area)) for pair in pairs],
        ),
        _score_column(pairs),
    ]
    chunks = picture_chunks((first.get(pair.first.key), second.get(pair.first.key)) for pair in pairs)
    return EmbeddedTable(table_json("images", columns, pictures=RUN_LABELS, sort=(2, False)), list(chunks))


def _iou_by_area(pair: ImagePair, areas: Sequence[float]) -> str:
    if pair.iou is None:
        return "not finite in one of the runs"
    return ", ".join(f"{iou_text(iou)} at {area_percent(area)}" for area, iou in zip(areas, pair.iou, strict=True))


def _area_sort_key(image: ImageSummary) -> float:
    return 2.0 if image.area is None else image.area


def _score_column(pairs: Sequence[ImagePair]) -> Column:
    scores = [(pair.first.score, pair.second.score) for pair in pairs]
    assert all(score is not None for both in scores for score in both)
    changes = [(first or 0.0, second or 0.0) for first, second in scores]
    shown = [f"{decimal(first)} → {decimal(second)}" for first, second in changes]
    return Column("Score", [second - first for first, second in changes], "150px", shown=shown)
