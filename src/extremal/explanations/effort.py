"""Effort: how many passes of the network an explanation takes."""

from collections.abc import Mapping
from dataclasses import dataclass

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote
from extremal.masking.solvers import SOLVERS, Solver
from extremal.masking.solvers.consensus import Consensus

NORMAL = "normal"


@dataclass(frozen=True)
class Effort:
    """The settings of an effort."""

    solvers: Mapping[str, Solver]  # by name; those that are not here are the same at every effort
    controls: int  # random masks per area
    first_controls: int  # of these, which are always scored; the others only where these leave a question (`Controls`)
    searches: int = 1  # for the smallest area, from different masks

    def solver(self, name: str) -> Solver:
        """Return the solver of a name in `SOLVERS`."""
        return self.solvers.get(name, SOLVERS[name])


EFFORTS = {
    "fast": Effort(
        {
            "consensus": Consensus(
                steps=3,
                least=0,
                columns=4,
                last_share=1.0,
                draws=1,
                enlarged_draws=0,
                reduced_share=1.0,
                rate=0.35,
                candidates=1,
                repair_steps=0,
            )
        },
        controls=2,
        first_controls=2,
    ),
    NORMAL: Effort({}, controls=8, first_controls=4),
    "thorough": Effort(
        {"consensus": Consensus(steps=10, least=80, last_share=1.0, reduced_share=0.0, candidates=4)},
        controls=8,
        first_controls=8,
        searches=3,
    ),
}


def validate_effort(effort: str) -> str:
    """Return the name of an effort.

    Raises:
        ExtremalValueError: there is no such effort.
    """
    if not isinstance(effort, str) or effort not in EFFORTS:
        raise ExtremalValueError(f"effort must be one of {', '.join(EFFORTS)}, got {quote(effort)}")
    return effort
