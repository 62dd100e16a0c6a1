"""Build a `torch.fx.Graph` from the JSON graph of an exported network.

Security: the graph may call torch's own tensor operators and a few functions on numbers. Anything else it names is
rejected before anything is called, and no source code is generated from the file.
"""

import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from extremal.networks.zoo.pt2.archive import DTYPES, Archive, UnsupportedArchive

_NUMBER_OPERATORS = "add sub mul truediv floordiv mod pow neg pos abs eq ne lt le gt ge and_ or_ not_ getitem"
_NUMBER_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in _NUMBER_OPERATORS.split()},
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc", "sqrt")},
    **{f"torch.sym_{name}": getattr(torch, f"sym_{name}") for name in ("int", "float", "max", "min", "not")},
}
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_LAYOUTS = {7: torch.strided}
# a check that types are as at the export, which fails under autocast; left out
_TYPE_CHECK = "torch.ops.aten._assert_tensor_metadata.default"
_KEYWORD_KIND = 2  # of an argument; others are positional

WEIGHTS, CONSTANTS = "weights", "constants"  # attributes of the module that runs the graph

Structure = tuple[list[Any] | None, list["Structure"]] | None  # keys of a mapping or None, parts; None: a single value


def _identity(value: Any) -> Any:
    return value


_PLAIN_KINDS = "as_int as_ints as_int_lists as_bool as_bools as_string as_strings"
# each holds either a value or a name; with an s, a list of these
_OPTIONAL_KINDS = ("as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor")
_PARSERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_PLAIN_KINDS.split(), _identity),
    "as_none": lambda _: None,
    "as_float": float,  # infinite ones are written as text
    "as_floats": lambda values: [float(value) for value in values],
    "as_scalar_type": DTYPES.__getitem__,
    "as_memory_format": _MEMORY_FORMATS.__getitem__,
    "as_layout": _LAYOUTS.__getitem__,
}


@dataclass(frozen=True)
class ExportedGraph:
    """A graph that maps the input and its device to a list of outputs, and the form of these."""

    graph: fx.Graph
    is_floating: bool  # whether the input must be
    sizes: tuple[int | None, ...]  # of the input; None: any
    max_batch: int | None  # rows at once; None: any number
    structure: Structure  # of the outputs


def build_graph(archive: Archive) -> ExportedGraph:
    """Build the graph of an archive.

    Raises:
        UnsupportedArchive: the graph takes something other than one tensor, calls something other than operators, or is
            in training mode.
        KeyError, TypeError, ValueError and others: it is broken.
    """
    module = archive.program["graph_module"]
    graph_json, signature = module["graph"], module["signature"]
    graph, inputs = fx.Graph(), list[str]()
    values = _Values(graph)
    for spec in signature["input_specs"]:
        ((kind, entry),) = spec.items()
        if kind == "user_input" and "as_tensor" in entry["arg"]:
            inputs.append(entry["arg"]["as_tensor"]["name"])
        elif kind in ("parameter", "buffer", "tensor_constant"):
            path = _attribute_path(archive, entry[f"{kind}_name"])
            values.nodes[entry["arg"]["name"]] = graph.get_attr(path)
        elif kind not in ("user_input", "constant_input"):
            raise UnsupportedArchive("take nothing but tensors", f"which takes a {kind}", "export it without")
    if len(inputs) != 1:
        raise UnsupportedArchive("take one tensor", f"which takes {len(inputs)}", "wrap the module before the export")
    values.nodes[inputs[0]] = values.input
    for node in graph_json["nodes"]:
        if node["target"] != _TYPE_CHECK:
            _add_call(values, node)
    outputs = zip(signature["output_specs"], graph_json["outputs"], strict=True)
    graph.output([values.parse(output) for spec, output in outputs if "user_output" in spec])
    _remove_unused_items(graph)
    (root,) = (entry for entry in module["module_call_graph"] if not entry["fqn"])
    meta = graph_json["tensor_values"][inputs[0]]
    sizes = tuple(size.get("as_int") for size in meta["sizes"])
    return ExportedGraph(
        graph,
        is_floating=DTYPES[meta["dtype"]].is_floating_point,
        sizes=sizes,
        max_batch=sizes[0] if sizes[0] else _max_batch(meta["sizes"][0], archive.program["range_constraints"]),
        structure=_parse_structure(json.loads(root["signature"]["out_spec"])[1]),
    )


def _attribute_path(archive: Archive, name: str) -> str:
    """Return where the module holds a tensor; only the archive's own names, as others would read any attribute."""
    for part, tensors in ((WEIGHTS, archive.weights), (CONSTANTS, archive.constants)):
        if name in tensors:
            return f"{part}.{name}"
    raise KeyError(name)


class _Values:
    """The values of arguments in the format, with nodes of the graph for computed ones."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.input, device = graph.placeholder("input"), graph.placeholder("device")
        self.nodes: dict[str, fx.Node] = {}  # by their names in the file
        self._parsers: dict[str, Callable[[Any], Any]] = {
            **_PARSERS,
            **dict.fromkeys(_OPTIONAL_KINDS, self.parse),
            **{f"{kind}s": lambda items: [self.parse(item) for item in items] for kind in _OPTIONAL_KINDS},
            "as_device": lambda _: device,  # of the input, not that of the export
            "as_name": lambda name: self.nodes[name],
            "as_tensor": lambda tensor: self.nodes[tensor["name"]],
            "as_tensors": lambda tensors: [self.nodes[tensor["name"]] for tensor in tensors],
        }

    def parse(self, argument: Mapping[str, Any]) -> Any:
        """Return the value of an argument."""
        ((kind, value),) = argument.items()
        if kind not in self._parsers:
            raise UnsupportedArchive(
                "take usual arguments in its calls", f"which takes one {kind}", "export it without"
            )
        return self._parsers[kind](value)

    def bind(self, output: Mapping[str, Any], node: fx.Node) -> None:
        """Give a computed value, or each item of a list, the name it has in the file."""
        ((kind, value),) = output.items()
        if kind in _OPTIONAL_KINDS:
            self.bind(value, node)
        elif kind == "as_tensor":
            self.nodes[value["name"]] = node
        elif kind == "as_name":
            self.nodes[value] = node
        elif kind == "as_tensors" or kind.removesuffix("s") in _OPTIONAL_KINDS:
            items = value if kind != "as_tensors" else [{"as_tensor": tensor} for tensor in value]
            for index, item in enumerate(items):
                self.bind(item, self.graph.call_function(operator.getitem, (node, index)))
        elif kind != "as_none":
            raise UnsupportedArchive(
                "take usual arguments in its calls", f"which takes one {kind}", "export it without"
            )


def _add_call(values: _Values, node: Mapping[str, Any]) -> None:
    """Add the call of a node, and one item of its result for each of several outputs."""
    function = _find_function(node)
    arguments, options = list[Any](), dict[str, Any]()
    for entry in node["inputs"]:
        if entry.get("kind") == _KEYWORD_KIND:
            options[entry["name"]] = values.parse(entry["arg"])
        else:
            arguments.append(values.parse(entry["arg"]))
    call = values.graph.call_function(function, tuple(arguments), options)
    if len(node["outputs"]) == 1:
        values.bind(node["outputs"][0], call)
        return
    for index, output in enumerate(node["outputs"]):
        values.bind(output, values.graph.call_function(operator.getitem, (call, index)))


def _remove_unused_items(graph: fx.Graph) -> None:
    """Remove items of results that nothing uses: the interpreter would keep them until its end."""
    for node in reversed(graph.nodes):
        if node.target is operator.getitem and not node.users:
            graph.erase_node(node)


def _find_function(node: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the function that a node calls if it computes with tensors or numbers and does nothing else."""
    target = node["target"]
    if target in _NUMBER_FUNCTIONS:
        return _NUMBER_FUNCTIONS[target]
    match = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.(\w+)", target)
    function = getattr(getattr(torch.ops.aten, match[1], None), match[2], None) if match else None
    if not isinstance(function, torch._ops.OpOverload) or any(
        argument.name == "filename" for argument in function._schema.arguments
    ):
        raise UnsupportedArchive(
            "use torch's own tensor operators only",
            f"which calls {target!r}",
            "export it without, or load the module itself with MODULE:CALLABLE",
        )
    arguments = {entry["name"]: entry["arg"] for entry in node["inputs"]}
    in_training = any(arguments.get(name, {}).get("as_bool") for name in ("train", "training"))
    if in_training and "as_none" not in arguments.get("running_mean", {}):  # norms that keep no averages always are
        raise UnsupportedArchive(
            "be exported in evaluation mode",
            f"whose {node['name']!r} is in training",
            "call eval() and export it again",
        )
    return function


def _parse_structure(spec: Mapping[str, Any]) -> Structure:
    """Return the structure of the outputs: mappings of any class by their keys, all other containers as tuples."""
    if spec["type"] is None:
        return None
    keys = json.loads(spec["context"]) if isinstance(spec["context"], str) else None
    parts = [_parse_structure(part) for part in spec["children_spec"]]
    return (keys if isinstance(keys, list) and len(keys) == len(parts) else None, parts)


def _max_batch(size: Mapping[str, Any], ranges: Mapping[str, Any]) -> int | None:
    """Return the upper end of a variable size that is a symbol with a range."""
    symbol = re.fullmatch(r"(?:Symbol\(')?(\w+)(?:'[^()]*\))?", size["as_expr"]["expr_str"])
    max_batch: int | None = ranges.get(symbol[1], {}).get("max_val") if symbol else None
    return max_batch
