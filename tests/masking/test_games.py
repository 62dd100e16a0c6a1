"""Rewards, and the part of the input by which masks are judged."""

import pytest
import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.games import GAMES, Game, delete, dual, get_game, preserve

MASK = torch.rand(2, 3, 1, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def squares(mask: Tensor) -> Tensor:
    """Return Σ m², a score in which m and 1 − m differ."""
    return mask.square().flatten(2).sum(2)


def test_rewards_are_those_of_the_paper() -> None:
    kept, removed = squares(MASK), squares(1 - MASK)
    assert torch.equal(preserve(squares, MASK), kept)
    assert torch.equal(delete(squares, MASK), -removed)
    assert torch.equal(dual(squares, MASK), kept - removed)


@pytest.mark.parametrize(("game", "evaluations"), [("preserve", 1), ("delete", 1), ("dual", 2)])
def test_number_of_evaluations(game: str, evaluations: int) -> None:
    calls = []
    GAMES[game].reward(lambda mask: calls.append(mask) or squares(mask), MASK)
    assert len(calls) == evaluations


@pytest.mark.parametrize(("game", "keeps"), [("preserve", True), ("delete", False), ("dual", True)])
def test_kept_part(game: str, keeps: bool) -> None:
    assert GAMES[game].keeps is keeps
    assert torch.equal(GAMES[game].kept_part(MASK), MASK if keeps else 1 - MASK)


def test_names() -> None:
    for name in ("preserve", "delete", "dual"):
        assert get_game(name) is GAMES[name]
        assert get_game(name).name == name
    own = Game("own", preserve, keeps=False)
    assert get_game(own) is own


def test_a_callable_is_a_game_that_keeps() -> None:
    def half(evaluate: object, mask: Tensor) -> Tensor:
        return squares(mask) / 2

    game = get_game(half)
    assert (game.name, game.reward, game.keeps) == ("half", half, True)


def test_unknown_games() -> None:
    with pytest.raises(ExtremalValueError) as unknown:
        get_game("remove")
    assert str(unknown.value) == "game must be one of preserve, delete, dual, a Game or a callable, got 'remove'"
    with pytest.raises(ExtremalTypeError) as wrong:
        get_game(None)  # type: ignore[arg-type]
    assert str(wrong.value) == "game must be one of preserve, delete, dual, a Game or a callable, got NoneType"
