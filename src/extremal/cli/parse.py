"""Parse option text into values."""

from decimal import Decimal

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote


def parse_areas(text: str) -> tuple[float, ...]:
    """Parse numbers separated by commas, each a fraction or a percentage.

    >>> parse_areas("0.05, 0.1"), parse_areas("5%, 10 %")
    ((0.05, 0.1), (0.05, 0.1))

    Raises:
        ExtremalValueError: the text is not a list of numbers.
    """
    try:
        return tuple(_parse_share(part.strip()) for part in text.split(","))
    except ValueError:
        raise ExtremalValueError(
            f"--areas must be numbers separated by commas, got {quote(text)}; e.g. 0.05,0.1 or 5%,10%"
        ) from None


def _parse_share(text: str) -> float:
    """Return a number, or a percentage as a fraction: that of its decimal digits, so that 5% is 0.05."""
    if not text.endswith("%"):
        return float(text)
    percents = text.removesuffix("%").strip()
    float(percents)  # of the same form as other numbers
    try:
        return float(Decimal(percents) / 100)
    except ArithmeticError:
        raise ValueError(text) from None


def parse_perturbation(text: str) -> str | tuple[str, ...]:
    """Parse the name of a perturbation, or several separated by commas.

    >>> parse_perturbation("blur"), parse_perturbation("blur, fade")
    ('blur', ('blur', 'fade'))
    """
    names = tuple(part.strip() for part in text.split(","))
    return names if len(names) > 1 else text


def parse_counts(text: str) -> tuple[int, ...] | None:
    """Parse whole numbers separated by commas; None if the text is empty.

    >>> parse_counts("4, 16"), parse_counts("")
    ((4, 16), None)

    Raises:
        ExtremalValueError: the text is not a list of whole numbers.
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else None
    except ValueError:  # no numbers, or numbers of thousands of digits
        raise ExtremalValueError(
            f"--counts must be whole numbers separated by commas, got {quote(text)}; e.g. 4,16"
        ) from None
