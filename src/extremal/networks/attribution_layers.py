"""The layer that a method attributes to: by rule for the common architectures, or the user's choice."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.networks.layers import LayerTrace, get_module, hooked, square_lattice, trace_layers
from extremal.networks.network import Network
from extremal.networks.run import Run

COARSE_STRIDE = 16  # input places per place of the layer that excitation backprop reads (Zhang et al., 2016, section 4)


@dataclass(frozen=True)
class AttributionLayer:
    """A module, and the lattice of places in its output."""

    name: str
    module: nn.Module
    lattice: tuple[int, ...]
    tokens: bool  # its output is (B, T, K), with the places among T


def grad_cam_layer(network: Network, x: Tensor, layer: str = "") -> AttributionLayer:
    """Find the layer for Grad-CAM: the last one whose places all contribute to the answer.

    In a convolutional network this is the output of the last stage before pooling: the last module after the last
    convolution that keeps its lattice and that all of the answer passes through. In a network of tokens it is the last
    layer from which tokens other than the class token reach the answer.

    Raises:
        ExtremalValueError: there is no such layer, or the requested layer has no lattice.
    """
    with network.frozen() as run:
        if layer:
            return _find_layer(run, x, layer)
        result = _last_token_layer(run, x, LayerTrace(run, x[:1])) or _last_convolutional_layer(run, x)
    if result is None:
        raise ExtremalValueError(
            f"Grad-CAM must find a layer of maps, {network.name} has none that all of the answer passes through; "
            "name one with layer=..."
        )
    return result


def excitation_layer(network: Network, x: Tensor, layer: str = "") -> AttributionLayer:
    """Find the layer for excitation backprop: the first of a sixteenth of the input's sides without negative values.

    All of the answer must pass through it. In VGG-16 this is pool4, in ResNet-50 the first block of the third stage.

    Raises:
        ExtremalValueError: there is no such layer, or the requested layer has no lattice.
    """
    with network.frozen() as run:
        if layer:
            return _find_layer(run, x, layer)
        outputs = _module_outputs(run, x)
        for candidate in trace_layers(run, x[:1]):
            lattice = candidate.shape[1:]
            if (
                candidate.can_split_cleanly
                and _has_coarse_stride(lattice, x)
                and float(outputs[candidate.name].min()) >= 0
            ):
                return AttributionLayer(
                    candidate.name, network.model.get_submodule(candidate.name), lattice, tokens=False
                )
    raise ExtremalValueError(
        f"excitation backprop must be read at a layer of a {COARSE_STRIDE}th of the input's sides without negative "
        f"values, {network.name} has none that all of the answer passes through; name one with layer=..."
    )


def find_map_layers(run: Run, x: Tensor) -> tuple[AttributionLayer, ...]:
    """Find up to two layers whose maps distinguish places: one of a sixteenth of the input's sides, and the last.

    All of the answer must pass through each. Of several modules on one lattice, such as a stage and the convolutions
    inside it, the last of the outermost is chosen; in a network of tokens, the last layer from which they reach the
    answer. Costs one evaluation of the first input, with a gradient; two for a network of tokens.

    Args:
        run: the frozen network, before it is accelerated.
        x: (N, C, *S) inputs.
    """
    trace = LayerTrace(run, x[:1])
    lattices = {module: trace.shape(module)[1:] for module in trace.modules}
    if any(len(lattice) == 1 and square_lattice(trace.shape(module)[0]) for module, lattice in lattices.items()):
        tokens = _last_token_layer(run, x, trace)
        if tokens is not None:
            return (tokens,)

    def is_map(module: nn.Module) -> bool:
        lattice = lattices[module]
        return len(lattice) == x.ndim - 2 and max(lattice) > 1 and lattice != tuple(x.shape[2:])

    maps = [module for module in reversed(trace.modules) if is_map(module)]  # the last one first
    outermost = sorted(maps, key=lambda module: trace.name(module).count("."))
    last = next((lattices[module] for module in maps if trace.check(module).can_split_cleanly), None)
    coarse = next((lattice for lattice in lattices.values() if lattice and _has_coarse_stride(lattice, x)), None)
    found = []
    for wanted in dict.fromkeys([coarse, last]):
        candidates = (module for module in outermost if lattices[module] == wanted)
        module = next((module for module in candidates if trace.check(module).can_split_cleanly), None)
        if module is not None:
            found.append(AttributionLayer(trace.name(module), module, lattices[module], tokens=False))
    return tuple(found)


def _has_coarse_stride(lattice: tuple[int, ...], x: Tensor) -> bool:
    """Return whether a lattice has a sixteenth of the input's sides, rounded up or down."""
    sides = x.shape[2:]
    return len(lattice) == len(sides) and all(
        side // COARSE_STRIDE <= count <= -(-side // COARSE_STRIDE) for count, side in zip(lattice, sides, strict=True)
    )


def _find_layer(run: Run, x: Tensor, name: str) -> AttributionLayer:
    """Return the layer that the user asks for."""
    module = get_module(run.network, name)
    output = _module_outputs(run, x).get(name)
    if output is not None and output.ndim == x.ndim:
        return AttributionLayer(name, module, tuple(output.shape[2:]), tokens=False)
    lattice = square_lattice(output.shape[1]) if output is not None and output.ndim == 3 else None
    if lattice is None:
        shape = "no tensor" if output is None else f"shape {tuple(output.shape)}"
        raise ExtremalValueError(
            f"a layer must give maps (B, K, *S) or square tokens (B, T, K), {name} of {run.network.name} gives "
            f"{shape}; `extremal layers` lists others"
        )
    return AttributionLayer(name, module, lattice, tokens=True)


def _module_outputs(run: Run, x: Tensor) -> dict[str, Tensor]:
    """Return the output for the first input of each module that returns a tensor."""
    names = {module: name for name, module in run.network.model.named_modules()}
    outputs: dict[str, Tensor] = {}

    def store_output(module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor):
            outputs[names[module]] = output.clone()  # the next module may change it in place

    with torch.no_grad(), hooked(run.network.model, lambda _: None, store_output):
        run.evaluate(x[:1])
    return outputs


def _last_convolutional_layer(run: Run, x: Tensor) -> AttributionLayer | None:
    """Return the last clean layer on the lattice of the last convolution; None without convolutions."""
    order = trace_layers(run, x[:1])
    modules = run.network.model.get_submodule
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    maps = [i for i, layer in enumerate(order) if isinstance(modules(layer.name), kinds) and len(layer.shape) > 1]
    wide = [i for i in maps if min(order[i].shape[1:]) > 1]  # without gates and heads, which have one place
    if not wide:
        return None
    lattice, result = order[wide[-1]].shape[1:], None
    for layer in order[wide[-1] :]:
        if layer.shape[1:] != lattice:
            break
        if layer.can_split_cleanly:
            result = AttributionLayer(layer.name, modules(layer.name), lattice, tokens=False)
    return result


def _last_token_layer(run: Run, x: Tensor, trace: LayerTrace) -> AttributionLayer | None:
    """Return the last layer of tokens if at least half of them have a gradient; None without any."""
    layers = [trace.check(module) for module in trace.modules if len(trace.shape(module)) == 2]
    places = {layer.name: square_lattice(layer.shape[0]) for layer in layers if layer.can_split_cleanly}
    if not any(places.values()):
        return None
    names = {run.network.model.get_submodule(name): name for name, lattice in places.items() if lattice}
    outputs: list[tuple[str, Tensor]] = []

    def store_output(module: nn.Module, output: object) -> None:
        if module in names and isinstance(output, Tensor):
            outputs.append((names[module], output))

    with hooked(run.network.model, lambda _: None, store_output):
        top = run(x[:1].detach().requires_grad_()).amax()
    gradients = torch.autograd.grad(top, [output for _, output in outputs], allow_unused=True)
    for (name, _), gradient in reversed(list(zip(outputs, gradients, strict=True))):
        lattice = places[name]
        if gradient is not None and lattice and float((gradient.abs().amax(2) > 0).float().mean()) >= 0.5:
            return AttributionLayer(name, run.network.model.get_submodule(name), lattice, tokens=True)
    return None
