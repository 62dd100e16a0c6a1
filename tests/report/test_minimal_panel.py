"""The part of a report about a minimal region: outlines, numbers of pieces, effects; the sentence."""

import math
import re

import pytest
import torch
from torch import Tensor

from extremal import MinimalRegion, report
from extremal.report.channel_page import minimal_set_sentence
from extremal.report.minimal_panel import (
    MAX_LISTED_PIECES,
    build_channel_panel,
    build_panel,
    minimal_sentence,
    outline_path,
)
from support import synthetic
from support.pages import Page, check_nothing_from_elsewhere

SHAPE = (48, 64)


def region(pieces: Tensor, **changes: object) -> MinimalRegion:
    count = int(pieces.max())
    mask = (pieces > 0).float().unsqueeze(0)
    values = {
        "mask": mask,
        "area": float(mask.mean()),
        "effects": {"blur": 0.93},
        "unseen_effect": 0.7,
        "pieces": pieces,
        "without": tuple(k / count for k in range(count)),
        "unseen_without": (*(math.nan for _ in range(count - 1)), 0.25),
        "is_minimal": True,
        "is_finest": True,
        "evaluations": 1212,
        "budget": 2000,
        "start_area": 0.2,
        "share": 0.9,
    }
    return MinimalRegion(**{**values, **changes})  # type: ignore[arg-type]


def two_pieces() -> Tensor:
    pieces = torch.zeros(SHAPE, dtype=torch.int64)
    pieces[10:20, 8:18], pieces[10:20, 18:24] = 1, 2
    return pieces


def fill(path: str, shape: tuple[int, int]) -> Tensor:
    """Return which edges of pixels a path draws, as the number of edges around each pixel (H, W)."""
    above, left = torch.zeros(shape[0] + 1, shape[1]), torch.zeros(shape[0], shape[1] + 1)
    for x, y, direction, end in re.findall(r"M(\d+) (\d+)([HV])(\d+)", path):
        if direction == "H":
            above[int(y), int(x) : int(end)] += 1
        else:
            left[int(y) : int(end), int(x)] += 1
    return above[:-1] + above[1:] + left[:, :-1] + left[:, 1:]


def test_borders_are_the_edges_between_labels() -> None:
    labels = torch.randint(0, 3, (9, 7), generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(labels, (1, 1, 1, 1))
    inside = padded[1:-1, 1:-1]
    others = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    assert torch.equal(fill(outline_path(labels), (9, 7)), sum((inside != other).float() for other in others))
    assert outline_path(torch.zeros(4, 4, dtype=torch.int64)) == ""


def test_the_page_shows_pieces_and_effects() -> None:
    source = report.render(synthetic.explanation(), minimal=region(two_pieces()))
    page = Page(source)
    check_nothing_from_elsewhere(source, page, own="url(#plot-area)")
    assert "A region that cannot lose a piece" in page.words
    assert "1-minimal: none of its 2 pieces can go (1,212 evaluations)." in page.words
    paths = [attributes["d"] for tag, attributes in page.elements if tag == "path"]
    assert paths == [outline_path(two_pieces())] * 2
    labels = [(a["x"], a["y"]) for tag, a in page.elements if tag == "text" and "font-size" in a]
    assert len(labels) == 2
    for number, (x, y) in enumerate(labels, start=1):
        assert two_pieces()[int(float(y or 0)), int(float(x or 0))] == number
    assert re.search(r"1 3.26\s% 0\s% – 2 1.95\s% 50\s% 25\s%", page.words)


def test_a_page_without_one_has_no_panel() -> None:
    assert "cannot lose a piece" not in report.render(synthetic.explanation())


def test_an_input_that_is_no_image_has_a_table_only() -> None:
    explanation = synthetic.explanation(shape=(48,), pictures=False)
    pieces = torch.zeros(48, dtype=torch.int64)
    pieces[3:9] = 1
    page = Page(report.render(explanation, minimal=region(pieces)))
    assert not [tag for tag, _ in page.elements if tag == "image"]
    assert "its only piece cannot go" in page.words


def test_many_pieces_are_not_all_listed() -> None:
    pieces = torch.arange(48 * 64).view(SHAPE).clamp_max(40)
    panel = build_panel(region(pieces), synthetic.explanation())
    assert len(panel.rows) == len(panel.numbers) == MAX_LISTED_PIECES
    assert panel.hidden == 40 - MAX_LISTED_PIECES


class TestSentence:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({}, "1-minimal: none of its 2 pieces can go (1,212 evaluations)"),
            (
                {"is_finest": False},
                "1-minimal: none of its 2 pieces can go (1,212 evaluations; the budget of 2,000 ended before smaller "
                "pieces were tried)",
            ),
            (
                {"is_minimal": False, "is_finest": False},
                "not shown to be 1-minimal: the budget of 2,000 evaluations ended with 2 pieces left",
            ),
        ],
    )
    def test_region(self, changes: dict[str, object], reason: str) -> None:
        assert minimal_sentence(region(two_pieces(), **changes)).replace("\xa0", " ") == (
            "Minimal region: 5.21 %, reduced from 20 %, has 93 % of the effect, 70 % under unseen perturbations; "
            f"{reason}."
        )

    def test_none(self) -> None:
        assert minimal_sentence(None) == (
            "Minimal region: none of the computed areas is sufficient under all perturbations."
        )

    def test_channels(self) -> None:
        pieces = torch.tensor([0, 2, 0, 1, 2])
        found = region(pieces, unseen_effect=None)
        sentence = minimal_set_sentence(found)
        assert sentence.replace("\xa0", " ") == (
            "Minimal set: 3 of 5 channels (1, 3, 4) with 93 % of the effect; 1-minimal: none of its 2 pieces can go "
            "(1,212 evaluations)."
        )
        panel = build_channel_panel(found, sentence)
        assert [(row.number, row.size) for row in panel.rows] == [(1, "3"), (2, "1, 4")]
        assert not panel.has_unseen
        assert minimal_set_sentence(None).startswith("Minimal set: none of the sets that were found is sufficient")
