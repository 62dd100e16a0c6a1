"""Check the fields of a stored result against the shapes and types that its dataclass declares."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from extremal.explanations.validation import MIN_AREA
from extremal.explanations.verdict import Status
from extremal.file_checks import quote
from extremal.tensor_files import FormatError

MAX_DIMENSIONS = 3  # of an input
MAX_INDEX = 2**31  # of classes, axes and counts
MAX_SEED = 2**32
MAX_STACK_TEXT = 16  # characters

Sizes = dict[str, int | tuple[int, ...]]  # by their letters; those of `*S` and other groups are tuples

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_KINDS: dict[str, tuple[torch.dtype, ...]] = {
    "float": _FLOATS,
    "number": (*_FLOATS, torch.int64, torch.int32),
    "int64": (torch.int64,),
    "uint8": (torch.uint8,),
    "bool": (torch.bool,),
}


@dataclass(frozen=True)
class TensorRule:
    """The shape and type of one tensor.

    Attributes:
        kind: float, number, int64, uint8 or bool.
        shape: sizes by letters, which are the same in all fields; numbers; `*S` for 1 to 3 sizes.
        low: least value; None: any, NaN included.
        high: largest value.
        is_optional: whether it may be missing.
    """

    kind: str
    shape: str
    low: float | None = None
    high: float = math.inf
    is_optional: bool = False


def check_tensors(
    tensors: Mapping[str, Tensor],
    fields: Mapping[str, Any],
    rules: Mapping[str, TensorRule],
    sizes: Sizes,
    *,
    allows_nan: bool,
) -> None:
    """Check tensors, and fill in the sizes that they share.

    Args:
        tensors: by field.
        fields: the plain values by field; None for optional tensors that are missing.
        rules: by field.
        sizes: known ones; the others are added.
        allows_nan: whether values with bounds may be NaN.

    Raises:
        FormatError: one is missing, unknown, or breaks its rule.
    """
    unknown = sorted(set(tensors) - set(rules))
    if unknown:
        raise FormatError(f"it has an unknown field {quote(unknown[0])}")
    for name, rule in rules.items():
        if fields.get(name) is not None:
            raise FormatError(f"{name} must be a tensor, got {quote(fields[name])}")
        if name in tensors:
            _check_tensor(name, tensors[name], rule, sizes, allows_nan)
        elif not rule.is_optional:
            raise FormatError(f"{name} is missing")


def _check_tensor(name: str, tensor: Tensor, rule: TensorRule, sizes: Sizes, allows_nan: bool) -> None:
    if tensor.dtype not in _KINDS[rule.kind]:
        raise FormatError(f"{name} must be {rule.kind}, got {tensor.dtype}")
    if not _fits(tuple(tensor.shape), rule.shape.split(), sizes):
        raise FormatError(f"{name} must have the shape ({rule.shape.replace(' ', ', ')}), got {tuple(tensor.shape)}")
    if rule.low is not None:
        inside = (tensor >= rule.low) & (tensor <= rule.high)
        if not bool((inside | tensor.isnan() if allows_nan else inside).all()):
            raise FormatError(f"{name} must lie in {rule.low:g}..{rule.high:g}, got other values")


def _fits(shape: tuple[int, ...], letters: Sequence[str], sizes: Sizes) -> bool:
    """Return whether a shape has these sizes; adds those that were not known."""
    group = next((index for index, letter in enumerate(letters) if letter[0] == "*"), None)
    if group is not None:
        n_inside = len(shape) - len(letters) + 1
        if not 1 <= n_inside <= MAX_DIMENSIONS:
            return False
        found: tuple[int | tuple[int, ...], ...] = (
            *shape[:group],
            shape[group : group + n_inside],
            *shape[group + n_inside :],
        )
    else:
        found = shape
    if len(found) != len(letters):
        return False
    for letter, size in zip(letters, found, strict=True):
        if letter.isdecimal():
            if size != int(letter):
                return False
        elif sizes.setdefault(letter, size) != size:
            return False
    return True


def check_not_empty(sizes: Sizes, may_be_empty: Sequence[str]) -> None:
    """Check that no size is 0, but for some.

    Raises:
        FormatError: one is 0.
    """
    for letter, size in sizes.items():
        if letter not in may_be_empty and 0 in (size if isinstance(size, tuple) else (size,)):
            raise FormatError(f"sizes must be at least 1, got 0 for {letter}")


def check_field(fields: Mapping[str, Any], name: str, rule: str, check: Callable[[Any], bool]) -> None:
    """Check one plain value of a result.

    Args:
        fields: by name.
        name: of the field.
        rule: what it must be, for the message.
        check: whether it is that.

    Raises:
        FormatError: it is missing, or something else.
    """
    if name not in fields:
        raise FormatError(f"{name} is missing")
    if not check(fields[name]):
        raise FormatError(f"{name} must be {rule}, got {quote(fields[name])}")


def is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Return whether a value is a number in a range; NaN is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def is_whole(value: Any, low: int = 0, high: int = MAX_INDEX) -> bool:
    """Return whether a value is a whole number from `low` to below `high`."""
    return type(value) is int and low <= value < high


def is_list(value: Any, check: Callable[[Any], bool], length: int | None = None) -> bool:
    """Return whether a value is a list or tuple of a length, whose entries pass a check."""
    return isinstance(value, list | tuple) and length in (None, len(value)) and all(map(check, value))


def is_text(value: Any) -> bool:
    """Return whether a value is text."""
    return isinstance(value, str)


def is_target(value: Any) -> bool:
    """Return whether a value is a class index, −1 or None for another query, or the indices of a group."""
    return (
        value is None or is_whole(value, -1) or (is_list(value, lambda one: is_whole(one, -MAX_INDEX)) and bool(value))
    )


def are_areas(value: Any) -> bool:
    """Return whether a value is a list of rising areas in (0, 1)."""
    return is_list(value, lambda area: is_number(area, MIN_AREA) and area < 1) and _rises(value)


def are_counts(value: Any) -> bool:
    """Return whether a value is a list of rising whole numbers from 1."""
    return is_list(value, lambda count: is_whole(count, 1)) and _rises(value)


def _rises(values: Sequence[float]) -> bool:
    return bool(values) and all(a < b for a, b in pairwise(values))


def check_inputs(fields: Mapping[str, Any], sizes: Sizes) -> None:
    """Check what results store for each of N inputs: target, its name, and the status of A masks.

    Raises:
        FormatError: a field breaks its rule.
    """
    n, a = sizes["N"], sizes["A"]
    assert isinstance(n, int)
    assert isinstance(a, int)
    check_field(fields, "target", f"{n} classes", lambda value: is_list(value, is_target, n))
    check_field(fields, "target_names", f"{n} names", lambda value: is_list(value, is_text, n))
    states = set(map(str, Status))
    check_field(
        fields,
        "status",
        f"{n}×{a} of {', '.join(sorted(states))}",
        lambda value: is_list(value, lambda row: is_list(row, lambda one: is_text(one) and one in states, a), n),
    )
    check_field(fields, "keeps", "true or false", lambda value: isinstance(value, bool))
    check_field(fields, "settings", "an object", lambda value: isinstance(value, dict))
    for name, (rule, check) in _SETTINGS.items():
        if name in fields["settings"]:
            check_field(fields["settings"], name, rule, check)


def _is_stack(value: Any) -> bool:
    """Return whether a value describes the third dimension of clips or volumes."""
    if not isinstance(value, dict) or set(value) - {"kind", "times", "orientation", "mean", "std"}:
        return False
    texts = (value.get("kind", ""), value.get("orientation", ""))
    numbers = (value.get("times", []), value.get("mean", []), value.get("std", []))
    return all(is_text(text) and len(text) <= MAX_STACK_TEXT for text in texts) and all(
        is_list(row, lambda one: is_number(one, -1e9, 1e9)) for row in numbers
    )


_SETTINGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("network", "weights", "game", "score", "device", "dtype"), ("text", is_text)),
    "perturbation": ("text, or several", lambda value: is_text(value) or is_list(value, is_text)),
    "solver": ("an object", lambda value: isinstance(value, dict)),
    "versions": ("an object", lambda value: isinstance(value, dict)),
    "seed": ("a whole number in 0..2**32 - 1", lambda value: is_whole(value, 0, MAX_SEED)),
    "spacing": (
        "up to 3 positive numbers",
        lambda value: is_list(value, lambda one: is_number(one, 1e-9, 1e9)) and len(value) <= MAX_DIMENSIONS,
    ),
    "stack": ("an object of kind, times, orientation, mean and std", _is_stack),
    "evaluations": (
        "counts by name",
        lambda value: isinstance(value, dict) and all(is_whole(count, 0, 2**63) for count in value.values()),
    ),
}
