"""Excitation backprop (Zhang et al., 2016) and its contrastive form, with zennit's rules.

A unit's winning probability passes to the units below it in proportion to their positive contributions:
R_i = Σ_j R_j·(x_i·w_ij)⁺ / Σ_i' (x_i'·w_i'j)⁺, biases apart. Residual sums and means over places, which networks
compute outside of modules, pass it likewise to what has the sign of the result, wherever the model adds or averages.
A gate (x·g) passes all to what it gates. Rectifiers pass what they get, maxima pass it to the winner. What a bias alone
excites has nobody to pass to and ends there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from extremal.benchmark.baselines.layer_choice import excitation_layer
from extremal.benchmark.baselines.method import Maps, ScoreModule, attribute_in_batches
from extremal.errors import ExtremalValueError
from extremal.masking.grid import resize
from extremal.networks.acceleration.batch_norm import fused_batch_norms
from extremal.networks.layers import traced
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
class ExcitationBackprop:
    """The winning probabilities at a layer, summed over its channels and enlarged linearly.

    The contrastive form takes from them those of the opposite unit, whose weights in the last layer are negated, and
    keeps what is above 0 (their section 3.3).
    """

    contrastive: bool = False
    layer: str = ""  # at which it is read; by rule if empty (`first_coarse`)
    smooth: float = 0.0

    @property
    def name(self) -> str:
        """The short name."""
        return "contrastive-excitation" if self.contrastive else "excitation"

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return {"name": self.name, **asdict(self)}

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """One forward and backward pass an input, two for the contrastive form."""
        _check_rectified(network)
        spot = excitation_layer(network, x, self.layer)
        shape = tuple(x.shape[2:])

        def attribute(scores: ScoreModule, part: Tensor, classes: list[int]) -> Tensor:
            # a norm left alone would count as a plain factor
            with fused_batch_norms(scores.model, lambda: scores.model(part[:1]), (spot.name,)):
                won = winning_probabilities(scores, part, classes, spot.module)
                if self.contrastive:
                    with negated_weights(find_last_linear(network, part)):
                        won = (won - winning_probabilities(scores, part, classes, spot.module)).clamp_min(0.0)
            return resize(won.sum(1, keepdim=True), shape)

        with_norms = Network(network.model, labels=network.labels, name=network.name, accelerate="off")
        return attribute_in_batches(with_norms, x, target, attribute, spot.name)


def _check_rectified(network: Network) -> None:
    """Excitation backprop is made for rectified networks."""
    foreign = (nn.LayerNorm, nn.MultiheadAttention, nn.GroupNorm)
    found = next((type(m).__name__ for m in network.model.modules() if isinstance(m, foreign)), "")
    if found:
        raise ExtremalValueError(
            f"excitation backprop must have a network of linear layers and rectifiers, {network.name} has a {found}; "
            "use another method"
        )


def winning_probabilities(scores: ScoreModule, x: Tensor, classes: list[int], module: nn.Module) -> Tensor:
    """The winning probabilities at a module's output when each target has won: (B, K, *lattice) ≥ 0."""
    from zennit.composites import LayerMapComposite
    from zennit.rules import Pass, ZPlus
    from zennit.types import Activation, Linear

    held: list[Tensor] = []
    rules = [(Activation, Pass()), (Linear, ZPlus(stabilizer=STABILIZER, zero_params="bias"))]
    with LayerMapComposite(layer_map=rules).context(scores) as ruled, _ExcitationMode():
        handle = module.register_forward_hook(lambda _, __, output: held.append(output))
        try:
            output = ruled(x.detach().requires_grad_())
        finally:
            handle.remove()
        wanted = F.one_hot(torch.tensor(classes, device=x.device), output.shape[1]).to(output)
        (won,) = torch.autograd.grad(output, held[-1], wanted)
    if not bool(torch.isfinite(won).all()):
        raise ExtremalValueError(
            "winning probabilities must be finite, got NaN or infinite ones; read them at another layer"
        )
    return won


class _ExcitationMode(TorchFunctionMode):
    """While the model runs, its sums, means and gates outside of modules get rules too; on exit these let go of it."""

    def __init__(self) -> None:
        super().__init__()
        self._rules: list[Any] = []  # a rule holds tensors whose gradient graph holds the rule

    def __exit__(self, *details: Any) -> None:
        while self._rules:
            self._rules.pop().remove()
        super().__exit__(*details)  # type: ignore[no-untyped-call]

    def _wrap(self, function: Callable[[Tensor], Tensor]) -> "_FunctionModule":
        """A function as a module with the rule of sums."""
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
    """A function without parameters as a module, which zennit's rules take."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _sum_rule() -> Any:
    """A sum with positive weights that passes on to inputs of its result's sign, in proportion to what they give."""
    from zennit.core import BasicHook, Stabilizer

    stable = Stabilizer.ensure(STABILIZER)

    def split(won: Tensor, outputs: list[Tensor]) -> list[Tensor]:
        rises = outputs[0] + outputs[1] >= 0
        return [torch.where(rises, won, 0) / stable(outputs[0]), torch.where(rises, 0, won) / stable(outputs[1])]

    return BasicHook(
        input_modifiers=[lambda x: x.clamp_min(0.0), lambda x: x.clamp_max(0.0)],
        output_modifiers=[lambda output: output] * 2,
        gradient_mapper=split,
        reducer=lambda inputs, slopes: inputs[0] * slopes[0] + inputs[1] * slopes[1],
    )


def find_last_linear(network: Network, x: Tensor) -> nn.Module:
    """The layer that gives the classes: the last linear one or convolution to finish."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    with network.frozen() as run:
        modules = [network.model.get_submodule(layer.name) for layer in traced(run, x[:1])]
    linear = [module for module in modules if isinstance(module, kinds)]
    if not linear:
        raise ExtremalValueError(
            f"contrastive excitation backprop must find a last linear layer, {network.name} has none"
        )
    return linear[-1]


@contextmanager
def negated_weights(module: nn.Module) -> Iterator[None]:
    """The weights of a module negated for the length of the block."""
    weight = module._parameters["weight"]
    assert weight is not None
    module._parameters["weight"] = nn.Parameter(-weight.detach(), requires_grad=False)
    try:
        yield
    finally:
        module._parameters["weight"] = weight
