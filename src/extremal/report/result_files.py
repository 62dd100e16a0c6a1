"""Result folders and JSON records of the command line and the app: names of the files, and those of an explanation."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from threading import Thread, main_thread
from typing import TYPE_CHECKING, Any

from extremal.files import (
    ANSWER_KIND,
    CHANNELS_FILE,
    CLASS_FILE,
    COMPARISON_FILES,
    CONTRAST_FILE,
    CONTRAST_KINDS,
    EXPLANATION_FILE,
    INVERSION_PARTS,
    SET_KINDS,
    SETS_FILE,
    SUMMARY_FILES,
    TOKENS_FILE,
    atomic_folder,
)

if TYPE_CHECKING:
    from extremal.explanations.certificate import Certificate
    from extremal.explanations.explanation import Explanation
    from extremal.explanations.minimal_region import MinimalRegion
    from extremal.explanations.stability import Stability

FIGURE_FILE, REPORT_FILE, MINIMAL_FILE = "figure.png", "report.html", "minimal.png"
LIBRARIES = ("matplotlib.figure", "matplotlib.backends.backend_agg", "jinja2")  # take a second to import
_FIXED_NAMES = (
    EXPLANATION_FILE,
    SETS_FILE,
    CONTRAST_FILE,
    TOKENS_FILE,
    CHANNELS_FILE,
    CLASS_FILE,
    FIGURE_FILE,
    REPORT_FILE,
    MINIMAL_FILE,
    *SUMMARY_FILES,
    *COMPARISON_FILES,
)
_REGION_KINDS = (r"[0-9]+", r"token-[0-9]+", ANSWER_KIND, *SET_KINDS, *CONTRAST_KINDS)
RESULT_FILES = re.compile(  # names of all files that a result folder can contain
    "|".join(map(re.escape, _FIXED_NAMES))
    + r"|minimal\.(npy|wav)|mask-[0-9.e-]+\.(png|npy|wav)|region-[0-9]+\.wav"
    + rf"|region-({'|'.join(_REGION_KINDS)})\.(png|npy)"
    + rf"|inversion-({'|'.join(INVERSION_PARTS)})\.png|channel-[0-9]+\.png"
)


def import_libraries_early() -> None:
    """Start to import in the background what draws figures and reports, so that it is ready when they are due.

    A process that ends early waits for the library that is being imported: a daemon thread that is ended inside of an
    import can abort the process.
    """

    def import_all() -> None:
        for name in LIBRARIES:
            if not main_thread().is_alive():  # the process ends
                return
            with suppress(ImportError):  # raised again where the library is needed
                import_module(name)

    Thread(target=import_all).start()


@contextmanager
def atomic_result_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` when it is complete; a previous result there is replaced.

    Raises:
        ExtremalValueError: if the files cannot be written, or `folder` contains files that are not of a result.
    """
    with atomic_folder(folder, RESULT_FILES) as temporary:
        yield temporary


def write_result(
    explanation: "Explanation",
    folder: Path,
    source: str,
    certificate: "Certificate | None" = None,
    minimal: "MinimalRegion | None" = None,
    *,
    with_figure: bool = True,
) -> dict[str, Any]:
    """Write the explanation of one input, its figure, its report and its cut masks; of a sound its audible regions.

    Args:
        explanation: of N inputs; the first is shown.
        folder: a new folder, or a previous result, which is replaced when the new one is complete.
        source: name of the image's file, for the report.
        certificate: of the smallest sufficient area of the input; its mask is written too.
        minimal: the minimal region of the input; its mask is written too.
        with_figure: whether the figure is drawn, which takes about as long as everything else together.

    Returns:
        The paths by kind: `explanation`, `figure`, `report`, and a list `masks` in the order of the areas.

    Raises:
        ExtremalValueError: if the files cannot be written, or `folder` is not a previous result.
    """
    from extremal.report import explanation_page
    from extremal.report.export import write_mask
    from extremal.report.plots import write_figure
    from extremal.report.signal_view import has_signal, write_region

    is_signal = has_signal(explanation)
    suffix = "png" if explanation.masks.ndim == 5 else "npy"  # of pictures, and of inputs of other dimensions
    suffix = "wav" if is_signal else suffix
    masks = {f"mask-{area}.{suffix}": explanation.binary(area)[0] for area in explanation.areas}
    for number, region in enumerate(explanation.regions() if explanation.alternatives else (), start=1):
        masks[f"region-{number}.{suffix}"] = region.mask
    if certificate is not None:
        masks[f"mask-{certificate.area:.5f}.{suffix}"] = certificate.mask
    if minimal is not None:
        masks[f"minimal.{suffix}"] = minimal.mask
    with atomic_result_folder(folder) as temporary:
        explanation.save(temporary / EXPLANATION_FILE)
        if with_figure:
            write_figure(explanation, temporary / FIGURE_FILE, image=0)
        report = temporary / REPORT_FILE
        explanation_page.write(explanation, report, image=0, source=source, certificate=certificate, minimal=minimal)
        for name, mask in masks.items():
            if is_signal:
                write_region(explanation, mask, temporary / name)
            else:
                write_mask(mask, temporary / name)
    return {
        "explanation": str(folder / EXPLANATION_FILE),
        "figure": str(folder / FIGURE_FILE),
        "report": str(folder / REPORT_FILE),
        "masks": [str(folder / name) for name in masks],
    }


def result_record(
    image: str,
    explanation: "Explanation",
    files: dict[str, Any],
    certificate: "Certificate | None" = None,
    minimal: "MinimalRegion | None" = None,
) -> dict[str, Any]:
    """Convert the explanation of one input to JSON values.

    Args:
        image: path of the image.
        explanation: of N inputs; the first is converted.
        files: paths of the result, as returned by `write_result`.
        certificate: of the smallest sufficient area of the input.
        minimal: the minimal region of the input.
    """
    from extremal.explanations.answer_probability import find_probability, is_unlikely

    smallest = explanation.smallest()
    effects = {name: list(values) for name, values in asdict(explanation.curve()).items() if name != "areas"}
    record: dict[str, Any] = {
        "path": image,
        "target": explanation.target[0],
        "target_name": explanation.target_names[0],
        "score_full": float(explanation.score_full[0]),
        "score_blank": float(explanation.score_blank[0]),
        "probability": find_probability(explanation),
        "unlikely": is_unlikely(explanation),
        "areas": list(explanation.areas),
        "scores": explanation.scores[0].tolist(),
        "binary_scores": explanation.binary_scores[0].tolist(),
        "effects": effects,
        "verdicts": [{"word": verdict.label, "reason": verdict.reason} for verdict in explanation.verdict[0]],
        "status": [str(status) for status in explanation.status[0]],
        "smallest": smallest and {"area": smallest.area, "effect": smallest.effect},
        "certificate": certificate and _certificate_record(certificate),
        "minimal": minimal and minimal_record(minimal),
        "stability": explanation.stability and _stability_record(explanation.stability),
        "regions": [{"area": region.area, "effect": region.effect} for region in explanation.regions()],
        "left_out": list(explanation.left_out[0]) if explanation.left_out else [],
        "files": files,
        "settings": explanation.settings,
    }
    json_record: dict[str, Any] = to_json_values(record)
    return json_record


def _certificate_record(certificate: "Certificate") -> dict[str, Any]:
    return {
        "area": certificate.area,
        "effect": certificate.effect,
        "unseen_effect": certificate.unseen_effect,
        "control_effect": certificate.control_effect,
        "verdict": {"word": certificate.verdict.label, "reason": certificate.verdict.reason},
        "below_area": certificate.below_area,
        "below_effect": certificate.below_effect,
        "below_unseen_effect": certificate.below_unseen_effect,
        "share": certificate.share,
    }


def _stability_record(stability: "Stability") -> dict[str, Any]:
    """Return the stability of the first input as plain values."""
    return {
        "copies": stability.copies,
        "seed": stability.seed,
        "evaluations": stability.evaluations,
        "ious": stability.ious[0].tolist(),
        "median_iou": stability.median_iou[0].tolist(),
        "mean_iou": stability.mean_iou[0].tolist(),
        "core_shares": stability.core_shares[0].tolist(),
        "effect_range": stability.effect_range[0].tolist(),
        "unseen_effect_range": stability.unseen_effect_range[0].tolist(),
        "smallest_areas": stability.smallest_areas[0].tolist(),
        "smallest_area_factor": stability.smallest_area_factors[0],
    }


def minimal_record(region: "MinimalRegion") -> dict[str, Any]:
    """Return a minimal region, or a minimal set of channels, as plain values; of each channel piece its channels."""
    labels = region.pieces
    numbers = range(1, region.count + 1)
    channels = [(labels == number).nonzero()[:, 0].tolist() for number in numbers] if labels.ndim == 1 else []
    pieces = [
        {
            "area": float((labels == number).double().mean()),
            "without": region.without[number - 1],
            "unseen_without": region.unseen_without[number - 1],
            **({"channels": channels[number - 1]} if channels else {}),
        }
        for number in numbers
    ]
    return {
        "area": region.area,
        "effects": region.effects,
        "unseen_effect": region.unseen_effect,
        "pieces": pieces,
        "is_minimal": region.is_minimal,
        "is_finest": region.is_finest,
        "evaluations": region.evaluations,
        "budget": region.budget,
        "start_area": region.start_area,
        "share": region.share,
        "reason": region.reason,
    }


def to_json_values(value: Any) -> Any:
    """Convert tuples to lists, and numbers that are not finite to None."""
    if isinstance(value, dict):
        return {name: to_json_values(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_values(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
