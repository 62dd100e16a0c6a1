"""The report of an answer of a model of images and text: its region, and that of each token on hover."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extremal.explanations.display import network_text
from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import has_image, png_data_uri
from extremal.explanations.sets.answer_tokens import AnswerTokens
from extremal.explanations.sets.region_sets import JudgedRegion
from extremal.explanations.verdict import VerdictLabel
from extremal.files import ANSWER_KIND, TOKENS_FILE
from extremal.report.html import read_asset, render_template
from extremal.report.region_files import draw_region, region_record, write_regions
from extremal.report.result_files import to_json_values
from extremal.report.settings_text import describe_settings
from extremal.report.text import area_percent, list_network_cautions, nbsp, percent, probability_percent


@dataclass(frozen=True)
class TokenView:
    """The whole answer or one of its tokens, in words."""

    kind: str  # short name of the file and record
    text: str
    sentence: str
    label: str  # of the verdict
    verdict: str  # with its reason
    chance: str  # probability of the token with the whole picture; of the answer, the geometric mean over its tokens
    chance_without: str  # the same with the picture destroyed
    found: JudgedRegion | None
    area: str  # of the region
    depends: bool  # whether its probability changes when the picture is destroyed


def list_views(result: AnswerTokens) -> list[TokenView]:
    """Return the answer and its tokens in words, in their order."""
    views = [_build_view(ANSWER_KIND, result.answer, result.whole, 0, result.smallest())]
    for index, text in enumerate(result.texts):
        kind = f"token-{index + 1}"
        if index in result.dependent:
            row = result.dependent.index(index)
            views.append(_build_view(kind, text, result.each, row, result.smallest(index)))
        else:
            sentence = "Its probability is the same without the picture."
            views.append(TokenView(kind, text, sentence, "no picture needed", "", "", "", None, "", False))
    return views


def _build_view(kind: str, text: str, explanation: Explanation, row: int, found: JudgedRegion | None) -> TokenView:
    if found is None:
        up_to, last = area_percent(explanation.areas[-1]), explanation.verdict[row][-1]
        sentence = f"None of the computed areas up to {up_to} of the picture is enough."
        label = VerdictLabel.INSUFFICIENT if explanation.has_effect()[row] else last.label
        verdict = label if label is VerdictLabel.INSUFFICIENT else f"{label}: {nbsp(last.reason)}"
    else:
        part = "keeps" if explanation.keeps else "takes away"
        sentence = (
            f"{area_percent(found.region.coverage)} of the picture {part} {percent(found.region.effect)} of the effect."
        )
        label = found.verdict.label
        verdict = f"{label}: {nbsp(found.verdict.reason)}"
    scores = explanation.score_full[row], explanation.score_blank[row]
    whole, without = (probability_percent(float(score.exp())) for score in scores)
    area = area_percent(found.region.coverage) if found else ""
    return TokenView(kind, text, sentence, label, verdict, whole, without, found, area, True)


def _draw(explanation: Explanation, found: JudgedRegion | None) -> str:
    """Draw the picture with a region, or as it is; empty without an image."""
    if not has_image(explanation):
        return ""
    return png_data_uri(explanation.pictures[0]) if found is None else draw_region(explanation, found.region.mask)


def headline(result: AnswerTokens) -> str:
    """Return the result in one sentence."""
    found, count, total = result.smallest(), len(result.dependent), len(result.texts)
    depend = f"All {total} tokens of the answer depend" if count == total else f"{count} of {total} tokens depend"
    tokens = f"{depend}{'s' * (count == 1)} on the picture" if total > 1 else "The answer is one token"
    if found is None:
        return f"{tokens}; none of the computed areas is enough for the whole answer."
    return f"{tokens}; {area_percent(found.region.coverage)} of it is enough for the whole answer."


def render(result: AnswerTokens, *, source: str = "") -> str:
    """Render the report as the text of an HTML file.

    Args:
        result: the answer and its tokens.
        source: name of the picture's file, shown above the heading.
    """
    views = list_views(result)
    return render_template(
        "tokens.html.j2",
        read_asset("tokens.js"),
        read_asset("tokens.css"),
        title=result.answer,
        source=source,
        network=network_text(result.whole.settings),
        prompt=result.prompt,
        summary={"headline": headline(result), "caution": " ".join(list_network_cautions(result.whole))},
        views=views,
        pictures=[_draw(result.whole, view.found) for view in views],
        settings=result.whole.settings,
        described=describe_settings(result.whole.settings, result.whole.areas, is_class=False),
    )


def write_tokens(result: AnswerTokens, folder: Path, source: str) -> dict[str, Any]:
    """Write the regions of an answer and its tokens: the values, the report and the cut masks.

    Args:
        result: the answer and its tokens.
        folder: a new folder, or a previous result, which is replaced when the new one is complete.
        source: name of the picture's file, for the report.

    Returns:
        The paths by kind: `explanation`, `report`, and a mapping `masks` of those that were found.

    Raises:
        ExtremalValueError: if the files cannot be written, or `folder` is not a previous result.
    """
    regions = {view.kind: view.found for view in list_views(result)}
    return write_regions(result, TOKENS_FILE, render(result, source=source), regions, folder)


def tokens_record(image: str, result: AnswerTokens, files: dict[str, Any]) -> dict[str, Any]:
    """Convert the regions of an answer and its tokens to JSON values.

    Args:
        image: path of the picture.
        result: the answer and its tokens.
        files: paths of the result, as returned by `write_tokens`.
    """
    record: dict[str, Any] = to_json_values(
        {
            "path": image,
            "prompt": result.prompt,
            "answer": result.answer,
            "headline": headline(result),
            "tokens": [
                {
                    "text": view.text,
                    "depends": view.depends,
                    "region": region_record(view.found),
                }
                for view in list_views(result)[1:]
            ],
            "areas": list(result.whole.areas),
            "files": files,
            "settings": result.whole.settings,
        }
    )
    return record
