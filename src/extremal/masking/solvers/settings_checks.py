"""Checks of the settings of solvers, which are stored as plain numbers: results are saved with them."""

import math
from typing import Any

from extremal.masking.solvers.problem import MAX_COUNT
from extremal.number_checks import validate_between, validate_positive, validate_whole


def read_whole(solver: Any, *names: str, low: int = 1, high: int = MAX_COUNT) -> None:
    """Check settings of a frozen solver that are whole numbers in a range, and store them as such.

    Raises:
        ExtremalValueError, ExtremalTypeError: one is none, or out of range.
    """
    for name in names:
        number = validate_whole(getattr(solver, name), f"{name} of {solver.name}", low, high)
        object.__setattr__(solver, name, number)


def read_positive(solver: Any, *names: str) -> None:
    """Check settings of a frozen solver that are finite and above 0, and store them as plain numbers.

    Raises:
        ExtremalValueError, ExtremalTypeError: one is not.
    """
    for name in names:
        object.__setattr__(solver, name, validate_positive(getattr(solver, name), f"{name} of {solver.name}"))


def read_between(solver: Any, *names: str, low: float = 0.0, high: float = math.inf) -> None:
    """Check settings of a frozen solver that are finite, in [low, high], and store them as plain numbers.

    Raises:
        ExtremalValueError, ExtremalTypeError: one is not.
    """
    for name in names:
        number = validate_between(getattr(solver, name), f"{name} of {solver.name}", low, high)
        object.__setattr__(solver, name, number)
