"""Scores of classes: functions of one of a network's outputs.

`score(output, target) -> (B,)`, output (B, classes), target (B,) class indices, or (B, classes) bool: the classes of a
group. A group is scored as one class whose logit is log Σ exp y_c over its classes, so that its probability is the sum
of theirs, and does not change if they exchange probability.

A network with one output is a sigmoid: the output is the log-odds of its class. Outputs of other classes may be −∞,
e.g. where classes are masked.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import quote

Score = Callable[[Tensor, Tensor], Tensor]  # output (B, classes), target (B,) or (B, classes) bool -> (B,)
MIN_LOGIT = -15.0  # below it log(1 + exp y) is exp y, to seven digits
ScoreT = TypeVar("ScoreT", bound=Score)


def accept_groups(score: ScoreT) -> ScoreT:
    """Declare that a score takes groups of classes: targets (B, classes) bool as well as (B,) class indices.

    >>> @accept_groups
    ... def largest(output, target):
    ...     members = target if target.dtype == torch.bool else torch.nn.functional.one_hot(target, output.shape[1]) > 0
    ...     return output.masked_fill(~members, -torch.inf).amax(1)
    >>> largest(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[True, False, True]]))
    tensor([2.])
    """
    score.accepts_groups = True  # type: ignore[attr-defined]
    return score


def takes_groups(score: Score) -> bool:
    """Return whether a score takes groups of classes."""
    return bool(getattr(score, "accepts_groups", False))


@accept_groups
def logit(output: Tensor, target: Tensor) -> Tensor:
    """Return y_c; for a group, log Σ exp y_c.

    >>> logit(torch.tensor([[1.0, 3.0]]), torch.tensor([1]))
    tensor([3.])
    """
    if target.ndim == 2:
        return output.masked_fill(~target, -torch.inf).logsumexp(1)
    return output.gather(1, target[:, None])[:, 0]


@accept_groups
def probability(output: Tensor, target: Tensor) -> Tensor:
    """Return softmax(y)_c; for a group, their sum; σ(y) if there is only one output."""
    if output.shape[1] == 1:
        return output[:, 0].sigmoid()
    if target.ndim == 2:
        return output.softmax(1).masked_fill(~target, 0.0).sum(1)
    return logit(output.softmax(1), target)


@accept_groups
def log_probability(output: Tensor, target: Tensor) -> Tensor:
    """Return log softmax(y)_c; for a group, the logarithm of their sum; log σ(y) if there is only one output."""
    if output.shape[1] == 1:
        return F.logsigmoid(output[:, 0])
    return logit(output.log_softmax(1), target)


@accept_groups
def margin(output: Tensor, target: Tensor) -> Tensor:
    """Return the log-odds, y_c − log Σ_{c' ≠ c} exp y_c'; y_c if there is only one output.

    For a group, its log-odds against all classes outside it.
    """
    if output.shape[1] == 1:
        return output[:, 0]
    return logit(output, target) - _exclude(output, target).logsumexp(1)


@accept_groups
def contrastive(output: Tensor, target: Tensor) -> Tensor:
    """Return y_c − max_{c' ≠ c} y_c', for each mask separately (paper, section 4).

    For a group, log Σ exp y_c minus the largest score outside it.
    """
    if output.shape[1] == 1:
        return output[:, 0]
    return logit(output, target) - _exclude(output, target).amax(1)


@accept_groups
def sigmoid(output: Tensor, target: Tensor) -> Tensor:
    """Return y_c, the log-odds of one label of a multi-label network, whose labels are independent sigmoids.

    For a group, the log-odds of any of its labels: log(P / (1 − P)) with P = 1 − Π_c (1 − σ(y_c)), which is
    log(exp Σ_c log(1 + exp y_c) − 1).

    >>> sigmoid(torch.tensor([[2.0, -1.0]]), torch.tensor([1]))
    tensor([-1.])
    """
    if target.ndim == 1:
        return logit(output, target)
    # log log(1 + exp y), which is y where exp y is tiny
    log_parts = torch.where(output < MIN_LOGIT, output, F.softplus(output.clamp_min(MIN_LOGIT)).log())
    log_total = log_parts.masked_fill(~target, -torch.inf).logsumexp(1)
    total = log_total.clamp_min(MIN_LOGIT).exp()
    any_label = torch.where(log_total < MIN_LOGIT, log_total, total + torch.log(-torch.expm1(-total)))
    return torch.where(target.sum(1) == 1, logit(output, target), any_label)


@accept_groups
def negative(output: Tensor, target: Tensor) -> Tensor:
    """Return the evidence against the class, log Σ_{c' ≠ c} exp y_c' − y_c: the negative of the margin."""
    return -margin(output, target)


def _exclude(output: Tensor, target: Tensor) -> Tensor:
    """Return the output with −∞ in place of the scores of the class or the group."""
    if target.ndim == 2:
        return output.masked_fill(target, -torch.inf)
    return output.scatter(1, target[:, None], -torch.inf)


SCORES: dict[str, Score] = {
    "margin": margin,
    "logit": logit,
    "probability": probability,
    "log-probability": log_probability,
    "contrastive": contrastive,
    "negative": negative,
    "sigmoid": sigmoid,
}


def get_score(score: str | Score) -> Score:
    """Return the score of this short name, or the callable itself."""
    if isinstance(score, str):
        if score not in SCORES:
            raise ExtremalValueError(f"score must be one of {', '.join(SCORES)} or a callable, got {quote(score)}")
        return SCORES[score]
    if not callable(score):
        raise ExtremalTypeError(
            f"score must be one of {', '.join(SCORES)} or a callable (output, target) -> (B,), "
            f"got {type(score).__name__}"
        )
    return score
