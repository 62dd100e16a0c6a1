"""Targets: parse what a user passes as `target` into a query."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.layers import module_named
from extremal.networks.network import Network
from extremal.scores.class_query import ClassQuery
from extremal.scores.classes import Score
from extremal.scores.query import CallableQuery, PerInput, Query, class_index

OutputScore = Callable[[Any], Tensor]  # output of the network -> (B,)
Target = int | str | Query | OutputScore | Sequence[int | str | Query | OutputScore] | Tensor | None


def parse_target(target: Target, score: Score) -> Query:
    """Parse a target into a query; a `ClassQuery` for classes, a `PerInput` for a list of other queries.

    Args:
        target: as `explain` takes it.
        score: of a class; without effect on other queries.

    Raises:
        ExtremalTypeError: classes and other queries in one list.
    """
    if isinstance(target, Query):
        return target
    if isinstance(target, list | tuple) and target and any(isinstance(one, Query) or callable(one) for one in target):
        return PerInput([one if isinstance(one, Query) else CallableQuery(_check_callable(one)) for one in target])
    if callable(target) and not isinstance(target, Tensor):
        return CallableQuery(target)
    if isinstance(target, Tensor):
        target = target.tolist()
    if isinstance(target, range):
        target = tuple(target)
    return ClassQuery(target, score)  # type: ignore[arg-type]  # entries of another type are refused by `resolve`


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
    if count is not None and count != len(x):
        raise ExtremalValueError(f"target must be one class, or one for each of {len(x)} inputs, got {count}")
    return x


def select_inputs(query: Query, inputs: slice) -> Query:
    """Return the query about some of the inputs of a batch."""
    if isinstance(query, PerInput):
        return PerInput(query.queries[inputs])
    return query.select(inputs) if isinstance(query, ClassQuery) else query


def is_mirror_invariant(net: Network, x: Tensor, query: Query) -> bool:
    """Return whether the mirrored inputs ask the same question."""
    return net.mirrors(x) and not query.depends_on_position


def find_required_layers(net: Network, query: Query) -> tuple[str, ...]:
    """Return the names of the layers whose unmodified output a query reads.

    Raises:
        ExtremalValueError: the network has no such layer; similar names are suggested.
    """
    if not query.layer:
        return ()
    module_named(net, query.layer)
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
    if isinstance(target, Tensor):
        target = target.tolist()
    if isinstance(target, PerInput):
        target = target.queries
    if not isinstance(target, list | tuple | range):
        return None
    if len(target) != count:
        raise ExtremalValueError(f"target must be one class, or one for each of {count} inputs, got {len(target)}")
    return list(target)


# --- to go ---
Ask = OutputScore


def mirrored(net: Network, x: Tensor, target: Target) -> bool:
    """Whether the mirrored inputs ask the same question."""
    query = queried(target)
    return net.mirrors(x) and not (query is not None and query.depends_on_position)


def spread(x: Tensor, target: Target) -> Tensor:
    """One input (1, C, *S) as many times as there are targets for it: (N, C, *S); more inputs as they are."""
    several = isinstance(target, list | tuple | range | PerInput) or (isinstance(target, Tensor) and target.ndim == 1)
    if len(x) == 1 and several:
        return x.expand(max(1, len(target)), *x.shape[1:])  # type: ignore[arg-type]
    return x


def queried(target: Target) -> Query | PerInput | None:
    """The question that is no class: a `Query`, one for each input, or a callable on the output; None for classes."""
    if isinstance(target, Query | PerInput):
        return target
    if isinstance(target, list | tuple) and target and any(isinstance(one, Query) or callable(one) for one in target):
        return PerInput([one if isinstance(one, Query) else CallableQuery(_callable(one)) for one in target])
    if callable(target) and not isinstance(target, Tensor):
        return CallableQuery(target)
    return None


def looked_at(net: Network, target: Target) -> tuple[str, ...]:
    """The layers whose output a question needs as the network has it.

    Raises:
        ExtremalValueError: the network has no such layer; near names are offered.
    """
    query = queried(target)
    if query is None or not query.layer:
        return ()
    module_named(net, query.layer)
    return (query.layer,)


def _callable(score: Any) -> OutputScore:
    if not callable(score):
        raise ExtremalTypeError(
            f"targets of one batch must all be classes, or all be questions or callables, got {score!r} among the "
            "latter; ask in two batches"
        )
    ask: OutputScore = score
    return ask


def resolve_targets(net: Network, output: Tensor, target: Target) -> tuple[int, ...]:
    """Class indices (N,) from an index, a name, one of these for each input, or None for the top class."""
    count, classes = output.shape[:2]
    if target is None:
        return tuple(output.argmax(1).tolist())
    each = listed(target, count)
    if each is None:
        each = [target.item() if isinstance(target, Tensor) else target] * count
    return tuple(_class_index(net, entry, classes) for entry in each)


def listed(target: Target, count: int) -> list[Any] | None:
    """The targets of `count` inputs where there is one for each; None where there is one for all.

    Raises:
        ExtremalValueError: there are more or fewer.
    """
    if isinstance(target, Tensor):
        target = target.tolist()
    if isinstance(target, PerInput):  # a part of the batch is asked its own part
        target = target.queries
    if not isinstance(target, list | tuple | range):
        return None
    if len(target) != count:
        raise ExtremalValueError(f"target must be one class, or one for each of {count} inputs, got {len(target)}")
    return list(target)


def _class_index(net: Network, target: Any, classes: int) -> int:
    if isinstance(target, bool) or not (isinstance(target, str) or hasattr(target, "__index__")):
        raise ExtremalTypeError(
            f"target must be a class index, a class name or a callable on the output, got {type(target).__name__}"
        )
    return class_index(net, target, classes, "target")
