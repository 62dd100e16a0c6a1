"""Runs over data sets: a table that grows row by row, survives its processes, and gives explanations back."""

from importlib import import_module
from typing import Any

_HOMES = {
    "Comparison": "comparing",
    "Standing": "standing",
    "Summary": "summing",
    "compare": "comparing",
    "explanation": "reading",
    "rebuilt": "rebuilding",
    "run": "running",
    "settings": "reading",
    "status": "standing",
    "summary": "summing",
    "table": "reading",
}
__all__ = [*_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'extremal.jobs' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"extremal.jobs.{_HOMES[name]}"), name)
    return value
