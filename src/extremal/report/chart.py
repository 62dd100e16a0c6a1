"""The evidence curve as coordinates of a drawing; the template makes it an SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from extremal.evidence import SHARE
from extremal.report.summary import Row, Summary, area_percent, percent

WIDTH, HEIGHT = 440, 270  # units of the drawing; text is 12 high, so that it can be read on a phone
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 12, 46
LOWEST, HIGHEST = -0.5, 2.0  # effects beyond are cut off the drawing, the table tells them


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Lines and marks in units of the drawing, y downwards."""

    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    enough: Tick  # the line from which on a mask is enough
    soft: tuple[str, ...]  # polylines' points, broken where a score is not finite
    binary: tuple[str, ...]
    unseen: tuple[str, ...]
    control: tuple[str, ...]
    band: str  # polygon between the median and the best random mask
    binary_dots: tuple[tuple[float, float], ...]
    unseen_dots: tuple[tuple[float, float], ...]
    slope: float  # x = offset + slope·log(area)
    offset: float
    clipped: bool  # some effects lie beyond the drawing


def drawn(summary: Summary, lower: float) -> Chart:
    """Lay the evidence curve out.

    Args:
        summary: of one input.
        lower: area at the left end of the axis.
    """
    rows = summary.rows
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    upper = min(1.0, rows[-1].area * 1.12)
    slope = (right - left) / (math.log(upper) - math.log(lower))
    offset = left - slope * math.log(lower)
    finite = [effect for row in rows for effect in row.effects if math.isfinite(effect)]
    floor = max(LOWEST, min([0.0, *finite]))
    ceiling = min(HIGHEST, max([1.05, *finite]))

    def x(area: float) -> float:
        return round(offset + slope * math.log(area), 2)

    def y(effect: float) -> float:
        return round(bottom - (bottom - top) * (effect - floor) / (ceiling - floor), 2)

    def line(name: str) -> tuple[str, ...]:
        return tuple(
            " ".join(f"{x(area)},{y(effect)}" for area, effect in part)
            for part in unbroken([(row.area, getattr(row, name)) for row in rows])
        )

    def dots(name: str) -> tuple[tuple[float, float], ...]:
        return tuple((x(row.area), y(getattr(row, name))) for row in rows if floor <= getattr(row, name) <= ceiling)

    band = [row for row in rows if math.isfinite(row.control) and math.isfinite(row.control_best)]
    edge = [(row.area, row.control) for row in band] + [(row.area, row.control_best) for row in reversed(band)]
    return Chart(
        *(left, right, top, bottom),
        x_ticks=tuple(Tick(x(row.area), area_percent(row.area)) for row in spaced(rows, slope)),
        y_ticks=tuple(Tick(y(k / 4), percent(k / 4)) for k in range(-2, 9) if floor <= k / 4 <= ceiling),
        enough=Tick(y(SHARE), percent(SHARE)),
        soft=line("soft"),
        binary=line("binary"),
        unseen=line("unseen"),
        control=line("control"),
        band=" ".join(f"{x(area)},{y(effect)}" for area, effect in edge),
        binary_dots=dots("binary"),
        unseen_dots=dots("unseen"),
        slope=slope,
        offset=offset,
        clipped=any(not floor <= effect <= ceiling for effect in finite),
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


def spaced(rows: tuple[Row, ...], slope: float, apart: float = 48.0) -> list[Row]:
    """The rows whose marks do not run into each other, from the largest area down."""
    chosen: list[Row] = []
    for row in reversed(rows):
        if not chosen or slope * (math.log(chosen[-1].area) - math.log(row.area)) >= apart:
            chosen.append(row)
    return chosen[::-1]
