"""Shares and areas in percent, for lines of text."""

import math


def format_percent(share: float, digits: int = 0) -> str:
    """Format a share in percent with a fixed number of decimals.

    >>> format_percent(0.947), format_percent(-0.35), format_percent(-0.001), format_percent(0.947, 1)
    ('95 %', '−35 %', '0 %', '94.7 %')
    >>> format_percent(math.nan)
    'not finite'
    """
    if not math.isfinite(share):
        return "not finite"
    text = f"{100 * share:.{digits}f}"
    return f"{text.removeprefix('-') if float(text) == 0 else text} %".replace("-", "−")


def format_short_percent(share: float) -> str:
    """Format a share in percent with at most three significant digits, as areas need.

    >>> format_short_percent(0.025), format_short_percent(-1.118), format_short_percent(math.nan)
    ('2.5 %', '−112 %', 'not finite')
    """
    return f"{100 * share:.3g} %".replace("-", "−") if math.isfinite(share) else "not finite"
