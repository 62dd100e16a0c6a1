"""Names of groups of classes, for networks with the classes of ImageNet-1k."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

IMAGENET_CLASSES = 1000
MAX_NAMED_MEMBERS = 4  # of a group without a name; of a larger one the first are named


@dataclass(frozen=True)
class ClassRange:
    """Consecutive classes of ImageNet-1k, with the names of the first and the last, by which the order is checked."""

    first: int
    first_name: str
    last: int
    last_name: str


# The order of ImageNet-1k follows WordNet, so that these hyponyms of one noun are consecutive. Nouns whose members are
# disputed or scattered (wolf, bear, big cat, car) are left out.
IMAGENET_GROUPS: dict[str, tuple[ClassRange, ...]] = {
    "fish": (ClassRange(0, "tench", 6, "stingray"), ClassRange(389, "barracouta", 397, "puffer")),
    "shark": (ClassRange(2, "great white shark", 4, "hammerhead"),),
    "bird": (
        ClassRange(7, "cock", 24, "great grey owl"),
        ClassRange(80, "black grouse", 100, "black swan"),
        ClassRange(127, "white stork", 146, "albatross"),
    ),
    "frog": (ClassRange(30, "bullfrog", 32, "tailed frog"),),
    "turtle": (ClassRange(33, "loggerhead", 37, "box turtle"),),
    "lizard": (ClassRange(38, "banded gecko", 48, "Komodo dragon"),),
    "snake": (ClassRange(52, "thunder snake", 68, "sidewinder"),),
    "spider": (ClassRange(72, "black and gold garden spider", 77, "wolf spider"),),
    "dog": (ClassRange(151, "Chihuahua", 268, "Mexican hairless"),),
    "fox": (ClassRange(277, "red fox", 280, "grey fox"),),
    "cat": (ClassRange(281, "tabby", 285, "Egyptian cat"),),
    "beetle": (ClassRange(300, "tiger beetle", 307, "weevil"),),
    "butterfly": (ClassRange(321, "admiral", 326, "lycaenid"),),
    "insect": (ClassRange(300, "tiger beetle", 326, "lycaenid"),),
    "monkey": (ClassRange(370, "guenon", 382, "squirrel monkey"),),
    "primate": (ClassRange(365, "orangutan", 384, "indri"),),
}


def find_named_groups(labels: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the groups of ImageNet-1k that these class names have: name, class indices rising.

    A group is returned only if the first and the last class of each of its ranges have the expected names, as a label
    or as one of its comma-separated synonyms.

    >>> find_named_groups(("cat", "dog"))
    {}
    """
    if len(labels) != IMAGENET_CLASSES:
        return {}
    return {
        name: tuple(index for part in ranges for index in range(part.first, part.last + 1))
        for name, ranges in IMAGENET_GROUPS.items()
        if all(
            _is_named(labels[part.first], part.first_name) and _is_named(labels[part.last], part.last_name)
            for part in ranges
        )
    }


def describe_group(members: Sequence[int], labels: Sequence[str], groups: Mapping[str, Sequence[int]]) -> str:
    """Return the name of a group of classes with its size, or the names of its classes if it has none.

    >>> describe_group((0, 2), ("tabby", "beagle", "tiger cat"), {"cat": (0, 2)})
    'cat (2 classes)'
    >>> describe_group((0, 1), ("tabby", "beagle", "tiger cat"), {"cat": (0, 2)})
    'tabby | beagle'

    Args:
        members: class indices.
        labels: names of all classes; may be empty.
        groups: class indices of the groups with a name.
    """
    wanted = set(members)
    for name, indices in groups.items():
        if set(indices) == wanted:
            return f"{name} ({len(wanted)} classes)"
    names = [labels[index] if index < len(labels) else f"class {index}" for index in members]
    if len(names) <= MAX_NAMED_MEMBERS:
        return " | ".join(names)
    return f"{' | '.join(names[: MAX_NAMED_MEMBERS - 1])} | … ({len(names)} classes)"


def _is_named(label: str, name: str) -> bool:
    return name.lower() in {part.strip().lower() for part in (label, *label.split(","))}
