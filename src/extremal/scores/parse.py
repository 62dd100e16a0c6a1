"""Parse the text of the options `--target` and `--ask` into a target; torch is imported only with a network."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote
from extremal.networks.class_names import parse_class_index
from extremal.number_checks import is_digits, parse_whole

if TYPE_CHECKING:
    from extremal.networks.network import Network
    from extremal.scores.class_group import ClassGroup
    from extremal.scores.target import Target

ASK_SYNTAX = (
    "box, box:X1,Y1,X2,Y2, either with :not:CLASS, no-box:X1,Y1,X2,Y2, instance, segment, unit:LAYER:CHANNEL, "
    "like:IMAGE, text:TEXT|OTHER|…, answer, answer:TEXT, token:N or token:N:TEXT"
)
ANSWER_KINDS = ("answer", "token")


class AskedKind(StrEnum):
    """Kinds of questions, by what they are about."""

    CLASS = "class"
    BOX = "box"
    NO_BOX = "no-box"
    INSTANCE = "instance"
    SEGMENT = "segment"
    UNIT = "unit"
    LIKE = "like"
    TEXT = "text"
    ANSWER = "answer"  # the whole one, or one of its tokens


@dataclass(frozen=True)
class AskedQuery:
    """The question of `--ask` and `--target`, as far as it is known without a network."""

    kind: AskedKind
    target: str = ""  # class index or name, the name of a group, or classes joined by `|`; may be empty
    corners: tuple[float, float, float, float] | None = None  # of a box; None: the one that the network finds
    against: str = ""  # class index or name that a box could have instead; may be empty
    layer: str = ""  # of a unit
    channel: int = 0  # of a unit
    image: str = ""  # to be like
    text: str = ""  # of an answer; empty: the model's own; or that is compared with others
    others: tuple[str, ...] = ()  # texts
    prompt: str = ""  # of an answer
    token: int | None = None  # of an answer; None: all


def parse_ask(target: str, ask: str, prompt: str = "") -> AskedQuery:
    """Parse the text of `--target`, `--ask` and `--prompt`.

    >>> asked = parse_ask("", "unit:blocks.3:5")
    >>> asked.kind, asked.layer, asked.channel
    (<AskedKind.UNIT: 'unit'>, 'blocks.3', 5)

    Args:
        target: class index or name, the name of a group, or classes joined by `|`; empty: the top class, or the
            default of the query.
        ask: a query in the syntax `ASK_SYNTAX`; empty: the score of the class.
        prompt: of an answer.

    Raises:
        ExtremalValueError: the text does not follow the syntax, or a part is missing.
    """
    kind, colon, rest = ask.partition(":")
    _check_company(kind, target, prompt)
    if not ask:
        return AskedQuery(AskedKind.CLASS, target)
    if kind in ("box", "no-box") or ask == "instance":
        return _parse_object(target, ask)
    if ask == "segment":
        if not target:
            raise ExtremalValueError("--ask segment must be about a class, got none; name it with --target")
        return AskedQuery(AskedKind.SEGMENT, target)
    if kind == "unit":
        layer, _, channel = rest.rpartition(":")
        number = parse_whole(channel)
        if not layer or number is None or number < 0:
            raise ExtremalValueError(
                f"--ask unit must name a layer and a channel number, got {quote(ask)}; e.g. unit:blocks.3:5, "
                "`extremal layers` lists the layers"
            )
        return AskedQuery(AskedKind.UNIT, layer=layer, channel=number)
    if kind == "like" and rest:
        return AskedQuery(AskedKind.LIKE, image=rest)
    if kind in ANSWER_KINDS or (kind == "text" and rest.strip()):
        return _parse_text(ask, kind, rest if colon else None, prompt)
    raise ExtremalValueError(f"--ask must be {ASK_SYNTAX}, got {quote(ask)}")


def parse_query(net: "Network", target: str, ask: str, prompt: str = "") -> "Target":
    """Parse `--target`, `--ask` and `--prompt` into a target of a network.

    Args:
        net: the network to explain.
        target: as in `parse_ask`.
        ask: as in `parse_ask`.
        prompt: as in `parse_ask`.

    Raises:
        ExtremalValueError: the text does not follow the syntax, or the network has no such class.
    """
    from extremal.scores import Answer, Segment, Text, Unit

    asked = parse_ask(target, ask, prompt)
    match asked.kind:
        case AskedKind.CLASS:
            return parse_class(net, asked.target)
        case AskedKind.BOX | AskedKind.NO_BOX | AskedKind.INSTANCE:
            return _build_object_query(net, asked)
        case AskedKind.SEGMENT:
            label = _parse_single_class(net, asked.target, asked.kind)
            assert label is not None  # its text is not empty
            return Segment(label)
        case AskedKind.UNIT:
            return Unit(asked.layer, asked.channel)
        case AskedKind.LIKE:
            return _parse_similarity(net, asked.image)
        case AskedKind.TEXT | AskedKind.ANSWER:
            is_text = asked.kind is AskedKind.TEXT
            return Text(asked.text, asked.others) if is_text else Answer(asked.text or None, asked.prompt, asked.token)


def parse_class(net: "Network", target: str) -> "int | ClassGroup | None":
    """Parse a class index or name, the name of a group, or classes joined by `|`; None if the text is empty.

    Raises:
        ExtremalValueError: there is no such class or group, or the group holds a class twice.
    """
    from extremal.scores.class_group import ClassGroup, find_classes

    if not target:
        return None
    if is_digits(target):
        return parse_class_index(target)
    found = find_classes(net, target)
    return found if isinstance(found, int) else ClassGroup(found)


def _parse_single_class(net: "Network", target: str, kind: AskedKind) -> int | None:
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


def _check_company(kind: str, target: str, prompt: str) -> None:
    """Check that a class and a prompt are given only with queries that take them."""
    if prompt and kind not in ANSWER_KINDS:
        raise ExtremalValueError(
            f"--prompt must be used with --ask answer or token, got {quote(prompt)} without; e.g. --ask answer"
        )
    if kind in ("unit", "like", "text", *ANSWER_KINDS) and target:
        raise ExtremalValueError(
            f"--ask {kind} must be used without a class, got --target {quote(target)[1:-1]}; leave one of them out"
        )


def _parse_text(ask: str, kind: str, rest: str | None, prompt: str) -> AskedQuery:
    """Parse `text:TEXT|OTHER|…`, `answer`, `answer:TEXT`, `token:N` or `token:N:TEXT`."""
    if kind == "text":
        first, *others = (part.strip() for part in (rest or "").split("|"))
        return AskedQuery(AskedKind.TEXT, text=first, others=tuple(others))
    text, token = rest, None
    if kind == "token":
        number, colon, text_after = (rest or "").partition(":")
        token, text = parse_whole(number), text_after if colon else None
        if token is None or token < 0:
            raise ExtremalValueError(
                f"--ask token must name a token by its index, 0 or above, got {quote(ask)}; e.g. token:2:a red bus"
            )
    if text is not None and not text.strip():
        raise ExtremalValueError(
            f"an answer must have tokens, got {quote(ask)} with an empty text; leave out the last colon for the "
            "model's own answer"
        )
    return AskedQuery(AskedKind.ANSWER, text=text or "", prompt=prompt, token=token)


def _parse_object(target: str, ask: str) -> AskedQuery:
    """Parse box[:X1,Y1,X2,Y2][:not:CLASS], no-box:X1,Y1,X2,Y2 or instance."""
    text, separator, against = ask.partition(":not:")
    kind, colon, corners = text.partition(":")
    if kind == "no-box":
        if not target:
            raise ExtremalValueError("--ask no-box must be about a class, got none; name it with --target")
        return AskedQuery(AskedKind.NO_BOX, target, corners=_parse_corners(ask.partition(":")[2], kind))
    if separator and not against:
        raise ExtremalValueError(f"--ask box must name a class after :not:, got {quote(ask)}; e.g. box:not:dog")
    return AskedQuery(AskedKind(kind), target, _parse_corners(corners, kind) if colon else None, against)


def _build_object_query(net: "Network", asked: AskedQuery) -> "Target":
    """Return the query about a box or an instance."""
    from extremal.scores import Box, Instance

    label = _parse_single_class(net, asked.target, asked.kind)
    if asked.kind is AskedKind.INSTANCE:
        return Instance(label=label)
    against = _parse_single_class(net, asked.against, asked.kind)
    return Box(asked.corners, label, against, absent=asked.kind is AskedKind.NO_BOX)


def _parse_corners(text: str, kind: str) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise ExtremalValueError(
            f"--ask {kind} must have four numbers X1,Y1,X2,Y2 in pixels of the network's input, got {quote(text)}; "
            f"e.g. {kind}:40,30,200,180"
        ) from None
    return x1, y1, x2, y2
