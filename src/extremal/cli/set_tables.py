"""Print the regions of sets, contrasts and tokens as tables."""

from typing import Any

from rich.table import Column, Table
from rich.text import Text

from extremal.cli.tables import VERDICT_COLOURS, list_cautions, path_lines, print_lines
from extremal.explanations.sets.answer_tokens import AnswerTokens
from extremal.explanations.sets.class_contrast import Contrast
from extremal.explanations.sets.region_sets import RegionSets
from extremal.report import sets_page, tokens_page
from extremal.report.text import area_percent, percent


def print_sets(image: str, result: RegionSets | Contrast, files: dict[str, Any]) -> None:
    """Print the smallest region of each kind, the headline, and the paths of the files.

    Args:
        image: path of the image.
        result: its regions.
        files: paths of the result, as returned by `write_sets`.
    """
    table = Table("region", "area", "effect", Column("verdict", no_wrap=True))
    for part in sets_page.list_parts(result):
        if part.found is None:
            table.add_row(Text(part.heading), "none", "", "")
            continue
        region, verdict = part.found.region, part.found.verdict
        colour = VERDICT_COLOURS.get(verdict.label, "")
        table.add_row(
            Text(part.heading), area_percent(region.coverage), percent(region.effect), Text(str(verdict), style=colour)
        )
    explanation = result.explanations()[0]
    doubts = list_cautions(explanation)
    paths = path_lines(files["report"], files["explanation"], *files["masks"].values())
    print_lines([f"{image}: {explanation.target_names[0]}", *doubts, table, sets_page.headline(result), *paths])


def print_tokens(image: str, result: AnswerTokens, files: dict[str, Any]) -> None:
    """Print the region of an answer and those of its tokens, the headline, and the paths of the files.

    Args:
        image: path of the image.
        result: the answer and its tokens.
        files: paths of the result, as returned by `write_tokens`.
    """
    table = Table("token", "with the picture", "without", "region", Column("verdict", no_wrap=True))
    for number, view in enumerate(tokens_page.list_views(result)):
        text = Text(view.text if number else "whole answer")
        chances = (view.chance or "–", view.chance_without or "–")
        verdict = Text(view.label, style=VERDICT_COLOURS.get(view.label, ""))
        table.add_row(text, *chances, view.area or "none", verdict)
    paths = path_lines(files["report"], files["explanation"], *files["masks"].values())
    doubts = list_cautions(result.whole)
    print_lines([f"{image}: {result.answer}", *doubts, table, tokens_page.headline(result), *paths])
