"""Targets: what a user may ask about, as the classes or the questions that it stands for."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.layers import module_named
from extremal.networks.network import Network
from extremal.scores import Each, Query
from extremal.scores.query import Callback, class_index

Ask = Callable[[Any], Tensor]  # output of the network -> (B,)
Target = int | str | Query | Ask | Sequence[int | str | Query | Ask] | Tensor | None


def mirrored(net: Network, x: Tensor, target: Target) -> bool:
    """Whether the mirrored inputs ask the same question."""
    query = queried(target)
    return net.mirrors(x) and not (query is not None and query.placed)


def spread(x: Tensor, target: Target) -> Tensor:
    """One input (1, C, *S) as many times as there are targets for it: (N, C, *S); more inputs as they are."""
    several = isinstance(target, list | tuple | range | Each) or (isinstance(target, Tensor) and target.ndim == 1)
    if len(x) == 1 and several:
        return x.expand(max(1, len(target)), *x.shape[1:])  # type: ignore[arg-type]
    return x


def queried(target: Target) -> Query | Each | None:
    """The question that is no class: a `Query`, one for each input, or a callable on the output; None for classes."""
    if isinstance(target, Query | Each):
        return target
    if isinstance(target, list | tuple) and target and any(isinstance(one, Query) or callable(one) for one in target):
        return Each([one if isinstance(one, Query) else Callback(_callable(one)) for one in target])
    if callable(target) and not isinstance(target, Tensor):
        return Callback(target)
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


def _callable(score: Any) -> Ask:
    if not callable(score):
        raise ExtremalTypeError(
            f"targets of one batch must all be classes, or all be questions or callables, got {score!r} among the "
            "latter; ask in two batches"
        )
    ask: Ask = score
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
    if isinstance(target, Each):  # a part of the batch is asked its own part
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
