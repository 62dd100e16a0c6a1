"""Check what is asked of a network, as far as its name shows, before torch is imported."""

from collections.abc import Sequence

from extremal.cli import options
from extremal.errors import ExtremalValueError
from extremal.file_checks import find_kind, quote
from extremal.networks.class_groups import find_named_groups
from extremal.networks.class_names import (
    GROUP_SEPARATOR,
    check_class_index,
    check_members,
    find_class_or_group,
    parse_class_index,
    split_group,
)
from extremal.networks.imagenet import imagenet_labels
from extremal.networks.names import FILE_FAMILIES, PACKAGED_NAMES, names_code
from extremal.networks.stacks.paths import find_stack_kind
from extremal.number_checks import is_digits
from extremal.scores.parse import parse_ask

IMAGENET_NETWORKS = tuple(PACKAGED_NAMES)  # whose classes are those of ImageNet-1k


def check_question(target: str, ask: str, prompt: str = "", network: str = "", score: str = "") -> None:
    """Check `--target`, `--ask`, `--prompt` and `--score` together, and the image that `--ask like:IMAGE` names."""
    from extremal.networks.image_files import check_image_file

    asked = parse_ask(target, ask, prompt)
    if ask and score not in ("", options.DEFAULT_SCORE):
        raise ExtremalValueError(
            f"--score must be used for a class, got {score} with --ask {ask.partition(':')[0]}, which has its own; "
            "leave one of them out"
        )
    if asked.image:
        check_image_file(asked.image)
    for name in (asked.target, asked.against):
        check_class(name, network)


def check_class(text: str, network: str) -> int | tuple[int, ...] | None:
    """Return the class or group in the text of `--target`; None if it is known with the network only, or empty.

    Raises:
        ExtremalValueError: there is no such class or group; similar names are suggested.
    """
    labels = imagenet_labels() if network in IMAGENET_NETWORKS else ()
    if is_digits(text):
        return _check_index(text, labels, network)
    if not text or not labels:
        return None
    groups = find_named_groups(labels)
    try:
        return find_class_or_group(text, labels, groups, network)
    except ExtremalValueError:
        if GROUP_SEPARATOR not in text:
            raise
    members = list[int]()
    for part in split_group(text):
        if part.isdecimal():
            members.append(_check_index(part, labels, network))
        else:
            found = find_class_or_group(part, labels, groups, network)
            members += [found] if isinstance(found, int) else found
    check_members(members, labels.__getitem__, text)
    return tuple(members) if len(members) > 1 else members[0]


def _check_index(text: str, labels: Sequence[str], network: str) -> int:
    index = parse_class_index(text)
    check_class_index(index, len(labels) or None, network)
    return index


def check_contrast(target: str, other: str, network: str) -> None:
    """Check the texts of `--target` and `--other`.

    Raises:
        ExtremalValueError: there is no such class, one is a group, or both are the same.
    """
    classes = [check_class(text, network) for text in (target, other)]
    for option, text, found in zip(("--target", "--other"), (target, other), classes, strict=True):
        if isinstance(found, tuple):
            raise ExtremalValueError(
                f"{option} must be a single class for a contrast, got the group {quote(text)}; name one of its classes"
            )
    if target and (target == other or (classes[0] is not None and classes[0] == classes[1])):
        raise ExtremalValueError(
            f"--other must be another class than --target, got {quote(other)} for both; name another"
        )


def check_shapes(paths: Sequence[str], network: str) -> None:
    """Raise the error of the first image if all are too thin to be scaled for a network."""
    from extremal.networks.image_files import check_image_file
    from extremal.networks.sounds.sound_files import is_sound

    if names_code(network) or network.partition(":")[0] in FILE_FAMILIES:  # these need not scale images
        return
    errors = list[ExtremalValueError]()
    for path in paths:
        if find_kind(path, "an image") != "file" or find_stack_kind(path) is not None or is_sound(path):
            return
        try:
            check_image_file(path, is_scaled=True)
        except ExtremalValueError as error:
            errors.append(error)
    if errors and len(errors) == len(paths):
        raise errors[0]
