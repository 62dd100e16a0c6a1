"""The functions that the graph of an archive may call: torch's tensor operators, and arithmetic of numbers."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from extremal.file_checks import quote
from extremal.networks.zoo.pt2.archive import UnsupportedArchive

Function = Callable[..., Any]

MAX_NUMBER = 2**63  # whole numbers of a graph are sizes

_NUMBER_OPERATORS = "add sub mul truediv floordiv mod pow neg pos abs eq ne lt le gt ge and_ or_ not_"
# operators that do not return tensors: numbers read off tensors, and checks
_READERS = ("sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "size", "stride", "numel", "dim", "item")
_CHECKS = ("_assert_scalar", "_assert_async", "sym_constrain_range", "sym_constrain_range_for_size")
_TENSOR_KINDS = frozenset(("Tensor", "Optional[Tensor]", "List[Tensor]", "List[Optional[Tensor]]"))
_NUMBER_KINDS = frozenset(("int", "SymInt", "float", "bool"))


def _limit(function: Function) -> Function:
    """Return a function that takes numbers only, and whose whole results are those that a size can have."""

    def call(*numbers: Any) -> Any:
        if not all(isinstance(number, int | float) for number in numbers):
            raise ValueError(f"{function.__name__} must take numbers")
        if function is operator.pow and all(isinstance(number, int) for number in numbers) and abs(numbers[1]) > 63:
            raise ValueError("pow must have an exponent in -63..63")
        result = function(*numbers)
        if not isinstance(result, int | float) or (isinstance(result, int) and abs(result) > MAX_NUMBER):
            raise ValueError(f"{function.__name__} must return a number below 2**63")
        return result

    return call


_NUMBER_FUNCTIONS: dict[str, Function] = {
    "_operator.getitem": operator.getitem,
    **{f"_operator.{name}": _limit(getattr(operator, name)) for name in _NUMBER_OPERATORS.split()},
    **{f"math.{name}": _limit(getattr(math, name)) for name in ("ceil", "floor", "trunc", "sqrt")},
    **{f"torch.sym_{name}": _limit(getattr(torch, f"sym_{name}")) for name in ("int", "float", "max", "min", "not")},
}


def find_function(node: Mapping[str, Any]) -> Function:
    """Return the function that a node calls if it computes with tensors or numbers and does nothing else.

    Args:
        node: in the form of the file.

    Raises:
        UnsupportedArchive: it does something else, or is in training mode.
    """
    target = node["target"]
    if target in _NUMBER_FUNCTIONS:
        return _NUMBER_FUNCTIONS[target]
    match = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.(\w+)", target)
    function = getattr(getattr(torch.ops.aten, match[1], None), match[2], None) if match else None
    if match is None or not isinstance(function, torch._ops.OpOverload) or not _computes(function):
        raise UnsupportedArchive(
            "use torch's own tensor operators only",
            f"which calls {quote(target)}",
            "export it without, or load the module itself with MODULE:CALLABLE",
        )
    arguments = {entry["name"]: entry["arg"] for entry in node["inputs"]}
    in_training = any(arguments.get(name, {}).get("as_bool") for name in ("train", "training"))
    if in_training and "as_none" not in arguments.get("running_mean", {}):  # norms that keep no averages always are
        raise UnsupportedArchive(
            "be exported in evaluation mode",
            f"whose {quote(node['name'])} is in training",
            "call eval() and export it again",
        )
    return function


def _computes(function: torch._ops.OpOverload) -> bool:
    """Return whether an operator computes tensors, or reads or checks numbers; others may affect the process."""
    schema = function._schema
    if schema.name.removeprefix("aten::") in (*_READERS, *_CHECKS):
        return True
    kinds = {str(value.type) for value in schema.returns}
    full_name = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
    return (
        bool(kinds & _TENSOR_KINDS)
        and kinds <= _TENSOR_KINDS | _NUMBER_KINDS
        and not any(argument.name == "filename" for argument in schema.arguments)
        and torch._C._dispatch_has_kernel(full_name)  # others are functions of TorchScript
    )
