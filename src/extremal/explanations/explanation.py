"""`Explanation`: masks with their evidence, a frozen value that is saved and loaded without pickle."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.concatenation import (
    ALTERNATIVES_FIELD,
    NAMES_FIELD,
    OPTIONAL_FIELD,
    SETTINGS_FIELD,
    SHARED_FIELD,
    STEPS_FIELD,
    TRACE_FIELD,
    concatenate,
)
from extremal.explanations.evidence_curve import EvidenceCurve
from extremal.explanations.explanation_file import from_tensors, to_tensors
from extremal.explanations.explanation_views import ExplanationViews
from extremal.explanations.regions import SufficientRegion, iou
from extremal.explanations.stability import Stability
from extremal.explanations.validation import validate_image, validate_share, validate_smooth
from extremal.explanations.verdict import (
    NOTHING_FOUND,
    NOTHING_TO_KEEP,
    SUFFICIENT_EFFECT,
    Status,
    Verdict,
    compute_effects,
    compute_unseen_effects,
    find_largest_effects,
    has_effect,
    reach_verdict,
)
from extremal.file_checks import to_path
from extremal.masking.area import count_kept
from extremal.masking.grid import gaussian_blur, scale_lengths
from extremal.masking.units import cut_to_units
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import format_value, is_number
from extremal.scores.class_group import ResolvedClass
from extremal.tensor_files import fields_equal, read_tensors, unreadable_file_error, write_tensors

FORMAT = 5  # of the saved file
READABLE_FORMATS = (4, FORMAT)  # files of format 4 have no stability
SAME_AREA = 1e-6  # relative difference of an area to that computed: more than the rounding of single precision
SALIENCY_KINDS = ("support", "masks")
SALIENCY_POWER = 1.5  # concentrates the map; neither its maximum nor the order of places depends on it
NEIGHBOURHOOD = 7.0  # px at a short side of 224 px: the neighbourhood whose agreement counts in the saliency


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(ExplanationViews):
    """Masks of N inputs at A areas, their scores, and everything needed to repeat the run.

    Scores are Φ of what is left of the input: for the preserve and dual games Φ(m ⊗ x), for delete Φ((1 − m) ⊗ x).
    Under a mix of perturbations, a score is Φ_blank + (Φ_full − Φ_blank)·effect, with the effect and Φ_blank averaged
    over the ways that count; each control is scored under one way.
    """

    areas: tuple[float, ...] = field(metadata=SHARED_FIELD)  # (A,) rising, shares of places in (0, 1)
    masks: Tensor  # (N, A, 1, *S) in [0, 1]
    mask_areas: Tensor  # (N, A) the masks' true means on the input
    scores: Tensor  # (N, A) of the masks as found
    binary_scores: Tensor  # (N, A) of the masks cut to exactly round(a·|Ω|) ones
    unseen_scores: Tensor  # (N, A, P) of the cut masks under perturbations that the optimiser did not use
    unseen_blank: Tensor  # (N, P) of the input destroyed by each of these
    control_scores: Tensor  # (N, A, R) of random smooth masks, cut in the same way; NaN for those that were not needed
    agreement: Tensor  # (N, 1, *S) ≥ 0, support of each place at the start of the solver, or under these perturbations
    score_full: Tensor  # (N,) of the whole input
    score_blank: Tensor  # (N,) of the destroyed input
    inputs: Tensor  # (N, C, *S) prepared for the network
    pictures: Tensor  # (N, H, W, 3) uint8, the inputs for display; (N, 0, 0, 3) if they are not images
    destroyed: Tensor  # (N, H, W, 3) uint8, the destroyed inputs for display; (N, 0, 0, 3) in the same case
    trace_step: Tensor = field(metadata=STEPS_FIELD)  # (T,) step in which each intermediate mask was evaluated
    trace_area: Tensor = field(metadata=TRACE_FIELD)  # (N, T) its area
    trace_reward: Tensor = field(metadata=TRACE_FIELD)  # (N, T) its reward
    trace_grey: Tensor = field(metadata=TRACE_FIELD)  # (N, T) its greyness
    target: tuple[ResolvedClass | None, ...]  # (N,) class index, or indices of a group; None: another query
    target_names: tuple[str, ...]  # (N,)
    unseen_names: tuple[str, ...] = field(metadata=SHARED_FIELD)  # (P,)
    status: tuple[tuple[Status, ...], ...]  # (N, A)
    keeps: bool = field(metadata=SHARED_FIELD)  # masks are judged by what they keep; False: by what they delete
    settings: dict[str, Any] = field(
        metadata=SETTINGS_FIELD
    )  # versions, seed, network, weight hash, solver, counts: everything to repeat the run
    within: Tensor | None = None  # (N, *S) bool: where the masks of each input were allowed; None: everywhere
    units: Tensor | None = field(
        default=None, metadata=SHARED_FIELD
    )  # (*S) int64: the unit of each place, −1 for none; None: places by themselves
    fields: Tensor | None = None  # (N, A, 1, *lattice), input of `solvers.rebuild_masks`; None: the masks were given
    left_out: tuple[tuple[str, ...], ...] = field(default=(), metadata=NAMES_FIELD)  # (N,) ways of too small effect
    alternatives: tuple["Explanation", ...] = field(
        default=(), metadata=ALTERNATIVES_FIELD
    )  # of the same inputs, kept apart from this one and from each other
    stability: Stability | None = field(
        default=None, metadata=OPTIONAL_FIELD
    )  # of the masks over copies with one grey level of noise; None: not measured

    @classmethod
    def concatenate(cls, parts: Sequence["Explanation"]) -> "Explanation":
        """Join explanations of different inputs under the same settings; their evaluations are added up."""
        return concatenate(parts)

    @property
    def is_class(self) -> bool:
        """Whether the target of every input is a class or a group of classes, which `target` stores completely."""
        return None not in self.target

    def effects(self, scores: Tensor) -> Tensor:
        """Return scores (N, ...) as shares of the whole effect (`compute_effects`): 0 is no effect, 1 all of it."""
        return compute_effects(scores, self.score_blank, self.score_full, self.keeps)

    @property
    def trace(self) -> dict[str, Tensor]:
        """Score, area and greyness of every mask that the solver evaluated."""
        return {
            "step": self.trace_step,
            "area": self.trace_area,
            "reward": self.trace_reward,
            "grey": self.trace_grey,
        }

    def curve(self, image: int = 0) -> EvidenceCurve:
        """Return the evidence curve of one input: effect at exact areas."""
        image = validate_image(image, len(self.masks))
        control = self.effects(self.control_scores)[image]
        return EvidenceCurve(
            self.areas,
            tuple(self.effects(self.scores)[image].tolist()),
            tuple(self.effects(self.binary_scores)[image].tolist()),
            tuple(self.unseen_effects()[image].nanmedian(1).values.tolist()),
            tuple(control.nanmedian(1).values.tolist()),
            tuple(control.masked_fill(control.isnan(), -torch.inf).amax(1).tolist()),
        )

    def count_controls(self, image: int = 0) -> tuple[int, ...]:
        """Return how many random masks of each area of one input were scored: (A,)."""
        image = validate_image(image, len(self.masks))
        return tuple((~self.control_scores[image].isnan()).sum(1).tolist())

    def largest_effects(self) -> Tensor:
        """Return the largest effect of any mask of each input: (N,)."""
        return find_largest_effects(*map(self.effects, (self.scores, self.binary_scores, self.control_scores)))

    def has_effect(self) -> Tensor:
        """Return whether destroying each input lowers the score, and by enough to divide by: (N,) bool."""
        return has_effect(self.largest_effects(), self.score_full, self.score_blank)

    def unseen_effects(self) -> Tensor:
        """Return effects under unseen perturbations: (N, A, P); NaN if uninformative, −inf if not finite."""
        return compute_unseen_effects(
            self.unseen_scores, self.unseen_blank, self.score_blank, self.score_full, self.keeps
        )

    @property
    def verdict(self) -> tuple[tuple[Verdict, ...], ...]:
        """Verdicts (N, A): sufficient, insufficient, chance is enough, suspect; unstable if `stability` is measured."""
        return tuple(self.verdicts(image) for image in range(len(self.masks)))

    def verdicts(self, image: int = 0, share: float = SUFFICIENT_EFFECT) -> tuple[Verdict, ...]:
        """Return the verdicts on one input's masks, (A,), if this share of the whole effect is required."""
        image, share = validate_image(image, len(self.masks)), validate_share(share)
        curve, unseen = self.curve(image), self.unseen_effects()[image]
        control = self.effects(self.control_scores)[image]
        scored = ~self.control_scores[image].isnan()
        stable, is_reversed = self.stability, bool(self.score_full[image] < self.score_blank[image])
        largest = float(self.largest_effects()[image])
        none = [None] * len(self.areas)
        ious, cores = (
            (none, none) if stable is None else (stable.median_iou[image].tolist(), stable.core_shares[image].tolist())
        )
        return tuple(
            NOTHING_FOUND
            if self.status[image][k] == Status.NOT_FINITE
            else NOTHING_TO_KEEP
            if is_reversed
            else reach_verdict(
                *(curve.soft[k], curve.binary[k], unseen[k].tolist(), control[k][scored[k]].tolist(), share),
                largest=largest,
                stable_iou=ious[k],
                core_share=cores[k],
            )
            for k in range(len(self.areas))
        )

    @in_standard_modes
    def saliency(self, smooth: float = 0.0, kind: str = "support") -> Tensor:
        """Return a map of the places that support the answer, blurred by `smooth`·short side: (N, 1, *S) ≥ 0.

        `kind="masks"` is the mean M of all masks, with `smooth` 0.09 the paper's pointing map (section 4).
        `kind="support"` is (M·Ḡ)^1½, with Ḡ the `agreement` blurred by 7 px: places that are sufficient together, and
        that support the answer under each perturbation alone. docs/solver_experiments.md describes what was tried.

        Raises:
            ExtremalValueError, ExtremalTypeError: the kind is neither, or `smooth` is out of range.
        """
        if kind not in SALIENCY_KINDS:
            raise ExtremalValueError(f"kind must be one of {', '.join(SALIENCY_KINDS)}, got {kind!r}")
        smooth = validate_smooth(smooth)
        mean = self.masks.mean(1)
        if kind == "masks":
            return self._smooth(mean, smooth)
        blur = scale_lengths(NEIGHBOURHOOD, tuple(self.agreement.shape[2:]), self.settings.get("spacing", ()))
        neighbourhood = gaussian_blur(self.agreement, blur)
        weighted = (mean * neighbourhood) ** SALIENCY_POWER
        is_supported = (weighted.flatten(1).amax(1) > 0).view(-1, *[1] * (weighted.ndim - 1))
        return self._smooth(torch.where(is_supported, weighted, mean), smooth)

    def _smooth(self, values: Tensor, smooth: float) -> Tensor:
        return gaussian_blur(values, smooth * min(values.shape[2:]))

    def column(self, area: float) -> int:
        """Return the index of a computed area."""
        if is_number(area):
            nearest = min(range(len(self.areas)), key=lambda k: abs(self.areas[k] - area))
            if math.isclose(self.areas[nearest], area, rel_tol=SAME_AREA):
                return nearest
        raise ExtremalValueError(
            f"area must be one of the computed areas {', '.join(f'{a:g}' for a in self.areas)}, "
            f"got {format_value(area)}; explain again with this area"
        )

    @in_standard_modes
    def binary(self, area: float) -> Tensor:
        """Return the masks of a computed area, cut to exactly round(a·|Ω|) ones: (N, 1, *S).

        Whole units may have fewer places, and so may an alternative if fewer are left for it.
        """
        column = self.column(area)
        masks = self.masks[:, column : column + 1]
        return cut_to_units(masks, (self.areas[column],), self.units, self.within)[:, 0]

    def allowed_places(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the options `within` and `units` of `Settings` that allow the same masks.

        Raises:
            ExtremalValueError: it is an alternative of several inputs, each of which has places of its own, or no place
                is left for it.
        """
        if self.within is None:
            return None, self.units
        first = self.within[0]
        if not bool(first.any()):
            raise ExtremalValueError(
                "an alternative must have places to choose from, got one of which the regions before it take all; "
                "leave it out"
            )
        if not bool((self.within == first).all()):
            raise ExtremalValueError(
                "an alternative must be of one input, since each input has its own excluded regions, got one of "
                f"{len(self.within)}; explain each input by itself"
            )
        if self.units is None:
            return first, None
        return None, self.units.where(first, -1)

    def smallest(self, share: float = SUFFICIENT_EFFECT, image: int = 0) -> SufficientRegion | None:
        """Return the smallest computed area whose cut mask has this share of the whole effect; None if none has.

        Also None if destroying the input raises the score, or lowers it by too little to divide by; the verdicts then
        say so. The verdict on the region may still be `chance is enough`, `suspect` or `unstable`: see `verdict`.
        """
        image, share = validate_image(image, len(self.masks)), validate_share(share)
        is_possible = bool(self.has_effect()[image])
        for area, effect, status in zip(self.areas, self.curve(image).binary, self.status[image], strict=True):
            if is_possible and effect >= share and status != Status.NOT_FINITE:
                return SufficientRegion(area, self.binary(area)[image], effect)
        return None

    @in_standard_modes
    def regions(
        self, share: float = SUFFICIENT_EFFECT, image: int = 0, overlap: float = 0.2
    ) -> tuple[SufficientRegion, ...]:
        """Return the sufficient regions of this explanation and its alternatives that overlap little, its own first.

        Args:
            share: of the whole effect that each region keeps by itself.
            image: index of the input.
            overlap: upper bound of the intersection over union of two regions, in [0, 1].
        """
        if not is_number(overlap) or not 0 <= overlap <= 1:
            raise ExtremalValueError(f"overlap must be a number in [0, 1], got {format_value(overlap)}; e.g. 0.2")
        regions: list[SufficientRegion] = []
        for source, explanation in enumerate((self, *self.alternatives)):
            region = explanation.smallest(share, image)
            if region and not any(iou(region.mask, known.mask) > overlap for known in regions):
                regions.append(replace(region, source=source))
        return tuple(regions)

    @in_standard_modes
    def order(self, image: int = 0) -> Tensor:
        """Return the rank of each place in the mask of each area, 0 first: (A, *S) int64.

        The places of rank below round(a·|Ω|) are exactly the mask that was scored; ties are broken by the mean mask.
        Whole units may cover fewer places than that; then some ranks are not used.
        """
        image, shape = validate_image(image, len(self.masks)), self.masks.shape[3:]
        mean = self.masks.mean(1)[image].flatten()
        ranks = []
        within = None if self.within is None else self.within[image : image + 1]
        cuts = cut_to_units(self.masks[image : image + 1], self.areas, self.units, within)[0].flatten(1)
        for area, mask, inside in zip(self.areas, self.masks[image].flatten(1), cuts, strict=True):
            order = torch.argsort(mean, descending=True, stable=True)
            order = order[torch.argsort((mask + inside)[order], descending=True, stable=True)]
            rank = torch.arange(len(order))
            rank[int(inside.sum()) :] += self.places(area) - int(inside.sum())
            ranks.append(torch.empty_like(order).scatter_(0, order, rank).view(shape))
        return torch.stack(ranks)

    def places(self, area: float) -> int:
        """Return the number of places in the cut mask of an area; whole units, or the places left, may be fewer."""
        return count_kept(area, self.masks[0, 0].numel())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file with JSON metadata, atomically."""
        tensors, head = to_tensors(self)
        write_tensors(to_path(path, "an explanation"), tensors, {"format": FORMAT, **head})

    @classmethod
    @in_standard_modes
    def load(cls, path: str | os.PathLike[str]) -> "Explanation":
        """Read a file that `save` wrote; no code is run from it.

        Raises:
            ExtremalValueError: the file is missing, broken, or not an explanation.
        """
        path = to_path(path, "an explanation")
        tensors, head = read_tensors(path, "an explanation")
        try:
            if head.pop("format") not in READABLE_FORMATS:
                raise KeyError("format")
            return from_tensors(cls, tensors, head)
        except Exception as error:  # a damaged file can fail in any way
            raise unreadable_file_error(path, "an explanation", error) from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Explanation):
            return NotImplemented
        return fields_equal(self, other)

    __hash__ = None  # type: ignore[assignment]
