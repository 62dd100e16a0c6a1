"""Options of the command line, as text and checked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from extremal.networks.resolve import load_network

if TYPE_CHECKING:
    from extremal.networks.network import Network
if TYPE_CHECKING:
    from extremal.explanations.settings import Settings
    from extremal.networks.network import Network
    from extremal.scores.target import Target
from extremal.scores.parse import parse_query


@dataclass(frozen=True)
class Options:
    """What `extremal explain` was asked for, as the command line has it."""

    network: str
    weights: str
    target: str
    ask: str
    areas: str
    game: str
    perturbation: str
    solver: str
    score: str
    seed: int
    alternatives: int
    refine: bool

    def checked(self) -> "Settings":
        """Return the validated settings; nothing is loaded yet.

        Raises:
            ExtremalValueError: an option breaks a rule.
        """
        from extremal.explanations.settings import Settings

        return Settings(
            areas=self.areas.split(","),  # type: ignore[arg-type]  # numbers are read from text, too
            game=self.game,
            perturbation=self.perturbation,
            solver=self.solver,
            score=self.score,
            seed=self.seed,
            alternatives=self.alternatives,
        )

    def loaded(self) -> tuple["Network", "Target"]:
        """The network, and what it is asked."""
        net = load_network(self.network, self.weights)
        return net, parse_query(net, self.target, self.ask)
