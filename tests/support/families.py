"""Checks that every family of named networks must pass."""

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


def load_error(name: str, weights: str | Path | None = None, kind: type[ExtremalError] = ExtremalValueError) -> str:
    """Load a network, expect an error of this kind, and return its message."""
    with pytest.raises(kind) as error:
        zoo.load(name, weights)
    return str(error.value)


def noise_image(side: int = 64) -> Image.Image:
    """Return an image of uniform noise."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def save_state(net: Network, image: Any) -> tuple[Any, ...]:
    """Return all that a run must not change: weights, buffers, flags, hooks, the input, and the random states."""
    modules = list(net.model.modules())
    values = {name: tensor.clone() for name, tensor in net.model.state_dict().items()}
    flags = [(m.training, [p.requires_grad for p in m.parameters()], len(m._forward_hooks)) for m in modules]
    input_values = image.clone() if isinstance(image, Tensor) else np.array(image)
    return values, flags, input_values, torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()


def assert_state(net: Network, image: Any, before: tuple[Any, ...]) -> None:
    """Check that the state is the same, bit for bit."""
    after = save_state(net, image)
    assert list(after[0]) == list(before[0])
    assert all(torch.equal(after[0][name], tensor) for name, tensor in before[0].items())
    assert after[1] == before[1]
    assert (after[2] == before[2]).all()
    assert torch.equal(after[3], before[3])
    assert after[4:] == before[4:]


def assert_explains_and_restores(net: Network, image: Any, target: Any = 0) -> None:
    """Check that runs, complete or interrupted, change nothing, and that masks have the requested area."""
    before = save_state(net, image)
    with pytest.raises(KeyboardInterrupt):
        explain(net, image, target, areas=(0.2,), solver=QUICK, on_step=interrupt)
    assert_state(net, image, before)
    result = explain(net, image, target, areas=(0.2,), solver=QUICK)
    assert result.mask_areas[0, 0] == pytest.approx(0.2, abs=1e-3)
    assert_state(net, image, before)


def interrupt(step: Step) -> None:
    """Raise in the middle of the sweep."""
    if step.index == 2:
        raise KeyboardInterrupt
