"""`Settings`: validated once, stored as plain values, restored; the options of every function are its fields."""

import inspect
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal import ExtremalTypeError, Settings, explain, judge, plan, solvers
from extremal.explanations.settings import SettingsOptions, merge_settings
from extremal.masking.area import cut
from extremal.masking.games import GAMES
from extremal.masking.perturbations import Noise
from extremal.scores.classes import logit
from support.errors import message_of
from support.toys import Boxes, texture

X = texture(1, 3, 32, 32)
PATCH = (slice(4, 12), slice(16, 24))
QUICK = solvers.Path(steps=8, polish=4, draws=2)


def test_options_stand_twice_and_are_the_same() -> None:
    names = {field.name for field in fields(Settings)}
    assert names == set(SettingsOptions.__annotations__)
    keywords = {name for name, kind in inspect.signature(explain).parameters.items() if kind.kind is kind.KEYWORD_ONLY}
    assert keywords == names | {"settings", "on_step", "on_evidence", "progress", "devices"}


def test_short_names_are_resolved() -> None:
    settings = Settings(game="delete", score="logit", solver="penalty", areas=[0.1])  # type: ignore[arg-type]
    assert (settings.game, settings.score, settings.areas) == (GAMES["delete"], logit, (0.1,))
    assert settings.solver.name == "penalty"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"game": "dual", "perturbation": "noise", "score": "probability", "seed": 7, "alternatives": 3},
        {"solver": solvers.Path(steps=9, betas=(0.8, 0.9)), "areas": (0.2,)},
        {"solver": solvers.Penalty(steps=3)},
    ],
)
def test_plain_values_restore_the_settings(options: dict[str, Any]) -> None:
    settings = Settings(**options)
    assert Settings.from_dict(settings.as_dict()).as_dict() == settings.as_dict()


def test_regions_are_not_plain_values() -> None:
    settings = Settings(within=torch.ones(4, 4, dtype=torch.bool))
    assert "within" not in settings.as_dict()
    assert Settings.from_dict(settings.as_dict()).within is None


def test_what_has_no_short_name_must_be_passed_again() -> None:
    plain = Settings(perturbation=Noise(5)).as_dict()
    assert message_of(Settings.from_dict, plain) == (
        "the perturbation of the explanation was 'Noise(seed=5)', which has no short name: pass it as perturbation"
    )
    assert Settings.from_dict(plain, {"perturbation": Noise(5)}).perturbation == Noise(5)


def test_a_solver_of_another_version() -> None:
    assert message_of(Settings.from_dict, {"solver": {"name": "path", "stride": 2}}) == (
        "a solver must be one of consensus, path, penalty, search with settings of this version, got 'path' with "
        "stride; "
        "pass it as solver, or store explanations whole with save"
    )


def test_settings_and_options_are_not_mixed() -> None:
    message = message_of(merge_settings, Settings(), {"seed": 1, "game": "dual"})
    assert message == (
        "options must be passed by settings or by name, got settings and seed, game; use settings.replace(...)"
    )
    assert message == message_of(explain, nn.Flatten(), X, settings=Settings(), seed=1, game="dual").replace(
        "game, seed", "seed, game"
    )


def test_unknown_options() -> None:
    with pytest.raises(ExtremalTypeError, match=r"^options must be among areas, game, .* got area; leave it out$"):
        judge(nn.Flatten(), X, torch.zeros(1, 1, 1, 32, 32), area=0.1)  # type: ignore[call-arg]


def test_a_replaced_option_is_validated() -> None:
    assert message_of(Settings().replace, seed=-1) == "seed must lie in 0..2**32 - 1, got -1; e.g. 0"


def test_ready_settings_give_what_their_options_give() -> None:
    model, options = Boxes(X, [PATCH]), {"areas": (0.1, 0.2), "game": "dual", "solver": QUICK, "seed": 3}
    settings = Settings(**options)  # type: ignore[arg-type]
    result = explain(model, X, 0, settings=settings)
    assert result == explain(model, X, 0, **options)  # type: ignore[arg-type]
    masks: Tensor = cut(result.masks, result.areas)
    assert judge(model, X, masks, 0, settings=settings) == judge(model, X, masks, 0, **options)  # type: ignore[arg-type]
    planned = plan(model, X, 0, settings=settings)
    assert planned.settings | {"evaluations": 0} == result.settings | {"evaluations": 0}
