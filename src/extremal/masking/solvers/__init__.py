"""Solvers: immutable settings with one verb, `solve(problem, areas, on_step) -> Solution`."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.domain import Domain
from extremal.masking.solvers.path import Path
from extremal.masking.solvers.penalty import Penalty
from extremal.masking.solvers.problem import OnStep, Problem, Solution, Solver, Step, Trace

SOLVERS: dict[str, Solver] = {"path": Path(), "penalty": Penalty()}


def get_solver(solver: str | Solver) -> Solver:
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


def rebuild_masks(settings: Mapping[str, Any], fields: Tensor, areas: tuple[float, ...], domain: Domain) -> Tensor:
    """The masks (N, A, 1, *S) that a solver found, from its settings and the fields of its solution.

    Those of a run that was not finite were zero, whatever comes of their fields here.

    >>> import torch
    >>> rebuild_masks(Path().settings(), torch.randn(1, 2, 1, 32, 32), (0.1, 0.2), Domain((32, 32))).shape
    torch.Size([1, 2, 1, 32, 32])

    Args:
        settings: as the solver's `settings()` tells them, also after JSON.
        fields: (N, A, 1, *lattice).
        areas: (A,) rising.
        domain: of the masks.

    Raises:
        ExtremalValueError: the solver is not one of this version.
    """
    kinds: dict[Any, Callable[..., Path | Penalty]] = {"path": Path, "penalty": Penalty}
    name, rest = settings.get("name"), {key: value for key, value in settings.items() if key != "name"}
    try:
        solver = kinds[name](**{key: tuple(v) if isinstance(v, list) else v for key, v in rest.items()})
    except (KeyError, TypeError):
        raise ExtremalValueError(
            f"masks can be rebuilt of the solvers {', '.join(kinds)} with settings of this version, got {name!r} with "
            f"{', '.join(rest) or 'none'}; keep such explanations with save"
        ) from None
    return solver.masks(fields, areas, domain)


__all__ = [
    "SOLVERS",
    "OnStep",
    "Path",
    "Penalty",
    "Problem",
    "Solution",
    "Solver",
    "Step",
    "Trace",
    "rebuild_masks",
    "get_solver",
]
