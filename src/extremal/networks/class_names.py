"""Names of classes: find the class that a name means."""

from collections.abc import Sequence
from difflib import get_close_matches

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote


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
        names = full_names | synonyms
        suggestions = get_close_matches(lower_name, names, n=3, cutoff=0.5)
        suggestions = suggestions or [known for known in names if lower_name in known][:3]
        hint = f"; nearest: {', '.join(suggestions)}" if suggestions else ""
        raise ExtremalValueError(f"target must be a class of {network_name}, got {quote(name)}{hint}")
    return indices[0]
