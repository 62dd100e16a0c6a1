"""Numbers that a page cites from the pages of measurements are those that were measured."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBER = r"\d+(?:\.\d+)?"


@pytest.fixture(scope="module")
def measured() -> set[str]:
    """The numbers of the pages of measurements, as they are and with two decimals."""
    text = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("performance.md", "evaluation.md"))
    numbers = {*re.findall(NUMBER, text)}
    return numbers | {f"{float(number):.2f}" for number in numbers}


@pytest.mark.parametrize(("page", "count"), [("docs/comparison.md", 3), ("README.md", 1)])
def test_numbers_of_a_comparison_are_measured_ones(page: str, count: int, measured: set[str]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    tables = re.findall(r"<!-- cited -->\n(.*?)<!-- /cited -->", text, re.DOTALL)
    assert len(tables) == count
    for table in tables:
        rows = "\n".join(table.splitlines()[2:])
        assert {*re.findall(NUMBER, rows)} <= measured, table
