"""Small ONNX files for tests."""

import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from support.mutations import mutate_bytes


class SmallClassifier(nn.Module):
    """Convolutions, a pool and a linear layer: (B, 3, H, W) -> (B, 3)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3))
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, 3)."""
        pooled: torch.Tensor = self.features(x).mean((2, 3))
        return self.head(pooled)  # type: ignore[no-any-return]


def export_onnx(model: nn.Module, path: Path, side: int = 16, **options: Any) -> Path:
    """Export a network for a batch of one by the exporter of torch that needs no other package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (torch.rand(1, 3, side, side),), str(path), dynamo=False, **options)
    return path


def write_graph(
    path: Path,
    nodes: Sequence[tuple[Any, ...]],
    *,
    sizes: Sequence[int | str] = ("N", 3, 8, 8),
    outputs: Mapping[str, int] = MappingProxyType({"y": 2}),
    weights: dict[str, Any] | None = None,
    kind: str = "FLOAT",
    inputs: Sequence[str] = ("x",),
    domain: str = "",
) -> Path:
    """Write a graph of (operator, inputs, outputs, attributes) with these weights, and outputs of these ranks."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    made = [helper.make_node(node[0], node[1], node[2], domain=domain, **(node[3:] or ({},))[0]) for node in nodes]
    graph = helper.make_graph(
        made,
        "graph",
        [helper.make_tensor_value_info(name, getattr(TensorProto, kind), list(sizes)) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"] * rank) for name, rank in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


_NUMBERS = (-(2**63), -(2**31), -7, -1, 0, 1, 2, 3, 7, 64, 1000, 10**5, 2**31, 2**40, 2**63 - 1)
_OPERATORS = (
    *("Add", "Mul", "Div", "MatMul", "Conv", "ConvTranspose", "MaxPool", "AveragePool", "BatchNormalization", "Pad"),
    *("Reshape", "Expand", "Tile", "ConstantOfShape", "Range", "Resize", "Upsample", "OneHot", "EyeLike", "Slice"),
    *("Gather", "GatherND", "ScatterND", "Concat", "Split", "TopK", "CumSum", "Loop", "If", "DepthToSpace", "Einsum"),
    *("Cast", "QuantizeLinear", "StringNormalizer", "RandomNormal", "NonMaxSuppression", "Load", "Compile", "Hub"),
    *(
        "Softmax",
        "LayerNormalization",
        "InstanceNormalization",
        "GRU",
        "GridSample",
        "Col2Im",
        "DeformConv",
        "Unsqueeze",
    ),
)


def mutate_onnx(rng: random.Random, content: bytes) -> bytes:
    """Change bytes of an ONNX file, or fields of its message: operators, sizes, names, where weights lie."""
    import onnx

    if rng.random() < 0.2:
        return mutate_bytes(rng, content)
    model = onnx.ModelProto()
    model.ParseFromString(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _mutate_field(rng, model.graph)
    return bytes(model.SerializeToString())


def _mutate_field(rng: random.Random, graph: Any) -> None:
    rng.choice((_mutate_node, _mutate_names, _mutate_tensor, _mutate_place))(rng, graph)


def _mutate_node(rng: random.Random, graph: Any) -> None:
    node = rng.choice(graph.node)
    if rng.random() < 0.5:
        node.op_type = rng.choice(_OPERATORS)
        return
    attribute = node.attribute.add(type=7, name=rng.choice(("pads", "strides", "kernel_shape", "axis", "group")))
    attribute.ints.extend(rng.choices(_NUMBERS, k=rng.randrange(5)))


def _mutate_names(rng: random.Random, graph: Any) -> None:
    node = rng.choice(graph.node)
    names = [*(one.name for one in graph.initializer), *(name for one in graph.node for name in one.output), "x", ""]
    if rng.random() < 0.5:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    else:
        node.output[0] = rng.choice([*names, "__class__", "forward", "a.b", "../x", "é" * 300])


def _mutate_tensor(rng: random.Random, graph: Any) -> None:
    tensor = rng.choice(graph.initializer)
    case = rng.randrange(4)
    if case == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_NUMBERS)
    elif case == 1:
        tensor.raw_data = rng.randbytes(len(tensor.raw_data))
    elif case == 2:
        rng.choice(graph.input[0].type.tensor_type.shape.dim).dim_value = rng.choice(_NUMBERS)
    else:
        shape = next((one for one in graph.initializer if one.name == "shape"), tensor)
        shape.raw_data = b"".join(rng.choice(_NUMBERS).to_bytes(8, "little", signed=True) for _ in range(2))


def _mutate_place(rng: random.Random, graph: Any) -> None:
    tensor = rng.choice(graph.initializer)
    tensor.data_location = 1
    place = rng.choice(("/dev/zero", "/etc/passwd", "a.onnx", "..", "", "\0", "a" * 300))
    for key, value in (("location", place), ("offset", rng.choice(_NUMBERS)), ("length", rng.choice(_NUMBERS))):
        tensor.external_data.add(key=key, value=str(value))
