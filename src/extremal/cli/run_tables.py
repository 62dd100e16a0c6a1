"""Print summaries and comparisons of runs as tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from extremal.cli.tables import VERDICT_COLOURS
from extremal.explanations.verdict import VerdictLabel
from extremal.file_checks import to_printable
from extremal.jobs.run_comparison import Comparison
from extremal.jobs.run_summary import ImageSummary, Quantiles, Summary
from extremal.report import comparison_page, run_page
from extremal.report.text import (
    above_largest_area,
    area_percent,
    area_text,
    duration,
    iou_text,
    percent,
    plural,
    quantile_texts,
)

MAX_CLASSES, MAX_LISTED_IMAGES = 10, 8  # printed; the page shows all


def print_summary(summary: Summary, files: Mapping[str, str]) -> None:
    """Print verdicts, areas, classes, extremes, suspect images, failures, and the written files."""
    verdicts = Table(Column("verdict"), _right_column("images"), _right_column("share"))
    for word, count in summary.verdicts.items():
        if count:
            style = VERDICT_COLOURS.get(word, "")
            verdicts.add_row(Text(word, style=style), f"{count:,}", percent(count / summary.images))
    above = above_largest_area(summary.settings["areas"])
    quantiles = _quantiles_table(
        ("smallest area", summary.areas, area_percent, above),
        ("unseen effect", summary.unseen, percent, ""),
        ("lost", summary.loss, percent, ""),
    )
    words = ("images", *(word for word in summary.counted_verdicts if word != VerdictLabel.INSUFFICIENT))
    heads = (*words, "median area")
    classes = Table(Column("class"), *(_right_column(head) for head in heads))
    for group in summary.classes[:MAX_CLASSES]:
        median = quantile_texts(group.areas, area_percent, above)[2]
        counts = (group.images, *(group.count(word) for word in words[1:]))
        classes.add_row(Text(group.name), *(f"{count:,}" for count in counts), median)
    _print(
        run_page.headline(summary),
        run_page.caution(summary),
        verdicts,
        quantiles if summary.explained else "",
        classes if summary.classes else "",
        _more_line(len(summary.classes) - MAX_CLASSES, "classes"),
        _images_line("smallest", summary.smallest),
        _images_line("largest", summary.largest),
        *(f"suspect: {image.key} ({image.name}): {image.reason}" for image in summary.suspects[:MAX_LISTED_IMAGES]),
        _more_line(len(summary.suspects) - MAX_LISTED_IMAGES, "suspect images"),
        *(f"failed: {plural(count, 'image')}: {reason}" for reason, count in summary.failures[:MAX_LISTED_IMAGES]),
        _more_line(len(summary.failures) - MAX_LISTED_IMAGES, "reasons of failures"),
        f"{summary.evaluations:,} evaluations of the network, {duration(summary.seconds)} over all processes",
        *_file_lines(files),
    )


def print_comparison(comparison: Comparison, files: Mapping[str, str]) -> None:
    """Print what moved by area and class, what changed, which settings differ, and the written files."""
    overlaps = [
        (f"IoU at {area_percent(area)}", iou, iou_text, "")
        for area, iou in zip(comparison.areas, comparison.iou, strict=True)
    ]
    verdicts = Table(Column("verdict in the first"), Column("in the second"), _right_column("images"))
    for first, second, count in comparison.verdicts:
        verdicts.add_row(*(Text(word, style=VERDICT_COLOURS.get(word, "")) for word in (first, second)), f"{count:,}")
    heads = ("images", "moved", "verdicts changed", "median IoU")
    classes = Table(Column("class"), *(_right_column(head) for head in heads))
    for group in comparison.classes[:MAX_CLASSES]:
        counts = (group.images, group.moved, group.verdicts)
        classes.add_row(Text(group.name), *(f"{count:,}" for count in counts), iou_text(group.iou.median))
    finite = (pair for pair in comparison.pairs if pair.mean is not None)
    lowest = sorted(finite, key=lambda pair: pair.mean or 0.0)[:MAX_LISTED_IMAGES]
    sizes = ", ".join(f"{name} for {count:,}" for name, count in comparison.sizes.items())
    _print(
        f"{comparison.first} and {comparison.second}",
        comparison_page.headline(comparison),
        comparison_page.caution(comparison),
        *(f"differs: {name}: {first} / {second}" for name, first, second in comparison.differences),
        _quantiles_table(*overlaps, ("mean IoU", comparison.mean, iou_text, "")),
        verdicts,
        f"smallest area in the second: {sizes} of the images" if comparison.pairs else "",
        classes,
        _more_line(len(comparison.classes) - MAX_CLASSES, "classes"),
        "lowest IoU: " + ", ".join(f"{pair.first.key} ({iou_text(pair.mean)})" for pair in lowest) if lowest else "",
        *_keys_lines("failed in at least one of them", comparison.failed),
        *_keys_lines("only in the first", comparison.only_first),
        *_keys_lines("only in the second", comparison.only_second),
        *_file_lines(files),
    )


def _quantiles_table(*rows: tuple[str, Quantiles, Any, str]) -> Table:
    heads = ("images", "min", "25 %", "median", "75 %", "max")
    table = Table(Column("", no_wrap=True), *(_right_column(head) for head in heads))
    for label, quantiles, to_text, above in rows:
        table.add_row(label, f"{quantiles.count:,}", *quantile_texts(quantiles, to_text, above))
    return table


def _right_column(head: str) -> Column:
    return Column(head, justify="right")


def _images_line(label: str, images: Sequence[ImageSummary]) -> str:
    text = ", ".join(f"{image.key} ({image.name}, {area_text(image.area)})" for image in images[:MAX_LISTED_IMAGES])
    return f"{label}: {text}" if text else ""


def _keys_lines(label: str, keys: Sequence[str]) -> list[str]:
    text = f"{label}: {len(keys):,}: {', '.join(keys[:MAX_LISTED_IMAGES])}"
    return [text + (", …" if len(keys) > MAX_LISTED_IMAGES else "")] if keys else []


def _more_line(count: int, label: str) -> str:
    return f"and {count:,} more {label} in the page" if count > 0 else ""


def _file_lines(files: Mapping[str, str]) -> list[str]:
    return ["written:", *(f"  {to_printable(path)}" for path in files.values())]


def _print(*lines: Any) -> None:
    console = Console()
    for line in _printable_lines(lines):
        console.print(line, markup=False, highlight=False, soft_wrap=isinstance(line, str))


def _printable_lines(lines: Iterable[Any]) -> Iterable[Any]:
    """Return the lines that are not empty, with spaces where a terminal may break them."""
    return (line.replace("\xa0", " ") if isinstance(line, str) else line for line in lines if line != "")
