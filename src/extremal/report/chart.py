"""Layout of the evidence curve; `explanation.html.j2` and `channels.html.j2` draw it as an SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from extremal.explanations.verdict import SUFFICIENT_EFFECT
from extremal.report.text import ExplanationSummary, area_percent, percent

WIDTH, HEIGHT = 440, 270  # units of the SVG; text is 12 units high, which is readable on a phone
LEFT_MARGIN, RIGHT_MARGIN, TOP_MARGIN, BOTTOM_MARGIN = 56, 16, 12, 46
MIN_DRAWN_EFFECT, MAX_DRAWN_EFFECT = -0.5, 2.0  # effects outside are clipped; the table lists them


@dataclass(frozen=True)
class Tick:
    """A tick of an axis."""

    position: float
    text: str


@dataclass(frozen=True)
class Axes:
    """Effect against a fraction of places or channels on a logarithmic axis, in SVG units, y downwards."""

    slope: float  # x = offset + slope·log(fraction)
    offset: float
    floor: float  # lowest effect drawn
    ceiling: float  # highest effect drawn
    clipped: bool  # some effects lie outside
    left: float = LEFT_MARGIN
    right: float = WIDTH - RIGHT_MARGIN
    top: float = TOP_MARGIN
    bottom: float = HEIGHT - BOTTOM_MARGIN

    def x(self, fraction: float) -> float:
        """Position of a fraction."""
        return round(self.offset + self.slope * math.log(fraction), 2)

    def y(self, effect: float) -> float:
        """Position of an effect."""
        return round(self.bottom - (self.bottom - self.top) * (effect - self.floor) / (self.ceiling - self.floor), 2)

    def polylines(self, fractions: Sequence[float], effects: Sequence[float]) -> tuple[str, ...]:
        """Points of the polylines of a curve, which is interrupted where an effect is not finite."""
        return tuple(
            " ".join(f"{self.x(fraction)},{self.y(effect)}" for fraction, effect in run)
            for run in finite_runs(list(zip(fractions, effects, strict=True)))
        )

    def dots(self, fractions: Sequence[float], effects: Sequence[float]) -> tuple[tuple[float, float], ...]:
        """Positions of the effects that are not clipped."""
        points = zip(fractions, effects, strict=True)
        return tuple((self.x(fraction), self.y(effect)) for fraction, effect in points if self._is_drawn(effect))

    def _is_drawn(self, effect: float) -> bool:
        return self.floor <= effect <= self.ceiling

    def band(self, fractions: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
        """Points of the polygon between two curves, over the fractions at which both are finite."""
        rows = [
            row for row in zip(fractions, low, high, strict=True) if math.isfinite(row[1]) and math.isfinite(row[2])
        ]
        outline = [(fraction, lower) for fraction, lower, _ in rows]
        outline += [(fraction, upper) for fraction, _, upper in reversed(rows)]
        return " ".join(f"{self.x(fraction)},{self.y(effect)}" for fraction, effect in outline)

    def ticks(self) -> tuple[Tick, ...]:
        """Ticks at round effects, about a dozen at most."""
        span = self.ceiling - self.floor
        step = next((step for step in (0.25, 0.5, 1.0, 2.0) if span <= 12 * step), 5.0)
        first, last = math.ceil(self.floor / step), math.floor(self.ceiling / step)
        return tuple(Tick(self.y(k * step), percent(k * step)) for k in range(first, last + 1))

    def threshold(self, effect: float = SUFFICIENT_EFFECT) -> Tick:
        """Tick of the effect from which on a mask is enough."""
        return Tick(self.y(effect), percent(effect))

    def select_ticks(self, fractions: Sequence[float], min_distance: float = 48.0) -> list[float]:
        """Select the fractions whose tick labels do not overlap, starting with the largest."""
        selection: list[float] = []
        for fraction in reversed(fractions):
            if not selection or self.slope * (math.log(selection[-1]) - math.log(fraction)) >= min_distance:
                selection.append(fraction)
        return selection[::-1]


def build_axes(lower: float, upper: float, effects: Sequence[float], max_effect: float = MAX_DRAWN_EFFECT) -> Axes:
    """Fit axes to effects.

    Args:
        lower: fraction at the left end.
        upper: fraction at the right end.
        effects: that are drawn; those below `MIN_DRAWN_EFFECT` or above `max_effect` are clipped.
        max_effect: the highest effect that can be drawn.
    """
    slope = (WIDTH - RIGHT_MARGIN - LEFT_MARGIN) / (math.log(upper) - math.log(lower))
    finite = [effect for effect in effects if math.isfinite(effect)]
    floor, ceiling = max(MIN_DRAWN_EFFECT, min([0.0, *finite])), min(max_effect, max([1.05, *finite]))
    clipped = any(not floor <= effect <= ceiling for effect in finite)
    return Axes(slope, LEFT_MARGIN - slope * math.log(lower), floor, ceiling, clipped)


@dataclass(frozen=True)
class Chart:
    """The evidence curve of one input."""

    axes: Axes
    x_ticks: tuple[Tick, ...]
    soft: tuple[str, ...]  # points of the polylines
    binary: tuple[str, ...]
    unseen: tuple[str, ...]
    control: tuple[str, ...]
    band: str  # polygon between the median and the best random mask
    binary_dots: tuple[tuple[float, float], ...]
    unseen_dots: tuple[tuple[float, float], ...]


def build_chart(summary: ExplanationSummary, lower: float) -> Chart:
    """Lay out the evidence curve.

    Args:
        summary: of one input.
        lower: area at the left end of the axis.
    """
    rows = summary.rows
    areas = [row.area for row in rows]
    axes = build_axes(lower, min(1.0, areas[-1] * 1.12), [effect for row in rows for effect in row.effects])
    soft, binary, unseen, control, best = (list(column) for column in zip(*(row.effects for row in rows), strict=True))
    return Chart(
        axes,
        x_ticks=tuple(Tick(axes.x(area), area_percent(area)) for area in axes.select_ticks(areas)),
        soft=axes.polylines(areas, soft),
        binary=axes.polylines(areas, binary),
        unseen=axes.polylines(areas, unseen),
        control=axes.polylines(areas, control),
        band=axes.band(areas, control, best),
        binary_dots=axes.dots(areas, binary),
        unseen_dots=axes.dots(areas, unseen),
    )


def finite_runs(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Split points into runs of finite ones, so that no line is drawn across a missing score.

    >>> finite_runs([(0.1, 1.0), (0.2, float("nan")), (0.4, 2.0)])
    [[(0.1, 1.0)], [(0.4, 2.0)]]
    """
    runs: list[list[tuple[float, float]]] = [[]]
    for area, effect in points:
        if math.isfinite(effect):
            runs[-1].append((area, effect))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
