"""At which layer a method looks: by rule for the common architectures, or as the user says."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.explanations.channels.explanation import lattice_of
from extremal.networks.layers import module_named, traced, watched
from extremal.networks.network import Network, Run

COARSE_STRIDE = (
    16  # input places to one of the layer at which excitation backprop is read (Zhang et al., 2016, section 4)
)


@dataclass(frozen=True)
class AttributionLayer:
    """A module and the lattice of places in its output."""

    name: str
    module: nn.Module
    lattice: tuple[int, ...]
    tokens: bool  # its output is (B, T, K), the places among T


def grad_cam_layer(network: Network, x: Tensor, layer: str = "") -> AttributionLayer:
    """Where Grad-CAM looks: the last layer of maps whose every place speaks to the answer.

    Of convolutions the output of the last stage before it is pooled: after the last convolution, what follows it as
    long as the lattice stays and all of the answer passes through. Of tokens the last layer at which more than the
    class token reaches the answer.

    Raises:
        ExtremalValueError: there is none, or the user's layer has no lattice.
    """
    with network.frozen() as run:
        if layer:
            return _named_layer(run, x, layer)
        found = _last_token_layer(run, x) or _last_convolutional_layer(run, x)
    if found is None:
        raise ExtremalValueError(
            f"Grad-CAM must find a layer of maps, {network.name} has none that all of the answer passes through; "
            "name one with layer=..."
        )
    return found


def excitation_layer(network: Network, x: Tensor, layer: str = "") -> AttributionLayer:
    """Where excitation backprop is read: the first layer of a sixteenth of the input's sides without negative values.

    All of the answer passes through it. That is pool4 of VGG-16 and the first block of the third stage of ResNet-50.

    Raises:
        ExtremalValueError: there is none, or the user's layer has no lattice.
    """
    with network.frozen() as run:
        if layer:
            return _named_layer(run, x, layer)
        outputs = _module_outputs(run, x)
        for candidate in traced(run, x[:1]):
            lattice = candidate.shape[1:]
            if candidate.clean and _has_coarse_stride(lattice, x) and float(outputs[candidate.name].min()) >= 0:
                return AttributionLayer(
                    candidate.name, network.model.get_submodule(candidate.name), lattice, tokens=False
                )
    raise ExtremalValueError(
        f"excitation backprop must be read at a layer of a {COARSE_STRIDE}th of the input's sides without negative "
        f"values, {network.name} has none that all of the answer passes through; name one with layer=..."
    )


def _has_coarse_stride(lattice: tuple[int, ...], x: Tensor) -> bool:
    """Whether a lattice has a sixteenth of the input's sides, rounded either way."""
    sides = x.shape[2:]
    return len(lattice) == len(sides) and all(
        side // COARSE_STRIDE <= count <= -(-side // COARSE_STRIDE) for count, side in zip(lattice, sides, strict=True)
    )


def _named_layer(run: Run, x: Tensor, name: str) -> AttributionLayer:
    """The user's layer."""
    module = module_named(run.network, name)
    output = _module_outputs(run, x).get(name)
    if output is not None and output.ndim == x.ndim:
        return AttributionLayer(name, module, tuple(output.shape[2:]), tokens=False)
    lattice = lattice_of(output.shape[1]) if output is not None and output.ndim == 3 else None
    if lattice is None:
        shape = "no tensor" if output is None else f"shape {tuple(output.shape)}"
        raise ExtremalValueError(
            f"a layer must give maps (B, K, *S) or square tokens (B, T, K), {name} of {run.network.name} gives "
            f"{shape}; `extremal layers` lists others"
        )
    return AttributionLayer(name, module, lattice, tokens=True)


def _module_outputs(run: Run, x: Tensor) -> dict[str, Tensor]:
    """What each module that gives a tensor gives for the first input."""
    names = {module: name for name, module in run.network.model.named_modules()}
    found: dict[str, Tensor] = {}

    def left(module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor):
            found[names[module]] = output.clone()  # what follows may change it in place

    with torch.no_grad(), watched(run.network.model, lambda _: None, left):
        run.raw(x[:1])
    return found


def _last_convolutional_layer(run: Run, x: Tensor) -> AttributionLayer | None:
    order = traced(run, x[:1])
    modules = run.network.model.get_submodule
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    maps = [i for i, layer in enumerate(order) if isinstance(modules(layer.name), kinds) and len(layer.shape) > 1]
    wide = [i for i in maps if min(order[i].shape[1:]) > 1]  # not those of gates and heads, one place high
    if not wide:
        return None
    lattice, found = order[wide[-1]].shape[1:], None
    for layer in order[wide[-1] :]:
        if layer.shape[1:] != lattice:
            break
        if layer.clean:
            found = AttributionLayer(layer.name, modules(layer.name), lattice, tokens=False)
    return found


def _last_token_layer(run: Run, x: Tensor) -> AttributionLayer | None:
    """The last layer of tokens of which at least half have a gradient."""
    clean = [layer for layer in traced(run, x[:1]) if layer.clean and len(layer.shape) == 2]
    places = {layer.name: lattice_of(layer.shape[0]) for layer in clean}
    if not any(places.values()):
        return None
    names = {run.network.model.get_submodule(name): name for name, lattice in places.items() if lattice}
    held: list[tuple[str, Tensor]] = []

    def left(module: nn.Module, output: object) -> None:
        if module in names and isinstance(output, Tensor):
            held.append((names[module], output))

    with watched(run.network.model, lambda _: None, left):
        top = run(x[:1].detach().requires_grad_()).amax()
    slopes = torch.autograd.grad(top, [output for _, output in held], allow_unused=True)
    for (name, _), slope in reversed(list(zip(held, slopes, strict=True))):
        lattice = places[name]
        if slope is not None and lattice and float((slope.abs().amax(2) > 0).float().mean()) >= 0.5:
            return AttributionLayer(name, run.network.model.get_submodule(name), lattice, tokens=True)
    return None
