"""What is asked of every family of networks by name."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from extremal import Network, explain, zoo
from extremal.errors import ExtremalError, ExtremalValueError
from extremal.masking.solvers import Path as Solver
from extremal.masking.solvers import Step

QUICK = Solver(steps=3, polish=1, draws=1, search=0)


def refused(name: str, weights: str | Path | None = None, kind: type[ExtremalError] = ExtremalValueError) -> str:
    with pytest.raises(kind) as caught:
        zoo.load(name, weights)
    return str(caught.value)


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def standing(net: Network, image: Any) -> tuple[Any, ...]:
    """All that a run may not change: weights, buffers, flags, hooks, the input, and the random states."""
    modules = list(net.model.modules())
    values = {name: tensor.clone() for name, tensor in net.model.state_dict().items()}
    flags = [(m.training, [p.requires_grad for p in m.parameters()], len(m._forward_hooks)) for m in modules]
    own = image.clone() if isinstance(image, Tensor) else np.array(image)
    return values, flags, own, torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()


def assert_standing(net: Network, image: Any, before: tuple[Any, ...]) -> None:
    """Bit for bit."""
    now = standing(net, image)
    assert list(now[0]) == list(before[0])
    assert all(torch.equal(now[0][name], tensor) for name, tensor in before[0].items())
    assert now[1] == before[1]
    assert (now[2] == before[2]).all()
    assert torch.equal(now[3], before[3])
    assert now[4:] == before[4:]


def explained_and_left_alone(net: Network, image: Any, target: Any = 0) -> None:
    """A run changes nothing, also one that is interrupted, and gives masks of the area."""
    before = standing(net, image)
    with pytest.raises(KeyboardInterrupt):
        explain(net, image, target, areas=(0.2,), solver=QUICK, on_step=interrupt)
    assert_standing(net, image, before)
    result = explain(net, image, target, areas=(0.2,), solver=QUICK)
    assert result.mask_areas[0, 0] == pytest.approx(0.2, abs=1e-3)
    assert_standing(net, image, before)


def interrupt(step: Step) -> None:
    """In the middle of the sweep."""
    if step.index == 2:
        raise KeyboardInterrupt
