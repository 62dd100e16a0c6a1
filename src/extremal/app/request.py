"""Requests of visitors and their responses: one view for each network and question."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from extremal.errors import ExtremalValueError
from extremal.explanations.effort import NORMAL
from extremal.explanations.explain_copies import COPIES
from extremal.explanations.settings import AREAS, Settings

SETS, CONTRAST = "sets", "contrast"  # questions that one region does not answer
SEVERAL_REGIONS = {SETS: "sufficient, necessary and complete regions", CONTRAST: "rather than another class"}
EXPLANATIONS = {SETS: 4, CONTRAST: 3, "dual": 2}  # of a question, in costs of one of the preserve game
TIME_OF_EFFORT = {"thorough": 2.0}  # in that of normal effort, if it is longer
SEARCH_COST = 3  # of a search for the smallest area, in explanations
MAX_TIME_FACTOR = 16.0


@dataclass(frozen=True)
class Request:
    """A request; equal requests have equal responses."""

    digest: str  # of the bytes of the image
    title: str  # name of the image file
    target: int | str  # index of a class of the first network, name of a group of its classes, or text of an answer
    networks: tuple[str, ...]
    questions: tuple[str, ...] = ("preserve",)  # one view each: a game, or one of `SEVERAL_REGIONS`
    layer: str = ""  # layer whose channels are explained; empty: regions of the image
    refine: bool = False  # whether to search for the smallest sufficient area
    stability: bool = False  # whether to explain copies with one grey level of noise
    prompt: str = ""  # to a model of images and text; the target is then the answer, empty for the model's own
    settings: Settings = field(default_factory=Settings, compare=False)
    settings_key: str = field(init=False, repr=False)  # settings as text: what requests are compared by

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings_key", json.dumps(self.settings.as_dict(), sort_keys=True))
        if SEVERAL_REGIONS.keys() & set(self.questions):
            self._check_several_regions()

    def _check_several_regions(self) -> None:
        """Raise if options are chosen that questions about several regions do not have."""
        chosen = {
            "channels of a layer": bool(self.layer),
            "the smallest area": self.refine,
            "copies with noise": self.stability,
            "alternatives": self.settings.alternatives != 1,
            "a prompt": bool(self.prompt) and CONTRAST in self.questions,
        }
        refused = [name for name, is_chosen in chosen.items() if is_chosen]
        if refused:
            raise ExtremalValueError(
                f"a question about several regions at once has no {' and no '.join(refused)}; choose another question, "
                "or leave the option out"
            )

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
        if self.layer:
            return min(MAX_TIME_FACTOR, float(len(self.networks) * len(self.questions)))
        n_views = len(self.networks) * sum(EXPLANATIONS.get(question, 1) for question in self.questions)
        n_further = (COPIES if self.stability else 0) + (SEARCH_COST if self.refine else 0)
        per_area = max(1.0, len(self.settings.areas) / len(AREAS)) * TIME_OF_EFFORT.get(self.settings.effort, 1.0)
        return min(MAX_TIME_FACTOR, n_views * (self.settings.alternatives + n_further) * per_area)


@dataclass(frozen=True)
class ResultView:
    """One explanation, shown on the page by its report."""

    heading: str
    folder: Path  # holds the report, the explanation, and the figure if there is one
    sentence: str  # headline of the report
    tab: str = ""  # heading among the answers about one class of one image; empty: `heading`
    label: str = ""  # of the class
    draws_figure: bool = False  # whether the figure is drawn when it is first asked for


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
