"""Names of classes: find the class that a name means."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, ValuesView
from difflib import get_close_matches
from typing import Any

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import quote
from extremal.number_checks import MAX_DIGITS, format_value, parse_whole

GROUP_SEPARATOR = "|"  # between the classes of a group in text
MAX_SUGGESTIONS = 5  # names in a message
MAX_GROUP_NAME = 80  # characters of the name of a group in a message


def read_labels(labels: Any) -> Sequence[str]:
    """Return the names of classes of a sequence, an array, or the values of a dict, in their order.

    >>> read_labels({0: "cat", 1: "dog"}.values())
    ('cat', 'dog')

    Raises:
        ExtremalTypeError: it has no order, or something else than names.
    """
    plain = labels.tolist() if hasattr(labels, "tolist") else labels
    is_ordered = isinstance(plain, Sequence | ValuesView) and not isinstance(plain, str)
    if not is_ordered or not all(isinstance(label, str) for label in plain):
        remedy = "tuple(labels.values())" if isinstance(plain, Mapping) else "('cat', 'dog')"
        raise ExtremalTypeError(f"labels must be the names of the classes, got {format_value(plain)}; e.g. {remedy}")
    return plain if isinstance(plain, list | tuple) else tuple(plain)


def find_class(name: str, labels: Sequence[str], network_name: str) -> int:
    """Return the class with this name, or with it as a comma-separated synonym; case is ignored.

    >>> find_class("Tabby", ("tiger cat", "tabby, tabby cat"), "toy")
    1

    Args:
        name: of a class.
        labels: names of all classes; of none, the network has no class names.
        network_name: for messages.

    Raises:
        ExtremalValueError: there is no such class, and similar names are suggested; or there are several.
    """
    lower_name = name.strip().lower()
    if not labels:
        raise ExtremalValueError(f"{network_name} has no class names, got {quote(name)}; give the class as an index")
    full_names: dict[str, list[int]] = {}
    synonyms: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        full_names.setdefault(label.strip().lower(), []).append(index)
        for synonym in {part.strip().lower() for part in label.split(",")}:
            synonyms.setdefault(synonym, []).append(index)
    indices = full_names.get(lower_name) or synonyms.get(lower_name, [])
    if len(indices) > 1:
        matches = ", ".join(f"{index} ({labels[index]})" for index in indices)
        raise ExtremalValueError(
            f"target must name one class of {network_name}, got {quote(name)}, which is {matches}; give the class as "
            "an index"
        )
    if not indices:
        nearest = find_similar_names(name, [part.strip() for label in labels for part in label.split(",")])
        hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
        raise ExtremalValueError(f"target must be a class of {network_name}, got {quote(name)}{hint}")
    return indices[0]


def find_class_or_group(
    text: str, labels: Sequence[str], groups: Mapping[str, Sequence[int]], network_name: str
) -> int | tuple[int, ...]:
    """Return the class with this name, else the classes of the group with it; case is ignored.

    >>> find_class_or_group("cat", ("tabby", "tiger cat", "dog"), {"cat": (0, 1)}, "toy")
    (0, 1)

    Args:
        text: name of a class or a group.
        labels: as `find_class` takes them.
        groups: indices of classes, by the name of the group.
        network_name: for messages.

    Raises:
        ExtremalValueError: there is neither; similar names are suggested.
    """
    try:
        return find_class(text, labels, network_name)
    except ExtremalValueError as error:
        known = {name.strip().lower(): tuple(members) for name, members in groups.items()}
        name = text.strip().lower()
        if name in known:
            return known[name]
        suggestions = get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f"; nearest groups of classes: {', '.join(suggestions)}" if suggestions else ""
        raise ExtremalValueError(f"{error}{hint}") from None


def split_group(text: str) -> list[str]:
    """Return the names and indices of classes between `|`.

    >>> split_group("tabby | 282")
    ['tabby', '282']

    Raises:
        ExtremalValueError: one of them is empty.
    """
    parts = [part.strip() for part in text.split(GROUP_SEPARATOR)]
    if not all(parts):
        raise ExtremalValueError(
            f"a group must name a class on each side of {GROUP_SEPARATOR}, got {quote(text)}; e.g. 'tabby|tiger cat'"
        )
    return parts


def check_members(members: Sequence[int], label: Callable[[int], str], group: str) -> None:
    """Raise if a group holds a class twice.

    Args:
        members: class indices.
        label: name of a class, by its index.
        group: its name, for messages.

    Raises:
        ExtremalValueError: it does.
    """
    repeated = next((index for index in members if members.count(index) > 1), None)
    if repeated is not None:
        raise ExtremalValueError(
            f"a group must hold each class once, got {label(repeated)} (class {repeated}) twice in "
            f"{group if len(group) <= MAX_GROUP_NAME else f'{group[: MAX_GROUP_NAME - 1]}…'}; leave one out"
        )


def parse_class_index(text: str) -> int:
    """Return the class index in a text of digits.

    Raises:
        ExtremalValueError: it has more digits than any index.
    """
    index = parse_whole(text)
    if index is None:
        raise ExtremalValueError(
            f"target must be a class index of at most {MAX_DIGITS} digits, got {len(text):,} characters; "
            "check the number"
        )
    return index


def check_class_index(index: int, n_classes: int | None, network_name: str, what: str = "target") -> None:
    """Raise unless a network has a class of this index.

    Args:
        index: any.
        n_classes: number of its classes; None: not known yet.
        network_name: for messages.
        what: name of the argument in messages.

    Raises:
        ExtremalValueError: it does not.
    """
    if index < 0 or (n_classes is not None and index >= n_classes):
        rule = "be at least 0" if n_classes is None else f"lie in 0..{n_classes - 1}"
        raise ExtremalValueError(
            f"{what} must {rule} for {network_name}, got {format_value(index)}; classes are counted from 0"
        )


def find_similar_names(text: str, names: Iterable[str], limit: int = MAX_SUGGESTIONS) -> list[str]:
    """Return the names that resemble a text: those that contain it, in the order of `rank_names`, then similar ones.

    >>> find_similar_names("cat", ("bullfrog", "tiger cat", "crate", "catamaran"))
    ['tiger cat', 'catamaran', 'crate']

    Args:
        text: that a user wrote.
        names: to choose from; repeated ones count once.
        limit: largest number of names to return.
    """
    known = {name.lower(): name for name in names if name}
    similar = [known[name] for name in get_close_matches(text.strip().lower(), known, n=limit, cutoff=0.5)]
    return list(dict.fromkeys([*rank_names(text, known.values()), *similar]))[:limit]


def rank_names(text: str, names: Iterable[str]) -> list[str]:
    """Return the names that contain a text: the name itself, those with all its words, then those with it as a part.

    Among these, names that begin with the text come first.

    >>> rank_names("cat", ("bobcat", "catamaran", "tiger cat", "cat", "dog"))
    ['cat', 'tiger cat', 'catamaran', 'bobcat']
    >>> rank_names("blocks.5", ("blocks.5.0.conv", "blocks.4.5", "blocks.50", "blocks.5"))
    ['blocks.5', 'blocks.5.0.conv', 'blocks.4.5', 'blocks.50']

    Args:
        text: that a user wrote; case and outer spaces are ignored.
        names: to choose from; repeated ones count once.
    """
    lower, words = text.strip().lower(), set(re.findall(r"\w+", text.lower()))
    if not lower:
        return []

    def rank(name: str) -> tuple[int, bool]:
        has_words = bool(words) and words <= set(re.findall(r"\w+", name))
        return 0 if name == lower else 1 if has_words else 2 if lower in name else 3, not name.startswith(lower)

    ranks = {name: rank(name.lower()) for name in dict.fromkeys(names)}
    return sorted((name for name in ranks if ranks[name][0] < 3), key=ranks.__getitem__)
