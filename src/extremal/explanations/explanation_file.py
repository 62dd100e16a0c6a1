"""Explanations as named tensors and plain values, for `Explanation.save` and `load`."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from torch import Tensor

from extremal.explanations.stability import Stability
from extremal.explanations.verdict import Status

if TYPE_CHECKING:
    from extremal.explanations.explanation import Explanation

STABILITY_PREFIX = "stability."  # of the names of its tensors
TUPLE_FIELDS = ("areas", "target", "target_names", "unseen_names")


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
    """Invert `to_tensors`."""
    alternatives = [
        from_tensors(kind, tensors, rest, f"{prefix}{index}.") for index, rest in enumerate(head["alternatives"])
    ]
    values: dict[str, Any] = {**head, "alternatives": tuple(alternatives)}
    for name in TUPLE_FIELDS:
        values[name] = tuple(values[name])
    values["target"] = tuple(map(_read_target, values["target"]))
    values["left_out"] = tuple(map(tuple, values.get("left_out", ())))  # older files have none
    values["status"] = tuple(tuple(Status(s) for s in row) for row in values["status"])
    if values.get("stability") is not None:
        measured = {**values["stability"], **_select(tensors, prefix + STABILITY_PREFIX)}
        values["stability"] = Stability(**{**measured, "areas": tuple(measured["areas"])})
    return kind(**{**values, **_select(tensors, prefix)})


def _read_target(target: Any) -> Any:
    """Return a stored target: class index, indices of a group, or None, which used to be stored as −1."""
    if isinstance(target, list):
        return tuple(target)
    return None if target == -1 else target


def _split_fields(value: Any, prefix: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the fields of a dataclass that are tensors, with the prefix, and the others."""
    values = {field.name: getattr(value, field.name) for field in fields(value)}
    tensors = {prefix + name: entry for name, entry in values.items() if isinstance(entry, Tensor)}
    return tensors, {name: entry for name, entry in values.items() if not isinstance(entry, Tensor)}


def _select(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names have the prefix and no further one, without it."""
    names = {name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)}
    return {short: tensors[name] for short, name in names.items() if "." not in short}
