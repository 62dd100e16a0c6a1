"""Calls of `extremal explain` in this process."""

from pathlib import Path

from support import terminal

RESULT_FILES = ["explanation.safetensors", "figure.png", "mask-0.1.png", "mask-0.2.png", "report.html"]


def call(*arguments: str, areas: str = "0.1,0.2") -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of `extremal explain`."""
    return terminal.call("explain", "--areas", areas, *arguments)


def list_names(folder: Path) -> list[str]:
    """Return the sorted names of a folder's entries."""
    return sorted(entry.name for entry in folder.iterdir())
