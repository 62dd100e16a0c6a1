"""Scores of classes: functions of one of a network's outputs.

`score(output, target) -> (B,)`, output (B, classes), target (B,).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError

Score = Callable[[Tensor, Tensor], Tensor]  # output (B, classes), target (B,) -> (B,)


def logit(output: Tensor, target: Tensor) -> Tensor:
    """Return y_c.

    >>> logit(torch.tensor([[1.0, 3.0]]), torch.tensor([1]))
    tensor([3.])
    """
    return output.gather(1, target[:, None])[:, 0]


def probability(output: Tensor, target: Tensor) -> Tensor:
    """Return softmax(y)_c."""
    return logit(output.softmax(1), target)


def log_probability(output: Tensor, target: Tensor) -> Tensor:
    """Return log softmax(y)_c."""
    return logit(output.log_softmax(1), target)


def margin(output: Tensor, target: Tensor) -> Tensor:
    """Return the log-odds of the class, y_c − log Σ_{c' ≠ c} exp y_c'; y_c if there is only one output."""
    if output.shape[1] == 1:
        return output[:, 0]
    others = output.scatter(1, target[:, None], -torch.inf)
    return logit(output, target) - others.logsumexp(1)


def contrastive(output: Tensor, target: Tensor) -> Tensor:
    """Return y_c − max_{c' ≠ c} y_c', for each mask separately (paper, section 4)."""
    if output.shape[1] == 1:
        return output[:, 0]
    return logit(output, target) - output.scatter(1, target[:, None], -torch.inf).amax(1)


def negative(output: Tensor, target: Tensor) -> Tensor:
    """Return the evidence against the class, log Σ_{c' ≠ c} exp y_c' − y_c: the negative of the margin."""
    return -margin(output, target)


SCORES: dict[str, Score] = {
    "margin": margin,
    "logit": logit,
    "probability": probability,
    "log-probability": log_probability,
    "contrastive": contrastive,
    "negative": negative,
}


def get_score(score: str | Score) -> Score:
    """Return the score of this short name, or the callable itself."""
    if isinstance(score, str):
        if score not in SCORES:
            raise ExtremalValueError(f"score must be one of {', '.join(SCORES)} or a callable, got {score!r}")
        return SCORES[score]
    if not callable(score):
        raise ExtremalTypeError(
            f"score must be one of {', '.join(SCORES)} or a callable (output, target) -> (B,), "
            f"got {type(score).__name__}"
        )
    return score
