"""Views of a `ChannelExplanation`: text for a prompt, pictures, and maps for other libraries."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.channels.values import ChannelCurve, SmallestSet
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
from extremal.explanations.overlay import draw_heat, to_pillow
from extremal.explanations.percentages import format_short_percent
from extremal.explanations.validation import validate_image
from extremal.explanations.verdict import Verdict

if TYPE_CHECKING:
    from PIL import Image


class ChannelViews(Displayed):
    """The views of sets of channels of N inputs at A counts."""

    if TYPE_CHECKING:  # fields of `ChannelExplanation`
        layer: str
        counts: tuple[int, ...]
        masks: Tensor
        smallest_mask: Tensor
        pictures: Tensor
        share: float
        target_names: tuple[str, ...]
        settings: dict[str, Any]

    @abstractmethod
    def binary(self, count: int) -> Tensor:
        """Return the sets at one of the computed counts: (N, K) of zeros and ones."""

    @abstractmethod
    def curve(self, image: int = 0) -> ChannelCurve:
        """Return effects over the number of channels."""

    @abstractmethod
    def map(self, count: int, image: int = 0) -> Tensor:
        """Return where the set of this count is active, resized to the input: (H, W)."""

    @abstractmethod
    def activity_map(self, count: int | None = None, image: int = 0) -> Tensor:
        """Return how active the set of this count is, resized to the input: (H, W); None: the smallest set."""

    @abstractmethod
    def smallest(self, image: int = 0) -> SmallestSet:
        """Return the smallest sufficient set of one input."""

    @property
    @abstractmethod
    def verdict(self) -> tuple[tuple[Verdict, ...], ...]:
        """Verdicts (N, A)."""

    def overlay(self, count: int | None = None, image: int = 0) -> "Image.Image":
        """Return a grey copy of the image, coloured where the set of channels is active, violet to yellow.

        Args:
            count: one of the computed counts; None: the smallest sufficient set that was found.
            image: index of the input, 0..N − 1.

        Raises:
            ExtremalValueError: there is no such input or count, the input is not an image, or the layer has no places.
        """
        heat = self.heatmap(count, image)
        if not self.pictures.numel():
            raise ExtremalValueError("an overlay must be of an image, but this input has no picture; use .heatmap()")
        return to_pillow(draw_heat(self.pictures[image], torch.from_numpy(heat)))

    def heatmap(self, count: int | None = None, image: int = 0) -> FloatMap:
        """Return how active the set of channels is: √Σ_k m_k·x_k², scaled from its range to [0, 1]: (H, W) float32.

        Args:
            count: one of the computed counts; None: the smallest sufficient set that was found.
            image: index of the input, 0..N − 1.

        Raises:
            ExtremalValueError: there is no such input or count, or the layer has no places.
        """
        validate_image(image, len(self.masks))
        return to_unit_range(self.activity_map(count, image), keep_zero=False)

    def mask(self, count: int | None = None, image: int = 0) -> BoolMap:
        """Return the set of channels of one input, true for its channels: (K,) bool.

        Args:
            count: one of the computed counts; None: the smallest sufficient set that was found.
            image: index of the input, 0..N − 1.

        Raises:
            ExtremalValueError: there is no such input or count.
        """
        validate_image(image, len(self.masks))
        found = self.smallest_mask if count is None else self.binary(count)
        channels: BoolMap = (found[image] > 0).numpy()
        return channels

    def _choose_count(self, image: int) -> int:
        """Return the smallest sufficient computed count, else that of the largest effect."""
        return self.counts[choose_column(self.curve(image).binary, self.share)]

    def _describe(self) -> Sequence[str]:
        total, network = self.masks.shape[2], network_text(self.settings)
        origin = f"{total} channels of {self.layer} of {network}"
        counts = f"  counts    {join_listed([str(count) for count in self.counts])}"
        sets = [self.smallest(image) for image in range(len(self.masks))]
        if len(self.masks) > 1:
            labels = [self.verdict[n][choose_column(self.curve(n).binary, self.share)].label for n in range(len(sets))]
            return [
                f"ChannelExplanation of {len(self.masks)} inputs by {origin}",
                f"  targets   {join_listed([shorten_name(name) for name in self.target_names])}",
                counts,
                f"  smallest  {join_listed([str(found.count) for found in sets])} channels",
                f"  verdicts  {join_listed(labels)}",
            ]
        return [
            f"ChannelExplanation of {shorten_name(self.target_names[0])} by {origin}",
            counts,
            f"  effects   {join_listed([format_short_percent(effect) for effect in self.curve().binary])}",
            f"  verdicts  {join_listed([verdict.label for verdict in self.verdict[0]])}",
            f"  smallest  {sets[0].count} channels: {format_short_percent(sets[0].effect)} of the effect",
        ]
