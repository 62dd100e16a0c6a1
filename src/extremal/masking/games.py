"""Games: rewards that solvers maximise (paper, section 3).

A game is a reward and the part of the input by which its masks are judged.
`evaluate(mask)` is Φ(mask ⊗ x), (N, K, 1, *S) -> (N, K).
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import quote
from extremal.number_checks import refuse_class

Evaluate = Callable[[Tensor], Tensor]  # masks (N, K, 1, *S) -> scores (N, K)
Reward = Callable[[Evaluate, Tensor], Tensor]


@dataclass(frozen=True)
class Game:
    """A reward to maximise, and the part of the input by which its masks are judged."""

    name: str
    reward: Reward  # (evaluate, mask) -> (N, K), higher is better
    keeps: bool = True  # judged by Φ(m ⊗ x); False: by Φ((1 − m) ⊗ x), where lower is better

    def kept_part(self, mask: Tensor) -> Tensor:
        """Return the mask of the part of the input that remains when the mask is judged: m, or 1 − m."""
        return mask if self.keeps else 1 - mask

    def find_scores(self, rewards: Tensor) -> Tensor | None:
        """Return the scores by which masks of these rewards are judged; None if they do not follow from the rewards."""
        if self.reward is preserve:
            return rewards
        return -rewards if self.reward is delete else None

    def find_whole_rewards(self, full: Tensor, blank: Tensor) -> Tensor | None:
        """Return the rewards of masks that hold all places, from the scores of whole and destroyed inputs.

        None if they do not follow from these.
        """
        if self.reward is dual:
            return full - blank
        if self.reward is preserve:
            return full
        return -blank if self.reward is delete else None


def preserve(evaluate: Evaluate, mask: Tensor) -> Tensor:
    """Φ(m ⊗ x): reward regions that keep the answer."""
    return evaluate(mask)


def delete(evaluate: Evaluate, mask: Tensor) -> Tensor:
    """−Φ((1 − m) ⊗ x): reward regions whose removal breaks the answer."""
    return -evaluate(1 - mask)


def dual(evaluate: Evaluate, mask: Tensor) -> Tensor:
    """Φ(m ⊗ x) − Φ((1 − m) ⊗ x): reward both at once, at twice the cost."""
    return evaluate(mask) - evaluate(1 - mask)


GAMES = {
    "preserve": Game("preserve", preserve),
    "delete": Game("delete", delete, keeps=False),
    "dual": Game("dual", dual),
}


def get_game(game: str | Game | Reward) -> Game:
    """Return the game of this short name, the `Game` itself, or a game that rewards by this callable."""
    if isinstance(game, Game):
        return game
    if isinstance(game, str):
        if game not in GAMES:
            raise ExtremalValueError(f"game must be one of {', '.join(GAMES)}, a Game or a callable, got {quote(game)}")
        return GAMES[game]
    refuse_class(game, "game")
    if not callable(game):
        raise ExtremalTypeError(
            f"game must be one of {', '.join(GAMES)}, a Game or a callable, got {type(game).__name__}"
        )
    return Game(getattr(game, "__name__", "custom"), game)
