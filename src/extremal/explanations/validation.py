"""Rules of numbers among the options: each function returns the validated value or raises; nothing imports torch."""

import warnings
from collections.abc import Sequence
from itertools import islice, pairwise

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.number_checks import (
    format_no_whole,
    format_value,
    is_whole,
    read_whole_numbers,
    validate_between,
    validate_positive,
)

MIN_AREA = 1e-7  # share of places
MAX_AREAS = 100  # of one run
MIN_AREA_STEP = 1e-8  # results are found by their area
MAX_ALTERNATIVES = 16  # explanations of one input, each of which costs a run of its own


def validate_areas(areas: Sequence[float], *, stacklevel: int = 3) -> tuple[float, ...]:
    """Return the areas sorted, with a warning if they were not.

    >>> validate_areas([0.1, 0.2])
    (0.1, 0.2)
    """
    try:
        values = tuple(float(area) for area in islice(areas, MAX_AREAS + 1))
    except (TypeError, ValueError, OverflowError):
        raise ExtremalTypeError(
            f"areas must be a sequence of numbers, got {format_value(areas)}; e.g. (0.05, 0.1)"
        ) from None
    if not values:
        raise ExtremalValueError("areas must name at least one area, got none; e.g. (0.05, 0.1)")
    for area in values:
        if not 0 < area < 1:
            raise ExtremalValueError(
                f"areas must lie in (0, 1), got {area:g}; an area is the share of places kept, e.g. 0.05 or 5%"
            )
    if min(values) < MIN_AREA:
        raise ExtremalValueError(
            f"areas must be at least {MIN_AREA:g}, since smaller ones keep no place of any input, got {min(values):g}; "
            "e.g. 0.01"
        )
    if len(set(values)) < len(values):
        twice = next(area for area in values if values.count(area) > 1)
        raise ExtremalValueError(f"areas must be distinct, got {twice:g} twice; leave one out")
    if len(values) > MAX_AREAS:
        raise ExtremalValueError(
            f"areas must be at most {MAX_AREAS}, since each takes memory and time, got more; leave some out"
        )
    close = next((pair for pair in pairwise(sorted(values)) if pair[1] - pair[0] < MIN_AREA_STEP), None)
    if close is not None:
        raise ExtremalValueError(
            f"areas must differ by at least {MIN_AREA_STEP:g}, got {close[0]!r} and {close[1]!r}; leave one out"
        )
    if list(values) != sorted(values):
        message = f"areas were sorted: {', '.join(f'{a:g}' for a in sorted(values))}"
        warnings.warn(message, UserWarning, stacklevel=stacklevel)
    return tuple(sorted(values))


def validate_alternatives(alternatives: int) -> int:
    """Return a number of explanations that can be searched for.

    >>> validate_alternatives(3)
    3
    """
    if not is_whole(alternatives):
        raise ExtremalTypeError(f"alternatives must be a whole number, got {format_no_whole(alternatives)}; e.g. 3")
    if not 1 <= alternatives.__index__() <= MAX_ALTERNATIVES:
        raise ExtremalValueError(
            f"alternatives must lie in 1..{MAX_ALTERNATIVES}, got {format_value(alternatives.__index__())}; "
            "each costs as much as a run of its own"
        )
    return alternatives.__index__()


def validate_channel_counts(counts: Sequence[int]) -> tuple[int, ...]:
    """Return numbers of channels, rising; whether a layer has so many is checked with its network.

    >>> validate_channel_counts((4, 1))
    (1, 4)
    """
    values = read_whole_numbers(counts, "counts", "(1, 4, 16)")
    if not values:
        raise ExtremalValueError("counts must name at least one count, got none; e.g. (1, 4, 16)")
    if min(values) < 1:
        raise ExtremalValueError(f"counts must be at least 1, got {format_value(min(values))}; e.g. (1, 4, 16)")
    if len(set(values)) < len(values):
        duplicate = next(count for count in values if values.count(count) > 1)
        raise ExtremalValueError(f"counts must be distinct, got {format_value(duplicate)} twice; leave one out")
    return tuple(sorted(values))


def validate_seed(seed: int) -> int:
    """Return a seed that every random generator takes.

    >>> validate_seed(7)
    7
    """
    if not is_whole(seed):
        raise ExtremalTypeError(f"seed must be a whole number, got {format_no_whole(seed)}; e.g. 0")
    if not 0 <= seed.__index__() < 2**32:
        raise ExtremalValueError(f"seed must lie in 0..2**32 - 1, got {format_value(seed.__index__())}; e.g. 0")
    return seed.__index__()


def validate_share(share: float) -> float:
    """Return a share of the whole effect.

    >>> validate_share(0.9)
    0.9
    """
    return validate_positive(share, "share", "it is a fraction of the effect, e.g. 0.9")


def validate_image(image: int, count: int) -> int:
    """Return the index of one of `count` inputs.

    >>> validate_image(0, 2)
    0
    """
    if not is_whole(image):
        raise ExtremalTypeError(f"image must be a whole number, got {format_no_whole(image)}; e.g. 0")
    if not 0 <= image.__index__() < count:
        raise ExtremalValueError(f"image must lie in 0..{count - 1} for {count} inputs, got {format_value(image)}")
    return image.__index__()


def validate_smooth(smooth: float) -> float:
    """Return the deviation of a Gaussian as a share of the short side.

    >>> validate_smooth(0.09)
    0.09
    """
    return validate_between(smooth, "smooth", high=1.0, remedy="e.g. 0.09")
