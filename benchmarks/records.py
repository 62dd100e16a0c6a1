"""Records of measurements: one JSON object per line, appended as soon as it is known."""

import json
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def read(path: Path) -> list[dict[str, Any]]:
    """Return all rows, the oldest first."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def append(path: Path, row: dict[str, Any]) -> None:
    """Append a row with the date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, "day": time.strftime("%Y-%m-%d")}) + "\n")


def write_table(page: Path, mark: str, lines: list[str]) -> None:
    """Write a table between `<!-- mark -->` and `<!-- /mark -->` of a page, and print its number of rows."""
    head, _, rest = page.read_text(encoding="utf-8").partition(f"<!-- {mark} -->\n")
    _, _, tail = rest.partition(f"<!-- /{mark} -->")
    page.write_text(f"{head}<!-- {mark} -->\n" + "\n".join(lines) + f"\n<!-- /{mark} -->{tail}", encoding="utf-8")
    print(f"{page}: {len(lines) - 2} rows")
