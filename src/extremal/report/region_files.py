"""Regions of one input in a result folder: pictures, files and records, for sets, contrasts and answers alike."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import apply_mask, draw_outline, png_data_uri
from extremal.explanations.sets.bundle import Bundle
from extremal.explanations.sets.region_sets import JudgedRegion
from extremal.report.export import write_mask
from extremal.report.html import write_page
from extremal.report.result_files import REPORT_FILE, atomic_result_folder


def draw_region(explanation: Explanation, mask: Tensor) -> str:
    """Draw the first image of an explanation with a cut mask (1, H, W) kept or lost, as a data URI."""
    return png_data_uri(draw_outline(apply_mask(explanation, mask), mask, explanation.keeps))


def write_regions(
    result: Bundle, name: str, page: str, regions: Mapping[str, JudgedRegion | None], folder: Path
) -> dict[str, Any]:
    """Write regions of one input: the values, the report and the cut masks.

    Args:
        result: the explanations.
        name: of the file of their values.
        page: the report, as the text of an HTML file.
        regions: by kind, which names their files; None: not found.
        folder: a new folder, or a previous result, which is replaced when the new one is complete.

    Returns:
        The paths by kind: `explanation`, `report`, and a mapping `masks` of the regions that were found.

    Raises:
        ExtremalValueError: if the files cannot be written, or `folder` is not a previous result.
    """
    masks = {kind: found.region.mask for kind, found in regions.items() if found}
    suffix = "png" if all(mask.ndim == 3 for mask in masks.values()) else "npy"
    with atomic_result_folder(folder) as temporary:
        result.save(temporary / name)
        write_page(page, temporary / REPORT_FILE)
        for kind, mask in masks.items():
            write_mask(mask, temporary / f"region-{kind}.{suffix}")
    return {
        "explanation": str(folder / name),
        "report": str(folder / REPORT_FILE),
        "masks": {kind: str(folder / f"region-{kind}.{suffix}") for kind in masks},
    }


def region_record(found: JudgedRegion | None) -> dict[str, Any] | None:
    """Convert a region with its verdict to plain values; None if there is none."""
    if found is None:
        return None
    return {"area": found.region.area, "effect": found.region.effect, "verdict": asdict(found.verdict)}
