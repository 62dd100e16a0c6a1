"""Settings in words: known ones are described, missing and foreign ones do no harm."""

import pytest

from extremal import Settings, solvers
from extremal.explanations.settings import SCORES
from extremal.masking.games import GAMES
from extremal.masking.perturbations import PERTURBATIONS
from extremal.report.settings_text import (
    GAME_TEXTS,
    SCORE_TEXTS,
    describe_evaluations,
    describe_perturbation,
    describe_settings,
    describe_solver,
)


def test_every_choice_has_words() -> None:
    assert set(GAME_TEXTS) == set(GAMES)
    assert set(SCORE_TEXTS) == {score.__name__ for score in SCORES.values()}
    for name in PERTURBATIONS:
        text = describe_perturbation(Settings(perturbation=name).as_dict()["perturbation"])
        assert text == ("blur, fade and noise in turn" if name == "mixed" else name)
    for name in ("consensus", "path", "penalty", "search"):
        settings = Settings(solver=name).as_dict()["solver"]
        assert describe_solver(settings, 5).endswith(f"({name})")


def test_steps_are_those_of_the_solver() -> None:
    solver = solvers.Consensus()
    for areas in range(1, 7):
        steps, fewer = len(solver.schedule(areas)), len(solver.schedule(areas, is_reduced=True))
        at_once = " on all areas at once" if areas > 1 else ""
        fewer_words = f", or {fewer} where the network takes smaller inputs"
        assert describe_solver(solver.settings(), areas) == f"{steps} steps{at_once}{fewer_words} (consensus)"
    assert describe_solver(solvers.Consensus(reduced_share=0).settings(), 1) == "8 steps (consensus)"


@pytest.mark.parametrize(
    "settings", [{}, {"solver": 3}, {"evaluations": {"gradients": "many"}}, {"versions": [1]}, {"perturbation": None}]
)
def test_foreign_values_are_left_out(settings: dict[str, object]) -> None:
    assert describe_settings(settings) == []


def test_random_weights_are_named() -> None:
    assert ("Network", "toy (random weights)") in describe_settings({"network": "toy", "random_weights": True})
    assert ("Network", "toy") in describe_settings({"network": "toy", "random_weights": False})
    assert ("Network", "toy") in describe_settings({"network": "toy"})
    assert ("Network", "toy") in describe_settings({"network": "toy", "random_weights": "yes"})


def test_functions_are_named_without_their_address() -> None:
    assert describe_perturbation("<function mine at 0x7f00>") == "mine"
    assert describe_perturbation("<lambda>") == "<lambda>"
    assert describe_evaluations(None) == ""


def test_the_score_of_classes_is_left_out_for_other_questions() -> None:
    settings = {"network": "embedded", "score": "margin"}
    assert [name for name, _ in describe_settings(settings)] == ["Network", "Score"]
    assert [name for name, _ in describe_settings(settings, is_class=False)] == ["Network"]
