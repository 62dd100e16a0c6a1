"""The errors of this package: each names the rule, the value received and the remedy."""

from importlib.util import find_spec


class ExtremalError(Exception):
    """Base of every error that this package raises on purpose."""


class ExtremalValueError(ExtremalError, ValueError):
    """A value outside what the rule allows."""


class ExtremalTypeError(ExtremalError, TypeError):
    """An object of a kind that the rule does not allow."""


class NoEffectError(ExtremalValueError):
    """A score that is the same whether the input is whole or destroyed, so that no region of it can matter."""


class Notice(UserWarning):
    """Something to know about a network or a run, which needs no action."""


class NetworkError(ExtremalError, RuntimeError):
    """A network that failed in the middle of a run, after it had been evaluated without an error."""


class MissingDependencyError(ExtremalError, ImportError):
    """An optional dependency that is not installed."""


def check_installed(*packages: str, purpose: str, extra: str) -> None:
    """Raise if an optional dependency is not installed.

    >>> check_installed("json", purpose="this example", extra="example")

    Args:
        packages: names under which they are imported.
        purpose: what requires them.
        extra: of this package, that installs them.

    Raises:
        MissingDependencyError: one of them is not installed.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingDependencyError(
            f"{purpose} must have {', '.join(packages)}, {', '.join(missing)} {verb} not installed; "
            f"pip install 'extremal[{extra}]'"
        )
