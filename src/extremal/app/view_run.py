"""The run of one view: its explanation, and the files of its result."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from extremal.app.job_queue import JobProgress, OnProgress
from extremal.app.networks import ServedNetwork, Upload
from extremal.app.request import CONTRAST, SEVERAL_REGIONS, Request, ResultView
from extremal.app.tab_words import describe_details, describe_heading, describe_tab
from extremal.errors import ExtremalValueError
from extremal.explanations.channels.explain import explain_channels
from extremal.explanations.explain import explain
from extremal.explanations.explain_copies import stability
from extremal.explanations.explanation import Explanation
from extremal.explanations.sets.class_contrast import Contrast, contrast
from extremal.explanations.sets.region_sets import RegionSets, explain_sets
from extremal.explanations.settings import Settings
from extremal.explanations.smallest_area import smallest_area
from extremal.explanations.verdict import check_finite
from extremal.masking.solvers import Step
from extremal.networks.inputs import prepare
from extremal.report import channel_files, result_files, sets_page
from extremal.report.channel_page import ChannelSummary, summarise_channels
from extremal.report.text import ExplanationSummary, summarise
from extremal.scores.answer import Answer
from extremal.scores.class_group import ClassGroup, resolve_class


@dataclass(frozen=True, eq=False)  # compared by identity, since it holds tensors
class Preview:
    """Intermediate result of a run."""

    image: Tensor  # (H, W, 3) uint8
    masks: Tensor  # (K, H, W) in [0, 1], the share of the image that is left


@dataclass(frozen=True)
class ViewRun:
    """The run of one view."""

    request: Request
    question: str  # a game, or one about several regions
    network: ServedNetwork
    target: int | ClassGroup | Answer  # of this network
    image: Upload
    folder: Path
    on_progress: OnProgress

    def run(self) -> tuple[ResultView, Explanation | None]:
        """Explain, write the result, and return its view, with the explanation if it is one by regions."""
        explanation = None
        if self.request.layer:
            sentence = self.explain_by_channels()
        elif self.question in SEVERAL_REGIONS:
            sentence = self.explain_by_several_regions()
        else:
            explanation = self.explain_by_regions()
            sentence = _sentence(summarise(explanation))
        draws_figure = explanation is not None
        view = ResultView(self._heading, self.folder, sentence, self._tab, self._label, draws_figure)
        return view, explanation

    @property
    def settings(self) -> Settings:
        """The settings of the request, with the game of the question."""
        settings = self.request.settings
        return settings if self.question in SEVERAL_REGIONS else settings.replace(game=self.question)

    @property
    def _heading(self) -> str:
        return describe_heading(self._label, self.question, self.network.name, self.request.layer)

    @property
    def _tab(self) -> str:
        details = describe_details(self.settings, self.request.refine, self.request.stability)
        network = [self.network.name] if len(self.request.networks) > 1 else []
        return describe_tab(self.question, self.request.layer, [*network, *([] if self.request.layer else details)])

    @property
    def _label(self) -> str:
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
        check_finite(explanation.status)
        certificate = None
        if self.request.refine:
            self.on_progress(JobProgress("smallest area"))
            (certificate,) = smallest_area(
                *(self.network.network, explanation, self.target),
                on_progress=lambda done, total: self.on_progress(JobProgress("smallest area", done, total)),
            )
        if self.request.stability:
            measured = stability(
                *(self.network.network, self.image, explanation),
                target=self.target,
                on_progress=lambda stage, done, total: self.on_progress(JobProgress(f"copies, {stage}", done, total)),
            )
            explanation = replace(explanation, stability=measured)
        self.on_progress(JobProgress("writing"))
        result_files.write_result(explanation, self.folder, self.request.title, certificate, with_figure=False)
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
        check_finite(explanation.status)
        self.on_progress(JobProgress("writing"))
        channel_files.write_channel_result(explanation, self.folder, self.request.title, None, None)
        return _sentence(summarise_channels(explanation))

    def explain_by_several_regions(self) -> str:
        """Explain by sets of regions or by a contrast, write the result, and return its headline."""
        found = self._contrast() if self.question == CONTRAST else self._find_sets()
        for part in found.explanations():
            check_finite(part.status)
        self.on_progress(JobProgress("writing"))
        sets_page.write_sets(found, self.folder, self.request.title)
        return sets_page.headline(found)

    def _find_sets(self) -> RegionSets:
        return explain_sets(
            *(self.network.network, self.image, self.target), settings=self.settings, on_part=self._on_part
        )

    def _contrast(self) -> Contrast:
        """Contrast the class with the runner-up, or the top class with it if it is another one."""
        if not isinstance(self.target, int):
            raise ExtremalValueError(
                f"a contrast must be between two classes, got {self._label}; choose a single class, or another question"
            )
        (top, *_) = self.network.top_classes(self.image)
        classes = (self.target, None) if top.index == self.target else (top.index, self.target)
        return contrast(self.network.network, self.image, *classes, settings=self.settings, on_part=self._on_part)

    def _on_part(self, part_and_stage: str, done: int, total: int) -> None:
        part, _, stage = part_and_stage.rpartition(", ")
        self.on_progress(JobProgress(f"{part}: {stage}", done, total))

    def _preview_steps(self) -> Callable[[Step], None]:
        """Return a callback that reports steps with their masks; masks are drawn only while a page shows them."""
        network = self.network.network
        (image,) = network.to_images_or_empty(prepare(network, self.image))

        def on_step(step: Step) -> None:
            preview = None
            if step.stage != "start" and image.numel():
                masks = step.masks[0, :, 0]
                preview = Preview(image, 1 - masks if self.question == "delete" else masks)
            self.on_progress(JobProgress(step.stage, step.index + 1, step.total, preview))

        return on_step

    def _on_evidence(self, done: int, total: int) -> None:
        self.on_progress(JobProgress("evidence", done, total))


def _sentence(summary: ExplanationSummary | ChannelSummary) -> str:
    """Return the headline of a report, with its caution."""
    return f"{summary.headline} {summary.caution}".strip()
