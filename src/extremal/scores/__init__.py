"""Scores and queries: the number to explain, a score of a class or another query about a network."""

from extremal.scores.box import Box
from extremal.scores.class_group import ClassGroup
from extremal.scores.classes import (
    SCORES,
    Score,
    accept_groups,
    contrastive,
    get_score,
    log_probability,
    logit,
    margin,
    negative,
    probability,
    sigmoid,
)
from extremal.scores.outputs import Classes, Output
from extremal.scores.query import BoundQuery, PerInput, Query
from extremal.scores.segment import Segment
from extremal.scores.similarity import Similarity
from extremal.scores.unit import Unit

__all__ = [
    "SCORES",
    "BoundQuery",
    "Box",
    "ClassGroup",
    "Classes",
    "Output",
    "PerInput",
    "Query",
    "Score",
    "Segment",
    "Similarity",
    "Unit",
    "accept_groups",
    "contrastive",
    "get_score",
    "log_probability",
    "logit",
    "margin",
    "negative",
    "probability",
    "sigmoid",
]
