"""The page of a run over a data set: a summary, and a table of all images."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from extremal.explanations.display import network_text
from extremal.explanations.verdict import VerdictLabel
from extremal.jobs.rows import VERDICTS
from extremal.jobs.run_summary import ImageSummary, Summary
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
from extremal.report.text import (
    MIN_QUANTILES,
    above_largest_area,
    area_percent,
    area_text,
    decimal,
    duration,
    nbsp,
    percent,
    plural,
    quantile_texts,
    weights_caution,
)

MAX_SUSPECTS, MAX_FAILURES = 12, 20  # shown before the table
KEPT_LABEL = "Kept part of"  # followed by the key of an image


def render(
    summary: Summary,
    images: Sequence[ImageSummary],
    thumbnails: Mapping[str, Thumbnail],
    *,
    title: str | None = None,
    links: Mapping[str, str | None] | None = None,
) -> str:
    """Render the page as the text of an HTML file.

    Args:
        summary: of the run.
        images: all images of the run.
        thumbnails: JPEGs by key; None if there is none.
        title: heading of the page; the network's name by default.
        links: addresses of the images' own pages by key; None: there are none.
    """
    network = network_name(summary.settings)

    def build_tile(image: ImageSummary, reason: str = "") -> ImageTile:
        note = f"{image.name}, {area_text(image.area)}{reason}"
        return ImageTile(image.key, note, jpeg_uris((KEPT_LABEL, thumbnails.get(image.key))))

    def build_tiles(extremes: Iterable[ImageSummary]) -> list[ImageTile]:
        return [build_tile(image) for image in extremes]

    return render_template(
        "run.html.j2",
        script(),
        style(),
        settings=summary.settings,
        described=describe_settings(summary.settings["explain"], summary.settings["areas"]),
        title=title or f"A run of {network}",
        summary={"headline": headline(summary), "caution": caution(summary)},
        run=summary,
        network=network,
        verdicts=[(word, f"word {word}", n, n / max(1, summary.images)) for word, n in summary.verdicts.items() if n],
        areas=_area_bars(summary),
        quantile_rows=_quantile_rows(summary),
        smallest=build_tiles(summary.smallest),
        largest=build_tiles(summary.largest),
        suspects=[build_tile(image, f": {nbsp(image.reason)}") for image in summary.suspects[:MAX_SUSPECTS]],
        n_more_suspects=len(summary.suspects) - MAX_SUSPECTS,
        n_more_failures=max(0, len(summary.failures) - MAX_FAILURES),
        classes=_class_table(summary),
        images=_image_table(images, thumbnails, links or {}),
        failures=[f"{plural(count, 'image')}: {reason}" for reason, count in summary.failures[:MAX_FAILURES]],
        untested=plural(summary.untested, "image") if summary.untested else "",
        time=duration(summary.seconds),
    )


def network_name(settings: Mapping[str, Any]) -> str:
    """Return the name of a run's network."""
    return network_text(settings["explain"])


def headline(summary: Summary) -> str:
    """Describe the result of the run in one or two sentences."""
    if not summary.explained:
        return "No image was explained."
    count, median = summary.verdicts[VerdictLabel.SUFFICIENT], summary.areas.median
    fraction, verb = percent(count / summary.explained), "has" if summary.explained == 1 else "have"
    sentence = f"{count:,} of {plural(summary.explained, 'explained image')} ({fraction}) {verb} a sufficient region"
    if summary.explained < MIN_QUANTILES:
        smallest = [area_text(image.area) for image in sorted((*summary.smallest, *summary.largest), key=_area)]
        return f"{sentence}; the smallest areas that are enough: {', '.join(smallest)}." if smallest else f"{sentence}."
    if median is None:
        return f"{sentence}; for half of the images none of the computed areas is enough."
    return f"{sentence}; half of the images need {area_percent(median)} or less of their area."


def _area(image: ImageSummary) -> float:
    return image.area or 0.0


def caution(summary: Summary) -> str:
    """Count the images that are missing or failed; empty if there are none."""
    missing, failed = summary.planned - summary.images, summary.verdicts["failed"]
    lines = [untrained] if (untrained := weights_caution(summary.settings["explain"])) else []
    if missing:
        lines.append(f"The run is not finished: {missing:,} of {summary.planned:,} images have no row yet.")
    if failed:
        lines.append(f"{failed:,} of {plural(summary.images, 'image')} failed.")
    return " ".join(lines)


def _area_bars(summary: Summary) -> list[tuple[str, str, int, float]]:
    total = max(1, summary.explained)
    none = summary.explained - sum(count for _, count in summary.smallest_counts)
    rows = [(area_percent(area), "", count, count / total) for area, count in summary.smallest_counts]
    return [*rows, ("none of these", "", none, none / total)]


def _quantile_rows(summary: Summary) -> list[tuple[str, int, list[str]]]:
    above_all = above_largest_area(summary.settings["areas"])
    return [
        ("Smallest area that is enough", summary.areas.count, quantile_texts(summary.areas, area_percent, above_all)),
        ("Effect under unseen perturbations", summary.unseen.count, quantile_texts(summary.unseen, percent)),
        ("Effect lost under unseen perturbations", summary.loss.count, quantile_texts(summary.loss, percent)),
    ]


def _class_table(summary: Summary) -> EmbeddedTable:
    classes, above_all = summary.classes, above_largest_area(summary.settings["areas"])
    quartiles = [quantile_texts(entry.areas, area_percent, above_all)[1:4] for entry in classes]
    counted = {"images": [entry.images for entry in classes]}
    counted |= {word: [entry.count(word) for entry in classes] for word in summary.counted_verdicts}
    areas = zip(("Lower quartile", "Median area", "Upper quartile"), ("q25", "median", "q75"), strict=True)
    columns = [
        Column("Class", [entry.name for entry in classes], "minmax(160px, 2fr)"),
        *(count_column(name.capitalize(), counts) for name, counts in counted.items()),
        *(
            Column(
                *(label, [2.0 if (area := getattr(entry.areas, name)) is None else area for entry in classes], "96px"),
                shown=[texts[k] for texts in quartiles],
            )
            for k, (label, name) in enumerate(areas)
        ),
    ]
    return EmbeddedTable(table_json("classes", columns))


def _image_table(
    images: Sequence[ImageSummary], thumbnails: Mapping[str, Thumbnail], links: Mapping[str, str | None]
) -> EmbeddedTable:
    verdicts = [image.verdict for image in images]
    columns = [
        Column(
            *("Image", [image.key for image in images], "minmax(130px, 1.3fr)"),
            links=[links.get(image.key) for image in images] if links else None,
        ),
        Column("Class", [image.name for image in images], "minmax(110px, 1fr)", choice=True),
        Column(
            *("Verdict", [float(VERDICTS.index(word)) for word in verdicts], "minmax(200px, 1.8fr)"),
            shown=verdicts,
            notes=[nbsp(image.reason) for image in images],
            verdicts=verdicts,
            choice=True,
        ),
        number_column("Smallest area", [image.area for image in images], area_percent),
        number_column("Effect", [image.effect for image in images], percent),
        number_column("Unseen", [image.unseen for image in images], percent),
        number_column("Lost", [image.loss for image in images], percent),
        number_column("Score", [image.score for image in images], decimal),
    ]
    chunks = picture_chunks((thumbnails.get(image.key),) for image in images)
    return EmbeddedTable(table_json("images", columns, pictures=(KEPT_LABEL,)), list(chunks))
