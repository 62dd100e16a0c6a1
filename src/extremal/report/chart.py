"""The evidence curve as coordinates of a drawing; the template makes it an SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from extremal.explanations.verdict import SHARE
from extremal.report.text import Summary, area_percent, percent

WIDTH, HEIGHT = 440, 270  # units of the drawing; text is 12 high, so that it can be read on a phone
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 12, 46
LOWEST, HIGHEST = -0.5, 2.0  # effects of regions beyond are cut off the drawing, the table tells them


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Plane:
    """Effects over shares on a logarithmic axis, in units of the drawing, y downwards."""

    slope: float  # x = offset + slope·log(share)
    offset: float
    floor: float  # lowest effect drawn
    ceiling: float  # highest
    clipped: bool  # some effects lie beyond
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM

    def x(self, share: float) -> float:
        """Where a share lies."""
        return round(self.offset + self.slope * math.log(share), 2)

    def y(self, effect: float) -> float:
        """Where an effect lies."""
        return round(self.bottom - (self.bottom - self.top) * (effect - self.floor) / (self.ceiling - self.floor), 2)

    def line(self, shares: Sequence[float], effects: Sequence[float]) -> tuple[str, ...]:
        """Polylines' points, broken where an effect is not finite."""
        return tuple(
            " ".join(f"{self.x(share)},{self.y(effect)}" for share, effect in part)
            for part in unbroken(list(zip(shares, effects, strict=True)))
        )

    def dots(self, shares: Sequence[float], effects: Sequence[float]) -> tuple[tuple[float, float], ...]:
        """Marks of the effects that are in the drawing."""
        pairs = zip(shares, effects, strict=True)
        return tuple((self.x(share), self.y(effect)) for share, effect in pairs if self.floor <= effect <= self.ceiling)

    def band(self, shares: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
        """The polygon between two lines, where both are finite."""
        rows = [row for row in zip(shares, low, high, strict=True) if math.isfinite(row[1]) and math.isfinite(row[2])]
        edge = [(share, least) for share, least, _ in rows] + [(share, most) for share, _, most in reversed(rows)]
        return " ".join(f"{self.x(share)},{self.y(effect)}" for share, effect in edge)

    def ticks(self) -> tuple[Tick, ...]:
        """Marks of round effects, a dozen at most."""
        span = self.ceiling - self.floor
        step = next((step for step in (0.25, 0.5, 1.0, 2.0) if span <= 12 * step), 5.0)
        first, last = math.ceil(self.floor / step), math.floor(self.ceiling / step)
        return tuple(Tick(self.y(k * step), percent(k * step)) for k in range(first, last + 1))

    def enough(self, share: float = SHARE) -> Tick:
        """The line from which on a mask is enough."""
        return Tick(self.y(share), percent(share))

    def spaced(self, shares: Sequence[float], apart: float = 48.0) -> list[float]:
        """The shares whose marks do not run into each other, from the largest down."""
        chosen: list[float] = []
        for share in reversed(shares):
            if not chosen or self.slope * (math.log(chosen[-1]) - math.log(share)) >= apart:
                chosen.append(share)
        return chosen[::-1]


def plane(lower: float, upper: float, effects: Sequence[float], highest: float = HIGHEST) -> Plane:
    """The plane from one share to another that holds these effects, but for those beyond the lowest and highest."""
    slope = (WIDTH - RIGHT - LEFT) / (math.log(upper) - math.log(lower))
    finite = [effect for effect in effects if math.isfinite(effect)]
    floor, ceiling = max(LOWEST, min([0.0, *finite])), min(highest, max([1.05, *finite]))
    clipped = any(not floor <= effect <= ceiling for effect in finite)
    return Plane(slope, LEFT - slope * math.log(lower), floor, ceiling, clipped)


@dataclass(frozen=True)
class Chart:
    """The evidence curve of masks of an input."""

    plane: Plane
    x_ticks: tuple[Tick, ...]
    soft: tuple[str, ...]  # polylines' points
    binary: tuple[str, ...]
    unseen: tuple[str, ...]
    control: tuple[str, ...]
    band: str  # polygon between the median and the best random mask
    binary_dots: tuple[tuple[float, float], ...]
    unseen_dots: tuple[tuple[float, float], ...]


def drawn(summary: Summary, lower: float) -> Chart:
    """Lay the evidence curve out.

    Args:
        summary: of one input.
        lower: area at the left end of the axis.
    """
    rows = summary.rows
    areas = [row.area for row in rows]
    found = plane(lower, min(1.0, areas[-1] * 1.12), [effect for row in rows for effect in row.effects])
    soft, binary, unseen, control, best = (list(column) for column in zip(*(row.effects for row in rows), strict=True))
    return Chart(
        found,
        x_ticks=tuple(Tick(found.x(area), area_percent(area)) for area in found.spaced(areas)),
        soft=found.line(areas, soft),
        binary=found.line(areas, binary),
        unseen=found.line(areas, unseen),
        control=found.line(areas, control),
        band=found.band(areas, control, best),
        binary_dots=found.dots(areas, binary),
        unseen_dots=found.dots(areas, unseen),
    )


def unbroken(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Runs of finite points, so that no line is drawn over a score that is missing.

    >>> unbroken([(0.1, 1.0), (0.2, float("nan")), (0.4, 2.0)])
    [[(0.1, 1.0)], [(0.4, 2.0)]]
    """
    parts: list[list[tuple[float, float]]] = [[]]
    for area, effect in points:
        if math.isfinite(effect):
            parts[-1].append((area, effect))
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]
