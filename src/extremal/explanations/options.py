"""Options of the command line, as text and checked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from extremal.networks.resolve import loaded

if TYPE_CHECKING:
    from extremal.networks.network import Network
if TYPE_CHECKING:
    from extremal.explanations.evidence import Progress
    from extremal.explanations.explanation import Explanation
    from extremal.explanations.settings import Terms
    from extremal.masking.solvers import OnStep, Solver
    from extremal.networks.inputs import Input
    from extremal.networks.network import Network
    from extremal.scores.target import Target
from extremal.scores.parse import asked_of


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

    def checked(self) -> "Checked":
        """The same, checked; nothing is loaded yet.

        Raises:
            ExtremalValueError: an option breaks a rule.
        """
        from extremal.explanations.exclusion import checked_alternatives
        from extremal.explanations.settings import checked_areas, terms_named
        from extremal.masking.solvers import solver_named

        copies = checked_alternatives(self.alternatives)
        areas = checked_areas(self.areas.split(","))  # type: ignore[arg-type]  # it reads numbers, also from text
        terms = terms_named(self.game, self.perturbation, self.score, self.seed)
        return Checked(areas, terms, solver_named(self.solver), copies)

    def loaded(self) -> tuple["Network", "Target"]:
        """The network, and what it is asked."""
        net = loaded(self.network, self.weights)
        return net, asked_of(net, self.target, self.ask)


@dataclass(frozen=True)
class Checked:
    """Options that keep the rules."""

    areas: tuple[float, ...]
    terms: "Terms"
    solver: "Solver"
    copies: int  # answers that are looked for

    def explanation(
        self,
        net: "Network",
        image: "Input",
        question: "Target",
        *,
        on_step: "OnStep | None" = None,
        on_evidence: "Progress | None" = None,
    ) -> "Explanation":
        """What `explain` finds with these options."""
        from extremal.explanations.explain import explain

        return explain(
            net,
            image,
            question,
            areas=self.areas,
            game=self.terms.game,
            perturbation=self.terms.perturbation,
            solver=self.solver,
            score=self.terms.score,
            seed=self.terms.seed,
            alternatives=self.copies,
            on_step=on_step,
            on_evidence=on_evidence,
        )
