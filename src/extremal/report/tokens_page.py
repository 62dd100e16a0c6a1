"""The report of an answer of a model of images and text: its region, and that of each token on hover."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import apply_mask, draw_outline, has_image, png_data_uri
from extremal.explanations.sets.answer_tokens import AnswerTokens
from extremal.explanations.sets.region_sets import JudgedRegion
from extremal.files import TOKENS_FILE
from extremal.report.export import write_png
from extremal.report.html import read_asset, render_template, write_page
from extremal.report.result_files import REPORT_FILE, atomic_result_folder, to_json_values
from extremal.report.settings_text import describe_settings
from extremal.report.text import area_percent, nbsp, percent

ANSWER_KIND = "answer"  # of the region of the whole answer; those of tokens are token-1, token-2, ...


@dataclass(frozen=True)
class TokenView:
    """The whole answer or one of its tokens, in words and as a picture."""

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
    picture: str  # with the region; the whole one without any; empty without an image


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
            views.append(
                TokenView(
                    kind, text, sentence, "no picture needed", "", "", "", None, "", False, _draw(result.whole, 0, None)
                )
            )
    return views


def _build_view(kind: str, text: str, explanation: Explanation, row: int, found: JudgedRegion | None) -> TokenView:
    if found is None:
        up_to = area_percent(explanation.areas[-1])
        sentence, label = f"None of the computed areas up to {up_to} of the picture is enough.", "insufficient"
        verdict = label
    else:
        part = "keeps" if explanation.keeps else "takes"
        sentence = (
            f"{area_percent(found.region.area)} of the picture {part} {percent(found.region.effect)} of the effect."
        )
        label = found.verdict.label
        verdict = f"{label}: {nbsp(found.verdict.reason)}"
    whole, without = (float(scores[row].exp()) for scores in (explanation.score_full, explanation.score_blank))
    area = area_percent(found.region.area) if found else ""
    picture = _draw(explanation, row, found)
    return TokenView(kind, text, sentence, label, verdict, percent(whole), percent(without), found, area, True, picture)


def _draw(explanation: Explanation, row: int, found: JudgedRegion | None) -> str:
    if not has_image(explanation):
        return ""
    if found is None:
        return png_data_uri(explanation.pictures[row])
    mask = found.region.mask
    return png_data_uri(draw_outline(apply_mask(explanation, mask, row), mask, explanation.keeps))


def headline(result: AnswerTokens) -> str:
    """Return the result in one sentence."""
    found, count, total = result.smallest(), len(result.dependent), len(result.texts)
    depend = f"All {total} tokens of the answer depend" if count == total else f"{count} of {total} tokens depend"
    tokens = f"{depend}{'s' * (count == 1)} on the picture" if total > 1 else "The answer is one token"
    if found is None:
        return f"{tokens}; none of the computed areas is enough for the whole answer."
    return f"{tokens}; {area_percent(found.region.area)} of it is enough for the whole answer."


def render(result: AnswerTokens, *, source: str = "") -> str:
    """Render the report as the text of an HTML file.

    Args:
        result: the answer and its tokens.
        source: name of the picture's file, to stand above the heading.
    """
    return render_template(
        "tokens.html.j2",
        read_asset("tokens.js"),
        read_asset("tokens.css"),
        title=result.answer,
        source=source,
        network=str(result.whole.settings.get("network", "unnamed network")),
        prompt=result.prompt,
        summary={"headline": headline(result), "caution": ""},
        views=list_views(result),
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
    masks = {view.kind: view.found.region.mask for view in list_views(result) if view.found}
    with atomic_result_folder(folder) as temporary:
        result.save(temporary / TOKENS_FILE)
        write_page(render(result, source=source), temporary / REPORT_FILE)
        for kind, mask in masks.items():
            write_png(mask, temporary / f"region-{kind}.png")
    return {
        "explanation": str(folder / TOKENS_FILE),
        "report": str(folder / REPORT_FILE),
        "masks": {kind: str(folder / f"region-{kind}.png") for kind in masks},
    }


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
                    "region": view.found
                    and {
                        "area": view.found.region.area,
                        "effect": view.found.region.effect,
                        "verdict": asdict(view.found.verdict),
                    },
                }
                for view in list_views(result)[1:]
            ],
            "areas": list(result.whole.areas),
            "files": files,
            "settings": result.whole.settings,
        }
    )
    return record
