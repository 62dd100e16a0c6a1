"""Match the classes of a data set to the outputs of a network."""

from collections.abc import Mapping, Sequence

from extremal.errors import ExtremalValueError
from extremal.networks.network import Network


def match_classes(
    network: Network, classes: Sequence[str], class_map: Mapping[str, int | str] | None = None
) -> dict[str, int]:
    """Return the network's output for each class of a data set.

    Args:
        network: its labels name its classes; without labels its outputs are in the order of the data set.
        classes: names in the data set.
        class_map: outputs (index or label) of classes with another name in the network.

    Raises:
        ExtremalValueError: the network does not know a class.
    """
    class_map = class_map or {}
    outputs: dict[str, int] = {}
    unknown: list[str] = []
    for index, name in enumerate(classes):
        label = class_map.get(name, name)
        if isinstance(label, int):
            outputs[name] = label
        elif not network.labels:
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
