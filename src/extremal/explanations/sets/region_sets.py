"""`explain_sets`: what is sufficient, what is necessary, and what is both, for one input."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Unpack

from torch import nn

from extremal.errors import ExtremalValueError
from extremal.explanations.explain import explain
from extremal.explanations.explanation import Explanation
from extremal.explanations.judge import judge
from extremal.explanations.preparation import as_asked_by
from extremal.explanations.regions import SufficientRegion, iou
from extremal.explanations.sets.bundle import (
    Bundle,
    check_single_target,
    merge_game_free,
    prepare_single,
)
from extremal.explanations.settings import Settings, SettingsOptions
from extremal.explanations.stages import OnStage, report_stages
from extremal.explanations.verdict import SUFFICIENT_EFFECT, Verdict
from extremal.files import SET_KINDS
from extremal.networks.inputs import ImagesLike
from extremal.networks.network import Network
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import validate_callbacks
from extremal.scores.target import Target

GAMES = {"sufficient": "preserve", "necessary": "delete", "complete": "dual"}  # of the runs


@dataclass(frozen=True, eq=False)
class JudgedRegion:
    """A region of one input with the verdict on it."""

    region: SufficientRegion
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class RegionSets(Bundle):
    """The sufficient, the necessary and the complete regions of one input, each with its evidence.

    A region is *sufficient* if keeping it alone keeps the answer, *necessary* if losing it loses the answer, and
    *complete* if both hold. If either of two supports is enough for the answer, one alone is sufficient, and both
    together are necessary and complete. If the answer needs both, both together are sufficient and complete, and either
    one alone is necessary.
    """

    noun: ClassVar[str] = "a set of regions"
    parts: ClassVar[tuple[str, ...]] = (*SET_KINDS, "complete_loss")

    sufficient: Explanation  # by the preserve game
    necessary: Explanation  # by the delete game
    complete: Explanation  # by the dual game, judged by what its masks keep
    complete_loss: Explanation  # the same masks, judged by what is lost without them

    def smallest(self, kind: str, share: float = SUFFICIENT_EFFECT) -> JudgedRegion | None:
        """Return the smallest computed region with the verdict `sufficient`, or else with this share of the effect.

        None if no cut mask has this share of the whole effect. For `complete`, keeping the region and losing it must
        both have this share; the effect is the lower one, and the verdict is `sufficient` only if both verdicts are.

        Args:
            kind: sufficient, necessary or complete.
            share: of the whole effect.

        Raises:
            ExtremalValueError: there is no such kind, or the share is not above 0.
        """
        if kind not in SET_KINDS:
            raise ExtremalValueError(f"kind must be one of {', '.join(SET_KINDS)}, got {kind!r}")
        if kind != "complete":
            return judge_smallest(getattr(self, kind), share)
        kept, lost = judge_regions(self.complete, share), judge_regions(self.complete_loss, share)
        return _pick_smallest(
            JudgedRegion(
                replace(kept[area].region, effect=min(kept[area].region.effect, lost[area].region.effect)),
                join_verdicts(kept[area].verdict, lost[area].verdict),
            )
            for area in kept.keys() & lost.keys()
        )

    def overlap(self, share: float = SUFFICIENT_EFFECT) -> float | None:
        """Return the IoU of the smallest sufficient and the smallest necessary region; None if one is missing."""
        first, second = self.smallest("sufficient", share), self.smallest("necessary", share)
        return iou(first.region.mask, second.region.mask) if first and second else None


def judge_smallest(explanation: Explanation, share: float = SUFFICIENT_EFFECT, image: int = 0) -> JudgedRegion | None:
    """Return the smallest region of one input of an explanation with the verdict `sufficient`.

    Without any, the smallest whose cut mask has this share of the whole effect; None if none has.
    """
    return _pick_smallest(judge_regions(explanation, share, image).values())


def judge_regions(explanation: Explanation, share: float, image: int = 0) -> dict[float, JudgedRegion]:
    """Return the cut masks that have this share of the whole effect, with their verdicts, by area."""
    if explanation.smallest(share, image) is None:  # or there is no effect to divide by
        return {}
    columns = zip(explanation.areas, explanation.curve(image).binary, explanation.verdicts(image, share), strict=True)
    return {
        area: JudgedRegion(SufficientRegion(area, explanation.binary(area)[image], effect), verdict)
        for area, effect, verdict in columns
        if effect >= share
    }


def _pick_smallest(regions: Iterable[JudgedRegion]) -> JudgedRegion | None:
    return min(regions, key=lambda found: (not found.verdict.is_sufficient, found.region.area), default=None)


def join_verdicts(kept: Verdict, lost: Verdict) -> Verdict:
    """Return the verdict on a mask that is judged both by what it keeps and by what is lost without it.

    >>> from extremal.explanations.verdict import VerdictLabel
    >>> kept, lost = Verdict(VerdictLabel.SUFFICIENT, "95 %"), Verdict(VerdictLabel.SUSPECT, "chance")
    >>> join_verdicts(kept, lost).label
    'suspect'
    """
    worse = lost if kept.is_sufficient else kept
    return Verdict(worse.label, f"kept alone: {kept.reason}; lost: {lost.reason}")


@in_standard_modes
def explain_sets(
    network: Network | nn.Module | str,
    image: ImagesLike,
    target: Target = None,
    *,
    settings: Settings | None = None,
    on_part: OnStage | None = None,
    **options: Unpack[SettingsOptions],
) -> RegionSets:
    """Find the regions that are sufficient, necessary, and both, for one image and target.

    Three runs of `explain`, by the games preserve, delete and dual; the masks of the last are also judged by what is
    lost without them.

    >>> import torch
    >>> class Either(nn.Module):  # light in either of two squares
    ...     def forward(self, x):
    ...         left, right = x[..., 2:6, 2:6].mean((1, 2, 3)), x[..., 10:14, 10:14].mean((1, 2, 3))
    ...         return 6 * torch.maximum(left, right)[:, None]
    >>> sets = explain_sets(Either(), torch.ones(1, 3, 16, 16), 0, areas=(0.07, 0.15), perturbation="fade")
    >>> [sets.smallest(kind).region.area for kind in ("sufficient", "necessary", "complete")]
    [0.07, 0.15, 0.15]

    Args:
        network, image, target, settings: as for `explain`, of one image and one target.
        on_part: called with the part and stage, the number done, and the total.
        options: as for `explain`, without `game` and `alternatives`.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    validate_callbacks(on_part=on_part)
    settings = merge_game_free(settings, options, "sets of regions")
    check_single_target(target, settings.score, "sets of regions")
    net, x = prepare_single(as_asked_by(network, settings.solver), image, "sets of regions")
    found = {
        name: explain(
            net, x, target, settings=settings.replace(game=game), progress=False, **report_stages(on_part, name)
        )
        for name, game in GAMES.items()
    }
    loss = judge(
        net,
        x,
        found["complete"].masks,
        target,
        settings=settings.replace(game="delete"),
        on_evidence=report_stages(on_part, "complete, lost").get("on_evidence"),
    )
    return RegionSets(**found, complete_loss=loss)
