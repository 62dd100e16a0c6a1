"""Values of the page's form: each is checked before a request is made of it."""

from collections.abc import Collection
from contextlib import suppress

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote

MAX_AREAS, MAX_ALTERNATIVES = 20, 3  # of one request
MAX_TEXT = 500  # characters of a prompt or an answer


def check_text(noun: str, value: object) -> str:
    """Return a prompt or an answer, empty if there is none.

    Raises:
        ExtremalValueError: it is no text, or too long.
    """
    text = "" if value is None else value
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        received = f"{len(text)} characters" if isinstance(text, str) else quote(text)
        raise ExtremalValueError(f"{noun} must be a text of at most {MAX_TEXT} characters, got {received}; shorten it")
    return text.strip()


def check_choice(noun: str, value: object, choices: Collection[str]) -> str:
    """Return one of several names.

    Raises:
        ExtremalValueError: the value is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        shown = ", ".join(list(choices)[:20])
        raise ExtremalValueError(f"{noun} must be one of those offered, got {quote(value)}; choose from {shown}")
    return value


def check_target(target: object) -> int | str:
    """Return the index of a class, or the name of a group.

    Raises:
        ExtremalValueError: the value is neither.
    """
    is_index = isinstance(target, int) or (isinstance(target, float) and target.is_integer())
    if isinstance(target, bool) or not (is_index or isinstance(target, str)):
        raise ExtremalValueError(f"a class must be one of those offered, got {quote(target)}; choose one of the list")
    return target if isinstance(target, str) else int(target)  # type: ignore[call-overload]


def check_alternatives(alternatives: object) -> int:
    """Return a number of explanations.

    Raises:
        ExtremalValueError: the page does not offer this number.
    """
    with suppress(TypeError, ValueError, OverflowError):
        number = int(alternatives)  # type: ignore[call-overload]
        if number == alternatives and 1 <= number <= MAX_ALTERNATIVES:
            return int(number)
    raise ExtremalValueError(
        f"alternatives must be a whole number in 1..{MAX_ALTERNATIVES}, got {quote(alternatives)}; "
        "use the library for more"
    )


def parse_areas(text: object) -> list[float]:
    """Return the areas in a text of numbers separated by commas, sorted.

    Raises:
        ExtremalValueError: a part of the text is not a number, or there are too many.
    """
    parts = str(text or "").split(",")
    if len(parts) > MAX_AREAS:
        raise ExtremalValueError(
            f"areas must be at most {MAX_AREAS} numbers, got {len(parts)}; leave some out, or use the library"
        )
    areas = list[float]()
    for part in parts:
        try:
            areas.append(float(part))
        except ValueError:
            raise ExtremalValueError(
                f"areas must be numbers separated by commas, got {quote(part.strip())}; e.g. 0.05, 0.1"
            ) from None
    return sorted(areas)
