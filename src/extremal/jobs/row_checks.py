"""Check the rows and the settings of a run when they are read: files may be damaged, or written by others."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from extremal.errors import ExtremalValueError
from extremal.explanations.verdict import Status, VerdictLabel
from extremal.file_checks import quote
from extremal.jobs.rows import DONE, FAILED, VERDICTS

DTYPES = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")
FORMER_CHANCE = "unspecific"  # the verdict that chance is enough, in older rows
MAX_PLACES = 2**30  # of an input
_REQUIRED = (  # in rows of explanations
    *("alternative", "target_name", "verdict", "areas", "mask_areas", "scores", "binary_scores", "unseen_names"),
    *("unseen_scores", "unseen_blank", "control_scores", "verdicts", "reasons", "statuses", "mirror"),
    *("evaluations", "seconds", "score_full", "score_blank", "counts"),
)
_PER_AREA = (
    *("areas", "mask_areas", "scores", "binary_scores", "unseen_scores", "control_scores"),
    *("verdicts", "reasons", "statuses"),
)
_NUMBERS = (
    *("score_full", "score_blank", "smallest_area", "smallest_effect", "unseen_effect", "certified_area"),
    *("certified_effect", "certified_unseen_effect", "certified_control_effect", "below_area", "below_effect"),
    *("below_unseen_effect", "seconds", "stable_factor"),
)
_SAME_LENGTHS = (
    *(("trace_step", name) for name in ("trace_area", "trace_reward", "trace_grey")),
    ("unseen_names", "unseen_blank"),
)
_TOGETHER = (
    *(("smallest_area", "smallest_effect"), ("certified_area", "certified_effect")),
    ("parameters", "parameters_shape"),
)

Array = np.ndarray[Any, Any]


def check_settings(settings: Mapping[str, Any], folder: Path) -> None:
    """Check the settings of a data-set run.

    Raises:
        ExtremalValueError: one is missing or has another type than a run writes.
    """
    explain = settings.get("explain")
    if not isinstance(explain, dict):
        raise ExtremalValueError(
            f"a run must be one of `extremal run`, {quote(folder)} is not; name the folder of such a run"
        )
    areas, batch = settings.get("areas"), settings.get("batch")
    texts = [
        settings.get("target"),
        settings.get("ask"),
        settings.get("prompt", ""),
        explain.get("network"),
        explain.get("weights"),
    ]
    spacing = explain.get("spacing")
    problems = {
        "areas": not (isinstance(areas, list) and areas and _is_rising(areas)),
        "batch": not (type(batch) is int and batch >= 1),
        "target, ask, prompt, network and weights": not all(isinstance(text, str) for text in texts),
        "alternatives": type(settings.get("alternatives")) is not int,
        "refine": type(settings.get("refine")) is not bool,
        "spacing": not (isinstance(spacing, list) and all(_is_number(value) and value > 0 for value in spacing)),
        "dtype": explain.get("dtype") not in DTYPES,
        "solver": not isinstance(explain.get("solver"), dict),
    }
    for name, is_wrong in problems.items():
        if is_wrong:
            raise ExtremalValueError(
                f"the settings of a run must be as `extremal run` writes them, {name} in {quote(folder)} is not; run "
                "again into another folder"
            )


def update_verdicts(rows: pa.Table) -> pa.Table:
    """Replace the word for a verdict that earlier versions wrote, in the columns that are there."""
    for name in ("verdict", "verdicts"):
        if name not in rows.column_names:
            continue
        column = rows[name]
        words = pc.list_flatten(column) if name == "verdicts" else column
        if pc.any(pc.equal(words, FORMER_CHANCE)).as_py():
            index = rows.column_names.index(name)
            rows = rows.set_column(index, rows.field(name), pa.array(_rename(column.to_pylist()), column.type))
    return rows


def _rename(words: Any) -> Any:
    if isinstance(words, list):
        return [_rename(word) for word in words]
    return VerdictLabel.CHANCE if words == FORMER_CHANCE else words


def check_rows(rows: pa.Table, areas: Sequence[float], source: Path) -> None:
    """Check the columns of rows that are there: values, lengths, and that an image has one row for each alternative.

    Args:
        rows: any columns of `rows.SCHEMA`, but `key` and `status` among them; others are not checked without these.
        areas: of the run.
        source: of the rows, for messages.

    Raises:
        ExtremalValueError: a row is not as a run writes it.
    """
    if not {"key", "status"} <= set(rows.column_names):
        return
    check = _RowCheck(rows, source)
    check.reject("key", _nulls(rows["key"]), "missing")
    check.reject("status", ~_is_in(rows["status"], (DONE, FAILED)), "neither done nor failed")
    check.check_unique()
    done = check.select(_is_in(rows["status"], (DONE,)))
    for name in _REQUIRED:
        done.reject(name, done.nulls(name), "missing")
    done.check_values(areas)
    done.check_lengths(len(areas))
    done.check_masks(len(areas))


class _RowCheck:
    """Rows, some of them possibly wrong."""

    def __init__(self, rows: pa.Table, source: Path) -> None:
        self.rows, self.source = rows, source

    def select(self, chosen: Array) -> "_RowCheck":
        return _RowCheck(self.rows.filter(pa.array(chosen)), self.source)

    def has(self, *names: str) -> bool:
        return set(names) <= set(self.rows.column_names)

    def nulls(self, name: str) -> Array:
        return _nulls(self.rows[name]) if self.has(name) else np.zeros(0, bool)

    def reject(self, name: str, wrong: Array, problem: str) -> None:
        """Raise if a row is wrong."""
        if wrong.any():
            key = self.rows["key"][int(wrong.argmax())].as_py()
            raise ExtremalValueError(
                f"a row of a run must be complete, {name} of row {quote(key)} in {quote(self.source)} is {problem}; "
                "delete its part and run again"
            )

    def check_unique(self) -> None:
        """Raise if a row occurs twice."""
        if self.has("alternative"):
            numbers = self.rows["alternative"].to_pylist()
            seen = set[tuple[Any, int]]()
            for key, number in zip(self.rows["key"].to_pylist(), numbers, strict=True):
                if (key, number or 0) in seen:
                    raise ExtremalValueError(
                        f"an image of a run must have one row for each alternative, {quote(key)} in "
                        f"{quote(self.source)} has two; delete one of their parts and run again"
                    )
                seen.add((key, number or 0))

    def check_values(self, areas: Sequence[float]) -> None:
        """Raise if a word is unknown, a number is not finite, or areas are not those of the run."""
        if self.has("areas"):
            wrong = [row != list(areas) for row in self.rows["areas"].to_pylist()]
            self.reject("areas", np.array(wrong, bool), "not that of the run")
        for name, words in (("verdict", VERDICTS), ("verdicts", VERDICTS), ("statuses", tuple(map(str, Status)))):
            if self.has(name):
                column = self.rows[name]
                if pa.types.is_list(column.type):
                    known = [set(row) <= set(words) for row in column.to_pylist()]
                    self.reject(name, ~np.array(known, bool), "not one of its words")
                else:
                    self.reject(name, ~_is_in(column, words), "not one of its words")
        for name in filter(self.has, _NUMBERS):
            finite = pc.fill_null(pc.is_finite(self.rows[name]), True)
            self.reject(name, ~finite.to_numpy(), "not finite")
        for name in filter(self.has, ("alternative", "evaluations", "seconds", "target")):
            self.reject(name, pc.fill_null(pc.less(self.rows[name], 0), False).to_numpy(), "negative")
        if self.has("smallest_area"):
            known = pc.is_in(self.rows["smallest_area"], value_set=pa.array(areas, pa.float64()))
            wrong = ~known.to_numpy() & ~self.nulls("smallest_area")
            self.reject("smallest_area", wrong, "not an area of the run")
        for first, second in _TOGETHER:
            if self.has(first, second):
                self.reject(second, self.nulls(first) != self.nulls(second), f"there without {first}, or the reverse")

    def check_lengths(self, n_areas: int) -> None:
        """Raise if a list has another length than it must have, or has a gap."""
        for name in filter(self.has, _PER_AREA):
            self.reject(name, _lengths(self.rows[name]) != n_areas, f"not of length {n_areas}")
        for first, second in _SAME_LENGTHS:
            if self.has(first, second):
                wrong = _lengths(self.rows[first]) != _lengths(self.rows[second])
                self.reject(second, wrong, f"not as long as {first}")
        for name in self.rows.column_names:
            column = self.rows[name]
            if pa.types.is_list(column.type):
                self.reject(name, _have_gaps(column), "missing in part")
        if self.has("unseen_names", "unseen_scores"):
            expected = _lengths(self.rows["unseen_names"])
            inner = [{len(entry) for entry in row} for row in self.rows["unseen_scores"].to_pylist()]
            wrong = [lengths != {int(length)} for lengths, length in zip(inner, expected, strict=True)]
            self.reject("unseen_scores", np.array(wrong, bool), "not as long as unseen_names")
        if self.has("control_scores"):
            inner = [{len(entry) for entry in row} for row in self.rows["control_scores"].to_pylist()]
            self.reject(
                "control_scores", np.array([len(lengths) != 1 for lengths in inner], bool), "of several lengths"
            )

    def check_masks(self, n_areas: int) -> None:
        """Raise if masks cannot be made of the parameters, or are not finite."""
        if not self.has("input_shape"):
            return
        shapes = self.rows["input_shape"].to_pylist()
        places = np.array([_count_places(shape) for shape in shapes], np.int64)
        self.reject("input_shape", (places < 0) & ~self.nulls("input_shape"), "not one to three sides")
        for name in filter(self.has, ("within", "units")):
            wrong = (_lengths(self.rows[name]) != places) & ~self.nulls(name)
            self.reject(name, wrong, "not of the input's shape")
        if self.has("spacing"):
            spacings = self.rows["spacing"].to_pylist()
            wrong = [
                spacing is not None and not _fits(spacing, shape)
                for spacing, shape in zip(spacings, shapes, strict=True)
            ]
            self.reject("spacing", np.array(wrong, bool), "not a distance above 0 for each side")
        if self.has("parameters", "parameters_shape", "mask_areas"):
            lattices, lengths = self.rows["parameters_shape"].to_pylist(), _lengths(self.rows["parameters"])
            wrong = [
                lattice is not None
                and shape is not None
                and (
                    lattice[:2] != [n_areas, 1]
                    or len(lattice) != 2 + len(shape)
                    or min(lattice) < 1
                    or math.prod(lattice) != length
                )
                for lattice, shape, length in zip(lattices, shapes, lengths.tolist(), strict=True)
            ]
            self.reject("parameters", np.array(wrong, bool), "not of its shape")
            stopped = [not any(row) for row in self.rows["mask_areas"].to_pylist()]  # at values that are not finite
            finite = _are_finite(self.rows["parameters"]) | np.array(stopped, bool)
            self.reject("parameters", ~finite, "not finite")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _fits(spacing: Sequence[Any], shape: Sequence[int] | None) -> bool:
    """Return whether a spacing has a distance above 0 for each side of an input."""
    return shape is not None and len(spacing) == len(shape) and all(_is_number(gap) and gap > 0 for gap in spacing)


def _is_rising(areas: Sequence[Any]) -> bool:
    numbers = all(_is_number(area) and 0 < area < 1 for area in areas)
    return numbers and all(first < second for first, second in pairwise(areas))


def _count_places(shape: Sequence[int] | None) -> int:
    """Return the number of places of an input; -1 if it has none."""
    if shape is None or not 1 <= len(shape) <= 3 or min(shape) < 1:
        return -1
    places = math.prod(shape)
    return places if places <= MAX_PLACES else -1


def _nulls(column: pa.ChunkedArray) -> Array:
    nulls: Array = column.is_null().to_numpy()
    return nulls


def _is_in(column: pa.ChunkedArray, words: Sequence[str]) -> Array:
    known: Array = pc.is_in(column, value_set=pa.array(words, pa.string())).to_numpy()
    return known


def _lengths(column: pa.ChunkedArray) -> Array:
    """Return the lengths of lists; -1 for null."""
    lengths: Array = pc.fill_null(pc.list_value_length(column), -1).to_numpy()
    return lengths


def _have_gaps(column: pa.ChunkedArray) -> Array:
    """Return which lists contain null, at any depth."""
    values = pc.list_flatten(column)
    missing = _nulls(values)
    if pa.types.is_list(values.type):
        missing = missing | _have_gaps(values)
    return _any_of_list(column, missing)


def _are_finite(column: pa.ChunkedArray) -> Array:
    """Return which lists of numbers are finite; null counts as finite."""
    return ~_any_of_list(column, ~pc.is_finite(pc.list_flatten(column)).to_numpy())


def _any_of_list(column: pa.ChunkedArray, flags: Array) -> Array:
    """Return for each list whether the flag of any of its values is set."""
    owners = pc.list_parent_indices(column).to_numpy()
    result = np.zeros(len(column), bool)
    result[owners[flags.astype(bool)]] = True
    return result
