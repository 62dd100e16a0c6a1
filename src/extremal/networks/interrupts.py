"""Restoring that an interrupt does not cut short."""

from collections.abc import Callable


def complete(restore: Callable[[], None]) -> None:
    """Call a function that restores something; if Ctrl-C interrupts it, call it once more, and then interrupt.

    Args:
        restore: may be called again after it was interrupted.
    """
    try:
        restore()
    except KeyboardInterrupt:
        restore()
        raise
