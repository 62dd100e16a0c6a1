"""What is asked of every family of networks by name."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from extremal import Network, explain, zoo
from extremal.errors import ExtremalError, ExtremalValueError
from extremal.solvers import Path as Solver

QUICK = Solver(steps=3, polish=1, draws=1, search=0)


def refused(name: str, weights: str | Path | None = None, kind: type[ExtremalError] = ExtremalValueError) -> str:
    with pytest.raises(kind) as caught:
        zoo.load(name, weights)
    return str(caught.value)


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def explained_and_left_alone(net: Network, image: Any, target: Any = 0) -> None:
    """One run changes nothing of the model and of the random states, and gives masks of the area."""
    before = {name: tensor.clone() for name, tensor in net.model.state_dict().items()}
    flags = [(m.training, [p.requires_grad for p in m.parameters()]) for m in net.model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    result = explain(net, image, target, areas=(0.2,), solver=QUICK)
    assert result.mask_areas[0, 0] == pytest.approx(0.2, abs=1e-3)
    after = net.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert [(m.training, [p.requires_grad for p in m.parameters()]) for m in net.model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
