"""Gradients with respect to the input, and what is made of them, by captum.

Guided backprop and deconvnet change the backward pass of rectifiers. captum does so at modules of `nn.ReLU`; here
`ReLU6` stands in for it as a ReLU below a ceiling, and a network without rectifiers is refused instead of being given
its plain gradient under another name.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from extremal.benchmark.baselines.method import Maps, ScoreModule, attribute_in_batches, max_abs_over_channels
from extremal.errors import ExtremalValueError
from extremal.networks.network import Network
from extremal.scores.target import Target


@dataclass(frozen=True)
class Gradient:
    """|dΦ/dx|, the largest over the channels (Simonyan et al., 2014)."""

    name: str = "gradient"
    smooth: float = 0.0

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """One forward and backward pass an input."""
        from captum.attr import Saliency

        def attribute(scores: ScoreModule, part: Tensor, classes: list[int]) -> Tensor:
            return max_abs_over_channels(Saliency(scores).attribute(part.requires_grad_(), target=classes, abs=False))

        return attribute_in_batches(network, x, target, attribute)


@dataclass(frozen=True)
class IntegratedGradients:
    """The gradient averaged on the way from zero to the input, times the input (Sundararajan et al., 2017)."""

    steps: int = 32
    name: str = "integrated-gradients"
    smooth: float = 0.0

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """`steps` forward and backward passes an input: |Σ over channels|."""
        from captum.attr import IntegratedGradients as Captum

        def attribute(scores: ScoreModule, part: Tensor, classes: list[int]) -> Tensor:
            found = [
                Captum(scores).attribute(one, target=label, n_steps=self.steps, internal_batch_size=8)
                for one, label in zip(torch.split(part, 1), classes, strict=True)
            ]
            return torch.cat(found).sum(1, keepdim=True).abs()

        return attribute_in_batches(network, x, target, attribute)


@dataclass(frozen=True)
class GuidedBackprop:
    """The gradient, of which rectifiers let only positive parts pass (Springenberg et al., 2015)."""

    name: str = "guided-backprop"
    smooth: float = 0.0

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """One forward and backward pass an input."""
        from captum.attr import GuidedBackprop as Captum

        return _attribute_with_rule(Captum, self.name, network, x, target)


@dataclass(frozen=True)
class Deconvnet:
    """What rectifiers let pass by the sign of the gradient alone (Zeiler and Fergus, 2014)."""

    name: str = "deconvnet"
    smooth: float = 0.0

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """One forward and backward pass an input."""
        from captum.attr import Deconvolution as Captum

        return _attribute_with_rule(Captum, self.name, network, x, target)


def _attribute_with_rule(method: Any, name: str, network: Network, x: Tensor, target: Target) -> Maps:
    def attribute(scores: ScoreModule, part: Tensor, classes: list[int]) -> Tensor:
        with relu6_as_relu(scores, name), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum tells of its hooks each time
            return max_abs_over_channels(method(scores).attribute(part.requires_grad_(), target=classes))

    return attribute_in_batches(network, x, target, attribute)


class _Ceiling(nn.Module):
    """The input where it is below a ceiling."""

    def __init__(self, ceiling: float) -> None:
        super().__init__()
        self.ceiling = ceiling

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=self.ceiling)


@contextmanager
def relu6_as_relu(model: nn.Module, name: str) -> Iterator[int]:
    """Every ReLU6 as a ReLU below a ceiling, for the length of the block; how many rectifiers there are.

    Raises:
        ExtremalValueError: the model has none as a module.
    """
    inside = [(parent, child) for parent in model.modules() for child in parent._modules]
    swapped: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for parent, child in inside:
            module = parent._modules[child]
            if isinstance(module, nn.ReLU6):
                swapped.append((parent, child, module))
                parent._modules[child] = nn.Sequential(nn.ReLU(), _Ceiling(6.0))
        count = sum(isinstance(module, nn.ReLU) for module in model.modules())
        if not count:
            raise ExtremalValueError(
                f"{name} must find rectifiers to change (modules nn.ReLU or nn.ReLU6), this network has none; "
                "it would be the plain gradient: use gradient, or write the activations as modules"
            )
        yield count
    finally:
        for parent, child, module in swapped:
            parent._modules[child] = module
