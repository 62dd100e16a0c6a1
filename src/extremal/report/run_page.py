"""The page of a run over a data set: what it comes to, and every image of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extremal.jobs.run_summary import VERDICTS, ImageSummary, Quantiles, Summary
from extremal.report.html import render_template
from extremal.report.table_widget import Column, Thumbnail, jpeg_uri, picture_chunks, script, style, table_json
from extremal.report.text import area_percent, decimal, percent, duration

SUSPECTS, FAILURES = 12, 20  # told before the table
NOTHING = "–"
KEPT = "What is kept of"


@dataclass(frozen=True)
class Table:
    """A table of the page as the texts of script elements."""

    data: str
    pictures: Sequence[str] = ()


@dataclass(frozen=True)
class Tile:
    """An image among a few."""

    key: str
    note: str
    pictures: Sequence[tuple[str, str]]  # what each shows, and its URI


def labelled(*pictures: tuple[str, Thumbnail]) -> list[tuple[str, str]]:
    """Pictures with what they show, those that are missing left out."""
    return [(label, jpeg_uri(picture)) for label, picture in pictures if picture]


def render(
    found: Summary, images: Sequence[ImageSummary], thumbnails: Mapping[str, Thumbnail], *, title: str | None = None
) -> str:
    """The page as the text of an HTML file.

    Args:
        found: of the run.
        images: all of them.
        thumbnails: JPEGs by key; None where there is none.
        title: heading of the page; that it is a run of a network if None.
    """
    network = network_of(found.settings)

    def shown(chosen: Iterable[ImageSummary]) -> list[Tile]:
        told = [(image.key, f"{image.name}, {area_words(image.area)}") for image in chosen]
        return [Tile(key, note, labelled((KEPT, thumbnails.get(key)))) for key, note in told]

    def suspected(image: ImageSummary) -> Tile:
        note = f"{image.name}, {area_words(image.area)}: {unbroken(image.reason)}"
        return Tile(image.key, note, labelled((KEPT, thumbnails.get(image.key))))

    return render_template(
        "run.html.j2",
        script(),
        style(),
        settings=found.settings,
        title=title or f"A run of {network}",
        summary={"headline": headline(found), "caution": caution(found)},
        found=found,
        network=network,
        verdicts=[(word, f"word {word}", n, n / max(1, found.images)) for word, n in found.verdicts.items() if n],
        areas=_area_rows(found),
        spreads=_spreads(found),
        smallest=shown(found.smallest),
        largest=shown(found.largest),
        suspects=[suspected(image) for image in found.suspects[:SUSPECTS]],
        more=len(found.suspects) - SUSPECTS,
        left_out=max(0, len(found.failures) - FAILURES),
        classes=_classes(found),
        images=_images(images, thumbnails),
        failures=[f"{counted(count, 'image')}: {reason}" for reason, count in found.failures[:FAILURES]],
        silent=counted(found.untested, "image") if found.untested else "",
        time=duration(found.seconds),
    )


def network_of(settings: Mapping[str, Any]) -> str:
    """The name of a run's network."""
    return str(settings["explain"].get("network", "unnamed network"))


def headline(found: Summary) -> str:
    """What the run comes to, in one or two sentences."""
    if not found.explained:
        return "No image was explained."
    count, median = found.verdicts["sufficient"], found.areas.median
    share = percent(count / found.explained)
    told = f"{count:,} of {counted(found.explained, 'explained image')} ({share}) have a sufficient region"
    if median is None:
        return f"{told}; for half of the images none of the computed areas is enough."
    return f"{told}; half of the images need {area_percent(median)} or less of their area."


def caution(found: Summary) -> str:
    """What is missing; empty where nothing is."""
    missing, failed = found.planned - found.images, found.verdicts["failed"]
    lines = [f"The run is not done: {missing:,} of {found.planned:,} images have no row yet."] if missing else []
    lines += [f"{failed:,} of {counted(found.images, 'image')} failed."] if failed else []
    return " ".join(lines)


def counted(count: int, thing: str) -> str:
    """A count of things.

    >>> counted(1, "image"), counted(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def area_words(area: float | None) -> str:
    """An area in percent, or that there is none."""
    return NOTHING if area is None else area_percent(area)


def share_words(share: float | None) -> str:
    """A share in percent, or that there is none."""
    return NOTHING if share is None else percent(share)


def unbroken(text: str) -> str:
    """Spaces before percent signs do not break."""
    return text.replace(" %", "\xa0%")


def spread_words(found: Quantiles, write: Any, beyond: str = NOTHING) -> list[str]:
    """The five numbers of a spread as they are written.

    Args:
        write: a number to text.
        beyond: for a number that is beyond all.
    """
    values = (found.min, found.q25, found.median, found.q75, found.max)
    return [write(value) if value is not None else beyond if found.count else NOTHING for value in values]


def beyond_words(areas: Sequence[float]) -> str:
    """More than the largest computed area."""
    return f"over\xa0{area_percent(areas[-1])}"


def _area_rows(found: Summary) -> list[tuple[str, str, int, float]]:
    total = max(1, found.explained)
    none = found.explained - sum(count for _, count in found.smallest_counts)
    rows = [(area_percent(area), "", count, count / total) for area, count in found.smallest_counts]
    return [*rows, ("none of these", "", none, none / total)]


def _spreads(found: Summary) -> list[tuple[str, int, list[str]]]:
    beyond = beyond_words(found.settings["areas"])
    return [
        ("Smallest area that is enough", found.areas.count, spread_words(found.areas, area_percent, beyond)),
        ("Effect left under unseen perturbations", found.unseen.count, spread_words(found.unseen, percent)),
        ("Effect lost by them", found.loss.count, spread_words(found.loss, percent)),
    ]


def _classes(found: Summary) -> Table:
    classes, beyond = found.classes, beyond_words(found.settings["areas"])
    quartiles = [spread_words(one.areas, area_percent, beyond)[1:4] for one in classes]
    counted = ("images", "sufficient", "suspect", "insufficient")
    areas = zip(("Quarter", "Median area", "Three quarters"), ("lower", "median", "upper"), strict=True)
    columns = [
        Column("Class", [one.name for one in classes], "minmax(160px, 2fr)"),
        *(count_column(name.capitalize(), [getattr(one, name) for one in classes]) for name in counted),
        *(
            Column(
                *(label, [2.0 if (area := getattr(one.areas, name)) is None else area for one in classes], "96px"),
                shown=[words[k] for words in quartiles],
            )
            for k, (label, name) in enumerate(areas)
        ),
    ]
    return Table(table_json("classes", columns))


def count_column(label: str, counts: Sequence[int]) -> Column:
    """A column of whole numbers."""
    return Column(label, list(counts), "96px", shown=[f"{count:,}" for count in counts])


def _images(images: Sequence[ImageSummary], thumbnails: Mapping[str, Thumbnail]) -> Table:
    verdicts = [image.verdict for image in images]
    columns = [
        Column("Image", [image.key for image in images], "minmax(130px, 1.3fr)"),
        Column("Class", [image.name for image in images], "minmax(110px, 1fr)", choice=True),
        Column(
            *("Verdict", [float(VERDICTS.index(word)) for word in verdicts], "minmax(200px, 1.8fr)"),
            shown=verdicts,
            notes=[unbroken(image.reason) for image in images],
            verdicts=verdicts,
            choice=True,
        ),
        number_column("Smallest area", [image.area for image in images], area_words),
        number_column("Effect", [image.effect for image in images], share_words),
        number_column("Unseen", [image.unseen for image in images], share_words),
        number_column("Lost", [image.loss for image in images], share_words),
        number_column("Score", [image.score for image in images], lambda s: NOTHING if s is None else decimal(s)),
    ]
    parts = picture_chunks((thumbnails.get(image.key),) for image in images)
    return Table(table_json("images", columns, pictures=(KEPT,)), list(parts))


def number_column(label: str, values: Sequence[float | None], write: Any, width: str = "84px") -> Column:
    """A column of numbers, those that are not finite without a place in the order."""
    from extremal.report.explanation_page import number

    return Column(
        *(label, [None if value is None else number(value) for value in values], width),
        shown=[write(value) for value in values],
    )


__all__ = ["render"]
