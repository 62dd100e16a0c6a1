"""The reference page is up to date and contains every public name."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WRITER: dict[str, Any] = runpy.run_path(str(ROOT / "examples" / "api_page.py"))
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
MODULES = {
    f"extremal.{name}"
    for name in (
        *("baselines", "benchmark", "export", "games", "jobs", "perturbations", "plots", "report", "scores", "solvers"),
        "zoo",
    )
}


def test_page_is_up_to_date() -> None:
    assert WRITER["build_page"]() == PAGE, "run: python examples/api_page.py"


@pytest.mark.parametrize(
    "module",
    [
        "extremal",
        "extremal.scores",
        "extremal.solvers",
        "extremal.baselines",
        "extremal.benchmark.metrics",
        "extremal.jobs",
    ],
)
def test_every_public_name_has_an_entry(module: str) -> None:
    part = re.split(rf"^`{module}`: .*$", PAGE, flags=re.MULTILINE)[1].partition("\n## ")[0]
    entries = re.findall(rf"^### `{module}\.(\w+)`$", part, re.MULTILINE)
    public = {name for name in WRITER["load_module"](module).__all__ if f"{module}.{name}" not in MODULES}
    assert {*entries} == public


def test_an_entry_has_signature_sentence_arguments_and_result() -> None:
    entry = PAGE.partition("### `extremal.benchmark.metrics.cell_mask`\n")[2].partition("\n###")[0]
    assert "cell_mask(cell: int, side: int, shape: tuple[int, int]) -> Tensor" in entry
    entry = PAGE.partition("### `extremal.layers`\n")[2].partition("\n###")[0]
    assert (
        "\nlayers(network: Network | nn.Module | str, image: ImagesLike | None = None) -> tuple[Layer, ...]\n" in entry
    )
    assert (
        "\nList the modules of a network in the order in which they finish, and whether it can be split at each.\n"
        in entry
    )
    assert "\n- `network`: as in `explain`.\n" in entry
    entry = PAGE.partition("### `extremal.explain`\n")[2].partition("\n###")[0]
    assert "\n    areas: Sequence[float] = AREAS,\n" in entry
    assert "\nReturns: An `Explanation` of N inputs at A areas, on the CPU." in entry


def test_stars_outside_code_are_escaped() -> None:
    assert WRITER["escape"]("masks (N, *S) of `*args` and y_c") == r"masks (N, \*S) of `*args` and y\_c"


def test_an_undefined_name_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"^extremal\.masking\.games\.no_such has no definition$"):
        WRITER["find_definition"]("extremal.masking.games", "no_such")


def test_modules_are_shown_by_public_path() -> None:
    assert "### `extremal.solvers.Path`\n" in PAGE
    assert "extremal.masking.solvers" not in PAGE
