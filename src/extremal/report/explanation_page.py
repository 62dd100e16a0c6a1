"""The report: one HTML file that needs no network, neither the machine's nor the one that was explained.

>>> from pathlib import Path
>>> from extremal import report
>>> report.write(explanation, "report.html")  # doctest: +SKIP
"""

import math
import os
from pathlib import Path
from typing import Any

from extremal.explanations import overlay
from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import has_picture
from extremal.explanations.settings import checked_image
from extremal.explanations.smallest_area import Certificate
from extremal.explanations.verdict import SHARE, UNSEEN_SHARE
from extremal.report import chart, reveal
from extremal.report.html import embedded, filled, source, write_page
from extremal.report.text import Summary, area_percent, certified, percent, several, summarise


def render(
    explanation: Explanation, image: int = 0, *, title: str | None = None, certificate: Certificate | None = None
) -> str:
    """The report of one input as the text of an HTML file.

    Args:
        explanation: of N inputs.
        image: which of them, 0..N − 1.
        title: heading of the page; the class and the network if None.
        certificate: of the smallest sufficient area of this input, where it was looked for.

    Returns:
        The page: script, style and pictures within it, and a policy that forbids it to load anything else.

    Raises:
        ExtremalValueError: there is no such input.
    """
    from markupsafe import Markup

    checked_image(image, len(explanation.masks))
    summary = summarise(explanation, image)
    script = source("view.js")
    pictures = has_picture(explanation)
    lower = reveal.lower_area(explanation)
    drawing = chart.drawn(summary, lower)
    return filled(
        "explanation.html.j2",
        script,
        title=title or f"{summary.name} – {summary.network}",
        summary=summary,
        chart=drawing,
        pictures=pictures,
        photograph=overlay.data_uri(explanation.pictures[image]) if pictures else "",
        destroyed=overlay.data_uri(explanation.destroyed[image]) if pictures else "",
        width=explanation.pictures.shape[2],
        height=explanation.pictures.shape[1],
        areas=len(summary.rows),
        settings=explanation.settings,
        unseen=explanation.unseen_names,
        controls=explanation.control_scores.shape[2],
        share=SHARE,
        unseen_share=UNSEEN_SHARE,
        certified=certified(certificate) if certificate else "",
        several=several(explanation, image),
        regions=_regions(explanation, image) if pictures and explanation.alternatives else [],
        data=Markup(embedded(_data(explanation, image, summary, drawing))),
    )


def write(
    explanation: Explanation,
    path: str | os.PathLike[str],
    image: int = 0,
    *,
    title: str | None = None,
    certificate: Certificate | None = None,
) -> None:
    """Write the report of one input; the file appears whole or not at all.

    Args:
        explanation: of N inputs.
        path: of the HTML file; an existing one is replaced.
        image: which of the inputs, 0..N − 1.
        title: heading of the page; the class and the network if None.
        certificate: of the smallest sufficient area of this input, where it was looked for.

    Raises:
        ExtremalValueError: there is no such input, or the folder cannot be written.
    """
    write_page(render(explanation, image, title=title, certificate=certificate), Path(path))


def _regions(explanation: Explanation, image: int) -> list[tuple[str, str, str]]:
    """The sufficient regions that overlap little: picture, area, and the share of the effect that each has."""
    return [
        (
            overlay.data_uri(overlay.masked(explanation, region.mask, image)),
            area_percent(region.area),
            percent(region.effect),
        )
        for region in explanation.regions(image=image)
    ]


def _data(explanation: Explanation, image: int, summary: Summary, drawing: chart.Chart) -> dict[str, Any]:
    """What the script reads: numbers as they were measured, sentences ready made, levels of each place."""
    maps = [reveal.encoded(level) for level in reveal.levels(explanation, image)] if has_picture(explanation) else []
    return {
        "keeps": summary.keeps,
        "whole": summary.whole,
        "lower": reveal.lower_area(explanation),
        "steps": reveal.STEPS,
        "smallest": summary.smallest,
        "score_full": number(summary.score_full),
        "score_blank": number(summary.score_blank),
        "x": {"offset": drawing.plane.offset, "slope": drawing.plane.slope},
        "areas": [
            {
                "area": row.area,
                "places": row.places,
                "label": row.label,
                "score": number(row.score),
                "soft": number(row.soft),
                "binary": number(row.binary),
                "unseen": number(row.unseen),
                "control": number(row.control),
                "control_best": number(row.control_best),
                "verdict": row.verdict.word,
                "sentence": f"{summary.sentence(row)} Verdict: {row.verdict.word}.",
            }
            for row in summary.rows
        ],
        "maps": maps,
    }


def number(value: float) -> float | None:
    """The number, or None where it is not finite: JSON has no other word for it."""
    return value if math.isfinite(value) else None


__all__ = ["render", "write"]
