"""The report of an answer token by token: every token, safe against any text, nothing from elsewhere."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from extremal import AnswerTokens
from extremal.report.text import RANDOM_WEIGHTS
from extremal.report.tokens_page import headline, list_views, render, tokens_record, write_tokens
from support.made_tokens import answer_tokens
from support.pages import NASTY, Page, check_self_contained


@pytest.mark.parametrize("pictures", [True, False])
def test_the_page_is_self_contained(pictures: bool) -> None:
    source = render(answer_tokens(pictures=pictures), source="bus.png")
    page = Page(source)
    check_self_contained(source, page)
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == (4 if pictures else 0)
    assert all(attributes["alt"] for attributes in images)
    inputs = [attributes for tag, attributes in page.elements if tag == "input"]
    assert [attributes["value"] for attributes in inputs] == ["answer", "token-1", "token-2", "token-3"]
    assert ["checked" in attributes for attributes in inputs] == [True, False, False, False]


def test_all_tokens_are_described() -> None:
    result = answer_tokens()
    views, words = list_views(result), Page(render(result)).words
    assert headline(result) == "2 of 3 tokens depend on the picture; 40\u00a0% of it is enough for the whole answer."
    assert headline(result) in words
    assert "What is it?" in words
    assert [view.depends for view in views] == [True, False, True, True]
    assert views[1].sentence == "Its probability is the same without the picture."
    for view in views:
        assert view.sentence in words
        if view.found:
            found = result.smallest(None if view.kind == "answer" else int(view.kind[-1]) - 1)
            assert found is not None
            assert (view.found.region.area, view.found.verdict) == (found.region.area, found.verdict)
            assert view.verdict in words


def test_no_computed_area_is_enough() -> None:
    result = answer_tokens(binary_scores=0 * answer_tokens().whole.binary_scores)
    small = AnswerTokens(result.whole, answer_tokens().each, "a red bus", "", ("a", "red", "bus"), (1, 2))
    assert headline(small).endswith("none of the computed areas is enough for the whole answer.")
    assert list_views(small)[0].verdict == "insufficient"
    assert "None of the computed areas up to 40\u00a0%" in Page(render(small)).words


def test_an_answer_that_nothing_supports_is_suspect() -> None:
    result = answer_tokens(score_blank=answer_tokens().whole.score_full + 1)
    view = list_views(AnswerTokens(result.whole, answer_tokens().each, "a red bus", "", ("a", "red", "bus"), (1, 2)))[0]
    assert view.label == "suspect"
    assert view.verdict.startswith("suspect: destroying the whole input raises the score")


def test_texts_of_tokens_are_escaped() -> None:
    source = render(answer_tokens(NASTY, NASTY), source=NASTY)
    assert "<script>alert(1)" not in source
    assert "<img src=x" not in source
    assert "{{ 7 * 7 }}" in Page(source).words
    check_self_contained(source, Page(source))


def test_files_and_record(tmp_path: Path) -> None:
    result = answer_tokens()
    files = write_tokens(result, tmp_path / "out", "bus.png")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "tokens.safetensors",
        "report.html",
        "region-answer.png",
        "region-token-2.png",
        "region-token-3.png",
    }
    assert AnswerTokens.load(files["explanation"]) == result
    write_tokens(result, tmp_path / "out", "bus.png")  # replaces a previous result
    record = json.loads(json.dumps(tokens_record("bus.png", result, files)))
    assert [token["text"] for token in record["tokens"]] == ["a", "red", "bus"]
    assert [token["depends"] for token in record["tokens"]] == [False, True, True]
    assert record["tokens"][0]["region"] is None
    assert record["tokens"][2]["region"]["verdict"]["label"] == "sufficient"


def test_random_weights_are_named() -> None:
    result = answer_tokens()
    whole = replace(result.whole, settings={**result.whole.settings, "random_weights": True})
    words = Page(render(replace(result, whole=whole))).words
    assert RANDOM_WEIGHTS in words
    assert "(random weights)" in words
