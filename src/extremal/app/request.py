"""Requests of visitors and their responses: one view for each network and game, written to a private folder."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from extremal.app.job_queue import JobProgress, OnProgress
from extremal.app.networks import ServedNetwork
from extremal.app.stack_uploads import read_stack, show_middle_frame
from extremal.app.tab_words import describe_details, describe_tab
from extremal.errors import ExtremalValueError
from extremal.explanations.channels.explain import explain_channels
from extremal.explanations.effort import NORMAL
from extremal.explanations.explain import explain
from extremal.explanations.explain_copies import COPIES, stability
from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import encode_jpeg
from extremal.explanations.regions import iou
from extremal.explanations.settings import AREAS, Settings
from extremal.explanations.smallest_area import smallest_area
from extremal.explanations.verdict import NOT_FINITE, Status
from extremal.masking.solvers import Step
from extremal.networks.image_files import read_image_file
from extremal.networks.inputs import prepare
from extremal.networks.stacks.readers import PreparedStack
from extremal.report import channel_files, result_files
from extremal.report.channel_page import ChannelSummary, summarise_channels
from extremal.report.text import ExplanationSummary, summarise
from extremal.scores.answer import Answer
from extremal.scores.class_group import ClassGroup, resolve_class

MAX_PIXELS = 40_000_000  # of an image
MAX_TIME_FACTOR = 16.0
THUMBNAIL_SIZE = 128  # px, longer side at most


@dataclass(frozen=True)
class Request:
    """A request; equal requests have equal responses."""

    digest: str  # of the bytes of the image
    title: str  # name of the image file
    target: int | str  # index of a class of the first network, name of a group of its classes, or text of an answer
    networks: tuple[str, ...]
    games: tuple[str, ...] = ("preserve",)  # one view each, in place of the game of the settings
    layer: str = ""  # layer whose channels are explained; empty: regions of the image
    refine: bool = False  # whether to search for the smallest sufficient area
    stability: bool = False  # whether to explain copies with one grey level of noise
    prompt: str = ""  # to a model of images and text; the target is then the answer, empty for the model's own
    settings: Settings = field(default_factory=Settings, compare=False)
    settings_key: str = field(init=False, repr=False)  # settings as text: what requests are compared by

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings_key", json.dumps(self.settings.as_dict(), sort_keys=True))

    @property
    def first_answer(self) -> "Request | None":
        """The same request at a fraction of the passes, whose response is shown first; None if there is none.

        Channels have no cheaper search, and a model of images and text would generate its answer twice.
        """
        if self.layer or self.prompt or self.settings.effort != NORMAL:
            return None
        settings = self.settings.replace(effort="fast", alternatives=1)
        return replace(self, refine=False, stability=False, settings=settings)

    @property
    def time_factor(self) -> float:
        """Time limit of this request, in limits of one explanation with the default areas; at most 16."""
        n_views = len(self.networks) * len(self.games)
        if self.layer:
            return min(MAX_TIME_FACTOR, float(n_views))
        n_explanations = self.settings.alternatives + (COPIES if self.stability else 0) + (1 if self.refine else 0)
        return min(MAX_TIME_FACTOR, n_views * n_explanations * max(1.0, len(self.settings.areas) / len(AREAS)))


@dataclass(frozen=True)
class ResultView:
    """One explanation, shown on the page by its report."""

    heading: str
    folder: Path  # holds the report, the figure and the explanation
    sentence: str  # headline of the report
    tab: str = ""  # heading among the answers about one class of one image; empty: `heading`
    label: str = ""  # of the class


@dataclass(frozen=True)
class RegionOverlap:
    """Overlap of the regions of two views at one area."""

    area: float
    iou: float


@dataclass(frozen=True)
class Response:
    """Response to a request."""

    views: tuple[ResultView, ...]
    overlaps: tuple[RegionOverlap, ...] = ()  # of the first two views, if their regions have equal shapes
    thumbnail: bytes = b""  # JPEG of the image


@dataclass(frozen=True, eq=False)  # compared by identity, since it holds tensors
class Preview:
    """Intermediate result of a run."""

    image: Tensor  # (H, W, 3) uint8
    masks: Tensor  # (K, H, W) in [0, 1], the share of the image that is left


def read_image(path: Path, name: str) -> Image.Image:
    """Read and check an uploaded image.

    Raises:
        ExtremalValueError: the image cannot be read, or has more than 40 megapixels.
    """
    return read_image_file(path, name=name, max_pixels=MAX_PIXELS)


def run_request(
    request: Request, path: Path, networks: dict[str, ServedNetwork], folder: Path, on_progress: OnProgress
) -> Response:
    """Compute the response to a request, one view for each network and game.

    Args:
        request: what to explain, and how.
        path: path of the uploaded image.
        networks: served networks by name.
        folder: empty folder for the views.
        on_progress: called with the progress; an exception that it raises ends the run.

    Raises:
        ExtremalValueError: the image, the class or the layer is invalid.
    """
    first = networks[request.networks[0]]
    image = read_stack(path, first) if first.kind else read_image(path, request.title)
    views, explanations = list[ResultView](), list[Explanation]()
    targets = {name: _find_target(request, networks[name], first, image) for name in request.networks}
    pairs = [(networks[name], game) for name in request.networks for game in request.games]
    for number, (network, game) in enumerate(pairs):
        run = _ViewRun(
            request,
            network,
            targets[network.name],
            request.settings.replace(game=game),
            image,
            folder / f"view-{number}",
            _view_progress(on_progress, number, len(pairs)),
        )
        if request.layer:
            sentence = run.explain_by_channels()
        else:
            explanation = run.explain_by_regions()
            sentence = _sentence(summarise(explanation))
            explanations.append(explanation)
        views.append(ResultView(run.heading, run.folder, sentence, run.tab, run.label))
    overlaps = find_overlaps(*explanations[:2]) if len(explanations) > 1 else ()
    return Response(
        tuple(views),
        overlaps,
        encode_thumbnail(show_middle_frame(image) if isinstance(image, PreparedStack) else np.asarray(image)),
    )


@dataclass(frozen=True)
class _ViewRun:
    """The run of one view."""

    request: Request
    network: ServedNetwork
    target: int | ClassGroup | Answer  # of this network
    settings: Settings
    image: Image.Image | PreparedStack
    folder: Path
    on_progress: OnProgress

    @property
    def heading(self) -> str:
        part = f"channels of {self.request.layer}, " if self.request.layer else ""
        return f"{self.label} – {part}{self.settings.game.name} game, {self.network.name}"

    @property
    def tab(self) -> str:
        details = describe_details(self.settings, self.request.refine, self.request.stability)
        network = [self.network.name] if len(self.request.networks) > 1 else []
        return describe_tab(
            self.settings.game.name, self.request.layer, [*network, *([] if self.request.layer else details)]
        )

    @property
    def label(self) -> str:
        if isinstance(self.target, Answer):
            return self.target.text or ""
        target = self.target if isinstance(self.target, int) else resolve_class(self.network.network, self.target)
        return self.network.network.label(target)

    def explain_by_regions(self) -> Explanation:
        """Explain by regions of the image, and write the result."""
        explanation = explain(
            *(self.network.network, self.image, self.target),
            settings=self.settings,
            on_step=self._preview_steps(),
            on_evidence=self._on_evidence,
        )
        _check_finite(explanation.status)
        certificate = None
        if self.request.refine:
            self.on_progress(JobProgress("smallest area"))
            (certificate,) = smallest_area(
                *(self.network.network, explanation, None if explanation.is_class else self.target),
                on_progress=lambda done, total: self.on_progress(JobProgress("smallest area", done, total)),
            )
        if self.request.stability:
            measured = stability(
                *(self.network.network, self.image, explanation),
                target=None if explanation.is_class else self.target,
                on_progress=lambda stage, done, total: self.on_progress(JobProgress(f"copies, {stage}", done, total)),
            )
            explanation = replace(explanation, stability=measured)
        self.on_progress(JobProgress("writing"))
        result_files.write_result(explanation, self.folder, self.request.title, certificate)
        return explanation

    def explain_by_channels(self) -> str:
        """Explain by channels of a layer, write the result, and return its headline."""
        explanation = explain_channels(
            *(self.network.network, self.image, self.request.layer, self.target),
            game=self.settings.game,
            solver=self.settings.solver,
            on_step=lambda step: self.on_progress(JobProgress(step.stage, step.index + 1, step.total)),
            on_evidence=self._on_evidence,
        )
        _check_finite(explanation.status)
        self.on_progress(JobProgress("writing"))
        channel_files.write_channel_result(explanation, self.folder, self.request.title, None, None)
        return _sentence(summarise_channels(explanation))

    def _preview_steps(self) -> Callable[[Step], None]:
        """Return a callback that reports steps with their masks; masks are drawn only while a page shows them."""
        network = self.network.network
        (image,) = network.to_images_or_empty(prepare(network, self.image))

        def on_step(step: Step) -> None:
            preview = None
            if step.stage != "start" and image.numel():
                masks = step.masks[0, :, 0]
                preview = Preview(image, 1 - masks if self.settings.game.name == "delete" else masks)
            self.on_progress(JobProgress(step.stage, step.index + 1, step.total, preview))

        return on_step

    def _on_evidence(self, done: int, total: int) -> None:
        self.on_progress(JobProgress("evidence", done, total))


def _find_target(
    request: Request, network: ServedNetwork, first: ServedNetwork, image: Image.Image | PreparedStack
) -> int | ClassGroup | Answer:
    """Return the target of a network: a class or group of the name that it has in the first one, or an answer."""
    if network.takes_prompt:
        return network.settle_answer(image, request.prompt, str(request.target))
    return network.matching_class(first, request.target)


def _check_finite(status: tuple[tuple[Status, ...], ...]) -> None:
    if Status.NOT_FINITE in status[0]:
        raise ExtremalValueError(NOT_FINITE)


def _sentence(summary: ExplanationSummary | ChannelSummary) -> str:
    """Return the headline of a report, with its caution."""
    return f"{summary.headline} {summary.caution}".strip()


def _view_progress(on_progress: OnProgress, number: int, count: int) -> OnProgress:
    """Return a callback that reports the progress of one view as a part of all views."""
    prefix = f"view {number + 1} of {count}: " if count > 1 else ""
    return lambda progress: on_progress(replace(progress, stage=prefix + progress.stage))


def find_overlaps(a: Explanation, b: Explanation) -> tuple[RegionOverlap, ...]:
    """Return the intersection over union of the cut masks at each common area; nothing if their shapes differ."""
    if a.masks.shape[-2:] != b.masks.shape[-2:]:
        return ()
    common = [area for area in a.areas if area in b.areas]
    return tuple(RegionOverlap(area, iou(a.binary(area)[0], b.binary(area)[0])) for area in common)


def encode_thumbnail(image: np.ndarray[Any, Any]) -> bytes:
    """Encode a small copy of an image as JPEG: (H, W, 3) uint8."""
    return encode_jpeg(image, THUMBNAIL_SIZE, quality=80)
