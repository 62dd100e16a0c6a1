"""What a person asks of the app, and what they get: one view for each network and game, written to a private folder."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from extremal.app.job_queue import Progress, Report
from extremal.app.networks import Offered
from extremal.errors import ExtremalValueError
from extremal.explanations.channels.explain import explain_channels
from extremal.explanations.explain import explain
from extremal.explanations.explanation import Explanation, iou
from extremal.explanations.settings import AREAS
from extremal.explanations.smallest_area import smallest_area
from extremal.explanations.verdict import NOT_FINITE
from extremal.masking.solvers import Step
from extremal.networks.inputs import prepare, read_picture
from extremal.report import channel_files, result_files
from extremal.report.channel_page import ChannelSummary
from extremal.report.channel_page import summarise as summarise_channels
from extremal.report.text import Summary, summarise

MAX_PIXELS = 40_000_000  # of a photograph


@dataclass(frozen=True)
class Wish:
    """What is asked: equal wishes have equal answers."""

    digest: str  # of the photograph's bytes
    title: str  # what the person calls it
    target: int  # class, of the first network
    networks: tuple[str, ...]
    games: tuple[str, ...] = ("preserve",)
    layer: str = ""  # whose channels are wanted; empty: regions of the photograph
    perturbation: str = "blur"
    areas: tuple[float, ...] = AREAS
    alternatives: int = 1
    refine: bool = False


@dataclass(frozen=True)
class View:
    """One explanation: its report is what the page shows."""

    heading: str
    folder: Path  # with the report, the figure and the explanation
    sentence: str  # what was found, as the report begins


@dataclass(frozen=True)
class Overlap:
    """How much the regions of two views have in common at one area."""

    area: float
    iou: float


@dataclass(frozen=True)
class Answer:
    """What came of a wish."""

    views: tuple[View, ...]
    overlaps: tuple[Overlap, ...] = ()  # of the first two views, where these are regions of equal size


@dataclass(frozen=True, eq=False)  # each is another one: tensors are not told apart by ==
class Seen:
    """What there is to see of a run on its way."""

    picture: Tensor  # (H, W, 3) uint8
    masks: Tensor  # (K, H, W) in [0, 1], what is left of the photograph


def photograph(path: Path, name: str) -> Image.Image:
    """An uploaded photograph, checked.

    Raises:
        ExtremalValueError: it cannot be read, or has more than 40 megapixels.
    """
    return read_picture(path, name=name, max_pixels=MAX_PIXELS)


def granted(wish: Wish, path: Path, offered: dict[str, Offered], folder: Path, report: Report) -> Answer:
    """Run what is asked, a view for each network and game.

    Args:
        path: of the uploaded photograph.
        offered: the networks by name.
        folder: a new one for the views.
        report: told how far it is; what it raises ends the run.

    Raises:
        ExtremalValueError: the photograph, the class or the layer break a rule.
    """
    picture = photograph(path, wish.title)
    views, regions = list[View](), list[Explanation]()
    wanted = [(offered[name], game) for name in wish.networks for game in wish.games]
    for number, (one, game) in enumerate(wanted):
        target = one.class_like(offered[wish.networks[0]], wish.target)
        part, place = _part(report, number, len(wanted)), folder / f"view-{number}"
        if wish.layer:
            sentence = _explain_channels(wish, one, target, game, picture, place, part)
        else:
            found = _explain(wish, one, target, game, picture, place, part)
            sentence = _sentence(summarise(found))
            regions.append(found)
        views.append(View(_heading(one, target, game, wish.layer), place, sentence))
    return Answer(tuple(views), _overlaps(*regions[:2]) if len(regions) > 1 else ())


def _heading(one: Offered, target: int, game: str, layer: str) -> str:
    where = f"channels of {layer}, " if layer else ""
    return f"{one.network.label(target)} – {where}{game} game, {one.name}"


def _sentence(summary: Summary | ChannelSummary) -> str:
    """What was found, and why it should not be taken at its word."""
    return f"{summary.headline} {summary.caution}".strip()


def _part(report: Report, number: int, count: int) -> Report:
    """Tells of one view as part of all."""
    of = f"view {number + 1} of {count}: " if count > 1 else ""
    return lambda progress: report(replace(progress, stage=of + progress.stage))


def _explain(
    wish: Wish, one: Offered, target: int, game: str, picture: Image.Image, folder: Path, report: Report
) -> Explanation:
    found = explain(
        *(one.network, picture, target),
        areas=wish.areas,
        game=game,
        perturbation=wish.perturbation,
        alternatives=wish.alternatives,
        on_step=_watching(one, picture, game, report),
        on_evidence=_evidence(report),
    )
    if "not finite" in found.status[0]:
        raise ExtremalValueError(NOT_FINITE)
    certificate = None
    if wish.refine:
        report(Progress("smallest area"))
        (certificate,) = smallest_area(one.network, found)
    report(Progress("writing"))
    result_files.write(found, folder, wish.title, certificate)
    return found


def _explain_channels(
    wish: Wish, one: Offered, target: int, game: str, picture: Image.Image, folder: Path, report: Report
) -> str:
    found = explain_channels(
        *(one.network, picture, wish.layer, target),
        game=game,
        on_step=lambda step: report(Progress(step.stage, step.index + 1, step.total)),
        on_evidence=_evidence(report),
    )
    if "not finite" in found.status[0]:
        raise ExtremalValueError(NOT_FINITE)
    report(Progress("writing"))
    channel_files.write(found, folder, wish.title, None, None)
    return _sentence(summarise_channels(found))


def _watching(one: Offered, picture: Image.Image, game: str, report: Report) -> Callable[[Step], None]:
    """Reports each step with what is left of the photograph in it; nothing is drawn before somebody looks."""
    (shown,) = one.network.pictures(prepare(one.network, picture))

    def tell(step: Step) -> None:
        masks = step.masks[0, :, 0]
        seen = (
            Seen(shown, 1 - masks if game == "delete" else masks) if step.stage != "start" and shown.numel() else None
        )
        report(Progress(step.stage, step.index + 1, step.total, seen))

    return tell


def _evidence(report: Report) -> Callable[[int, int], None]:
    return lambda done, total: report(Progress("evidence", done, total))


def _overlaps(one: Explanation, other: Explanation) -> tuple[Overlap, ...]:
    """Intersection over union of the cut masks at each area; none where the two networks see different frames."""
    if one.masks.shape != other.masks.shape:
        return ()
    return tuple(Overlap(area, iou(one.binary(area)[0], other.binary(area)[0])) for area in one.areas)
