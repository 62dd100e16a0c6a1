"""Archives of `torch.export.save`, whole and tampered with."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def small() -> nn.Module:
    """A network with a norm, a dropout, an operation in place, two heads with a tied weight, and a constant."""
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
            found = self.body(x)
            low, high = nn.functional.adaptive_avg_pool2d(found, 2).chunk(2, 1)
            found = self.drop(torch.cat([high, low], 1).flatten(1))
            masked = found.masked_fill(found > 1e6, -torch.inf)
            return self.head(masked) * self.scale + self.again(found) + torch.tensor([0.5, 0.0, -0.5])

    return Net().eval()


def exported(module: nn.Module, path: Path, shape: tuple[int, ...] = (2, 3, 16, 16), **dynamic: Any) -> Path:
    shapes = {"dynamic_shapes": (dynamic["sizes"],)} if dynamic else {}
    torch.export.save(torch.export.export(module, (torch.rand(shape),), **shapes), path)
    return path


def changed(path: Path, part: str, change: Callable[[bytes], bytes | None]) -> Path:
    """The archive with another content of the parts whose names end so; None leaves it out."""
    other = path.with_name(f"changed-{path.name}")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as sink:
        for name in source.namelist():
            content = source.read(name)
            new = change(content) if name.endswith(part) else content
            if new is not None:
                sink.writestr(name, new)
    return other


def regraphed(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The archive with its program changed."""

    def edit(content: bytes) -> bytes:
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return changed(path, "models/model.json", edit)
