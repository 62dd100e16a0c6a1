"""From rows to the final table: each method's measures with their intervals, as markdown and JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from extremal.benchmark.metrics.estimate import Estimate, mean, mean_over_classes
from extremal.benchmark.tasks.task import Measure
from extremal.report.result_files import plain


@dataclass(frozen=True)
class Line:
    """One method in the table."""

    method: str
    values: tuple[Estimate, ...]  # in the order of the measures
    judged: int  # items
    skipped: int  # items that cannot be judged
    failed: int  # items that are broken, or on which the method failed
    evaluations: float  # of the network, on the mean item


@dataclass(frozen=True)
class Table:
    """What a run came to; the same rows give the same table to the byte."""

    measures: tuple[Measure, ...]
    lines: tuple[Line, ...]
    reasons: tuple[tuple[str, int], ...]  # why items were skipped or failed, and how often

    def markdown(self) -> str:
        """As a table of GitHub's markdown, intervals of 95 % in brackets, the best of each measure bold."""
        titles = [measure.title for measure in self.measures]
        lines = [_row(["method", *titles, "items", "evaluations"]), _row(["---", *["---:"] * (len(titles) + 2)])]
        best = [self._best(column) for column in range(len(self.measures))]
        for line in self.lines:
            cells = [
                _cell(estimate, measure, best[column] == line.method)
                for column, (estimate, measure) in enumerate(zip(line.values, self.measures, strict=True))
            ]
            told = str(line.judged) + (f" (+{line.failed} failed)" if line.failed else "")
            lines.append(_row([line.method, *cells, told, f"{line.evaluations:.0f}"]))
        for reason, count in self.reasons:
            lines += ["", f"Not judged, {count} rows: {reason}."]
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """As JSON: None where there is nothing to tell."""
        values = {
            "measures": [asdict(measure) for measure in self.measures],
            "methods": [
                {
                    **{name: getattr(line, name) for name in ("method", "judged", "skipped", "failed", "evaluations")},
                    "values": {
                        measure.title: asdict(estimate)
                        for measure, estimate in zip(self.measures, line.values, strict=True)
                    },
                }
                for line in self.lines
            ],
            "not_judged": dict(self.reasons),
        }
        return json.dumps(plain(values), indent=2, ensure_ascii=False) + "\n"

    def _best(self, column: int) -> str:
        """The method that is best by a measure; empty where none is judged."""
        sign = 1 if self.measures[column].higher else -1
        known = [line for line in self.lines if not math.isnan(line.values[column].value)]
        return max(known, key=lambda line: sign * line.values[column].value).method if known else ""


def table_of(measures: Sequence[Measure], methods: Sequence[str], rows: pa.Table) -> Table:
    """The table of a run's rows; intervals by resampling pictures, whose items are not independent."""
    lines = []
    for method in methods:
        own = rows.filter(pc.equal(rows["method"], method))
        sound = own.filter(pc.equal(own["status"], "ok"))
        spent = _numbers(sound, "evaluations")
        lines.append(
            Line(
                method,
                tuple(_estimate(measure, sound) for measure in measures),
                sound.num_rows,
                _count(own, "skipped"),
                _count(own, "error"),
                float(np.mean(spent)) if len(spent) else 0.0,
            )
        )
    return Table(tuple(measures), tuple(lines), _reasons(rows))


def _estimate(measure: Measure, rows: pa.Table) -> Estimate:
    if measure.only:
        rows = rows.filter(rows[measure.only])
    values, keys = _numbers(rows, measure.column), rows["key"].to_pylist()
    if measure.by_class:
        return mean_over_classes(values, rows["label"].to_pylist(), groups=keys)
    return mean(values, groups=keys)


def _numbers(rows: pa.Table, column: str) -> np.ndarray[Any, Any]:
    """A column as floats, NaN where there is none."""
    return np.array([math.nan if value is None else value for value in rows[column].to_pylist()], dtype=np.float64)


def _count(rows: pa.Table, status: str) -> int:
    return int(pc.sum(pc.equal(rows["status"], status)).as_py() or 0)


def _reasons(rows: pa.Table) -> tuple[tuple[str, int], ...]:
    told: dict[str, int] = {}
    for row in rows.filter(pc.not_equal(rows["status"], "ok")).select(["status", "reason"]).to_pylist():
        reason = f"{row['status']}, {row['reason']}"
        told[reason] = told.get(reason, 0) + 1
    return tuple(sorted(told.items()))


def _cell(estimate: Estimate, measure: Measure, best: bool) -> str:
    if math.isnan(estimate.value):
        return "–"
    scale, digits = (100, 1) if measure.unit == "%" else (1, 3)
    value, low, high = (f"{scale * number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return f"{f'**{value}**' if best else value} [{low}, {high}]"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
