"""Parse option text into values."""

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote


def parse_areas(text: str) -> tuple[float, ...]:
    """Parse numbers separated by commas.

    >>> parse_areas("0.05, 0.1")
    (0.05, 0.1)

    Raises:
        ExtremalValueError: the text is not a list of numbers.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ExtremalValueError(
            f"--areas must be numbers separated by commas, got {quote(text)}; e.g. 0.05,0.1"
        ) from None


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
