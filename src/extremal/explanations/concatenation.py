"""Concatenate results of different inputs: each field declares in its metadata how its values are joined.

>>> from dataclasses import dataclass, field
>>> @dataclass(frozen=True)
... class Result:
...     scores: Tensor  # (N,): joined along the first axis
...     areas: tuple[float, ...] = field(metadata=SHARED_FIELD)
>>> concatenate([Result(torch.zeros(1), (0.1,)), Result(torch.ones(2), (0.1,))])
Result(scores=tensor([0., 1., 1.]), areas=(0.1,))
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.tensor_files import values_equal

R = TypeVar("R")
Join = Callable[[Sequence[Any]], Any]
OWN_SETTINGS = ("evaluations", "device", "threads", "versions")  # in which results to join may differ


def concatenate(results: Sequence[R]) -> R:
    """Join results (dataclasses of one type) of different inputs under the same settings.

    Raises:
        ExtremalValueError, ExtremalTypeError: there are none, or they differ in their type or settings, or in the
            shape of their inputs.
    """
    results = list(results)
    _check_joinable(results)
    if len(results) == 1:
        return results[0]
    values = {}
    for field in fields(results[0]):  # type: ignore[arg-type]
        join: Join = field.metadata.get("join", _join_inputs)
        parts = [getattr(result, field.name) for result in results]
        if "missing" in field.metadata and any(parts):
            counts = [len(result.target) for result in results]  # type: ignore[attr-defined]
            missing = (field.metadata["missing"],)
            parts = [part or missing * count for part, count in zip(parts, counts, strict=True)]
        values[field.name] = join(parts)
    return type(results[0])(**values)


def _check_joinable(results: Sequence[Any]) -> None:
    if not results:
        raise ExtremalValueError("results to join must be at least one, got none")
    kinds = list(dict.fromkeys(type(result) for result in results))
    if len(kinds) > 1 or not is_dataclass(kinds[0]):
        names = " and ".join(kind.__name__ for kind in kinds)
        raise ExtremalTypeError(f"results to join must be results of one type, got {names}")
    for field in fields(kinds[0]):
        first, *others = (getattr(result, field.name) for result in results)
        for other in others:
            name = _find_difference(field.name, field.metadata.get("join", _join_inputs), first, other)
            if name:
                raise ExtremalValueError(
                    f"results to join must be of inputs of one shape under the same settings, got others in {name}; "
                    "explain the inputs together"
                )


def _find_difference(name: str, join: Join, first: Any, other: Any) -> str:
    """Return the name of the setting or field that prevents joining two values; empty if they can be joined."""
    if join is _add_evaluations:
        keys = [key for key in {**first, **other} if key not in OWN_SETTINGS and first.get(key) != other.get(key)]
        return keys[0] if keys else ""
    if join is _take_first:
        are_equal = values_equal(first, other)
    elif join is _join_alternatives:
        are_equal = len(first) == len(other)
    elif join is _join_inputs and isinstance(first, Tensor) and isinstance(other, Tensor):
        are_equal = first.shape[1:] == other.shape[1:]
    else:
        are_equal = join is not _join_inputs or (first is None) == (other is None)
    return "" if are_equal else name


def _join_inputs(values: Sequence[Any]) -> Any:
    """Join tensors (N, ...) and tuples (N,) along their first axis; None stays None."""
    if values[0] is None:
        return None
    return torch.cat(list(values)) if isinstance(values[0], Tensor) else sum(values, ())


def _take_first(values: Sequence[Any]) -> Any:
    return values[0]


def _take_longest(values: Sequence[Tensor]) -> Tensor:
    return max(values, key=len)


def _pad_trace(values: Sequence[Tensor]) -> Tensor:
    """Join tensors (N, T) along the first axis; those of runs that ended early are padded with NaN."""
    length = max(value.shape[1] for value in values)
    return torch.cat([F.pad(value, (0, length - value.shape[1]), value=torch.nan) for value in values])


def _add_evaluations(values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counts = [settings["evaluations"] for settings in values]
    return {**values[0], "evaluations": {name: sum(count[name] for count in counts) for name in counts[0]}}


def _join_alternatives(values: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(concatenate(alternatives) for alternatives in zip(*values, strict=True))


def _join_optional(values: Sequence[Any]) -> Any:
    """Join results; None if one of them is missing."""
    return None if any(value is None for value in values) else concatenate(values)


SHARED_FIELD: dict[str, Join] = {"join": _take_first}  # the same for all inputs of a run
NAMES_FIELD: dict[str, Any] = {"missing": ()}  # (N,) names of each input; () as a whole if no input has any
STEPS_FIELD: dict[str, Join] = {"join": _take_longest}  # (T,)
TRACE_FIELD: dict[str, Join] = {"join": _pad_trace}  # (N, T)
SETTINGS_FIELD: dict[str, Join] = {"join": _add_evaluations}
ALTERNATIVES_FIELD: dict[str, Join] = {"join": _join_alternatives}
COUNT_FIELD: dict[str, Join] = {"join": sum}  # added up
OPTIONAL_FIELD: dict[str, Join] = {"join": _join_optional}  # a result of its own, or None
