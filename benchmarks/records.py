"""What the benchmarks have measured: one JSON object a line, appended as soon as it is known."""

import json
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def read(path: Path) -> list[dict[str, Any]]:
    """Every row so far, the oldest first."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a row, and the day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, "day": time.strftime("%Y-%m-%d")}) + "\n")
