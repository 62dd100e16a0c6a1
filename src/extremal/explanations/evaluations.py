"""Counts of network evaluations, as a result stores them."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from extremal.networks.counting import EvaluationCount


@dataclass(frozen=True)
class Evaluations:
    """Evaluated rows of the network; one row is one input with one mask."""

    gradients: int = 0  # by the solver, forward and backward
    forwards: int = 0  # by the set-up and the solver, forward only
    evidence_gradients: int = 0
    evidence_forwards: int = 0

    @classmethod
    def of_setup(cls, counts: Iterable[EvaluationCount]) -> "Evaluations":
        """Return the cost of preparing a run; its few passes with gradient are counted as forward passes."""
        return cls(forwards=sum(count.forwards + count.gradients for count in counts))

    def with_solver(self, count: EvaluationCount) -> "Evaluations":
        """Add evaluations of the solver."""
        return replace(self, gradients=self.gradients + count.gradients, forwards=self.forwards + count.forwards)

    def with_evidence(self, count: EvaluationCount) -> "Evaluations":
        """Add evaluations for the evidence."""
        return replace(
            self,
            evidence_gradients=self.evidence_gradients + count.gradients,
            evidence_forwards=self.evidence_forwards + count.forwards,
        )

    def __add__(self, other: "Evaluations") -> "Evaluations":
        return Evaluations(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))
