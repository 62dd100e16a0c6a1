"""The reference is what the source says, and leaves no public name out."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

import extremal
from extremal import baselines, scores, solvers
from extremal.benchmark import metrics

ROOT = Path(__file__).parents[2]
WRITER: dict[str, Any] = runpy.run_path(str(ROOT / "examples" / "api_page.py"))
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def test_the_page_is_up_to_date() -> None:
    assert WRITER["page"]() == PAGE, "run: python examples/api_page.py"


@pytest.mark.parametrize("module", [extremal, scores, solvers, baselines, metrics])
def test_every_public_name_has_an_entry(module: Any) -> None:
    part = re.split(rf"^`{module.__name__}`: .*$", PAGE, flags=re.MULTILINE)[1].partition("\n## ")[0]
    assert {*re.findall(r"^### `(\w+)`$", part, re.MULTILINE)} == {*module.__all__} - {"zoo"}


def test_an_entry_has_signature_sentence_arguments_and_result() -> None:
    entry = PAGE.partition("### `cell_mask`\n")[2].partition("\n###")[0]
    assert "cell_mask(cell: int, side: int, shape: tuple[int, int]) -> Tensor" in entry
    entry = PAGE.partition("### `layers`\n")[2].partition("\n###")[0]
    assert "\nlayers(network: Network | nn.Module | str, image: Input | None = None) -> tuple[Layer, ...]\n" in entry
    assert "\nThe modules of a network in the order in which they finish, and whether it can be split there.\n" in entry
    assert "\n- `network`: as `explain` takes it.\n" in entry
    entry = PAGE.partition("### `explain`\n")[2].partition("\n###")[0]
    assert "\n    areas: Sequence[float] = AREAS,\n" in entry
    assert "\nReturns: An `Explanation` of N inputs at A areas, on the CPU." in entry


def test_no_star_is_read_as_emphasis() -> None:
    assert WRITER["escaped"]("masks (N, *S) of `*args` and y_c") == r"masks (N, \*S) of `*args` and y\_c"


def test_a_name_that_is_nowhere_is_told() -> None:
    with pytest.raises(LookupError, match=r"^extremal\.games\.no_such is defined nowhere$"):
        WRITER["home"]("extremal.games", "no_such")
