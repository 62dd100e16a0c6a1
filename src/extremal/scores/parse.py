"""Parse the text of the options `--target` and `--ask` into a target."""

from typing import TYPE_CHECKING

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote
from extremal.number_checks import is_digits, parse_whole

if TYPE_CHECKING:
    from extremal.networks.network import Network
    from extremal.scores.class_group import ClassGroup
    from extremal.scores.target import Target

ASK_SYNTAX = "box, box:X1,Y1,X2,Y2, segment, unit:LAYER:CHANNEL or like:IMAGE"


def parse_query(net: "Network", target: str, ask: str) -> "Target":
    """Parse `--target` and `--ask` into a target of a network.

    Args:
        net: the network to explain.
        target: class index or name, the name of a group, or classes joined by `|`; empty: the top class, or the
            default of the query.
        ask: a query in the syntax `ASK_SYNTAX`; empty: the score of the class.

    Raises:
        ExtremalValueError: the text does not follow the syntax, or a part is missing.
    """
    from extremal.scores import Box, Segment, Unit

    kind, _, rest = ask.partition(":")
    if not ask:
        return parse_class(net, target)
    if kind == "box" and ":" in ask:
        return Box(_parse_corners(rest), _parse_single_class(net, target, kind))
    if ask == "box":
        return Box(None, _parse_single_class(net, target, kind))
    if ask == "segment":
        label = _parse_single_class(net, target, kind)
        if label is None:
            raise ExtremalValueError("--ask segment must be about a class, got none; name it with --target")
        return Segment(label)
    if kind in ("unit", "like") and target:
        raise ExtremalValueError(
            f"--ask {kind} must be used without a class, got --target {quote(target)[1:-1]}; leave one of them out"
        )
    if kind == "unit":
        layer, _, channel = rest.rpartition(":")
        number = parse_whole(channel)
        if not layer or number is None or number < 0:
            raise ExtremalValueError(
                f"--ask unit must name a layer and a channel number, got {quote(ask)}; e.g. unit:blocks.3:5, "
                "`extremal layers` lists the layers"
            )
        return Unit(layer, number)
    if kind == "like" and rest:
        return _parse_similarity(net, rest)
    raise ExtremalValueError(f"--ask must be {ASK_SYNTAX}, got {quote(ask)}")


def parse_class(net: "Network", target: str) -> "int | ClassGroup | None":
    """Parse a class index or name, the name of a group, or classes joined by `|`; None if the text is empty.

    Raises:
        ExtremalValueError: there is no such class or group, or the group holds a class twice.
    """
    from extremal.scores.class_group import ClassGroup, find_classes, parse_class_index

    if not target:
        return None
    if is_digits(target):
        return parse_class_index(target)
    found = find_classes(net, target)
    return found if isinstance(found, int) else ClassGroup(found)


def _parse_single_class(net: "Network", target: str, kind: str) -> int | None:
    """Parse a class for a query that takes no groups."""
    parsed = parse_class(net, target)
    if parsed is None or isinstance(parsed, int):
        return parsed
    raise ExtremalValueError(
        f"--ask {kind} must be about a single class, got the group --target {quote(target)}; name one of its classes"
    )


def _parse_similarity(net: "Network", image: str) -> "Target":
    from extremal.networks.inputs import prepare
    from extremal.scores import Similarity

    return Similarity(prepare(net, image))


def _parse_corners(text: str) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise ExtremalValueError(
            f"--ask box must have four numbers X1,Y1,X2,Y2 in pixels of the network's input, got {quote(text)}; "
            "e.g. box:40,30,200,180"
        ) from None
    return x1, y1, x2, y2
