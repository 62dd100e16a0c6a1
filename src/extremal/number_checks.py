"""Numbers that users pass: parse whole ones of bounded length, check their range, and write them in messages."""

import math
import operator
from collections.abc import Callable, Sequence
from itertools import islice
from numbers import Real
from typing import Any

from extremal.errors import ExtremalTypeError, ExtremalValueError

MAX_DIGITS = 18  # of a whole number in a text; more are no number of anything
MAX_NUMBERS = 1_000_000  # of a sequence
MAX_FORMATTED = 40  # characters of a value in a message


def parse_whole(text: str) -> int | None:
    """Parse a whole number; return None if the text is not one, or has more than 18 digits.

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
    try:
        text = f"{value:g}" if isinstance(value, float) else repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = f"a {type(value).__name__} with a number of thousands of digits"
    if "\n" in text:
        text = " ".join(text.split())  # of an array
    return text if len(text) <= MAX_FORMATTED else f"{text[:MAX_FORMATTED]}…"


def format_no_whole(value: Any) -> str:
    """Return a value that is no whole number for a message, with the point of a float.

    >>> format_no_whole(1.0), format_no_whole("1")
    ('1.0', "'1'")
    """
    return repr(value) if isinstance(value, float) else format_value(value)


def refuse_class(value: Any, name: str) -> None:
    """Refuse a class where one of its objects is needed.

    Raises:
        ExtremalTypeError: the value is a class.
    """
    if isinstance(value, type):
        raise ExtremalTypeError(f"{name} must be an object, got the class {value.__name__}; create one of it")


def validate_bool(value: Any, name: str) -> bool:
    """Return true or false; numbers and texts are neither.

    >>> validate_bool(True, "refine")
    True

    Args:
        value: that a user passed.
        name: of the option.

    Raises:
        ExtremalTypeError: it is something else.
    """
    if not isinstance(value, bool):
        raise ExtremalTypeError(f"{name} must be True or False, got {format_value(value)}; e.g. {name}=True")
    return value


def validate_callbacks(**callbacks: object) -> None:
    """Check that callbacks can be called, or are left out.

    >>> validate_callbacks(on_image=None, on_rows=print)

    Raises:
        ExtremalTypeError: one is something else.
    """
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise ExtremalTypeError(f"{name} must be a function, got {type(callback).__name__}; leave it out")


def validate_positive(value: Any, name: str, remedy: str = "") -> float:
    """Return a number that is finite and above 0.

    >>> validate_positive(0.5, "rate of path")
    0.5

    Args:
        value: that a user passed.
        name: of the option.
        remedy: how to solve it.

    Raises:
        ExtremalValueError, ExtremalTypeError: it is not.
    """
    number, end = _read_number(value, name, remedy), _format_remedy(remedy)
    if not 0 < number < math.inf:
        raise ExtremalValueError(f"{name} must be above 0 and finite, got {format_value(value)}{end}")
    return number


def validate_between(value: Any, name: str, low: float = 0.0, high: float = math.inf, remedy: str = "") -> float:
    """Return a number that is finite and in [low, high].

    >>> validate_between(1, "momentum of path", high=1.0)
    1.0

    Args:
        value: that a user passed.
        name: of the option.
        low: least value.
        high: largest value.
        remedy: how to solve it.

    Raises:
        ExtremalValueError, ExtremalTypeError: it is not.
    """
    number, end = _read_number(value, name, remedy), _format_remedy(remedy)
    if not (low <= number <= high and number < math.inf):
        rule = f"lie in [{low:g}, {high:g}]" if high < math.inf else f"be at least {low:g} and finite"
        raise ExtremalValueError(f"{name} must {rule}, got {format_value(value)}{end}")
    return number


def _read_number(value: Any, name: str, remedy: str) -> float:
    """Return a real number as a float; infinity if no float holds it."""
    if not is_number(value):
        raise ExtremalTypeError(f"{name} must be a number, got {type(value).__name__}{_format_remedy(remedy)}")
    return _to_float(value)


def _format_remedy(remedy: str) -> str:
    """Return the end of a message."""
    return f"; {remedy}" if remedy else ""


def is_number(value: Any) -> bool:
    """Return whether a value is a real number; true and false are none.

    >>> is_number(2), is_number(True), is_number("2")
    (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def read_numbers(values: Any, name: str, example: str) -> tuple[float, ...]:
    """Return the numbers of a sequence, an array or a tensor of one dimension; each must be finite.

    >>> read_numbers([1, 0.5], "spacing", "(2, 1, 1)")
    (1.0, 0.5)

    Args:
        values: that a user passed.
        name: of the option.
        example: of a right value.

    Raises:
        ExtremalTypeError: it is no sequence of numbers.
        ExtremalValueError: one is not finite.
    """
    plain = _read_sequence(values, is_number, f"{name} must be a sequence of numbers", example)
    numbers = tuple(map(_to_float, plain))
    if not all(map(math.isfinite, numbers)):
        raise ExtremalValueError(f"{name} must have finite values, got {format_value(plain)}; e.g. {example}")
    return numbers


def read_whole_numbers(values: Any, name: str, example: str) -> tuple[int, ...]:
    """Return the whole numbers of a sequence, an array or a tensor of one dimension.

    >>> read_whole_numbers(range(2, 4), "counts", "(1, 2)")
    (2, 3)

    Args:
        values: that a user passed.
        name: of the option.
        example: of a right value.

    Raises:
        ExtremalTypeError: it is no sequence of whole numbers.
    """
    plain = _read_sequence(values, is_whole, f"{name} must be a sequence of whole numbers", example)
    return tuple(value.__index__() for value in plain)


def _read_sequence(values: Any, fits: Callable[[Any], bool], rule: str, example: str) -> Sequence[Any]:
    """Return a sequence unchanged, and an array or tensor as a list, after checking its values."""
    plain = values.tolist() if hasattr(values, "tolist") else values
    is_sequence = isinstance(plain, Sequence) and not isinstance(plain, str)
    if not is_sequence or not all(map(fits, islice(plain, MAX_NUMBERS))):
        raise ExtremalTypeError(f"{rule}, got {format_value(plain)}; e.g. {example}")
    if any(True for _ in islice(plain, MAX_NUMBERS, MAX_NUMBERS + 1)):
        raise ExtremalValueError(f"{rule}, {MAX_NUMBERS:,} at most, got {format_value(plain)}; e.g. {example}")
    found: Sequence[Any] = plain
    return found


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number; true and false are none.

    >>> is_whole(2), is_whole(True), is_whole(2.0)
    (True, False, False)
    """
    if isinstance(value, int):
        return not isinstance(value, bool)
    try:
        operator.index(value)  # arrays and floating tensors have `__index__`, which raises
    except TypeError:
        return False
    return not str(getattr(value, "dtype", "")).endswith("bool")


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
    end = _format_remedy(remedy)
    if not is_whole(value):
        raise ExtremalTypeError(f"{name} must be a whole number, got {format_no_whole(value)}{end or '; e.g. 1'}")
    number: int = value.__index__()
    if number < low:
        raise ExtremalValueError(f"{name} must be at least {low}, got {format_value(number)}{end}")
    if number > high:
        raise ExtremalValueError(f"{name} must be at most {high:,}, got {format_value(number)}{end}")
    return number
