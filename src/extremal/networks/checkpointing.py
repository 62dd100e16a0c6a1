"""Gradient checkpointing of a model's layers: less memory for a gradient, for one more evaluation of each layer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

LAYER_CLASS = "GradientCheckpointingLayer"  # of transformers, from which layers inherit that may be evaluated twice


def find_checkpoint_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a model of transformers that may be evaluated again for their gradient.

    >>> find_checkpoint_layers(nn.Linear(2, 2))
    []
    """
    return [module for module in model.modules() if LAYER_CLASS in {kind.__name__ for kind in type(module).__mro__}]


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """Keep only the inputs of the layers for the gradient inside the `with`, and evaluate each layer again for it.

    Models of transformers do so in training mode only; outputs and gradients are those without.
    """
    layers = [layer for layer in find_checkpoint_layers(model) if "forward" not in vars(layer)]
    for layer in layers:
        vars(layer)["forward"] = _evaluate_again(layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def _evaluate_again(forward: Callable[..., Any]) -> Callable[..., Any]:
    def evaluate(*args: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **options)
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **options)

    return evaluate
