"""Build a `torch.fx.Graph` from the JSON graph of an exported network.

Security: the graph may call operators of torch that return tensors and a few functions on numbers. Anything else it
names is rejected before anything is called, and no source code is generated from the file.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from extremal.file_checks import quote
from extremal.json_files import parse_json
from extremal.networks.zoo.pt2.archive import DTYPES, Archive, UnsupportedArchive, count_values
from extremal.networks.zoo.pt2.functions import find_function

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

MAX_INPUT_VALUES = 2**24  # of an input

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
    dtype: torch.dtype  # of the input at the export
    sizes: tuple[int | None, ...]  # of the input; None: any
    example: tuple[int, ...]  # sizes of an input that the graph takes
    max_batch: int | None  # rows at once; None: any number
    structure: Structure  # of the outputs


def build_graph(archive: Archive) -> ExportedGraph:
    """Build the graph of an archive.

    Raises:
        UnsupportedArchive: the graph takes something other than one tensor, calls something other than operators, or is
            in training mode.
        Exception: it is broken.
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
        dtype=DTYPES[meta["dtype"]],
        sizes=sizes,
        example=_find_example(meta["sizes"]),
        max_batch=sizes[0] if sizes[0] else _max_batch(meta["sizes"][0], archive.program["range_constraints"]),
        structure=_parse_structure(parse_json(root["signature"]["out_spec"])[1]),
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
    function = find_function(node)
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


def _parse_structure(spec: Mapping[str, Any]) -> Structure:
    """Return the structure of the outputs: mappings of any class by their keys, all other containers as tuples."""
    if spec["type"] is None:
        return None
    keys = parse_json(spec["context"]) if isinstance(spec["context"], str) else None
    parts = [_parse_structure(part) for part in spec["children_spec"]]
    return (keys if isinstance(keys, list) and len(keys) == len(parts) else None, parts)


def _find_example(sizes: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """Return sizes of an input that the graph takes: one row if their number is variable, else as at the export."""
    hints = [size if "as_int" in size else size["as_expr"]["hint"] for size in sizes]
    example = [hint["as_int"] for hint in hints]
    if "as_int" not in sizes[0]:
        example[0] = 1
    if count_values(example) > MAX_INPUT_VALUES:
        raise UnsupportedArchive(
            f"take inputs of at most {MAX_INPUT_VALUES:,} values",
            f"which takes {' × '.join(map(str, example))}",
            "export it for smaller ones",
        )
    return tuple(example)


def _max_batch(size: Mapping[str, Any], ranges: Mapping[str, Any]) -> int | None:
    """Return the upper end of a variable size that is a symbol with a range."""
    symbol = re.fullmatch(r"(?:Symbol\(')?(\w+)(?:'[^()]*\))?", size["as_expr"]["expr_str"])
    max_batch = ranges.get(symbol[1], {}).get("max_val") if symbol else None
    if max_batch is not None and (type(max_batch) is not int or max_batch < 1):
        raise ValueError(f"a batch must have at least one row, got at most {quote(max_batch)}")
    return max_batch
