"""Views of an `Explanation`: text for a prompt, pictures, and maps for other libraries."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.display import (
    BoolMap,
    Displayed,
    FloatMap,
    choose_column,
    join_listed,
    network_text,
    shorten_name,
    to_unit_range,
)
from extremal.explanations.evidence_curve import EvidenceCurve
from extremal.explanations.overlay import apply_mask, draw_outline, has_image, to_pillow
from extremal.explanations.percentages import format_short_percent
from extremal.explanations.regions import SufficientRegion
from extremal.explanations.validation import validate_image
from extremal.explanations.verdict import SUFFICIENT_EFFECT, Verdict

if TYPE_CHECKING:
    from PIL import Image


class ExplanationViews(Displayed):
    """The views of masks of N inputs at A areas."""

    if TYPE_CHECKING:  # fields of `Explanation`
        areas: tuple[float, ...]
        masks: Tensor
        pictures: Tensor
        keeps: bool
        target_names: tuple[str, ...]
        settings: dict[str, Any]

    @abstractmethod
    def binary(self, area: float) -> Tensor:
        """Return the masks of a computed area, cut to black and white: (N, 1, *S)."""

    @abstractmethod
    def curve(self, image: int = 0) -> EvidenceCurve:
        """Return the evidence curve of one input."""

    @abstractmethod
    def saliency(self, smooth: float = 0.0, kind: str = "support") -> Tensor:
        """Return a map of the places that support the answer: (N, 1, *S) ≥ 0."""

    @abstractmethod
    def smallest(self, share: float = SUFFICIENT_EFFECT, image: int = 0) -> SufficientRegion | None:
        """Return the smallest sufficient area of one input; None if there is none."""

    @property
    @abstractmethod
    def verdict(self) -> tuple[tuple[Verdict, ...], ...]:
        """Verdicts (N, A)."""

    def overlay(self, area: float | None = None, image: int = 0) -> "Image.Image":
        """Return the image with its region outlined; places that the network does not see are faded.

        Args:
            area: one of the computed areas; None: the smallest sufficient one, else that of the largest effect.
            image: index of the input, 0..N − 1.

        Raises:
            ExtremalValueError: there is no such input or area, or the input is not an image.
        """
        mask = self._cut_mask(area, image)
        if not has_image(self):
            raise ExtremalValueError(
                "an overlay must be of an image, but this input has no picture; use .mask() or .heatmap()"
            )
        return to_pillow(draw_outline(apply_mask(self, mask, image), mask, self.keeps))

    def heatmap(self, image: int = 0) -> FloatMap:
        """Return the saliency of one input, divided by its maximum: (*S) float32 in [0, 1], (H, W) for an image.

        `show_cam_on_image(picture / 255, result.heatmap())` and captum's
        `visualize_image_attr(result.heatmap()[..., None], picture)` take it.

        Args:
            image: index of the input, 0..N − 1.

        Raises:
            ExtremalValueError: there is no such input.
        """
        validate_image(image, len(self.masks))
        return to_unit_range(self.saliency()[image, 0], keep_zero=True)

    def mask(self, area: float | None = None, image: int = 0) -> BoolMap:
        """Return the cut mask of one input, true in its region: (*S) bool, (H, W) for an image.

        Args:
            area: one of the computed areas; None: the smallest sufficient one, else that of the largest effect.
            image: index of the input, 0..N − 1.

        Raises:
            ExtremalValueError: there is no such input or area.
        """
        places: BoolMap = (self._cut_mask(area, image)[0] > 0).numpy()
        return places

    def _cut_mask(self, area: float | None, image: int) -> Tensor:
        validate_image(image, len(self.masks))
        return self.binary(self.areas[self._choose_column(image)] if area is None else area)[image]

    def _choose_column(self, image: int) -> int:
        """Return the column of the smallest sufficient area, else of the largest effect, as reports do."""
        smallest = self.smallest(image=image)
        return self.areas.index(smallest.area) if smallest else choose_column(self.curve(image).binary, math.inf)

    def _describe(self) -> Sequence[str]:
        origin = f"{network_text(self.settings)}, {self.settings.get('game', 'preserve')} game"
        areas = f"  areas     {join_listed([format_short_percent(area) for area in self.areas])}"
        if len(self.masks) > 1:
            best = [self._describe_best(image) for image in range(len(self.masks))]
            return [
                f"Explanation of {len(self.masks)} inputs by {origin}",
                f"  targets   {join_listed([shorten_name(name) for name in self.target_names])}",
                areas,
                f"  best      {join_listed([f'{area}: {effect}' for area, effect, _ in best])}",
                f"  verdicts  {join_listed([label for *_, label in best])}",
            ]
        effects = [format_short_percent(effect) for effect in self.curve().binary]
        area, effect, label = self._describe_best(0)
        return [
            f"Explanation of {shorten_name(self.target_names[0])} by {origin}",
            areas,
            f"  effects   {join_listed(effects)}",
            f"  verdicts  {join_listed([verdict.label for verdict in self.verdict[0]])}",
            f"  best      {area}: {effect} of the effect, {label}",
        ]

    def _describe_best(self, image: int) -> tuple[str, str, str]:
        """Return area, effect and verdict of the smallest sufficient area, else of the largest effect."""
        effects = self.curve(image).binary
        column = self._choose_column(image)
        return (
            format_short_percent(self.areas[column]),
            format_short_percent(effects[column]),
            self.verdict[image][column].label,
        )
