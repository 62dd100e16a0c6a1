"""What the command line hands on for each photo: a folder that appears whole or not at all, and plain values."""

import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extremal.files import whole_folder

if TYPE_CHECKING:
    from extremal.explanations.explanation import Explanation
    from extremal.explanations.smallest_area import Certificate

EXPLANATION, CHANNELS, CLASS = "explanation.safetensors", "channels.safetensors", "class-channels.parquet"
FIGURE, REPORT = "figure.png", "report.html"
SUMMARY, COMPARISON = ("summary.html", "summary.png"), ("compare.html", "compare.png")  # page and figure
RESULT_FILES = re.compile(
    "|".join(map(re.escape, (EXPLANATION, CHANNELS, CLASS, FIGURE, REPORT, *SUMMARY, *COMPARISON)))
    + r"|mask-[0-9.e-]+\.png|region-[0-9]+\.png|inversion-(all|kept|removed)\.png|channel-[0-9]+\.png"
)


def write(
    explanation: "Explanation", folder: Path, title: str, certificate: "Certificate | None" = None
) -> dict[str, Any]:
    """Write the explanation of one input, its figure, its report and its cut masks.

    Args:
        explanation: of N inputs; the first is shown.
        certificate: of its smallest sufficient area; its mask is written beside those of the areas.
        folder: a new folder, or a former result, which is replaced when the new one is complete.
        title: heading of the report.

    Returns:
        The paths by kind: `explanation`, `figure`, `report`, and a list `masks` in the order of the areas.

    Raises:
        ExtremalValueError: the files cannot be written, or the folder is not a former result.
    """
    from extremal.report import explanation_page
    from extremal.report.export import write_png
    from extremal.report.plots import write_figure

    masks = {f"mask-{area}.png": explanation.binary(area)[0] for area in explanation.areas}
    for number, region in enumerate(explanation.regions() if explanation.alternatives else (), start=1):
        masks[f"region-{number}.png"] = region.mask
    if certificate is not None:
        masks[f"mask-{certificate.area:.5f}.png"] = certificate.mask
    with whole_folder(folder, RESULT_FILES) as aside:
        explanation.save(aside / EXPLANATION)
        write_figure(explanation, aside / FIGURE, image=0)
        explanation_page.write(explanation, aside / REPORT, image=0, title=title, certificate=certificate)
        for name, mask in masks.items():
            write_png(mask, aside / name)
    return {
        "explanation": str(folder / EXPLANATION),
        "figure": str(folder / FIGURE),
        "report": str(folder / REPORT),
        "masks": [str(folder / name) for name in masks],
    }


def record(
    photo: str, explanation: "Explanation", files: dict[str, Any], certificate: "Certificate | None" = None
) -> dict[str, Any]:
    """One photo's result as plain values for JSON: None where a number is not finite."""
    smallest = explanation.smallest()
    curve = asdict(explanation.curve())
    values = {
        "path": photo,
        "target": explanation.target[0],
        "target_name": explanation.target_names[0],
        "score_full": float(explanation.score_full[0]),
        "score_blank": float(explanation.score_blank[0]),
        "areas": list(explanation.areas),
        "scores": explanation.scores[0].tolist(),
        "binary_scores": explanation.binary_scores[0].tolist(),
        "effects": {name: list(values) for name, values in curve.items() if name != "areas"},
        "verdicts": [asdict(verdict) for verdict in explanation.verdict[0]],
        "status": [str(status) for status in explanation.status[0]],
        "smallest": smallest and {"area": smallest.area, "effect": smallest.effect},
        "certificate": certificate
        and {name: getattr(certificate, name) for name in ("area", "effect", "below_area", "below_effect", "share")},
        "regions": [{"area": region.area, "effect": region.effect} for region in explanation.regions()],
        "files": files,
        "settings": explanation.settings,
    }
    found: dict[str, Any] = plain(values)
    return found


def plain(value: Any) -> Any:
    """Values as JSON has them: lists, and None where a number is not finite."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
