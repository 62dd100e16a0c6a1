"""What the command line tells of runs that are looked back at."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from extremal.cli.tables import VERDICT_COLOURS
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

MAX_CLASSES, MAX_LISTED = 10, 8  # told; the page has all


def print_summary(found: Summary, files: Mapping[str, str]) -> None:
    """Verdicts, areas, classes, extremes, what is suspect, what failed, and where the page is."""
    verdicts = Table(Column("verdict"), _right_column("images"), _right_column("share"))
    for word, count in found.verdicts.items():
        if count:
            verdicts.add_row(Text(word, style=VERDICT_COLOURS.get(word, "")), f"{count:,}", percent(count / found.images))
    beyond = above_largest_area(found.settings["areas"])
    spreads = _quantiles_table(
        ("smallest area", found.areas, area_percent, beyond),
        ("unseen effect", found.unseen, percent, ""),
        ("lost", found.loss, percent, ""),
    )
    classes = Table(
        *(Column("class"), _right_column("images"), _right_column("sufficient"), _right_column("suspect"), _right_column("median area"))
    )
    for one in found.classes[:MAX_CLASSES]:
        median = beyond if one.areas.median is None else area_percent(one.areas.median)
        classes.add_row(Text(one.name), *(f"{n:,}" for n in (one.images, one.sufficient, one.suspect)), median)
    _print(
        run_page.headline(found),
        run_page.caution(found),
        verdicts,
        spreads if found.explained else "",
        classes if found.classes else "",
        _more_line(len(found.classes) - MAX_CLASSES, "classes"),
        _images_line("smallest", found.smallest),
        _images_line("largest", found.largest),
        *(f"suspect: {image.key} ({image.name}): {image.reason}" for image in found.suspects[:MAX_LISTED]),
        _more_line(len(found.suspects) - MAX_LISTED, "suspect images"),
        *(f"failed: {plural(count, 'image')}: {reason}" for reason, count in found.failures[:MAX_LISTED]),
        _more_line(len(found.failures) - MAX_LISTED, "reasons of failures"),
        f"{found.evaluations:,} evaluations of the network, {duration(found.seconds)} over all processes",
        *_written_lines(files),
    )


def print_comparison(found: Comparison, files: Mapping[str, str]) -> None:
    """What moved, by area and class, what changed, what differs, and where the page is."""
    named = [
        (f"IoU at {area_percent(a)}", s, iou_text, "")
        for a, s in zip(found.areas, found.iou, strict=True)
    ]
    verdicts = Table(Column("verdict in the first"), Column("in the second"), _right_column("images"))
    for one, other, count in found.verdicts:
        verdicts.add_row(*(Text(word, style=VERDICT_COLOURS.get(word, "")) for word in (one, other)), f"{count:,}")
    classes = Table(
        *(Column("class"), _right_column("images"), _right_column("moved"), _right_column("verdicts changed"), _right_column("median IoU"))
    )
    for one_class in found.classes[:MAX_CLASSES]:
        counts = (one_class.images, one_class.moved, one_class.verdicts)
        classes.add_row(
            Text(one_class.name), *(f"{n:,}" for n in counts), iou_text(one_class.iou.median)
        )
    least = sorted((pair for pair in found.pairs if pair.mean is not None), key=lambda pair: pair.mean or 0.0)[:MAX_LISTED]
    sizes = ", ".join(f"{name} for {count:,}" for name, count in found.sizes.items())
    _print(
        f"{found.first} and {found.second}",
        comparison_page.headline(found),
        comparison_page.caution(found),
        *(f"differs: {name}: {one} / {other}" for name, one, other in found.differences),
        _quantiles_table(*named, ("mean IoU", found.mean, iou_text, "")),
        verdicts,
        f"smallest area in the second: {sizes} of the images" if found.pairs else "",
        classes,
        _more_line(len(found.classes) - MAX_CLASSES, "classes"),
        "share least: " + ", ".join(f"{pair.first.key} ({iou_text(pair.mean)})" for pair in least)
        if least
        else "",
        *_absent_lines("failed in one of them", found.failed),
        *_absent_lines("only in the first", found.only_first),
        *_absent_lines("only in the second", found.only_second),
        *_written_lines(files),
    )


def _quantiles_table(*rows: tuple[str, Quantiles, Any, str]) -> Table:
    heads = ("images", "least", "quarter", "median", "three quarters", "most")
    table = Table(Column("", no_wrap=True), *(_right_column(head) for head in heads))
    for label, one, write, beyond in rows:
        table.add_row(label, f"{one.count:,}", *quantile_texts(one, write, beyond))
    return table


def _right_column(head: str) -> Column:
    return Column(head, justify="right")


def _images_line(what: str, images: Sequence[ImageSummary]) -> str:
    told = ", ".join(f"{image.key} ({image.name}, {area_text(image.area)})" for image in images[:MAX_LISTED])
    return f"{what}: {told}" if told else ""


def _absent_lines(what: str, keys: Sequence[str]) -> list[str]:
    told = f"{what}: {len(keys):,}: {', '.join(keys[:MAX_LISTED])}"
    return [told + (", …" if len(keys) > MAX_LISTED else "")] if keys else []


def _more_line(count: int, what: str) -> str:
    return f"and {count:,} more {what} in the page" if count > 0 else ""


def _written_lines(files: Mapping[str, str]) -> list[str]:
    return ["written:", *(f"  {path}" for path in files.values())]


def _print(*lines: Any) -> None:
    out = Console()
    for line in _printable_lines(lines):
        out.print(line, markup=False, highlight=False, soft_wrap=isinstance(line, str))


def _printable_lines(lines: Iterable[Any]) -> Iterable[Any]:
    """Lines that are not empty, with spaces that a terminal may break at."""
    return (line.replace("\xa0", " ") if isinstance(line, str) else line for line in lines if line != "")
