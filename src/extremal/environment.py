"""Environment variables that are set inside a `with`."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def changed_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the `with`, and restore their previous values on exit.

    >>> os.environ["EXTREMAL_EXAMPLE"] = "outside"
    >>> with changed_environment({"EXTREMAL_EXAMPLE": "inside"}):
    ...     os.environ["EXTREMAL_EXAMPLE"]
    'inside'
    >>> os.environ.pop("EXTREMAL_EXAMPLE")
    'outside'
    """
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
