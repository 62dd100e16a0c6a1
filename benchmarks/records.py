"""Records of measurements: one JSON object per line, appended as soon as it is known."""

import json
import re
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
    """Write lines between `<!-- mark -->` and `<!-- /mark -->` of a page, and print which."""
    text = replace_table(page.read_text(encoding="utf-8"), mark, "\n".join(lines))
    page.write_text(text, encoding="utf-8")
    print(f"{page}: {mark}")


def replace_table(text: str, mark: str, table: str) -> str:
    """Return the text of a page with a table between `<!-- mark -->` and `<!-- /mark -->`."""
    found, count = re.subn(
        rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)",
        lambda match: f"{match[1]}{table.rstrip()}\n{match[2]}",
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit(f"the page must have one place for {mark!r}, it has {count}")
    return found
