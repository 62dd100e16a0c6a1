"""Archives of `torch.export.save`, intact and modified."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def small_network() -> nn.Module:
    """Return a network with a norm, dropout, an in-place operation, two heads with tied weights, and a constant."""
    torch.manual_seed(2)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
            self.drop = nn.Dropout()
            self.head, self.again = nn.Linear(16, 3), nn.Linear(16, 3)
            self.again.weight = self.head.weight
            self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]), persistent=False)
            nn.init.uniform_(self.body[1].running_mean)

        def forward(self, x: Tensor) -> Tensor:
            features = self.body(x)
            low, high = nn.functional.adaptive_avg_pool2d(features, 2).chunk(2, 1)
            features = self.drop(torch.cat([high, low], 1).flatten(1))
            masked = features.masked_fill(features > 1e6, -torch.inf)
            return self.head(masked) * self.scale + self.again(features) + torch.tensor([0.5, 0.0, -0.5])

    return Net().eval()


def export(module: nn.Module, path: Path, shape: tuple[int, ...] = (2, 3, 16, 16), **dynamic: Any) -> Path:
    """Export a module and save it; `sizes` names the variable ones."""
    shapes = {"dynamic_shapes": (dynamic["sizes"],)} if dynamic else {}
    torch.export.save(torch.export.export(module, (torch.rand(shape),), **shapes), path)
    return path


def modify_archive(path: Path, part: str, change: Callable[[bytes], bytes | None]) -> Path:
    """Copy the archive, changing the content of the parts whose names end in `part`; None removes them."""
    copy = path.with_name(f"changed-{path.name}")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as sink:
        for name in source.namelist():
            content = source.read(name)
            new = change(content) if name.endswith(part) else content
            if new is not None:
                sink.writestr(name, new)
    return copy


def modify_program(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy the archive, changing its program."""

    def edit(content: bytes) -> bytes:
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return modify_archive(path, "models/model.json", edit)
