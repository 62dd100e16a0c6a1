"""Run the graph of an archive once on zeros, with the size of each result known before it is computed."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

MAX_RESULT_VALUES = 2**27  # of one call
MAX_TOTAL_VALUES = 2**33  # of all calls of a run
MAX_UNKNOWN_SIZE = 2**20  # largest number that an operator may take whose result cannot be predicted

_NOT_ON_CPU = "not implemented for"  # in errors of operators that have no implementation for half precision


class ResultSizes:
    """Sizes of the results of a run, each known before it is computed.

    Args:
        with_views: whether views count, which take memory in other libraries.
    """

    def __init__(self, *, with_views: bool = False) -> None:
        self._with_views, self._total = with_views, 0

    def check(self, target: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Check the size of the result of a call.

        Raises:
            ValueError: it would be too large.
        """
        arguments, options = tree_map(_to_meta, (args, dict(kwargs)))
        if any(argument.name == "device" for argument in target._schema.arguments):
            options["device"] = torch.device("meta")
        try:
            results = [value for value in tree_iter(target(*arguments, **options)) if isinstance(value, Tensor)]
            size = sum(value.numel() for value in results if self._with_views or not _is_view(target))
        except (NotImplementedError, RuntimeError):  # its size depends on values, or the call itself fails
            numbers = [value for value in tree_iter((args, dict(kwargs))) if type(value) is int]
            size = max((abs(number) for number in numbers), default=0)
            if size > MAX_UNKNOWN_SIZE:
                raise ValueError(f"{target} must not take numbers as large as {size}") from None
            size = 0
        self._total += size
        if size > MAX_RESULT_VALUES or self._total > MAX_TOTAL_VALUES:
            raise ValueError(f"{target} would return {size:,} values, which takes too much memory")


class SizeLimits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Checks the size of each result inside the `with`, also of views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes = ResultSizes(with_views=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operator of torch.

        Raises:
            ValueError: its result would be too large.
        """
        self._sizes.check(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


class TrialRun(fx.Interpreter):
    """Runs a graph; before each call, the size of its result is computed without its values.

    Args:
        module: has the tensors of the graph.
        graph: to run.
    """

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, garbage_collect_values=True, graph=graph)
        self.extra_traceback = False
        self._sizes = ResultSizes()

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of the graph.

        Raises:
            ValueError: its result would be too large.
        """
        if isinstance(target, torch._ops.OpOverload):
            self._sizes.check(target, args, kwargs)
        return super().call_function(target, args, kwargs)


def try_forward(module: nn.Module, graph: fx.Graph, example: tuple[int, ...], dtype: torch.dtype) -> list[Any] | None:
    """Run a graph on zeros and return its outputs; None if the CPU cannot run it in half precision.

    Args:
        module: has the tensors of the graph.
        graph: to run.
        example: sizes of the input.
        dtype: of the input.

    Raises:
        ValueError: a result would be too large, or the run changed a tensor of the module.
        Exception: the graph is broken.
    """
    stored = [*module.parameters(), *module.buffers()]
    before = [_describe_state(tensor) for tensor in stored]
    try:
        with torch.no_grad():
            outputs: list[Any] | None = TrialRun(module, graph).run(
                torch.zeros(example, dtype=dtype), torch.device("cpu")
            )
    except (NotImplementedError, RuntimeError) as error:
        if dtype not in (torch.float16, torch.bfloat16) or _NOT_ON_CPU not in str(error):
            raise
    if before != [_describe_state(tensor) for tensor in stored]:
        raise ValueError("its calls must not change its weights")
    return outputs


def _to_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    return torch.device("meta") if isinstance(value, torch.device) else value


def _is_view(target: torch._ops.OpOverload) -> bool:
    """Return whether all results share the memory of arguments."""
    return all(value.alias_info is not None for value in cast(Any, target)._schema.returns)


def _describe_state(tensor: Tensor) -> tuple[Any, ...]:
    """Return what changes if a tensor is changed in place."""
    return tensor._version, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.requires_grad
