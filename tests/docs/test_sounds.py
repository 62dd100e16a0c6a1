"""The example of the page on sounds runs as shown, and finds the stretch that it states."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "sounds.md").read_text(encoding="utf-8")


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "sounds.md", "exec"), {"__name__": "sounds"})
    verdicts, begin, end = re.fullmatch(r"(\(.*\)) (\d\.\d\d) to (\d\.\d\d) s\n", capsys.readouterr().out).groups()
    assert re.findall(r"label='([a-z ]+)'", verdicts) == ["insufficient", "sufficient"]
    assert (float(begin), float(end)) == pytest.approx((0.5, 0.8), abs=0.03)
