"""Small ONNX files for tests."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn


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
