"""Answers token by token: each planted place is found, and tokens that do not need the picture are named."""

from dataclasses import replace
from pathlib import Path

import pytest

from extremal import AnswerTokens, explain, explain_tokens
from extremal.errors import ExtremalTypeError, ExtremalValueError, NoEffectError
from extremal.scores import Answer
from extremal.tensor_files import FormatError
from support.toys import overlap
from support.vlm_toys import ANSWER, BUS_AT, PROMPT, place_mask, planted_network, planted_picture

pytestmark = pytest.mark.usefixtures("one_thread")
AREA = float(place_mask(BUS_AT).mean())
AREAS = (AREA, 0.3)


@pytest.fixture(scope="module")
def found() -> AnswerTokens:
    return explain_tokens(planted_network(), planted_picture(), Answer(prompt=PROMPT), areas=AREAS)


def test_the_models_own_answer_is_split_into_tokens(found: AnswerTokens) -> None:
    assert (found.answer, found.prompt, found.texts) == (ANSWER, PROMPT, ("a", "red", "bus"))
    assert found.dependent == (2,)
    assert found.whole.target_names == (f'answer "{ANSWER}" to "{PROMPT}"',)
    assert found.each.target_names == (f'token 2 of answer "{ANSWER}" to "{PROMPT}"',)


def test_the_place_of_a_token_is_found_and_that_of_another_is_not_made_up(found: AnswerTokens) -> None:
    for region in (found.smallest(), found.smallest(2)):
        assert region is not None
        assert region.verdict.label == "sufficient"
        assert region.region.area == AREA
        assert overlap(region.region.mask[0], place_mask(BUS_AT)) >= 0.6
    assert found.smallest(0) is None
    with pytest.raises(ExtremalValueError, match=r"token must lie in 0\.\.2, got 3"):
        found.smallest(3)


def test_a_token_is_explained_as_by_itself(found: AnswerTokens) -> None:
    alone = explain(planted_network(), planted_picture(), Answer(ANSWER, PROMPT, token=2), areas=AREAS)
    assert overlap(found.each.binary(AREA)[0, 0], alone.binary(AREA)[0, 0]) == 1
    assert found.each.verdict == alone.verdict


def test_a_saved_result_is_the_same(found: AnswerTokens, tmp_path: Path) -> None:
    found.save(tmp_path / "tokens.safetensors")
    assert AnswerTokens.load(tmp_path / "tokens.safetensors") == found


@pytest.mark.parametrize(
    "change", [{"dependent": (0, 2)}, {"dependent": (3,)}, {"texts": ("a", 1, "b")}, {"texts": ("a",)}]
)
def test_parts_that_do_not_fit_are_refused(found: AnswerTokens, tmp_path: Path, change: dict[str, object]) -> None:
    replace(found, **change).save(tmp_path / "tokens.safetensors")  # type: ignore[arg-type]
    with pytest.raises(ExtremalValueError, match="the tokens of an answer"):
        AnswerTokens.load(tmp_path / "tokens.safetensors")
    with pytest.raises(FormatError):
        replace(found, **change)._check()  # type: ignore[arg-type]


def test_an_answer_without_a_token_that_depends_on_the_picture_is_refused() -> None:
    with pytest.raises(NoEffectError, match="a score must change when the input is destroyed"):
        explain_tokens(planted_network(), planted_picture(), Answer("a", PROMPT), areas=AREAS)


def test_bad_input() -> None:
    with pytest.raises(ExtremalTypeError, match=r"must be a scores\.Answer without a token"):
        explain_tokens(planted_network(), planted_picture(), Answer(ANSWER, PROMPT, token=1))
    with pytest.raises(ExtremalTypeError, match="got alternatives=2"):
        explain_tokens(planted_network(), planted_picture(), Answer(ANSWER, PROMPT), alternatives=2)


def test_progress_names_the_tokens() -> None:
    stages = []
    explain_tokens(
        *(planted_network(), planted_picture(), Answer(ANSWER, PROMPT)),
        areas=(AREA,),
        on_part=lambda stage, done, total: stages.append((stage, done <= total)),
    )
    assert {stage.split(",")[0] for stage, _ in stages} == {"answer", "bus (3 of 3)"}
    assert all(fits for _, fits in stages)
