"""The part of a report about a minimal region: the outlines and numbers of its pieces, and the effect without each."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from extremal.explanations.explanation import Explanation
from extremal.explanations.minimal_region import MinimalRegion
from extremal.explanations.overlay import apply_mask, has_image, png_data_uri
from extremal.explanations.verdict import MIN_UNSEEN_EFFECT, format_below
from extremal.report.text import MISSING, area_percent, percent

MAX_LISTED_PIECES = 32
FONT_SHARE = 1 / 24  # of the width: size of the numbers


@dataclass(frozen=True)
class PieceRow:
    """One piece in words."""

    number: int
    size: str  # its area, or its channels
    without: str  # effect of the region without it
    unseen: str  # median under perturbations that the search did not use


@dataclass(frozen=True)
class MinimalPanel:
    """A minimal region as variables of the template."""

    sentence: str
    rows: tuple[PieceRow, ...]
    hidden: int  # pieces that are not listed
    has_unseen: bool
    ways: int  # perturbations that the run used
    picture: str = ""  # the image with the region, the rest faded; empty without an image
    outline: str = ""  # path data of the borders between pieces, in pixels
    numbers: tuple[tuple[int, float, float], ...] = ()  # of each listed piece: number, x, y
    font_size: float = 0.0


def minimal_sentence(region: MinimalRegion | None) -> str:
    """Describe a minimal region in one sentence.

    Args:
        region: of one input; None if no computed area is sufficient under all perturbations.
    """
    if region is None:
        return "Minimal region: none of the computed areas is sufficient under all perturbations."
    unseen = "" if region.unseen_effect is None else f", {percent(region.unseen_effect)} under unseen perturbations"
    area = f"{area_percent(region.area)}, reduced from {area_percent(region.start_area)}"
    return f"Minimal region: {area}, has {percent(region.effect)} of the effect{unseen}; {region.reason}."


def build_panel(region: MinimalRegion, explanation: Explanation, image: int = 0) -> MinimalPanel:
    """Build the panel of a minimal region of one input.

    Args:
        region: of this input.
        explanation: of N inputs.
        image: index of the input, 0..N − 1.
    """
    sizes = [area_percent(float((region.pieces == number).double().mean())) for number in _list_numbers(region)]
    if not has_image(explanation):
        return _build_table(region, sizes, minimal_sentence(region))
    return _build_table(
        region,
        sizes,
        minimal_sentence(region),
        picture=png_data_uri(apply_mask(explanation, region.mask, image)),
        outline=outline_path(region.pieces),
        numbers=tuple((number, *_centre(region.pieces == number)) for number in _list_numbers(region)),
        font_size=round(FONT_SHARE * region.pieces.shape[1], 2),
    )


def build_channel_panel(region: MinimalRegion, sentence: str) -> MinimalPanel:
    """Build the panel of a minimal set of channels.

    Args:
        region: the set.
        sentence: about it.
    """
    pieces = [region.pieces == number for number in _list_numbers(region)]
    sizes = [", ".join(map(str, piece.nonzero()[:, 0].tolist())) for piece in pieces]
    return _build_table(region, sizes, sentence)


def _list_numbers(region: MinimalRegion) -> range:
    return range(1, min(region.count, MAX_LISTED_PIECES) + 1)


def _build_table(
    region: MinimalRegion,
    sizes: list[str],
    sentence: str,
    picture: str = "",
    outline: str = "",
    numbers: tuple[tuple[int, float, float], ...] = (),
    font_size: float = 0.0,
) -> MinimalPanel:
    """Build a panel with one row for each of the first pieces, whose sizes are given as text."""
    unseen_share = MIN_UNSEEN_EFFECT * region.share
    numbered = enumerate(zip(sizes, region.without, region.unseen_without, strict=False), start=1)
    rows = tuple(
        PieceRow(number, size, _effect_text(without, region.share), _effect_text(unseen, unseen_share))
        for number, (size, without, unseen) in numbered
    )
    has_unseen = region.unseen_effect is not None
    hidden = region.count - len(rows)
    return MinimalPanel(sentence, rows, hidden, has_unseen, len(region.effects), picture, outline, numbers, font_size)


def _effect_text(value: float, share: float) -> str:
    """Format an effect, next to the required share; it may not have been evaluated."""
    return MISSING if math.isnan(value) else format_below(value, share, percent)[0]


def _centre(piece: Tensor) -> tuple[float, float]:
    """Return x and y of the place of a piece (H, W) bool that is closest to its mean."""
    places = piece.nonzero().double()
    row, column = places[(places - places.mean(0)).square().sum(1).argmin()].tolist()
    return column + 0.5, row + 0.5


def outline_path(labels: Tensor) -> str:
    """Return the borders between labels as path data of lines along pixel edges, in pixels.

    >>> outline_path(torch.tensor([[0, 1, 1]]))
    'M1 0H3M1 1H3M1 0V1M3 0V1'

    Args:
        labels: (H, W) whole numbers; 0 is outside.
    """
    padded = torch.nn.functional.pad(labels, (1, 1, 1, 1))
    rows = _runs((padded[1:] != padded[:-1])[:, 1:-1])  # (H + 1, W): edges above each row
    columns = _runs((padded[:, 1:] != padded[:, :-1])[1:-1].T)  # (W + 1, H): edges left of each column
    horizontal = [f"M{first} {line}H{last}" for line, first, last in rows]
    return "".join(horizontal + [f"M{line} {first}V{last}" for line, first, last in columns])


def _runs(edges: Tensor) -> list[tuple[int, int, int]]:
    """Return the runs of true values along each line of edges (L, M): line, first, and the end after the last."""
    steps = torch.nn.functional.pad(edges.to(torch.int8), (1, 1)).diff(dim=1)
    starts, ends = (steps == 1).nonzero().tolist(), (steps == -1).nonzero().tolist()
    return [(line, first, last) for (line, first), (_, last) in zip(starts, ends, strict=True)]
