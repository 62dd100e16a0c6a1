"""What is asked of a network: a score of one of its classes, or a question of another kind."""

from extremal.scores.classes import (
    SCORES,
    Score,
    contrastive,
    log_probability,
    logit,
    margin,
    negative,
    probability,
    score_named,
)
from extremal.scores.query import Asked, Each, Query

__all__ = [
    "SCORES",
    "Asked",
    "Each",
    "Query",
    "Score",
    "contrastive",
    "log_probability",
    "logit",
    "margin",
    "negative",
    "probability",
    "score_named",
]
