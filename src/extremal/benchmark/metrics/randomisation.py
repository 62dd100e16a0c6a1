"""Cascading re-initialisation (Adebayo et al., 2018): reset the weights of a network from the top down."""

import copy

import torch
from torch import nn

from extremal.benchmark.metrics.estimate import MAX_SEED
from extremal.networks.network import Network
from extremal.networks.randomness import own_generator
from extremal.networks.resolve import as_network
from extremal.number_checks import validate_whole


def stages(network: Network | nn.Module | str) -> list[tuple[str, list[nn.Module]]]:
    """List the parts of a network that have weights, the classifier first.

    Parts are the model's children; a child with more than half of all layers with weights is split into its children.

    >>> toy = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), nn.Linear(4, 2))
    >>> [name for name, _ in stages(toy)]
    ['1', '0.2', '0.0']
    """
    model = as_network(network).model
    total = len(_modules_with_state(model))
    parts: list[tuple[str, list[nn.Module]]] = []

    def visit(module: nn.Module, name: str) -> None:
        for child_name, child in module.named_children():
            path = f"{name}.{child_name}" if name else child_name
            inside = _modules_with_state(child)
            if len(inside) > max(1, total / 2):
                visit(child, path)
            elif inside:
                parts.append((path, inside))

    visit(model, "")
    return parts[::-1]


def _modules_with_state(module: nn.Module) -> list[nn.Module]:
    """List the modules with parameters or running statistics of their own."""
    return [
        part
        for part in module.modules()
        if any(True for _ in part.parameters(recurse=False)) or isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]


def reinitialise(network: Network | nn.Module | str, count: int, seed: int = 0) -> Network:
    """Return a copy of the network whose top stages have random weights.

    Layers with weights are initialised after He, which preserves the size of a signal from layer to layer; with
    `reset_parameters` it would fade in a deep network, and its maps would be meaningless. The statistics of batch norms
    are reset as well. The caller's network is not changed.

    Args:
        network: a `Network`, a module, or a name.
        count: number of stages to reset, from the top; 0 returns a plain copy.
        seed: of the new weights; those of a stage do not depend on `count`.

    Raises:
        ExtremalValueError, ExtremalTypeError: it is no network, or has fewer stages.
    """
    network = as_network(network)
    model = copy.deepcopy(network.model)
    parts = stages(model)
    count = validate_whole(count, "count", 0, len(parts), f"{network.name} has {len(parts)} stages")
    seed = validate_whole(seed, "seed", 0, MAX_SEED - len(parts), "e.g. 0")
    with own_generator(), torch.no_grad():
        for index, (_, modules) in enumerate(parts[:count]):
            torch.manual_seed(seed + index)
            for module in modules:
                _reset_module(module)
    result = copy.copy(network)
    result.model = model
    return result


def _reset_module(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        return
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in module.parameters(recurse=False):
        deviation = float(parameter.std()) if parameter.numel() > 1 else 1.0
        parameter.normal_(0.0, max(deviation, 1e-3))  # tokens and embeddings: noise of the same size
