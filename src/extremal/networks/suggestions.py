"""Suggestions of similar names, at the end of a message."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(name: str, names: Iterable[str]) -> str:
    """Return the end of a message that suggests similar names; empty if there are none.

    >>> suggest("resnt50", ["resnet50", "vgg16"])
    '; nearest: resnet50'
    """
    matches = get_close_matches(name, names, n=3)
    return f"; nearest: {', '.join(matches)}" if matches else ""
