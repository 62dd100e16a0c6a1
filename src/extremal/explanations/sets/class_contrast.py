"""`contrast`: why one class rather than another, and which loss turns the answer into the other."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations.evidence import unseen_perturbations
from extremal.explanations.explain import explain
from extremal.explanations.explanation import Explanation
from extremal.explanations.objective import prepare_ways
from extremal.explanations.preparation import as_asked_by
from extremal.explanations.regions import SufficientRegion, iou
from extremal.explanations.sets.bundle import Bundle, merge_game_free, prepare_single
from extremal.explanations.sets.region_sets import JudgedRegion, judge_smallest
from extremal.explanations.settings import Settings, SettingsOptions
from extremal.explanations.stages import OnStage, report_stages
from extremal.explanations.verdict import SUFFICIENT_EFFECT
from extremal.files import CONTRAST_KINDS
from extremal.masking.perturbations import prepare_perturbation, split_ways, with_spacing
from extremal.networks.inputs import ImagesLike
from extremal.networks.network import Network
from extremal.networks.run import Run
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import validate_callbacks
from extremal.scores.class_without import ClassWithout
from extremal.scores.classes import margin
from extremal.scores.outputs import Classes
from extremal.scores.query import Query, class_index
from extremal.tensor_files import FormatError


@dataclass(frozen=True, eq=False)
class Contrast(Bundle):
    """Regions that make an input one class rather than another.

    `loss` deletes what makes the first class likelier than the second: Φ = y_first − y_second. `first` and `second`
    keep what supports each class among all others but its rival (`scores.ClassWithout`).
    """

    noun: ClassVar[str] = "a contrast"
    parts: ClassVar[tuple[str, ...]] = CONTRAST_KINDS

    loss: Explanation  # by the delete game
    first: Explanation  # by the preserve game
    second: Explanation  # by the preserve game
    names: tuple[str, str]  # of the two classes
    ways: tuple[str, ...]  # (W,) perturbations, those of the run first
    n_used: int  # number of perturbations of the run
    answers: tuple[tuple[str, ...], ...]  # (A, W) the top class when the cut mask of each area of `loss` is lost

    @property
    def share(self) -> float:
        """The share of the effect that makes the second class score above the first: Φ_full / (Φ_full − Φ_blank)."""
        full, blank = float(self.loss.score_full[0]), float(self.loss.score_blank[0])
        return full / (full - blank) if full != blank else float("inf")

    def turning(self) -> JudgedRegion | None:
        """Return the smallest computed region whose loss makes the second class the answer; None if none does.

        Without it, the second class is the top class under each perturbation of the run, and the score Φ falls below 0;
        the verdict is on that share of the effect.
        """
        effects = self.loss.curve().binary
        for k, area in enumerate(self.loss.areas):
            is_turned = all(answer == self.names[1] for answer in self.answers[k][: self.n_used])
            if is_turned and 0 < self.share <= effects[k]:
                region = SufficientRegion(area, self.loss.binary(area)[0], effects[k])
                return JudgedRegion(region, self.loss.verdicts(0, self.share)[k])
        return None

    def count_turned(self, area: float) -> tuple[int, int]:
        """Return the number of perturbations under which losing an area makes the second class the answer, and of all.

        Args:
            area: one of the computed areas.
        """
        answers = self.answers[self.loss.column(area)]
        return sum(answer == self.names[1] for answer in answers), len(answers)

    def pair(self, share: float = SUFFICIENT_EFFECT) -> tuple[JudgedRegion | None, JudgedRegion | None]:
        """Return the smallest sufficient regions of the first and of the second class; None for a class without one."""
        return judge_smallest(self.first, share), judge_smallest(self.second, share)

    def overlap(self, share: float = SUFFICIENT_EFFECT) -> float | None:
        """Return the IoU of the two regions of `pair`; None if one is missing."""
        first, second = self.pair(share)
        return iou(first.region.mask, second.region.mask) if first and second else None

    @classmethod
    def _read_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the plain values of a file as those of the fields."""
        answers = tuple(tuple(map(str, row)) for row in values["answers"])
        names, ways = tuple(map(str, values["names"])), tuple(map(str, values["ways"]))
        return {"names": names, "ways": ways, "n_used": int(values["n_used"]), "answers": answers}

    def _check(self) -> None:
        """Raise unless the parts are of one input, and there is an answer for each area and perturbation."""
        super()._check()
        shape = {len(row) for row in self.answers}
        if len(self.names) != 2 or len(self.answers) != len(self.loss.areas) or shape != {len(self.ways)}:
            raise FormatError("it must have two classes, and an answer for each area and perturbation")
        if not 0 < self.n_used <= len(self.ways):
            raise FormatError("it must have an answer under a perturbation of the run")


@in_standard_modes
def contrast(
    network: Network | nn.Module | str,
    image: ImagesLike,
    target: int | str | None = None,
    other: int | str | None = None,
    *,
    settings: Settings | None = None,
    on_part: OnStage | None = None,
    **options: Unpack[SettingsOptions],
) -> Contrast:
    """Find why an image is one class rather than another, and the region whose loss turns one into the other.

    Three runs of `explain`: by the delete game on the difference of both scores, and by the preserve game on each class
    among all others but its rival. Then the network's answer is evaluated without each mask of the first run, under
    every perturbation, including unseen ones.

    >>> class Two(nn.Module):  # light in one square for class 0, in another one for class 1
    ...     def forward(self, x):
    ...         a, b = x[..., 2:6, 2:6].mean((1, 2, 3)), x[..., 10:14, 10:14].mean((1, 2, 3))
    ...         return torch.stack([6 * a, 4 * b, 0 * a - 3], 1)
    >>> found = contrast(Two(), torch.ones(1, 3, 16, 16), areas=(0.07, 0.15), perturbation="fade")
    >>> found.names, found.turning().region.area, found.overlap()
    (('class 0', 'class 1'), 0.07, 0.0)

    Args:
        network, image, settings: as for `explain`, of one image.
        target: the class, by index or name; None: the top class.
        other: the other class, by index or name; None: the runner-up, the most likely one besides the target.
        on_part: called with the part and stage, the number done, and the total.
        options: as for `explain`, without `game`, `alternatives` and `score`.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    validate_callbacks(on_part=on_part)
    settings = validate_contrast_settings(settings, options)
    net, x = prepare_single(as_asked_by(network, settings.solver), image, "a contrast")
    asked = find_contrast(net, x, target, other, settings)
    found = {}
    for part, question in asked.questions.items():
        of_game, report = settings.replace(game=question.game), report_stages(on_part, question.name)
        explanation = explain(net, x, question.query, settings=of_game, progress=False, **report)
        found[part] = replace(explanation, target_names=(question.name,))
    with net.frozen(settings.seed) as run, torch.no_grad():
        ways, n_used, answers = _ask_without(run, x, found["loss"], settings)
    return Contrast(**found, names=asked.names, ways=ways, n_used=n_used, answers=answers)


@dataclass(frozen=True)
class ContrastQuestion:
    """The question of one run of a contrast."""

    query: Query
    game: str
    name: str


@dataclass(frozen=True)
class AskedContrast:
    """Two classes, and the questions about them, by the parts of a `Contrast`."""

    names: tuple[str, str]
    questions: dict[str, ContrastQuestion]


def validate_contrast_settings(settings: Settings | None, options: SettingsOptions) -> Settings:
    """Return the given settings, or those of the options, without a game and a score of their own.

    Raises:
        ExtremalTypeError: a game, a score or several explanations are asked for.
    """
    merged = merge_game_free(settings, options, "contrasts")
    if merged.score is not margin:
        raise ExtremalTypeError("contrasts choose their scores themselves, got another score; leave it out")
    return merged


def find_contrast(
    net: Network, x: Tensor, target: int | str | None, other: int | str | None, settings: Settings
) -> AskedContrast:
    """Choose the classes by one evaluation of an input (1, C, *S).

    Raises:
        ExtremalValueError, ExtremalTypeError: as `contrast`.
    """
    with net.frozen(settings.seed) as run, torch.no_grad():
        first, second = _choose_classes(run, run(x), target, other)
    names = (net.distinct_label(first), net.distinct_label(second))
    rather = Classes({first: 1.0, second: -1.0})
    questions = {
        "loss": ContrastQuestion(rather, "delete", f"{names[0]} rather than {names[1]}"),
        "first": ContrastQuestion(ClassWithout(first, second), "preserve", names[0]),
        "second": ContrastQuestion(ClassWithout(second, first), "preserve", names[1]),
    }
    return AskedContrast(names, questions)


def _choose_classes(run: Run, output: Tensor, target: int | str | None, other: int | str | None) -> tuple[int, int]:
    """Return both classes, given the scores of all (1, classes)."""
    net, scores = run.network, output[0]
    count = len(scores)
    if count < 2:
        raise ExtremalValueError(f"a contrast must be between two classes, {net.name} has {count}; use explain")
    first = int(scores.argmax()) if target is None else class_index(net, target, count, "target")
    rest = scores.index_fill(0, torch.tensor([first], device=scores.device), -torch.inf)
    second = int(rest.argmax()) if other is None else class_index(net, other, count, "other")
    if first == second:
        raise ExtremalValueError(
            f"other must be another class than the target, got {net.distinct_label(second)} for both"
        )
    difference = float(scores[first] - scores[second])
    if not difference > 0:
        raise ExtremalValueError(
            f"a contrast must be with a class that scores lower on the whole input, {net.distinct_label(first)} scores "
            f"{-difference:.3g} below {net.distinct_label(second)}; swap them"
        )
    return first, second


def _ask_without(
    run: Run, x: Tensor, loss: Explanation, settings: Settings
) -> tuple[tuple[str, ...], int, tuple[tuple[str, ...], ...]]:
    """Return the perturbations, how many are those of the run, and the top class without each cut mask under each."""
    net = run.network
    perturbation = with_spacing(settings.perturbation, net.spacing)
    left_out = loss.left_out[0] if loss.left_out else ()
    used = dict(zip(split_ways(settings.perturbation), prepare_ways(perturbation, x), strict=True))
    used = {name: perturb for name, perturb in used.items() if name not in left_out}
    others = unseen_perturbations(perturbation, settings.seed)
    perturbs = {**used, **{f"unseen {name}": prepare_perturbation(way, x) for name, way in others.items()}}
    answers = []
    for area in loss.areas:
        kept = (1 - loss.binary(area)).to(x)[:, None]  # (1, 1, 1, *S)
        tops = [int(run(perturb(kept).flatten(0, 1))[0].argmax()) for perturb in perturbs.values()]
        answers.append(tuple(map(net.distinct_label, tops)))
    return tuple(perturbs), len(used), tuple(answers)
