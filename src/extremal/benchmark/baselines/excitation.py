"""Excitation backprop (Zhang et al., 2016) and its contrastive form, with zennit's rules.

A unit's winning probability passes to the units below it in proportion to their positive contributions:
R_i = Σ_j R_j·(x_i·w_ij)⁺ / Σ_i' (x_i'·w_i'j)⁺, without biases. Residual sums and means over places, which networks
compute outside of modules, pass it in the same way to the terms that have the sign of the result. A gate (x·g) passes
all of it to x. Rectifiers pass it on unchanged, maxima pass it to the largest input. If only a bias excites a unit, its
probability ends there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from extremal.benchmark.baselines.method import FieldSettings, Maps, ScoreModule, attribute_in_batches
from extremal.errors import ExtremalValueError
from extremal.masking.grid import resize
from extremal.networks.acceleration.batch_norm import fused_batch_norms
from extremal.networks.attribution_layers import excitation_layer
from extremal.networks.layers import trace_layers
from extremal.networks.network import Network
from extremal.scores.target import Target

STABILIZER = 1e-12
_SUM_FUNCTIONS = {torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__iadd__}
_GATE_FUNCTIONS = {torch.mul, torch.Tensor.mul, torch.Tensor.mul_, torch.Tensor.__mul__, torch.Tensor.__imul__}
_MEAN_FUNCTIONS = {
    torch.mean,
    torch.Tensor.mean,
    *(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
}


@dataclass(frozen=True)
class ExcitationBackprop(FieldSettings):
    """The winning probabilities at a layer, summed over its channels and enlarged linearly.

    The contrastive form subtracts those of the opposite unit, whose weights in the last layer are negated, and keeps
    positive values (section 3.3 there).
    """

    contrastive: bool = False
    layer: str = ""  # whose probabilities are returned; by rule if empty (`excitation_layer`)
    smooth: float = 0.0

    @property
    def name(self) -> str:
        """The short name."""
        return "contrastive-excitation" if self.contrastive else "excitation"

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return {"name": self.name, **super().settings()}

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return the maps; costs one forward-backward pass per input, two in the contrastive form."""
        _check_rectified(network)
        layer = excitation_layer(network, x, self.layer)
        shape = tuple(x.shape[2:])

        def attribute(scores: ScoreModule, batch: Tensor, classes: list[int]) -> Tensor:
            # a batch norm that is not folded would count as a plain factor
            with fused_batch_norms(scores.model, lambda: scores.model(batch[:1]), (layer.name,)):
                maps = winning_probabilities(scores, batch, classes, layer.module)
                if self.contrastive:
                    with negated_weights(find_last_linear(network, batch)):
                        opposite = winning_probabilities(scores, batch, classes, layer.module)
                    maps = (maps - opposite).clamp_min(0.0)
            return resize(maps.sum(1, keepdim=True), shape)

        unaccelerated = Network(network.model, labels=network.labels, name=network.name, accelerate="off")
        return attribute_in_batches(unaccelerated, x, target, attribute, layer.name)


def _check_rectified(network: Network) -> None:
    """Check that a network has no layers for which excitation backprop is not defined."""
    unsupported = (nn.LayerNorm, nn.MultiheadAttention, nn.GroupNorm)
    kind = next((type(m).__name__ for m in network.model.modules() if isinstance(m, unsupported)), "")
    if kind:
        raise ExtremalValueError(
            f"excitation backprop must have a network of linear layers and rectifiers, {network.name} has a {kind}; "
            "use another method"
        )


def winning_probabilities(scores: ScoreModule, x: Tensor, classes: list[int], module: nn.Module) -> Tensor:
    """Return the winning probabilities at a module's output, those of the targets being 1: (B, K, *lattice) ≥ 0."""
    from zennit.composites import LayerMapComposite
    from zennit.rules import Pass, ZPlus
    from zennit.types import Activation, Linear

    outputs: list[Tensor] = []
    rules = [(Activation, Pass()), (Linear, ZPlus(stabilizer=STABILIZER, zero_params="bias"))]
    composite = LayerMapComposite(layer_map=rules)
    with _preserved_parameters(scores), composite.context(scores) as model, _ExcitationMode():
        handle = module.register_forward_hook(lambda _, __, output: outputs.append(output))
        try:
            output = model(x.detach().requires_grad_())
        finally:
            handle.remove()
        targets = F.one_hot(torch.tensor(classes, device=x.device), output.shape[1]).to(output)
        (probabilities,) = torch.autograd.grad(output, outputs[-1], targets)
    if not bool(torch.isfinite(probabilities).all()):
        raise ExtremalValueError(
            "winning probabilities must be finite, got NaN or infinite ones; read them at another layer"
        )
    return probabilities


@contextmanager
def _preserved_parameters(model: nn.Module) -> Iterator[None]:
    """Put the model's own parameter objects back on exit: the rules of zennit 1.0 leave copies in their place."""
    parameters = [(module, dict(module._parameters)) for module in model.modules()]
    try:
        yield
    finally:
        for module, own in parameters:
            module._parameters.update(own)


class _ExcitationMode(TorchFunctionMode):
    """Apply rules to the sums, means and gates that a model computes outside of modules; remove them on exit."""

    def __init__(self) -> None:
        super().__init__()
        self._rules: list[Any] = []  # each is in a reference cycle with its gradient graph

    def __exit__(self, *details: Any) -> None:
        while self._rules:
            self._rules.pop().remove()
        super().__exit__(*details)  # type: ignore[no-untyped-call]

    def _wrap(self, function: Callable[[Tensor], Tensor]) -> "_FunctionModule":
        """Return a function as a module with the rule for sums."""
        module = _FunctionModule(function)
        self._rules.append(_sum_rule().register(module))
        return module

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        pair = args[:2] if len(args) == 2 and all(_has_gradient(value) for value in args) else None
        if func in _SUM_FUNCTIONS and pair and pair[0].shape == pair[1].shape and not kwargs:
            return self._wrap(lambda both: both.sum(-1))(torch.stack(pair, -1))
        if func in _GATE_FUNCTIONS and pair:
            signal, gate = sorted(pair, key=torch.Tensor.numel, reverse=True)
            return self._wrap(lambda x: x * gate.detach())(signal)
        if func in _MEAN_FUNCTIONS and args and _has_gradient(args[0]):
            return self._wrap(lambda x: func(x, *args[1:], **kwargs))(args[0])
        return func(*args, **kwargs)


def _has_gradient(value: object) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


class _FunctionModule(nn.Module):
    """A function without parameters as a module, as zennit's rules require."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _sum_rule() -> Any:
    """Return the rule for sums: pass to the inputs that have the sign of the result, in proportion to their share."""
    from zennit.core import BasicHook, Stabilizer

    stable = Stabilizer.ensure(STABILIZER)

    def split(probabilities: Tensor, outputs: list[Tensor]) -> list[Tensor]:
        positive = outputs[0] + outputs[1] >= 0
        return [
            torch.where(positive, probabilities, 0) / stable(outputs[0]),
            torch.where(positive, 0, probabilities) / stable(outputs[1]),
        ]

    return BasicHook(
        input_modifiers=[lambda x: x.clamp_min(0.0), lambda x: x.clamp_max(0.0)],
        output_modifiers=[lambda output: output] * 2,
        gradient_mapper=split,
        reducer=lambda inputs, gradients: inputs[0] * gradients[0] + inputs[1] * gradients[1],
    )


def find_last_linear(network: Network, x: Tensor) -> nn.Module:
    """Return the layer that computes the classes: the last linear layer or convolution to run."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    with network.frozen() as run:
        modules = [network.model.get_submodule(layer.name) for layer in trace_layers(run, x[:1])]
    linear = [module for module in modules if isinstance(module, kinds)]
    if not linear:
        raise ExtremalValueError(
            f"contrastive excitation backprop must find a last linear layer, {network.name} has none"
        )
    return linear[-1]


@contextmanager
def negated_weights(module: nn.Module) -> Iterator[None]:
    """Negate the weights of a module inside the `with`."""
    weight = module._parameters["weight"]
    assert weight is not None
    module._parameters["weight"] = nn.Parameter(-weight.detach(), requires_grad=False)
    try:
        yield
    finally:
        module._parameters["weight"] = weight
