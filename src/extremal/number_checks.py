"""Numbers that users pass: parse whole ones of bounded length, check their range, and write them in messages."""

import math
from numbers import Real
from typing import Any

from extremal.errors import ExtremalTypeError, ExtremalValueError

MAX_DIGITS = 18  # of a whole number in a text; more are no number of anything
MAX_FORMATTED = 40  # characters of a value in a message


def parse_whole(text: str) -> int | None:
    """Return the whole number that a text is; None if it is another text, or has more than 18 digits.

    >>> parse_whole("12"), parse_whole("-3"), parse_whole("²"), parse_whole("9" * 5000)
    (12, -3, None, None)
    """
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and len(digits) <= MAX_DIGITS else None


def is_digits(text: str) -> bool:
    """Return whether a text is a whole number, of any length.

    >>> is_digits("-3"), is_digits("3.0")
    (True, False)
    """
    return text.removeprefix("-").isdecimal()


def format_value(value: Any) -> str:
    """Return a value for a message, shortened.

    >>> format_value(3), format_value(0.1), format_value("a"), format_value(10**5000)
    ('3', '0.1', "'a'", 'a number of about 5,001 digits')
    """
    if isinstance(value, int) and abs(value) >= 10**MAX_FORMATTED:
        return f"a number of about {int(value.bit_length() * math.log10(2)) + 1:,} digits"
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= MAX_FORMATTED else f"{text[:MAX_FORMATTED]}…"


def refuse_class(value: Any, name: str) -> None:
    """Refuse a class where one of its objects is needed.

    Raises:
        ExtremalTypeError: the value is a class.
    """
    if isinstance(value, type):
        raise ExtremalTypeError(f"{name} must be an object, got the class {value.__name__}; create one of it")


def validate_positive(value: Any, name: str) -> None:
    """Check that a number is finite and above 0.

    >>> validate_positive(0.5, "rate of path")

    Raises:
        ExtremalValueError, ExtremalTypeError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ExtremalTypeError(f"{name} must be a number, got {type(value).__name__}")
    if not 0 < float(value) < math.inf:
        raise ExtremalValueError(f"{name} must be above 0 and finite, got {format_value(value)}")


def validate_whole(value: Any, name: str, low: int, high: int, remedy: str = "") -> int:
    """Return a whole number in a range.

    >>> validate_whole(3, "copies", 1, 64)
    3

    Args:
        value: that a user passed.
        name: of the option.
        low: least value.
        high: largest value.
        remedy: how to solve it.

    Raises:
        ExtremalTypeError: it is no whole number.
        ExtremalValueError: it is out of range.
    """
    end = f"; {remedy}" if remedy else ""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ExtremalTypeError(f"{name} must be a whole number, got {format_value(value)}{end or '; e.g. 1'}")
    number: int = value.__index__()
    if number < low:
        raise ExtremalValueError(f"{name} must be at least {low}, got {format_value(number)}{end}")
    if number > high:
        raise ExtremalValueError(f"{name} must be at most {high:,}, got {format_value(number)}{end}")
    return number
