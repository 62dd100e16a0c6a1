"""Solvers: immutable settings with one operation, `solve(problem, areas, on_step) -> Solution`."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import quote
from extremal.masking.domain import Domain
from extremal.masking.solvers.consensus import Consensus
from extremal.masking.solvers.path import Path
from extremal.masking.solvers.penalty import Penalty
from extremal.masking.solvers.problem import OnStep, Problem, Solution, Solver, Step, Trace
from extremal.masking.solvers.search import Search
from extremal.number_checks import refuse_class

SOLVERS: dict[str, Consensus | Path | Penalty | Search] = {
    "consensus": Consensus(),
    "path": Path(),
    "penalty": Penalty(),
    "search": Search(),
}


def get_solver(solver: str | Solver) -> Solver:
    """Return the solver of this short name with its default settings, or the solver itself."""
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise ExtremalValueError(f"solver must be one of {', '.join(SOLVERS)} or a solver, got {quote(solver)}")
        return SOLVERS[solver]
    refuse_class(solver, "solver")
    if not callable(getattr(solver, "solve", None)):
        raise ExtremalTypeError(
            f"solver must be one of {', '.join(SOLVERS)} or an object with solve(problem, areas, on_step), "
            f"got {type(solver).__name__}"
        )
    return solver


def uses_gradients(solver: Solver) -> bool:
    """Return whether a solver needs gradients of the reward.

    >>> uses_gradients(Consensus()), uses_gradients(Search())
    (True, False)
    """
    return bool(getattr(solver, "uses_gradients", True))


def rebuild_masks(settings: Mapping[str, Any], parameters: Tensor, areas: tuple[float, ...], domain: Domain) -> Tensor:
    """Rebuild a solver's masks (N, A, 1, *S) from its settings and the parameters of its solution.

    The masks of runs that were not finite were zero; those rebuilt here from zero parameters are not.

    >>> import torch
    >>> rebuild_masks(Path().settings(), torch.randn(1, 2, 1, 32, 32), (0.1, 0.2), Domain((32, 32))).shape
    torch.Size([1, 2, 1, 32, 32])

    Args:
        settings: as returned by the solver's `settings()`, also after a round trip through JSON.
        parameters: (N, A, 1, *lattice), the `fields` of the solution.
        areas: (A,) ascending.
        domain: of the masks.

    Raises:
        ExtremalValueError: the solver is not one of this version.
    """
    return restore_solver(settings).rebuild_masks(parameters, areas, domain)


def restore_solver(settings: Mapping[str, Any]) -> Consensus | Path | Penalty | Search:
    """Restore a solver from what its `settings()` returned, also after a round trip through JSON.

    >>> restore_solver(Path().settings()).name
    'path'

    Raises:
        ExtremalValueError: the solver is not one of this version.
    """
    name, options = settings.get("name"), {key: value for key, value in settings.items() if key != "name"}
    try:
        solver_class: Callable[..., Consensus | Path | Penalty | Search] = type(SOLVERS[str(name)])
        return solver_class(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        )
    except (KeyError, TypeError):
        raise ExtremalValueError(
            f"a solver must be one of {', '.join(SOLVERS)} with settings of this version, got {quote(name)} "
            f"with {', '.join(options) or 'none'}; pass it as solver, or store explanations whole with save"
        ) from None


__all__ = [
    "SOLVERS",
    "Consensus",
    "OnStep",
    "Path",
    "Penalty",
    "Problem",
    "Search",
    "Solution",
    "Solver",
    "Step",
    "Trace",
    "get_solver",
    "rebuild_masks",
    "restore_solver",
    "uses_gradients",
]
