"""The report of several regions of one input: sets of regions, or a contrast of two classes."""

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from extremal.explanations.display import network_text
from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import has_image, png_data_uri
from extremal.explanations.sets.class_contrast import Contrast
from extremal.explanations.sets.region_sets import JudgedRegion, RegionSets
from extremal.explanations.verdict import SUFFICIENT_EFFECT, Verdict
from extremal.files import CONTRAST_FILE, SET_KINDS, SETS_FILE
from extremal.report.html import render_template
from extremal.report.region_files import draw_region, region_record, write_regions
from extremal.report.result_files import to_json_values
from extremal.report.text import (
    AreaRow,
    area_percent,
    iou_text,
    list_network_cautions,
    name_whole,
    nbsp,
    percent,
    summarise,
)


@dataclass(frozen=True)
class EvidenceTable:
    """The evidence for the masks of one explanation."""

    keeps: bool  # judged by what the masks keep, or by what is lost without them
    rows: tuple[AreaRow, ...]


@dataclass(frozen=True)
class Part:
    """One of the regions of a result, in words and as a picture."""

    kind: str  # short name of the file and record
    heading: str
    sentence: str  # the region in words, or that there is none
    caution: str  # the verdict, if it is not sufficient
    found: JudgedRegion | None
    tables: tuple[EvidenceTable, ...]
    explanation: Explanation  # that the region is of

    @property
    def keeps(self) -> bool:
        """Whether the region is kept alone, or lost."""
        return self.explanation.keeps

    @cached_property
    def picture(self) -> str:
        """The image with the region kept or lost, as a data URI; empty without an image or a region."""
        if self.found is None or not has_image(self.explanation):
            return ""
        return draw_region(self.explanation, self.found.region.mask)


def list_parts(result: RegionSets | Contrast) -> list[Part]:
    """Return the regions of a result in words."""
    if isinstance(result, RegionSets):
        return [
            _build_part("sufficient", "Sufficient: kept alone, it keeps the answer", result.sufficient, result),
            _build_part("necessary", "Necessary: without it, the answer is lost", result.necessary, result),
            _build_part("complete", "Complete: sufficient and necessary at once", result.complete, result),
        ]
    first, second = result.names
    return [
        _build_part("loss", f"Without it, the answer is {second}", result.loss, result),
        _build_part("first", f"Sufficient for {first}, {second} left out", result.first, result),
        _build_part("second", f"Sufficient for {second}, {first} left out", result.second, result),
    ]


def _build_part(kind: str, heading: str, explanation: Explanation, result: RegionSets | Contrast) -> Part:
    found = _find(kind, result)
    whole = name_whole(explanation)
    share = _required_share(result, kind)
    judged = (
        [explanation, result.complete_loss] if isinstance(result, RegionSets) and kind == "complete" else [explanation]
    )
    evidence = tuple(_build_table(one, share) for one in judged)
    if found is None:
        sentence = f"None of the computed areas up to {area_percent(explanation.areas[-1])} of the {whole} is enough."
        return Part(kind, heading, sentence, "", None, evidence, explanation)
    region, verdict = found.region, found.verdict
    sentence = f"{area_percent(region.coverage)} of the {whole}, with {percent(region.effect)} of the effect."
    if isinstance(result, Contrast) and kind == "loss":
        turned, total = result.count_turned(region.area)
        sentence += f" Without it, {result.names[1]} is the answer under {turned} of {total} perturbations."
    caution = "" if verdict.is_sufficient else f"Verdict: {verdict.label}, {nbsp(verdict.reason)}."
    return Part(kind, heading, sentence, caution, found, evidence, explanation)


def _required_share(result: RegionSets | Contrast, name: str) -> float:
    """Return the share of the effect that the masks of a part must have: of a loss what makes the other class win."""
    return result.share if isinstance(result, Contrast) and name == "loss" else SUFFICIENT_EFFECT


def _reach_verdicts(explanation: Explanation, share: float) -> tuple[Verdict, ...]:
    """Return the verdicts for a share, or for the usual one if no effect can be that share."""
    return explanation.verdicts(0, share) if 0 < share < math.inf else explanation.verdict[0]


def _build_table(explanation: Explanation, share: float) -> EvidenceTable:
    """Return the evidence with the verdicts of the required share of the effect."""
    verdicts = _reach_verdicts(explanation, share)
    rows = zip(summarise(explanation).rows, verdicts, strict=True)
    return EvidenceTable(explanation.keeps, tuple(replace(row, verdict=verdict) for row, verdict in rows))


def _find(kind: str, result: RegionSets | Contrast) -> JudgedRegion | None:
    if isinstance(result, RegionSets):
        return result.smallest(kind)
    return result.turning() if kind == "loss" else result.pair()[kind == "second"]


def headline(result: RegionSets | Contrast) -> str:
    """Return the result in one sentence."""
    if isinstance(result, RegionSets):
        areas = [
            f"{kind} {'none of the computed areas' if found is None else area_percent(found.region.coverage)}"
            for kind, found in ((kind, result.smallest(kind)) for kind in SET_KINDS)
        ]
        overlap = result.overlap()
        return f"Smallest regions: {', '.join(areas)}." + (
            "" if overlap is None else f" The first two have an IoU of {iou_text(overlap)}."
        )
    first, second = result.names
    turning, overlap = result.turning(), result.overlap()
    turned, whole = f"No computed region turns {first} into {second} by its loss", name_whole(result.loss)
    if turning is not None:
        turned = f"Without {area_percent(turning.region.coverage)} of the {whole}, {first} becomes {second}"
    apart = "" if overlap is None else f"; the regions of the two classes have an IoU of {iou_text(overlap)}"
    return f"{turned}{apart}."


def render(result: RegionSets | Contrast, *, source: str = "") -> str:
    """Render the report as the text of an HTML file.

    Args:
        result: the regions.
        source: name of the input's file, shown above the heading.
    """
    explanation = result.explanations()[0]
    pictures = has_image(explanation)
    answers: list[tuple[str, tuple[str, ...]]] = []
    ways: tuple[str, ...] = ()
    if isinstance(result, Contrast):
        answers, ways = list(zip(map(area_percent, result.loss.areas), result.answers, strict=True)), result.ways
    return render_template(
        "sets.html.j2",
        title=explanation.target_names[0],
        source=source,
        network=network_text(explanation.settings),
        what="contrast" if isinstance(result, Contrast) else "sets of regions",
        summary={"headline": headline(result), "caution": " ".join(list_network_cautions(explanation))},
        photograph=png_data_uri(explanation.pictures[0]) if pictures else "",
        parts=list_parts(result),
        answers=answers,
        ways=ways,
        settings=explanation.settings,
    )


def write_sets(result: RegionSets | Contrast, folder: Path, source: str) -> dict[str, Any]:
    """Write the regions of one input: the values, the report and the cut masks.

    Args:
        result: the regions.
        folder: a new folder, or a previous result, which is replaced when the new one is complete.
        source: name of the image's file, for the report.

    Returns:
        The paths by kind: `explanation`, `report`, and a mapping `masks` of those that were found.

    Raises:
        ExtremalValueError: if the files cannot be written, or `folder` is not a previous result.
    """
    name = CONTRAST_FILE if isinstance(result, Contrast) else SETS_FILE
    regions = {part.kind: part.found for part in list_parts(result)}
    return write_regions(result, name, render(result, source=source), regions, folder)


def sets_record(image: str, result: RegionSets | Contrast, files: dict[str, Any]) -> dict[str, Any]:
    """Convert the regions of one input to JSON values.

    Args:
        image: path of the image.
        result: the regions.
        files: paths of the result, as returned by `write_sets`.
    """
    explanation = result.explanations()[0]
    record: dict[str, Any] = {
        "path": image,
        "target_name": explanation.target_names[0],
        "headline": headline(result),
        "overlap": result.overlap(),
        "regions": {part.kind: region_record(part.found) for part in list_parts(result)},
        "areas": list(explanation.areas),
        "effects": {name: _curve_record(getattr(result, name)) for name in result.parts},
        "verdicts": {
            name: [asdict(verdict) for verdict in _reach_verdicts(getattr(result, name), _required_share(result, name))]
            for name in result.parts
        },
        "files": files,
        "settings": explanation.settings,
    }
    if isinstance(result, Contrast):
        record |= {"names": result.names, "share": result.share, "ways": result.ways, "answers": result.answers}
    json_record: dict[str, Any] = to_json_values(record)
    return json_record


def _curve_record(explanation: Explanation) -> dict[str, Any]:
    return {name: list(values) for name, values in asdict(explanation.curve()).items() if name != "areas"}
