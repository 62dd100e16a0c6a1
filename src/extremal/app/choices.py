"""Classes and layers that a visitor can choose by name: search as the visitor types, and the choice of a name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from extremal.app.networks import ServedNetwork
from extremal.errors import ExtremalValueError
from extremal.file_checks import quote
from extremal.networks.class_names import find_similar_names, rank_names
from extremal.networks.stages import find_stages
from extremal.scores.class_group import find_classes

REGIONS = "Regions of the image"  # in place of a layer
MAX_CHOICES = 50  # listed at once
MAX_SIMILAR_CHOICES = 8  # if no name contains the text
MAX_SEARCH_TEXT = 100  # characters


@dataclass(frozen=True)
class Choice:
    """A name that a visitor can choose, with a note on what it means."""

    name: str
    note: str = ""


def search_choices(kind: str, served: ServedNetwork, text: str) -> list[Choice]:
    """Return the names that a text may mean, the best first; for an empty text those to begin with.

    Args:
        kind: "classes" or "layers".
        served: network.
        text: that a visitor has typed so far.

    Raises:
        ExtremalValueError: the kind is another, or the text is too long.
    """
    if len(text) > MAX_SEARCH_TEXT:
        raise ExtremalValueError(
            f"a search must have at most {MAX_SEARCH_TEXT} characters, got {len(text)}; type a part of the name"
        )
    if kind == "classes":
        return _search_classes(served, text)
    if kind == "layers":
        return _search_layers(served, text)
    raise ExtremalValueError(f"a search must be for classes or layers, got {quote(kind)}; reload the page")


def _search_classes(served: ServedNetwork, text: str) -> list[Choice]:
    """Search groups and classes by each of their names."""
    network = served.network
    groups = {name: Choice(name, f"group of {len(members)} classes") for name, members in network.named_groups.items()}
    by_name: dict[str, list[Choice]] = {name: [choice] for name, choice in groups.items()}
    for index, label in enumerate(network.labels):
        choice = Choice(served.network.distinct_label(index))
        for synonym in (label, *(part.strip() for part in label.split(","))):
            by_name.setdefault(synonym, []).append(choice)
    names = _find_names(text, by_name) if text.strip() else list(by_name)
    return list(dict.fromkeys(choice for name in names for choice in by_name[name]))[:MAX_CHOICES]


def _search_layers(served: ServedNetwork, text: str) -> list[Choice]:
    """Search layers by name; for an empty text, return the regions of the image and the stages of the network."""
    if text.strip():
        return [_layer_choice(served, name) for name in _find_names(text, (REGIONS, *served.layers))[:MAX_CHOICES]]
    stages = [_layer_choice(served, stage.name, "stage, ") for stage in find_stages(list(served.layers.values()))]
    return [_layer_choice(served, REGIONS), *stages[: MAX_CHOICES - 1]]


def _find_names(text: str, names: Iterable[str]) -> list[str]:
    """Return the names that contain a text, as the command line ranks them; if there are none, similar ones."""
    known = list(names)
    return rank_names(text, known) or find_similar_names(text, known, MAX_SIMILAR_CHOICES)


def _layer_choice(served: ServedNetwork, name: str, prefix: str = "") -> Choice:
    layer = served.layers.get(name)
    return Choice(name, f"{prefix}{layer.kind}, {'×'.join(map(str, layer.shape))}" if layer else "")


def choose_class(served: ServedNetwork, text: object) -> int | str:
    """Return the index of the class, or the name of the group, that a visitor has named.

    Raises:
        ExtremalValueError: there is none, or several; similar names are suggested.
    """
    if not isinstance(text, str) or not text.strip():
        raise ExtremalValueError(f"a class must be given by its name, got {quote(text)}; type a part of it")
    text = text.strip()
    numbered = re.fullmatch(r"(.*) \((\d{1,9})\)", text)
    if numbered:
        index = int(numbered[2])
        if index < len(served.network.labels) and served.network.distinct_label(index) == text:
            return index
    if text in served.network.named_groups:
        return text
    found = find_classes(served.network, text)
    return found if isinstance(found, int) else text


def choose_layer(served: ServedNetwork, text: object) -> str:
    """Return the layer that a visitor has named; empty for regions of the image.

    Raises:
        ExtremalValueError: there is none; similar names are suggested.
    """
    name = text.strip() if isinstance(text, str) else text
    if name in ("", None, REGIONS):
        return ""
    if not isinstance(name, str) or name not in served.layers:
        similar = find_similar_names(name[:MAX_SEARCH_TEXT], served.layers) if isinstance(name, str) else []
        hint = f"nearest: {', '.join(similar)}" if similar else "choose one of the list"
        raise ExtremalValueError(f"the layer must be one of those offered, got {quote(name)}; {hint}")
    return name
