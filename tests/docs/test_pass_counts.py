"""The numbers of passes that pages state are those of the solvers."""

from pathlib import Path

import pytest

from extremal.masking.solvers.consensus import Consensus, count_consensus_passes

DOCS = Path(__file__).parents[2] / "docs"
SCALES = Consensus().scales


def count(areas: int, *, mirror: bool = True, scales: tuple[float, ...] = SCALES) -> tuple[int, int, float, float]:
    return tuple(count_consensus_passes(Consensus(), areas, mirror, ways=3, scales=scales))


@pytest.mark.parametrize("areas", [4, 5, 6, 7])
def test_formulas_hold(areas: int) -> None:
    assert count(areas)[:2] == (18 + 11 * areas, 12 * areas - 9)
    assert count(areas, scales=())[0] == 24 + 15 * areas
    assert count(areas, mirror=False)[0] == 9 + 11 * areas
    assert count(areas, mirror=False, scales=())[0] == 12 + 15 * areas


@pytest.mark.parametrize(
    ("page", "texts"),
    [
        ("solver.md", ("| a run | 18 + 11·A (73 at five),", "| 12·A − 9 (51),", "| 24 + 15·A | 12·A − 9 |")),
        ("theory.md", ("18 + 11·A forward-backward and 12·A − 9 forward passes", "24 + 15·A where")),
        ("doctor.md", ("12 + 15·A forward-backward passes (24 + 15·A", "12·A − 9", "9 + 11·A (18 + 11·A)")),
        ("choosing.md", ("Each area costs 11 more forward-backward passes and 12\nforward passes, and 15 and 12",)),
    ],
)
def test_pages_state_them(page: str, texts: tuple[str, ...]) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for stated in texts:
        assert stated in text


def test_the_cost_of_an_image_is_that_of_five_areas() -> None:
    gradients, forwards, gradient_inputs, _ = count(5)
    text = (DOCS / "scale.md").read_text(encoding="utf-8")
    assert f"| forward and backward | {gradients} | 0 |" in text
    assert f"| forward only | {forwards + 10} | up to 79 |" in text, "10 prepare the run"
    assert f"| network | {gradients} inputs forward and backward (as much as {gradient_inputs:.0f} of their" in text
