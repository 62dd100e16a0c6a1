"""Extremal perturbations as an `explain_func` of Quantus."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from extremal import explain as extremal_explain
from extremal.errors import ExtremalTypeError
from extremal.explanations.settings import AREAS, Places
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import Perturbation
from extremal.masking.solvers import Solver
from extremal.scores import Score
from extremal.scores.target import listed

OPTIONS = ("areas", "game", "perturbation", "solver", "score", "within", "units", "seed")
HANDED = ("device", "method")  # what Quantus itself hands to each function: neither changes the map


def explain(
    model: nn.Module,
    inputs: np.ndarray[Any, Any] | Tensor,
    targets: np.ndarray[Any, Any] | Sequence[int] | Tensor | int,
    *,
    areas: Sequence[float] = AREAS,
    game: str | Game | Reward = "preserve",
    perturbation: str | Perturbation = "blur",
    solver: str | Solver = "path",
    score: str | Score = "margin",
    within: Places | None = None,
    units: Places | None = None,
    seed: int = 0,
    **kwargs: object,
) -> np.ndarray[Any, Any]:
    """Where the answer comes from, `Explanation.saliency()`, as Quantus' metrics ask for it.

    >>> toy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> explain(toy, np.random.default_rng(0).random((1, 3, 16, 16)), np.array([1]), areas=(0.1, 0.3)).shape
    (1, 1, 16, 16)

    Args:
        model: (B, C, *S) -> (B, classes); it comes back exactly as it was.
        inputs: (N, C, *S), channels first, as torch has them.
        targets: a class for each input, or one for all.
        areas: as `extremal.explain`, like the options after it: Quantus' `explain_func_kwargs`.
        kwargs: `device` and `method`, which Quantus adds and which change nothing: the model's own device is used.

    Returns:
        (N, 1, *S) float32 ≥ 0.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule.
    """
    unknown = sorted(kwargs.keys() - set(HANDED))
    if unknown:
        raise ExtremalTypeError(
            f"explain_func_kwargs must be among {', '.join(OPTIONS)}, got {', '.join(unknown)}; leave it out"
        )
    x = inputs if isinstance(inputs, Tensor) else torch.from_numpy(np.array(inputs, order="C"))
    x = x if x.is_floating_point() else x.float()  # as Quantus' own functions do
    classes = np.asarray(targets.cpu() if isinstance(targets, Tensor) else targets)
    wanted: Any = classes.item() if classes.size == 1 else listed(classes.tolist(), len(x))
    found = extremal_explain(
        model,
        x,
        wanted,
        areas=areas,
        game=game,
        perturbation=perturbation,
        solver=solver,
        score=score,
        within=within,
        units=units,
        seed=seed,
    )
    return found.saliency().float().numpy()


__all__ = ["explain"]
