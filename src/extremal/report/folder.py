"""What the command line hands on for each photo: a folder that appears whole or not at all, and plain values."""

import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extremal.errors import ExtremalValueError

if TYPE_CHECKING:
    from extremal.explanations.explanation import Explanation
    from extremal.explanations.smallest_area import Certificate

EXPLANATION, CHANNELS, CLASS = "explanation.safetensors", "channels.safetensors", "class-channels.parquet"
FIGURE, REPORT = "figure.png", "report.html"
SUMMARY, COMPARISON = ("summary.html", "summary.png"), ("compare.html", "compare.png")  # page and figure
_OURS = re.compile(
    "|".join(map(re.escape, (EXPLANATION, CHANNELS, CLASS, FIGURE, REPORT, *SUMMARY, *COMPARISON)))
    + r"|mask-[0-9.e-]+\.png|region-[0-9]+\.png|inversion-(all|kept|removed)\.png|channel-[0-9]+\.png"
)


def folders(out: Path, photos: Sequence[str]) -> list[Path]:
    """One folder a photo, named after it; a number tells those apart that share a name.

    >>> [folder.name for folder in folders(Path("out"), ["a/cat.jpg", "b/Cat.png", "dog.png"])]
    ['cat', 'Cat-2', 'dog']
    """
    taken: set[str] = set()
    names = []
    for photo in photos:
        stem = Path(photo).stem.strip(". ") or "photo"  # never `..`
        tries = (stem if n == 1 else f"{stem}-{n}" for n in range(1, len(photos) + 1))
        name = next(name for name in tries if name.casefold() not in taken)
        taken.add(name.casefold())  # some file systems take cat and Cat for the same
        names.append(out / name)
    return names


def check_writable(out: Path) -> None:
    """Make the folder `out` if it is missing, and try to write to it.

    Raises:
        ExtremalValueError: it cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".extremal-", dir=out):
            pass
    except OSError as error:
        raise ExtremalValueError(
            f"an output must lie in a folder that can be written, got {str(out)!r}: {error.strerror}; "
            "choose another folder"
        ) from None


def check_replaceable(folder: Path) -> None:
    """What stands at the place of a result must be a former result: nobody's own files are removed.

    Raises:
        ExtremalValueError: something else stands there.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise ExtremalValueError(
            f"a result must be a new folder or replace a former result, got {str(folder)!r}, which is not a folder; "
            "choose another folder for the results"
        )
    foreign = sorted(entry.name for entry in folder.iterdir() if not _OURS.fullmatch(entry.name))
    if foreign:
        raise ExtremalValueError(
            f"a result must be a new folder or replace a former result, got {str(folder)!r} with {foreign[0]!r} in it; "
            "choose another folder for the results"
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
    with whole_folder(folder) as aside:
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


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write a result to, which appears at `folder` when it is complete; a former result is replaced.

    Raises:
        ExtremalValueError: the files cannot be written, or the folder is not a former result.
    """
    from safetensors import SafetensorError

    check_replaceable(folder)
    try:
        with _replacing_folder(folder) as aside:
            yield aside
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ExtremalValueError(
            f"a result must be written whole, could not write {str(folder)!r}: {reason}; "
            "make room or choose another folder"
        ) from None


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` to write to; renamed to it at the end, removed after an exception."""
    aside = Path(tempfile.mkdtemp(prefix=".extremal-", dir=folder.parent))
    former = aside.with_name(f"{aside.name}-former")
    try:
        yield aside
        mask = os.umask(0)
        os.umask(mask)
        aside.chmod(0o777 & ~mask)  # mkdtemp's folders are for the owner only
        if folder.exists():
            folder.rename(former)
        aside.rename(folder)
    finally:
        if former.exists() and not folder.exists():
            former.rename(folder)
        for leftover in (aside, former):
            shutil.rmtree(leftover, ignore_errors=True)
