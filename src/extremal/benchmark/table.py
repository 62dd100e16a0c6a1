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
from extremal.benchmark.tasks.task import TableColumn
from extremal.report.result_files import to_json_values


@dataclass(frozen=True)
class MethodScores:
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

    columns: tuple[TableColumn, ...]
    methods: tuple[MethodScores, ...]
    reasons: tuple[tuple[str, int], ...]  # why items were skipped or failed, and how often

    def markdown(self) -> str:
        """As a table of GitHub's markdown, intervals of 95 % in brackets, the best of each measure bold."""
        titles = [measure.title for measure in self.columns]
        lines = [
            _format_row(["method", *titles, "items", "evaluations"]),
            _format_row(["---", *["---:"] * (len(titles) + 2)]),
        ]
        best = [self._best_method(column) for column in range(len(self.columns))]
        for line in self.methods:
            cells = [
                _format_cell(estimate, measure, best[column] == line.method)
                for column, (estimate, measure) in enumerate(zip(line.values, self.columns, strict=True))
            ]
            told = str(line.judged) + (f" (+{line.failed} failed)" if line.failed else "")
            lines.append(_format_row([line.method, *cells, told, f"{line.evaluations:.0f}"]))
        for reason, count in self.reasons:
            lines += ["", f"Not judged, {count} rows: {reason}."]
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """As JSON: None where there is nothing to tell."""
        values = {
            "measures": [asdict(measure) for measure in self.columns],
            "methods": [
                {
                    **{name: getattr(line, name) for name in ("method", "judged", "skipped", "failed", "evaluations")},
                    "values": {
                        measure.title: asdict(estimate)
                        for measure, estimate in zip(self.columns, line.values, strict=True)
                    },
                }
                for line in self.methods
            ],
            "not_judged": dict(self.reasons),
        }
        return json.dumps(to_json_values(values), indent=2, ensure_ascii=False) + "\n"

    def _best_method(self, column: int) -> str:
        """The method that is best by a measure; empty where none is judged."""
        sign = 1 if self.columns[column].higher else -1
        known = [line for line in self.methods if not math.isnan(line.values[column].value)]
        return max(known, key=lambda line: sign * line.values[column].value).method if known else ""


def build_table(measures: Sequence[TableColumn], methods: Sequence[str], rows: pa.Table) -> Table:
    """The table of a run's rows; intervals by resampling pictures, whose items are not independent."""
    lines = []
    for method in methods:
        own = rows.filter(pc.equal(rows["method"], method))
        sound = own.filter(pc.equal(own["status"], "ok"))
        spent = _float_column(sound, "evaluations")
        lines.append(
            MethodScores(
                method,
                tuple(_estimate(measure, sound) for measure in measures),
                sound.num_rows,
                _count_status(own, "skipped"),
                _count_status(own, "error"),
                float(np.mean(spent)) if len(spent) else 0.0,
            )
        )
    return Table(tuple(measures), tuple(lines), _count_reasons(rows))


def _estimate(measure: TableColumn, rows: pa.Table) -> Estimate:
    if measure.only:
        rows = rows.filter(rows[measure.only])
    values, keys = _float_column(rows, measure.column), rows["key"].to_pylist()
    if measure.by_class:
        return mean_over_classes(values, rows["label"].to_pylist(), groups=keys)
    return mean(values, groups=keys)


def _float_column(rows: pa.Table, column: str) -> np.ndarray[Any, Any]:
    """A column as floats, NaN where there is none."""
    return np.array([math.nan if value is None else value for value in rows[column].to_pylist()], dtype=np.float64)


def _count_status(rows: pa.Table, status: str) -> int:
    return int(pc.sum(pc.equal(rows["status"], status)).as_py() or 0)


def _count_reasons(rows: pa.Table) -> tuple[tuple[str, int], ...]:
    told: dict[str, int] = {}
    for row in rows.filter(pc.not_equal(rows["status"], "ok")).select(["status", "reason"]).to_pylist():
        reason = f"{row['status']}, {row['reason']}"
        told[reason] = told.get(reason, 0) + 1
    return tuple(sorted(told.items()))


def _format_cell(estimate: Estimate, measure: TableColumn, best: bool) -> str:
    if math.isnan(estimate.value):
        return "–"
    scale, digits = (100, 1) if measure.unit == "%" else (1, 3)
    value, low, high = (f"{scale * number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return f"{f'**{value}**' if best else value} [{low}, {high}]"


def _format_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
