"""The evidence in words: each answer follows the rule of the verdict, and names its numbers."""

import math
from dataclasses import replace

import pytest

from extremal import report
from extremal.explanations.verdict import Status, reach_verdict
from extremal.report.evidence_text import answer_questions
from extremal.report.text import AreaRow
from support import synthetic
from support.pages import Page

GOOD = AreaRow(0.1, 0.1, 5, 3.0, 1.0, 0.95, 0.8, 0.1, 0.3, 8, reach_verdict(1.0, 0.95, [0.8], [0.3]), "converged")


def passed(row: AreaRow, keeps: bool = True) -> list[bool | None]:
    return [answer.passed for answer in answer_questions(row, keeps, ("black", "white"))]


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({}, []),
        ({"binary": 0.89, "soft": 0.95}, [0]),
        ({"control_best": 0.91}, [1]),
        ({"unseen": 0.44}, [2]),
        ({"soft": 2.0, "binary": 0.6}, [0, 3]),
        ({"stable_iou": 0.4, "core_share": 0.5}, [4]),
        ({"stable_iou": 0.6, "core_share": 0.3}, [4]),
        ({"stable_iou": 0.6, "core_share": 0.5}, []),
    ],
)
@pytest.mark.parametrize("keeps", [True, False])
def test_answers_follow_the_rules(change: dict[str, float], failed: list[int], keeps: bool) -> None:
    answers = passed(replace(GOOD, **change), keeps)
    assert [k for k, answer in enumerate(answers) if answer is False] == failed
    assert len(answers) == (5 if "stable_iou" in change else 4)


def test_what_could_not_be_tested_is_unknown() -> None:
    answer = answer_questions(replace(GOOD, unseen=math.nan), True, ("black",))[2]
    assert (answer.passed, answer.word) == (None, "Unknown")
    assert "black" in answer.text


def test_answers_name_their_numbers() -> None:
    texts = " ".join(answer.text for answer in answer_questions(replace(GOOD, n_controls=1), True, ("black",)))
    for number in ("95\xa0%", "90\xa0%", "30\xa0%", "10\xa0%", "80\xa0%", "45\xa0%", "100\xa0%", "1 random region "):
        assert number in texts


def test_numbers_do_not_contradict_the_answer() -> None:
    close = replace(GOOD, binary=0.8961, control_best=0.8996, unseen=0.4496)
    enough, chance, others, _ = (answer.text for answer in answer_questions(close, True, ("black",)))
    assert enough == "by itself it keeps 89.6\xa0% of the score; 90\xa0% is enough."
    assert "keeps 89.96\xa0%, and half of them" in chance
    assert others == "then it keeps 44.96\xa0%, the median over black; 45\xa0% is required."


def test_the_page_gives_words_before_numbers_and_no_raw_values() -> None:
    settings = {
        **synthetic.explanation().settings,
        "network": "embedded",
        "perturbation": ["Blur(levels=8, sigma=20.0, spacing=())", "Fade()"],
    }
    status = ((Status.CONVERGED, Status.STUCK, *[Status.CONVERGED] * 3),)
    plain = synthetic.explanation(settings=settings)
    page = Page(report.render(replace(plain, status=(status[0][: len(plain.areas)],))))
    words = page.words
    assert words.index("Is it enough?") < words.index("Measurements")
    assert "blur and fade in turn" in words
    assert "Blur(levels=8" not in words[: words.index("All settings, as stored")]
    assert "converged" not in words
    assert words.count("the search missed a better mask") == 1  # of the mask that is stuck
