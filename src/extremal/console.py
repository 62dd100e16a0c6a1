"""What the command line tells of one photo in a terminal."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from extremal.explanation import Explanation
    from extremal.smallest import Certificate

COLOURS = {"sufficient": "green", "insufficient": "yellow", "suspect": "red"}


def show(photo: str, explanation: "Explanation", files: dict[str, Any], certificate: "Certificate | None") -> None:
    """A table of the areas, what it comes to, and where the files are."""
    table = Table("area", "score", "as found", "cut", "best random", "verdict")
    curve = explanation.curve()
    rows = zip(
        explanation.areas, explanation.scores[0].tolist(), curve.soft, curve.binary, curve.control_best, strict=True
    )
    for (area, score, *effects), verdict, status in zip(
        rows, explanation.verdict[0], explanation.status[0], strict=True
    ):
        word = f"{verdict} (stuck)" if status == "stuck" else str(verdict)
        table.add_row(
            f"{100 * area:g} %",
            f"{score:.2f}",
            *(f"{effect:.0%}".replace("%", " %") for effect in effects),
            Text(word, style=COLOURS.get(verdict.word, "")),
        )
    out = Console()
    lines = [
        f"{photo}: {explanation.target_names[0]} (class {explanation.target[0]}), "
        f"score {float(explanation.score_full[0]):.2f} whole, {float(explanation.score_blank[0]):.2f} destroyed",
        table,
        _smallest(explanation),
        *([_certified(certificate)] if certificate else []),
        *([_several(explanation)] if explanation.alternatives else []),
        "written:",
        *(f"  {path}" for path in (files["report"], files["figure"], files["explanation"], *files["masks"])),
    ]
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=isinstance(line, str))


def _smallest(explanation: "Explanation") -> str:
    found, verdicts = explanation.smallest(), explanation.verdict[0]
    if found is None:
        return f"smallest sufficient area: none of these ({100 * explanation.areas[-1]:g} %: {verdicts[-1].reason})"
    verdict = verdicts[explanation.areas.index(found.area)]
    return f"smallest sufficient area: {100 * found.area:g} % ({verdict}: {verdict.reason})"


def _several(explanation: "Explanation") -> str:
    regions, wanted = explanation.regions(), 1 + len(explanation.alternatives)
    if len(regions) < 2:
        word = "only one" if regions else "no"
        return f"alternatives: {word} sufficient region was found of the {wanted} that were looked for"
    areas = ", ".join(f"{100 * region.area:g} %" for region in regions)
    return f"alternatives: {len(regions)} sufficient regions that overlap little, of {wanted} looked for: {areas}"


def _certified(certificate: "Certificate") -> str:
    found = f"between these: {100 * certificate.area:.3g} % keeps {100 * certificate.effect:.0f} % of the effect"
    if not certificate.below_area:
        return f"{found}; nothing smaller was found wanting"
    return f"{found}, {100 * certificate.below_area:.3g} % keeps {100 * certificate.below_effect:.0f} %"
