"""The errors of this package: each names the rule, the value received and the remedy."""


class ExtremalError(Exception):
    """Base of every error that this package raises on purpose."""


class ExtremalValueError(ExtremalError, ValueError):
    """A value outside what the rule allows."""


class ExtremalTypeError(ExtremalError, TypeError):
    """An object of a kind that the rule does not allow."""
