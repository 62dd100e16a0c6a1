"""Solvers: immutable settings with one verb, `solve(problem, areas, on_step) -> Solution`."""

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.solvers.path import Path
from extremal.solvers.penalty import Penalty
from extremal.solvers.problem import OnStep, Problem, Solution, Solver, Step, Trace

SOLVERS: dict[str, Solver] = {"path": Path(), "penalty": Penalty()}


def solver_named(solver: str | Solver) -> Solver:
    """The solver of this short name with its default settings, or the solver itself."""
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise ExtremalValueError(f"solver must be one of {', '.join(SOLVERS)} or a solver, got {solver!r}")
        return SOLVERS[solver]
    if not callable(getattr(solver, "solve", None)):
        raise ExtremalTypeError(
            f"solver must be one of {', '.join(SOLVERS)} or an object with solve(problem, areas, on_step), "
            f"got {type(solver).__name__}"
        )
    return solver


__all__ = ["SOLVERS", "OnStep", "Path", "Penalty", "Problem", "Solution", "Solver", "Step", "Trace", "solver_named"]
