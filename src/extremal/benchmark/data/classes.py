"""Match the classes of a data set to the outputs of a network."""

from collections.abc import Mapping, Sequence

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import quote
from extremal.networks.class_names import find_similar_names
from extremal.networks.network import Network
from extremal.number_checks import format_no_whole, format_value, is_whole


def match_classes(
    network: Network, classes: Sequence[str], class_map: Mapping[str, int | str] | None = None
) -> dict[str, int]:
    """Return the network's output for each class of a data set.

    Args:
        network: its labels name its classes; without labels its outputs are in the order of the data set.
        classes: names in the data set.
        class_map: outputs (index or label) of classes with another name in the network.

    Raises:
        ExtremalValueError, ExtremalTypeError: the network does not know a class, or has no such output.
    """
    class_map = class_map or {}
    outputs: dict[str, int] = {}
    unknown: list[str] = []
    for index, name in enumerate(classes):
        label = class_map.get(name, name)
        if not isinstance(label, str):
            outputs[name] = _read_output(label, name, network)
        elif not network.labels and name not in class_map:
            outputs[name] = index
        else:
            try:
                outputs[name] = network.index(label)
            except ExtremalValueError:
                unknown.append(name)
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise ExtremalValueError(
            f"a data set's classes must be known to the network, {network.name} does not know {unknown[0]!r}{more}; "
            "use a network that was trained on them, or map them to its classes with --classes FILE.json"
        )
    return outputs


def check_class_names(class_map: Mapping[str, int | str], classes: Sequence[str]) -> None:
    """Check that a data set has the classes that are mapped to outputs of a network.

    Raises:
        ExtremalValueError: it does not have one of them.
    """
    unknown = next((name for name in class_map if name not in classes), None)
    if unknown is not None:
        nearest = find_similar_names(unknown, classes)
        hint = f"; nearest: {', '.join(nearest)}" if nearest else "; leave it out"
        raise ExtremalValueError(f"--classes must name classes of the data set, got {quote(unknown)}{hint}")


def _read_output(index: object, name: str, network: Network) -> int:
    """Return the output of a network that a class is mapped to by its index."""
    if not is_whole(index):
        raise ExtremalTypeError(
            f"--classes must be indices or names of {network.name}'s classes, got {format_no_whole(index)} for "
            f"{quote(name)}; e.g. 281"
        )
    number: int = index.__index__()  # type: ignore[attr-defined]
    if number < 0 or (network.labels and number >= len(network.labels)):
        last = f"in 0..{len(network.labels) - 1}" if network.labels else "at 0 or above"
        raise ExtremalValueError(
            f"--classes must be indices {last} for {network.name}, got {format_value(number)} for {quote(name)}; "
            "classes are counted from 0"
        )
    return number
