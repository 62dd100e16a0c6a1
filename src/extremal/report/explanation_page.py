"""The report of an explanation: one HTML file that works offline and without the explained network.

>>> from extremal import report
>>> report.write(explanation, "report.html")  # doctest: +SKIP
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from extremal.explanations.certificate import Certificate
from extremal.explanations.explanation import Explanation
from extremal.explanations.minimal_region import MinimalRegion
from extremal.explanations.overlay import apply_mask, has_image, png_data_uri
from extremal.explanations.validation import validate_image
from extremal.explanations.verdict import MIN_CORE_SHARE, MIN_STABLE_IOU, MIN_UNSEEN_EFFECT, SUFFICIENT_EFFECT
from extremal.file_checks import to_path
from extremal.report import chart, reveal, stack_view
from extremal.report.evidence_text import answer_questions
from extremal.report.html import finite_or_none, json_for_script, read_asset, render_template, write_page
from extremal.report.minimal_panel import build_panel
from extremal.report.sentences import alternatives_sentence, certificate_sentence, stability_sentence
from extremal.report.settings_text import describe_settings
from extremal.report.signal_view import SignalView, build_signal_view, has_signal
from extremal.report.stack_frames import is_stack
from extremal.report.stack_view import StackView
from extremal.report.text import (
    ExplanationSummary,
    area_percent,
    percent,
    summarise,
)


def render(
    explanation: Explanation,
    image: int = 0,
    *,
    title: str | None = None,
    source: str = "",
    certificate: Certificate | None = None,
    minimal: MinimalRegion | None = None,
    stable: str | None = None,
) -> str:
    """Render the report of one input as the text of an HTML file.

    Args:
        explanation: of N inputs.
        image: index of the input, 0..N − 1.
        title: heading of the page; the class by default.
        source: name of the input's file, shown above the heading.
        certificate: of the smallest sufficient area of this input, if it was searched for.
        minimal: the minimal region of this input, if it was searched for.
        stable: sentence on the stability; None: that of the explanation.

    Returns:
        The page, with its script, style and images, and a policy that forbids it to load anything else.

    Raises:
        ExtremalValueError: if there is no such input.
    """
    from markupsafe import Markup

    validate_image(image, len(explanation.masks))
    summary = summarise(explanation, image)
    stack = stack_view.build_view(explanation, summary.headline_row, image) if is_stack(explanation) else None
    script = read_asset("stack_view.js" if stack else "view.js")
    pictures, signal = has_image(explanation), None
    if has_signal(explanation):
        signal = build_signal_view(explanation, image)
        script += read_asset("player.js") if signal.player else ""
    shown, destroyed = explanation.pictures[image], explanation.destroyed[image]
    if signal is not None:
        shown = destroyed = signal.picture
    lower = reveal.start_area(explanation)
    evidence = chart.build_chart(summary, lower)
    if stable is None:
        stable = "" if explanation.stability is None else stability_sentence(explanation.stability, image)
    return render_template(
        "explanation.html.j2",
        script,
        title=title or summary.name,
        source=source,
        summary=summary,
        chart=evidence,
        pictures=pictures,
        signal=signal,
        stack=stack,
        photograph=png_data_uri(shown) if shown.numel() else "",
        destroyed=png_data_uri(destroyed) if shown.numel() else "",
        width=shown.shape[1],
        height=shown.shape[0],
        areas=len(summary.rows),
        settings=explanation.settings,
        described=describe_settings(explanation.settings, explanation.areas, is_class=explanation.is_class),
        answers=answer_questions(summary.rows[summary.headline_row], summary.keeps, explanation.unseen_names),
        unseen=explanation.unseen_names,
        left_out=explanation.left_out[image] if explanation.left_out else (),
        controls=_describe_counts(explanation.count_controls(image)),
        threshold=SUFFICIENT_EFFECT,
        unseen_threshold=MIN_UNSEEN_EFFECT,
        stable_threshold=MIN_STABLE_IOU,
        core_threshold=percent(MIN_CORE_SHARE),
        stable=stable,
        certificate=certificate_sentence(certificate) if certificate else "",
        alternatives=alternatives_sentence(explanation, image),
        minimal=None if minimal is None else build_panel(minimal, explanation, image),
        regions=_region_tiles(explanation, image) if pictures and explanation.alternatives else [],
        data=Markup(json_for_script(_script_data(explanation, image, summary, evidence.axes, signal, stack))),
    )


def write(
    explanation: Explanation,
    path: str | os.PathLike[str],
    image: int = 0,
    *,
    title: str | None = None,
    source: str = "",
    certificate: Certificate | None = None,
    minimal: MinimalRegion | None = None,
    stable: str | None = None,
) -> None:
    """Write the report of one input atomically.

    Args:
        explanation: of N inputs.
        path: of the HTML file; an existing file is replaced.
        image: index of the input, 0..N − 1.
        title: heading of the page; the class by default.
        source: name of the input's file, shown above the heading.
        certificate: of the smallest sufficient area of this input, if it was searched for.
        minimal: the minimal region of this input, if it was searched for.
        stable: sentence on the stability; None: that of the explanation.

    Raises:
        ExtremalValueError: if there is no such input, or the folder cannot be written.
    """
    further: dict[str, Any] = {"certificate": certificate, "minimal": minimal, "stable": stable}
    file = to_path(path, "a report")
    page = render(explanation, image, title=title, source=source, **further)
    write_page(page, file)


def _region_tiles(explanation: Explanation, image: int) -> list[tuple[str, str, str]]:
    """Return the sufficient regions with little overlap: image, area, and fraction of the effect of each."""
    return [
        (
            png_data_uri(apply_mask(explanation, region.mask, image)),
            area_percent(region.coverage),
            percent(region.effect),
        )
        for region in explanation.regions(image=image)
    ]


def _describe_counts(counts: Sequence[int]) -> str:
    """Return the range of several counts.

    >>> _describe_counts((8, 8)), _describe_counts((4, 8))
    ('8', '4 to 8')
    """
    low, high = min(counts), max(counts)
    return str(high) if low == high else f"{low} to {high}"


def _script_data(
    explanation: Explanation,
    image: int,
    summary: ExplanationSummary,
    axes: chart.Axes,
    signal: SignalView | None,
    stack: StackView | None,
) -> dict[str, Any]:
    """Collect the data that the script reads: measurements, complete sentences, and the level of each place."""
    levels: Iterable[Tensor] = reveal.reveal_levels(explanation, image) if has_image(explanation) else ()
    if signal is not None:
        levels = signal.levels
    return {
        "keeps": summary.keeps,
        "whole": summary.whole,
        "columns": signal is not None,
        "lower": reveal.start_area(explanation),
        "steps": reveal.N_LEVELS,
        "smallest": summary.smallest,
        "first": summary.headline_row,
        "score_full": finite_or_none(summary.score_full),
        "score_blank": finite_or_none(summary.score_blank),
        "x": {"offset": axes.offset, "slope": axes.slope},
        "areas": [
            {
                "area": row.area,
                "places": row.places,
                "label": row.label,
                "score": finite_or_none(row.score),
                "soft": finite_or_none(row.soft),
                "binary": finite_or_none(row.binary),
                "unseen": finite_or_none(row.unseen),
                "control": finite_or_none(row.control),
                "control_best": finite_or_none(row.control_best),
                "verdict": row.verdict.label,
                "sentence": f"{summary.sentence(row)} Verdict: {row.verdict.label}.",
            }
            for row in summary.rows
        ],
        "maps": [reveal.encode_levels(level) for level in levels],
        **({"stack": stack.data} if stack else {}),
    }
