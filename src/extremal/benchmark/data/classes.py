"""Which output of a network each class of a data set is."""

from collections.abc import Mapping, Sequence

from extremal.errors import ExtremalValueError
from extremal.networks.network import Network


def match_classes(
    network: Network, classes: Sequence[str], given: Mapping[str, int | str] | None = None
) -> dict[str, int]:
    """The network's output for each class of a data set.

    Args:
        network: whose labels tell its classes; without labels outputs are taken to be in the data set's order.
        classes: as the data set names them.
        given: outputs (index or label) of classes that the network names otherwise.

    Raises:
        ExtremalValueError: a class is not known to the network.
    """
    given = given or {}
    found: dict[str, int] = {}
    unknown: list[str] = []
    for index, name in enumerate(classes):
        wanted = given.get(name, name)
        if isinstance(wanted, int):
            found[name] = wanted
        elif not network.labels:
            found[name] = index
        else:
            try:
                found[name] = network.index(wanted)
            except ExtremalValueError:
                unknown.append(name)
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise ExtremalValueError(
            f"a data set's classes must be known to the network, {network.name} does not know {unknown[0]!r}{more}; "
            "use a network that was trained on them, or tell which of its classes they are with --classes FILE.json"
        )
    return found
