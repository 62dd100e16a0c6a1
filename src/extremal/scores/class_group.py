"""Groups of classes: several classes scored as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.class_names import (
    GROUP_SEPARATOR,
    check_members,
    find_class_or_group,
    parse_class_index,
    split_group,
)
from extremal.number_checks import format_value, is_whole
from extremal.scores.query import class_index, class_label

if TYPE_CHECKING:
    from extremal.networks.network import Network

ResolvedClass = int | tuple[int, ...]  # index of a class, or indices of a group, rising


@dataclass(frozen=True)
class ClassGroup:
    """Several classes scored as one: whether the input is any of them.

    >>> ClassGroup(["tiger cat", "Egyptian cat"]).name
    'tiger cat | Egyptian cat'

    Args:
        classes: indices or names; names of groups of the network are allowed.
    """

    classes: tuple[int | str, ...]

    def __init__(self, classes: Sequence[int | str]) -> None:
        if isinstance(classes, str) or not isinstance(classes, list | tuple | range):
            raise ExtremalTypeError(
                f"a group must be a list of class indices or names, got {classes!r}; e.g. ['tabby', 'tiger cat']"
            )
        if not classes:
            raise ExtremalValueError("a group must hold at least one class, got an empty list; name its classes")
        for entry in classes:
            if not (isinstance(entry, str) or is_whole(entry)):
                raise ExtremalTypeError(
                    f"a class of a group must be given by its index or name, got {format_value(entry)}; groups are "
                    "lists of these"
                )
        object.__setattr__(self, "classes", tuple(classes))

    @property
    def name(self) -> str:
        """The classes in words, before the network is known."""
        return f" {GROUP_SEPARATOR} ".join(map(class_label, self.classes))


def find_classes(network: "Network", text: str) -> ResolvedClass:
    """Return the class with this name, else the group with it, else the group of the names between `|`.

    Raises:
        ExtremalValueError: there is neither; similar names are suggested.
    """
    try:
        found = find_class_or_group(text, network.labels, network.named_groups, network.name)
        return found if isinstance(found, int) else resolve_class(network, ClassGroup(found))
    except ExtremalValueError:
        if GROUP_SEPARATOR not in text:
            raise
    parts = split_group(text)
    return resolve_class(network, ClassGroup([parse_class_index(part) if part.isdecimal() else part for part in parts]))


def resolve_class(
    network: "Network", wanted: Any, n_classes: int | None = None, *, may_be_all: bool = False
) -> ResolvedClass:
    """Return the index of a class, or the indices of a group; of a group of one class its index.

    Args:
        network: for names of classes and groups.
        wanted: index, name, or `ClassGroup`.
        n_classes: number of the network's classes; None: not known yet.
        may_be_all: whether a group may hold all classes, as for a score that compares it with no other.

    Raises:
        ExtremalValueError, ExtremalTypeError: a class does not exist, a group holds one twice, or holds all classes.
    """
    if isinstance(wanted, str):
        found = find_classes(network, wanted)
        wanted = found if isinstance(found, int) else ClassGroup(found)
    if not isinstance(wanted, ClassGroup):
        return class_index(network, wanted, n_classes, "target")
    members: list[int] = []
    for entry in wanted.classes:
        found = resolve_class(network, entry, n_classes)
        members += [found] if isinstance(found, int) else found
    check_members(members, network.label, wanted.name)
    if len(members) == 1:
        return members[0]
    if len(members) == n_classes and not may_be_all:
        raise ExtremalValueError(
            f"a group must leave out a class to be compared with, got all {n_classes} classes of {network.name}; "
            "leave one out"
        )
    return tuple(sorted(members))


def encode_classes(classes: Sequence[ResolvedClass], output: Tensor) -> Tensor:
    """Return resolved classes as scores take them: (N,) indices, or (N, classes) bool if there are groups.

    Args:
        classes: (N,).
        output: (B, classes) of the network, for its number of classes and its device.
    """
    indices = [entry for entry in classes if isinstance(entry, int)]
    if len(indices) == len(classes):
        return torch.tensor(indices, device=output.device)
    members = torch.zeros(len(classes), output.shape[1], dtype=torch.bool)
    for row, entry in zip(members, classes, strict=True):
        row[list(entry) if isinstance(entry, tuple) else entry] = True
    return members.to(output.device)
