"""Numbers in words for a terminal, where a line may break at any space."""

SHORT = 10.0  # s, below which a duration is given with two digits


def duration(seconds: float) -> str:
    """Format a time in seconds, minutes or hours, depending on its length.

    >>> duration(0.34), duration(99.9), duration(90000)
    ('0.34 s', '100 s', '25.0 h')
    """
    from extremal.report.text import duration as format_duration

    return f"{seconds:.2g} s" if seconds < SHORT else format_duration(seconds).replace("\xa0", " ")
