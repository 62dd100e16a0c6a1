"""Targets: parse what a user passes as `target` into a query."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.layers import get_module
from extremal.networks.network import Network
from extremal.number_checks import refuse_class
from extremal.scores.answer import Answer
from extremal.scores.class_group import ClassGroup
from extremal.scores.class_query import ClassQuery
from extremal.scores.classes import Score
from extremal.scores.query import CallableQuery, PerInput, Query

OutputScore = Callable[[Any], Tensor]  # output of the network -> (B,)
SingleTarget = int | str | ClassGroup | Query | OutputScore
Target = SingleTarget | Sequence[SingleTarget | Sequence[int | str]] | Tensor | np.ndarray[Any, Any] | None


def parse_target(target: Target, score: Score) -> Query:
    """Parse a target into a query; a `ClassQuery` for classes, a `PerInput` for a list of other queries.

    Args:
        target: as `explain` takes it; a list inside a list is a group of classes.
        score: of a class; without effect on other queries.

    Raises:
        ExtremalValueError, ExtremalTypeError: classes and other queries in one list, a tensor with more than one
            dimension, or an empty group.
    """
    for one in target if isinstance(target, list | tuple) else (target,):
        refuse_class(one, "target")
    if isinstance(target, Query):
        return target
    if isinstance(target, list | tuple) and target and any(isinstance(one, Query) or callable(one) for one in target):
        return PerInput([one if isinstance(one, Query) else CallableQuery(_check_callable(one)) for one in target])
    if callable(target) and not isinstance(target, Tensor):
        return CallableQuery(target)
    if isinstance(target, Tensor | np.ndarray):
        if target.ndim > 1:
            raise ExtremalTypeError(
                f"a tensor of targets must hold a class for each input, (N,), got shape {tuple(target.shape)}; "
                "a group of classes is a list inside a list"
            )
        target = target.tolist()
    if isinstance(target, range):
        target = tuple(target)
    return ClassQuery(target, score)  # type: ignore[arg-type]  # entries of another type are refused by `resolve`


def settle_query(query: Query, net: Network, x: Tensor) -> Query:
    """Return the query about inputs x (N, C, *S) with what it leaves to the network decided: a model's own answer.

    Raises:
        ExtremalValueError, ExtremalTypeError: the network is no model of images and text, or answers nothing.
    """
    if isinstance(query, PerInput) and len(query) == len(x):
        parts = [settle_query(part, net, x[n : n + 1]) for n, part in enumerate(query.queries)]
        return PerInput(parts)
    return query.settle(net, x) if isinstance(query, Answer) else query


def provide_inputs(query: Query, net: Network) -> AbstractContextManager[None]:
    """Return a context in which the network gets what a query adds to its inputs, such as a prompt."""
    queries = query.queries if isinstance(query, PerInput) else (query,)
    answers = [part for part in queries if isinstance(part, Answer)]
    return max(answers, key=lambda answer: len(answer.ids)).asking(net) if answers else nullcontext()


def count_targets(query: Query) -> int | None:
    """Return the number of inputs that a query is about; None if it applies to any number."""
    if isinstance(query, PerInput):
        return len(query)
    return query.count if isinstance(query, ClassQuery) else None


def expand_inputs(x: Tensor, query: Query) -> Tensor:
    """Repeat a single input (1, C, *S) once per target: (N, C, *S). Return several inputs unchanged.

    Raises:
        ExtremalValueError: the number of targets is not the number of inputs.
    """
    count = count_targets(query)
    if len(x) == 1 and count is not None:
        x = x.expand(max(1, count), *x.shape[1:])
    check_target_count(count, len(x))
    return x


def check_target_count(count: int | None, n_inputs: int) -> None:
    """Raise unless there is one target for all inputs (`count` is None), or one for each.

    Raises:
        ExtremalValueError: the number of targets is not the number of inputs.
    """
    if count is not None and count != n_inputs:
        raise ExtremalValueError(f"target must be one class, or one for each of {n_inputs} inputs, got {count}")


def select_inputs(query: Query, inputs: slice) -> Query:
    """Return the query about some of the inputs of a batch."""
    if isinstance(query, PerInput):
        return PerInput(query.queries[inputs])
    return query.select(inputs) if isinstance(query, ClassQuery) else query


def is_mirror_invariant(net: Network, x: Tensor, query: Query) -> bool:
    """Return whether the mirrored inputs ask the same question."""
    return net.is_mirror_invariant(x) and not query.depends_on_position


def find_required_layers(net: Network, query: Query) -> tuple[str, ...]:
    """Return the names of the layers whose unmodified output a query reads.

    Raises:
        ExtremalValueError: the network has no such layer; similar names are suggested.
    """
    if not query.layer:
        return ()
    get_module(net, query.layer)
    return (query.layer,)


def _check_callable(score: Any) -> OutputScore:
    if not callable(score):
        raise ExtremalTypeError(
            f"targets of one batch must all be classes, or all be queries or callables, got {score!r} among the "
            "latter; split the batch"
        )
    checked: OutputScore = score
    return checked


def per_input(target: Target, count: int) -> list[Any] | None:
    """Return the targets of `count` inputs if there is one for each; None if there is one for all.

    Raises:
        ExtremalValueError: the number of targets is not the number of inputs.
    """
    if isinstance(target, Tensor | np.ndarray):
        target = target.tolist()
    if isinstance(target, PerInput):
        target = target.queries
    if not isinstance(target, list | tuple | range):
        return None
    check_target_count(len(target), count)
    return list(target)
