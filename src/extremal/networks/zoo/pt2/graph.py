"""The graph of an exported network as a plan of calls.

Only torch's own tensor operators are called, and a few functions on numbers; what a graph names beyond these is refused
before anything is called.
"""

import json
import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from extremal.networks.zoo.pt2.archive import DTYPES, Archive, Refused

_OPERATORS = "add sub mul truediv floordiv mod pow neg pos abs eq ne lt le gt ge and_ or_ not_ getitem"
_NUMBERS: dict[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in _OPERATORS.split()},
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc", "sqrt")},
    **{f"torch.sym_{name}": getattr(torch, f"sym_{name}") for name in ("int", "float", "max", "min", "not")},
}
_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
_LAYOUTS = {7: torch.strided}
_CHECK = "torch.ops.aten._assert_tensor_metadata.default"  # that types are as at the export; those of autocast are not
_KEYWORD = 2

Structure = tuple[list[Any] | None, list["Structure"]] | None  # keys of a mapping or None, parts; None: a single value


@dataclass(frozen=True)
class Name:
    """In place of an argument: a value that was computed before."""

    key: str


@dataclass(frozen=True)
class Device:
    """In place of an argument: where the input lies; where it lay at the export is of no use."""


@dataclass(frozen=True)
class Call:
    """One call of the graph."""

    function: Callable[..., Any]
    args: Sequence[Any]  # values, with `Name` and `Device` among them
    options: dict[str, Any]
    outputs: Sequence[Any]  # a name, a list of names or None for each value that is returned
    spent: Sequence[str]  # names that no later call takes


@dataclass(frozen=True)
class Plan:
    """What to call, in order, and what goes in and comes out."""

    input: str  # name of the network's one input
    floating: bool  # whether it is
    sizes: tuple[int | None, ...]  # of the input; None: any
    most: int | None  # rows at once; None: any
    weights: dict[str, str]  # names in the graph -> in the archive
    constants: dict[str, str]
    calls: Sequence[Call]
    outputs: Sequence[Any]  # values, with `Name` among them
    structure: Structure  # that they are returned in


def planned(archive: Archive) -> Plan:
    """The plan of an archive's graph.

    Raises:
        Refused: the graph takes something else than one tensor, calls something else than operators, or is in training
            mode.
        KeyError, TypeError, ValueError and others: it is broken.
    """
    module = archive.program["graph_module"]
    graph, signature = module["graph"], module["signature"]
    weights, constants, inputs = dict[str, str](), dict[str, str](), list[str]()
    for spec in signature["input_specs"]:
        ((kind, entry),) = spec.items()
        if kind == "user_input" and "as_tensor" in entry["arg"]:
            inputs.append(entry["arg"]["as_tensor"]["name"])
        elif kind in ("parameter", "buffer", "tensor_constant"):
            own = entry[f"{kind}_name"]
            (weights if own in archive.weights else constants)[entry["arg"]["name"]] = own
        elif kind not in ("user_input", "constant_input"):
            raise Refused("take nothing but tensors", f"which takes a {kind}", "export it without")
    if len(inputs) != 1:
        raise Refused("take one tensor", f"which takes {len(inputs)}", "wrap the module before the export")
    given = zip(signature["output_specs"], graph["outputs"], strict=True)
    outputs = [_value(output) for spec, output in given if "user_output" in spec]
    calls = _calls([node for node in graph["nodes"] if node["target"] != _CHECK], outputs)
    (whole,) = (entry for entry in module["module_call_graph"] if not entry["fqn"])
    structure = _structure(json.loads(whole["signature"]["out_spec"])[1])
    meta = graph["tensor_values"][inputs[0]]
    sizes = tuple(size.get("as_int") for size in meta["sizes"])
    most = sizes[0] if sizes[0] else _most(meta["sizes"][0], archive.program["range_constraints"])
    floating = DTYPES[meta["dtype"]].is_floating_point
    return Plan(inputs[0], floating, sizes, most, weights, constants, calls, outputs, structure)


def _calls(nodes: list[dict[str, Any]], outputs: list[Any]) -> list[Call]:
    """The calls of these nodes; read from the last to the first, so that each knows what is still needed after it."""
    needed = {name.key for name in _names_in(outputs)}
    calls = []
    for node in reversed(nodes):
        function = _function(node)
        args, options = list[Any](), dict[str, Any]()
        for entry in node["inputs"]:
            if entry.get("kind") == _KEYWORD:
                options[entry["name"]] = _value(entry["arg"])
            else:
                args.append(_value(entry["arg"]))
        made = [_value(output) for output in node["outputs"]]
        touched = {name.key for name in _names_in([args, list(options.values()), made])}
        calls.append(Call(function, args, options, made, tuple(touched - needed)))
        needed |= touched
    return calls[::-1]


def _function(node: dict[str, Any]) -> Callable[..., Any]:
    """What a node calls, if that computes with tensors or numbers and nothing else."""
    target = node["target"]
    if target in _NUMBERS:
        return _NUMBERS[target]
    named = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.(\w+)", target)
    found = getattr(getattr(torch.ops.aten, named[1], None), named[2], None) if named else None
    if not isinstance(found, torch._ops.OpOverload) or any(a.name == "filename" for a in found._schema.arguments):
        raise Refused(
            "use torch's own tensor operators only",
            f"which calls {target!r}",
            "export it without, or load the module itself with MODULE:CALLABLE",
        )
    given = {entry["name"]: entry["arg"] for entry in node["inputs"]}
    training = any(given.get(name, {}).get("as_bool") for name in ("train", "training"))
    if training and "as_none" not in given.get("running_mean", {}):  # norms that keep none are always so
        raise Refused(
            "be exported in evaluation mode",
            f"whose {node['name']!r} is in training",
            "call eval() and export it again",
        )
    return found


def _value(argument: dict[str, Any]) -> Any:
    """An argument of the format as a value, `Name` or `Device`."""
    ((kind, value),) = argument.items()
    if kind not in _VALUES:
        raise Refused("take usual arguments in its calls", f"which takes one {kind}", "export it without")
    return _VALUES[kind](value)


def _itself(value: Any) -> Any:
    return value


def _each(value: list[dict[str, Any]]) -> list[Any]:
    return [_value(one) for one in value]


_PLAIN = "as_int as_ints as_int_lists as_bool as_bools as_string as_strings"
_EITHER = "as_sym_int as_sym_float as_sym_bool as_optional_tensor"  # each either a value or a name
_VALUES: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_PLAIN.split(), _itself),
    **dict.fromkeys(_EITHER.split(), _value),
    **{f"{kind}s": _each for kind in _EITHER.split()},
    "as_none": lambda _: None,
    "as_float": float,  # infinite ones are written as text
    "as_floats": lambda values: [float(value) for value in values],
    "as_name": Name,
    "as_tensor": lambda value: Name(value["name"]),
    "as_tensors": lambda values: [Name(value["name"]) for value in values],
    "as_scalar_type": DTYPES.__getitem__,
    "as_memory_format": _FORMATS.__getitem__,
    "as_layout": _LAYOUTS.__getitem__,
    "as_device": lambda _: Device(),
}


def _names_in(value: Any) -> Iterator[Name]:
    if isinstance(value, Name):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _names_in(one)


def _structure(spec: dict[str, Any]) -> Structure:
    """Mappings by their keys, whatever their class; all else that holds several becomes a tuple."""
    if spec["type"] is None:
        return None
    keys = json.loads(spec["context"]) if isinstance(spec["context"], str) else None
    parts = [_structure(part) for part in spec["children_spec"]]
    return (keys if isinstance(keys, list) and len(keys) == len(parts) else None, parts)


def _most(size: dict[str, Any], ranges: dict[str, Any]) -> int | None:
    """The upper end of a size that may vary, where it is a symbol with a range."""
    symbol = re.fullmatch(r"(?:Symbol\(')?(\w+)(?:'[^()]*\))?", size["as_expr"]["expr_str"])
    most: int | None = ranges.get(symbol[1], {}).get("max_val") if symbol else None
    return most
