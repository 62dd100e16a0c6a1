"""Prepare the graph of an ONNX file for its conversion: weights as initializers, plain names, one output."""

import re
from typing import Any

MAX_AXES = 8  # of a reshape
_LISTS = {"value_floats": "float32", "value_ints": "int64", "value_float": "float32", "value_int": "int64"}


def lift_constants(graph: Any) -> None:
    """Turn Constant nodes into initializers, and let Identity nodes of initializers lead to these.

    The converter finds weights among the initializers only.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    stored = {tensor.name for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    aliases: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [aliases.get(name, name) for name in node.input]
        attribute = node.attribute[0] if node.op_type == "Constant" and len(node.attribute) == 1 else None
        if attribute is not None and attribute.name == "value":
            tensor = TensorProto()
            tensor.CopyFrom(attribute.t)
        elif attribute is not None and attribute.name in _LISTS:
            value = {"value_float": attribute.f, "value_int": attribute.i}.get(attribute.name)
            values = list(attribute.floats or attribute.ints) if value is None else value
            tensor = numpy_helper.from_array(np.array(values, _LISTS[attribute.name]))
        elif node.op_type == "Identity" and node.input[0] in stored and node.output[0] not in outputs:
            aliases[node.output[0]] = node.input[0]
            continue
        else:
            kept.append(node)
            continue
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        stored.add(tensor.name)
    del graph.node[:]
    graph.node.extend(kept)


def drop_inference_modes(graph: Any) -> None:
    """Remove the attribute of batch norms that they are not trained, which is the default; the converter rejects it."""
    for node in graph.node:
        kept = [one for one in node.attribute if one.name != "training_mode" or one.i]
        if node.op_type == "BatchNormalization" and len(kept) < len(node.attribute):
            del node.attribute[:]
            node.attribute.extend(kept)


def free_batch(graph: Any) -> None:
    """Let reshapes to one row keep as many rows as they get; the result may compute something else for several rows."""
    import numpy as np
    from onnx import numpy_helper

    shapes = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if len(tensor.dims) == 1 and tensor.dims[0] <= MAX_AXES
    }
    for index, node in enumerate(graph.node):
        shape = shapes.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or shape.dtype != np.int64 or not len(shape) or shape[0] != 1 or 0 in shape:
            continue
        name = f"free_shape_{index}"
        graph.initializer.append(numpy_helper.from_array(np.array([0, *shape[1:]], np.int64), name))
        node.input[1] = name
        del node.attribute[:]  # allowzero, which is without effect on a shape without zeros


def keep_output(graph: Any, name: str) -> None:
    """Remove all outputs but one, and what only the others need."""
    needed, kept = {name}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    outputs = [output for output in graph.output if output.name == name]
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    for field, values in ((graph.node, kept[::-1]), (graph.output, outputs), (graph.initializer, weights)):
        del field[:]
        field.extend(values)


def rename_values(graph: Any) -> None:
    """Give all values names of letters, digits and underscores, which are parts of the names of modules."""
    names: dict[str, str] = {"": ""}
    taken: set[str] = set()

    def rename(name: str) -> str:
        if name not in names:
            plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:100] or "value"
            new, count = plain, 1
            while new in taken:
                count += 1
                new = f"{plain}_{count}"
            taken.add(new)
            names[name] = new
        return names[name]

    for node in graph.node:
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = rename(value.name)
    del graph.value_info[:]
