"""Ranges of the numbers that tasks take, checked before a run has a folder; nothing here imports torch."""

import math

from extremal.number_checks import validate_between

_RANGES = {  # largest value, and remedy; the least is 0
    "tolerance": (math.inf, "it is in px of the image, e.g. 15"),
    "smooth": (1.0, "it is in short sides, e.g. 0.09"),
    "confidence": (1.0, "it is a probability, e.g. 0.9"),
}


def check_numbers(**numbers: float) -> None:
    """Check numbers of tasks by their names.

    >>> check_numbers(tolerance=15, smooth=0.09)

    Raises:
        ExtremalValueError, ExtremalTypeError: one is not finite, or out of range.
    """
    for name, value in numbers.items():
        high, remedy = _RANGES[name]
        validate_between(value, name, high=high, remedy=remedy)
