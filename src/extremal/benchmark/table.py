"""The final table of a run: scores of the methods with their intervals, as markdown and JSON."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from extremal.benchmark.metrics.estimate import Estimate, mean, mean_over_classes, quantile
from extremal.benchmark.tasks.task import TableColumn
from extremal.report.result_files import to_json_values

COUNT_FIELDS = ("method", "judged", "skipped", "failed", "evaluations")  # of MethodScores, in the JSON file


@dataclass(frozen=True)
class MethodScores:
    """The scores of one method."""

    method: str
    values: tuple[Estimate, ...]  # in the order of the columns
    judged: int  # items
    skipped: int  # items that cannot be judged
    failed: int  # rows prevented by an error of the item or the method
    evaluations: float  # of the network, mean over items


@dataclass(frozen=True)
class Table:
    """The table of a run; the same rows give the same table to the byte."""

    columns: tuple[TableColumn, ...]
    methods: tuple[MethodScores, ...]
    reasons: tuple[tuple[str, int], ...]  # why rows were skipped or failed, and how many

    def markdown(self) -> str:
        """Format as GitHub markdown tables: 95 % intervals in brackets, the best of each column in bold."""
        parts = ["\n".join([*([f"**{title}**", ""] if title else []), *part._lines()]) for title, part in self.split()]
        reasons = [f"Not judged, {count} rows: {reason}." for reason, count in self.reasons]
        return "\n\n".join([*parts, *reasons]) + "\n"

    def split(self) -> list[tuple[str, "Table"]]:
        """Return the tables of the groups of columns, each with its heading."""
        groups = dict.fromkeys(column.group for column in self.columns)
        return [(group, self.select(lambda column, group=group: column.group == group)) for group in groups]  # type: ignore[misc]

    def select(self, predicate: Callable[[TableColumn], bool]) -> "Table":
        """Return the table with some of its columns."""
        indices = [index for index, column in enumerate(self.columns) if predicate(column)]
        methods = [replace(scores, values=tuple(scores.values[i] for i in indices)) for scores in self.methods]
        return Table(tuple(self.columns[i] for i in indices), tuple(methods), self.reasons)

    def cells(self, mark_best: bool = True) -> list[list[str]]:
        """Return one list of texts per method: name, value and interval of each column, items, evaluations.

        Args:
            mark_best: print the best value of each column in bold, as in markdown.
        """
        best = [self._best_method(index) if mark_best else "" for index in range(len(self.columns))]
        rows = []
        for scores in self.methods:
            cells = [
                _format_cell(estimate, column, best[index] == scores.method)
                for index, (estimate, column) in enumerate(zip(scores.values, self.columns, strict=True))
            ]
            items = str(scores.judged) + (f" (+{scores.failed} failed)" if scores.failed else "")
            rows.append([scores.method, *cells, items, f"{scores.evaluations:.0f}"])
        return rows

    def _lines(self) -> list[str]:
        """Return the lines of one markdown table."""
        titles = [column.title for column in self.columns]
        heads = ["method", *titles, "items", "evaluations"], ["---", *["---:"] * (len(titles) + 2)]
        return [_format_row(row) for row in (*heads, *self.cells())]

    def json(self) -> str:
        """Format as JSON, with null for NaN."""
        values = {
            "measures": [asdict(column) for column in self.columns],
            "methods": [
                {
                    **{name: getattr(scores, name) for name in COUNT_FIELDS},
                    "values": {
                        column.full_title: asdict(estimate)
                        for column, estimate in zip(self.columns, scores.values, strict=True)
                    },
                }
                for scores in self.methods
            ],
            "not_judged": dict(self.reasons),
        }
        return json.dumps(to_json_values(values), indent=2, ensure_ascii=False) + "\n"

    def _best_method(self, index: int) -> str:
        """Return the name of the best method of a column; empty if none was judged."""
        sign = 1 if self.columns[index].higher else -1
        judged = [scores for scores in self.methods if not math.isnan(scores.values[index].value)]
        return max(judged, key=lambda scores: sign * scores.values[index].value).method if judged else ""


def build_table(columns: Sequence[TableColumn], methods: Sequence[str], rows: pa.Table) -> Table:
    """Build the table from the rows of a run; intervals resample images, whose items are not independent."""
    table = []
    for method in methods:
        method_rows = rows.filter(pc.equal(rows["method"], method))
        valid_rows = method_rows.filter(pc.equal(method_rows["status"], "ok"))
        evaluations = _float_column(valid_rows, "evaluations")
        table.append(
            MethodScores(
                method,
                tuple(_estimate(column, valid_rows) for column in columns),
                _count_items(valid_rows),
                _count_status(method_rows, "skipped"),
                _count_status(method_rows, "error"),
                float(np.mean(evaluations)) if len(evaluations) else 0.0,
            )
        )
    return Table(tuple(columns), tuple(table), _count_reasons(rows))


def _estimate(column: TableColumn, rows: pa.Table) -> Estimate:
    if column.only:
        rows = rows.filter(rows[column.only])
    values, keys = _float_column(rows, column.column), rows["key"].to_pylist()
    if column.quantile is not None:
        return quantile(values, column.quantile, groups=keys)
    if column.by_class:
        return mean_over_classes(values, rows["label"].to_pylist(), groups=keys)
    return mean(values, groups=keys)


def _float_column(rows: pa.Table, column: str) -> np.ndarray[Any, Any]:
    """Return a column as floats, with NaN for missing and infinite values, e.g. shares of no effect."""
    values = np.array([math.nan if value is None else value for value in rows[column].to_pylist()], dtype=np.float64)
    return np.where(np.isinf(values), math.nan, values)


def _count_items(rows: pa.Table) -> int:
    """Return the number of items; one may have several rows."""
    return len({tuple(row.values()) for row in rows.select(["key", "label", "target"]).to_pylist()})


def _count_status(rows: pa.Table, status: str) -> int:
    return int(pc.sum(pc.equal(rows["status"], status)).as_py() or 0)


def _count_reasons(rows: pa.Table) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = {}
    for row in rows.filter(pc.not_equal(rows["status"], "ok")).select(["status", "reason"]).to_pylist():
        reason = f"{row['status']}, {row['reason']}"
        counts[reason] = counts.get(reason, 0) + 1
    return tuple(sorted(counts.items()))


def _format_cell(estimate: Estimate, column: TableColumn, best: bool) -> str:
    if math.isnan(estimate.value):
        return "–"
    scale, digits = (100, 1) if column.unit == "%" else (1, 3)
    value, low, high = (f"{scale * number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return f"{f'**{value}**' if best else value} [{low}, {high}]"


def _format_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
