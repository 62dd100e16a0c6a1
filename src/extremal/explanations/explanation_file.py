"""Explanations as named tensors and plain values, for `Explanation.save` and `load`."""

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from torch import Tensor

from extremal.explanations.field_checks import (
    MAX_SEED,
    Sizes,
    TensorRule,
    are_areas,
    check_field,
    check_inputs,
    check_not_empty,
    check_tensors,
    is_list,
    is_text,
    is_whole,
)
from extremal.explanations.stability import Stability
from extremal.explanations.verdict import Status
from extremal.file_checks import quote
from extremal.scores.class_group import ResolvedClass
from extremal.tensor_files import FormatError

if TYPE_CHECKING:
    from extremal.explanations.explanation import Explanation

STABILITY_PREFIX = "stability."  # of the names of its tensors
TUPLE_FIELDS = ("areas", "target", "target_names", "unseen_names")

TENSOR_RULES = {
    "masks": TensorRule("float", "N A 1 *S", 0.0, 1.0),
    "mask_areas": TensorRule("float", "N A", 0.0, 1.0),
    "scores": TensorRule("float", "N A"),
    "binary_scores": TensorRule("float", "N A"),
    "unseen_scores": TensorRule("float", "N A P"),
    "unseen_blank": TensorRule("float", "N P"),
    "control_scores": TensorRule("float", "N A R"),
    "agreement": TensorRule("float", "N 1 *S", 0.0),
    "score_full": TensorRule("float", "N"),
    "score_blank": TensorRule("float", "N"),
    "inputs": TensorRule("float", "N C *S"),
    "pictures": TensorRule("uint8", "N H W 3"),
    "destroyed": TensorRule("uint8", "N H W 3"),
    "trace_step": TensorRule("number", "T"),
    "trace_area": TensorRule("number", "N T"),
    "trace_reward": TensorRule("number", "N T"),
    "trace_grey": TensorRule("number", "N T"),
    "within": TensorRule("bool", "N *S", is_optional=True),
    "units": TensorRule("int64", "*S", -1, is_optional=True),
    "fields": TensorRule("float", "N A 1 *L", is_optional=True),
}
STABILITY_RULES = {
    "ious": TensorRule("float", "N A V"),
    "core": TensorRule("bool", "N A 1 *S"),
    "core_shares": TensorRule("float", "N A"),
    "effects": TensorRule("float", "N A V"),
    "unseen_effects": TensorRule("float", "N A V"),
    "smallest_areas": TensorRule("float", "N V"),
}
_MAY_BE_EMPTY = ("T", "H", "W")  # sizes of traces, and of pictures of what is no picture


def to_tensors(explanation: "Explanation", prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors by name, and the rest as plain values; names of an alternative's tensors have its number."""
    tensors, head = _split_fields(explanation, prefix)
    head["alternatives"], alternatives = [], head["alternatives"]
    for index, alternative in enumerate(alternatives):
        more, rest = to_tensors(alternative, f"{prefix}{index}.")
        tensors |= more
        head["alternatives"].append(rest)
    if explanation.stability is not None:
        more, head["stability"] = _split_fields(explanation.stability, prefix + STABILITY_PREFIX)
        tensors |= more
    return tensors, head


def from_tensors(
    kind: "type[Explanation]", tensors: dict[str, Tensor], head: dict[str, Any], prefix: str = ""
) -> "Explanation":
    """Invert `to_tensors`.

    Raises:
        FormatError: a field is missing or breaks its rule.
        KeyError, TypeError: fields of this format are missing, or unknown.
    """
    if not is_list(head["alternatives"], lambda rest: isinstance(rest, dict)):
        raise FormatError("alternatives must be a list of explanations")
    if not prefix:
        tensors = _repeat_regions(tensors)
        _check_fields(tensors, head)
    alternatives = [
        from_tensors(kind, tensors, rest, f"{prefix}{index}.") for index, rest in enumerate(head["alternatives"])
    ]
    values: dict[str, Any] = {**head, "alternatives": tuple(alternatives)}
    for name in TUPLE_FIELDS:
        values[name] = tuple(values[name])
    values["target"] = read_targets(values["target"])
    values["left_out"] = tuple(map(tuple, values.get("left_out", ())))  # older files have none
    values["status"] = read_statuses(values["status"])
    if values.get("stability") is not None:
        measured = {**values["stability"], **_select(tensors, prefix + STABILITY_PREFIX)}
        values["stability"] = Stability(**{**measured, "areas": tuple(measured["areas"])})
    return kind(**{**values, **_select(tensors, prefix)})


def _repeat_regions(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors in which `within` is of each input (N, *S), as older files have one for all (*S)."""
    masks = tensors.get("masks")
    if masks is None or masks.ndim < 4:
        return tensors
    older = {
        name: value
        for name, value in tensors.items()
        if name.rpartition(".")[2] == "within" and value.ndim == masks.ndim - 3
    }
    return {**tensors, **{name: value.expand(len(masks), *value.shape) for name, value in older.items()}}


def _check_fields(
    tensors: dict[str, Tensor], head: dict[str, Any], prefix: str = "", known: Sizes | None = None
) -> None:
    """Check all fields of an explanation, and those of its alternatives, which are of the same inputs."""
    sizes: Sizes = dict(known or {})
    check_field(head, "areas", "rising numbers in (0, 1)", are_areas)
    sizes["A"] = len(head["areas"])
    is_broken = Status.NOT_FINITE.value in str(head.get("status"))
    check_tensors(_select(tensors, prefix), head, TENSOR_RULES, sizes, allows_nan=is_broken)
    check_inputs(head, sizes)
    n = sizes["N"]
    check_field(
        head, "unseen_names", f"{sizes['P']} names", lambda value: is_list(value, is_text) and len(value) == sizes["P"]
    )
    left_out = head.get("left_out", ())
    if not is_list(left_out, lambda ways: is_list(ways, is_text)) or len(left_out) not in (0, n):
        raise FormatError(f"left_out must be {n} lists of names, got {quote(left_out)}")
    if head.get("stability") is not None:
        _check_stability(_select(tensors, prefix + STABILITY_PREFIX), head, sizes)
    check_not_empty(sizes, _MAY_BE_EMPTY)
    for index, rest in enumerate(head["alternatives"]):
        check_field(rest, "alternatives", "a list", lambda value: is_list(value, lambda one: isinstance(one, dict)))
        same = {letter: sizes[letter] for letter in ("N", "C", "*S")}
        _check_fields(tensors, rest, f"{prefix}{index}.", same)


def _check_stability(tensors: dict[str, Tensor], head: dict[str, Any], sizes: Sizes) -> None:
    values = head["stability"]
    if not isinstance(values, dict):
        raise FormatError(f"stability must be an object, got {quote(values)}")
    check_field(values, "areas", "those of the explanation", lambda value: value == head["areas"])
    check_field(values, "seed", "a whole number", lambda value: is_whole(value, 0, MAX_SEED))
    check_field(values, "evaluations", "a whole number", lambda value: is_whole(value, 0, 2**63))
    check_tensors(tensors, values, STABILITY_RULES, sizes, allows_nan=True)


def read_targets(targets: Sequence[int | list[int] | None]) -> tuple[ResolvedClass | None, ...]:
    """Return stored targets: class indices, indices of groups, or None, which used to be stored as −1."""
    return tuple(tuple(target) if isinstance(target, list) else None if target == -1 else target for target in targets)


def read_statuses(rows: Sequence[Sequence[str]]) -> tuple[tuple[Status, ...], ...]:
    """Return stored statuses of N inputs at A areas or counts."""
    return tuple(tuple(Status(name) for name in row) for row in rows)


def _split_fields(value: Any, prefix: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the fields of a dataclass that are tensors, with the prefix, and the others."""
    values = {field.name: getattr(value, field.name) for field in fields(value)}
    tensors = {prefix + name: entry for name, entry in values.items() if isinstance(entry, Tensor)}
    return tensors, {name: entry for name, entry in values.items() if not isinstance(entry, Tensor)}


def _select(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names have the prefix and no further one, without it."""
    names = {name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)}
    return {short: tensors[name] for short, name in names.items() if "." not in short}
