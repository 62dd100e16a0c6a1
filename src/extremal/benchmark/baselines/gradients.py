"""Gradients with respect to the input, and methods derived from them, by captum.

Guided backprop and deconvnet change the backward pass of rectifiers. captum does so for modules of type `nn.ReLU`; here
`ReLU6` is split into a ReLU and a ceiling for it, and a network without rectifiers is refused, since the result would
be the plain gradient under another name.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from extremal.benchmark.baselines.method import (
    FieldSettings,
    Maps,
    ScoreModule,
    attribute_in_batches,
    max_abs_over_channels,
)
from extremal.errors import ExtremalValueError
from extremal.networks.network import Network
from extremal.scores.target import Target


@dataclass(frozen=True)
class Gradient(FieldSettings):
    """|dΦ/dx|, the largest over the channels (Simonyan et al., 2014)."""

    name: str = "gradient"
    smooth: float = 0.0

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return the maps; costs one forward-backward pass per input."""
        from captum.attr import Saliency

        def attribute(scores: ScoreModule, batch: Tensor, classes: list[int]) -> Tensor:
            gradient = Saliency(scores).attribute(batch.requires_grad_(), target=classes, abs=False)
            return max_abs_over_channels(gradient)

        return attribute_in_batches(network, x, target, attribute)


@dataclass(frozen=True)
class IntegratedGradients(FieldSettings):
    """The gradient averaged on the path from zero to the input, times the input (Sundararajan et al., 2017)."""

    steps: int = 32
    name: str = "integrated-gradients"
    smooth: float = 0.0

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return |Σ over channels|; costs `steps` forward-backward passes per input."""
        from captum.attr import IntegratedGradients as CaptumIntegratedGradients

        def attribute(scores: ScoreModule, batch: Tensor, classes: list[int]) -> Tensor:
            maps = [
                CaptumIntegratedGradients(scores).attribute(
                    single, target=label, n_steps=self.steps, internal_batch_size=8
                )
                for single, label in zip(torch.split(batch, 1), classes, strict=True)
            ]
            return torch.cat(maps).sum(1, keepdim=True).abs()

        return attribute_in_batches(network, x, target, attribute)


@dataclass(frozen=True)
class GuidedBackprop(FieldSettings):
    """The gradient; rectifiers pass only its positive parts (Springenberg et al., 2015)."""

    name: str = "guided-backprop"
    smooth: float = 0.0

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return the maps; costs one forward-backward pass per input."""
        from captum.attr import GuidedBackprop as CaptumGuidedBackprop

        return _attribute_with_rule(CaptumGuidedBackprop, self.name, network, x, target)


@dataclass(frozen=True)
class Deconvnet(FieldSettings):
    """The gradient; its sign alone decides what rectifiers pass (Zeiler and Fergus, 2014)."""

    name: str = "deconvnet"
    smooth: float = 0.0

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return the maps; costs one forward-backward pass per input."""
        from captum.attr import Deconvolution

        return _attribute_with_rule(Deconvolution, self.name, network, x, target)


def _attribute_with_rule(captum_method: Any, name: str, network: Network, x: Tensor, target: Target) -> Maps:
    """Return the maps of a method of captum that changes the backward pass of rectifiers."""

    def attribute(scores: ScoreModule, batch: Tensor, classes: list[int]) -> Tensor:
        with relu6_as_relu(scores, name), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum warns of its hooks at each call
            return max_abs_over_channels(captum_method(scores).attribute(batch.requires_grad_(), target=classes))

    return attribute_in_batches(network, x, target, attribute)


class _Ceiling(nn.Module):
    """The input, limited to a ceiling."""

    def __init__(self, ceiling: float) -> None:
        super().__init__()
        self.ceiling = ceiling

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=self.ceiling)


@contextmanager
def relu6_as_relu(model: nn.Module, name: str) -> Iterator[int]:
    """Replace each ReLU6 by a ReLU below a ceiling inside the `with`, which receives the number of rectifiers.

    Raises:
        ExtremalValueError: the model has no rectifier that is a module.
    """
    children = [(parent, child) for parent in model.modules() for child in parent._modules]
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for parent, child in children:
            module = parent._modules[child]
            if isinstance(module, nn.ReLU6):
                replaced.append((parent, child, module))
                parent._modules[child] = nn.Sequential(nn.ReLU(), _Ceiling(6.0))
        count = sum(isinstance(module, nn.ReLU) for module in model.modules())
        if not count:
            raise ExtremalValueError(
                f"{name} must find rectifiers to change (modules nn.ReLU or nn.ReLU6), this network has none; "
                "it would be the plain gradient: use gradient, or write the activations as modules"
            )
        yield count
    finally:
        for parent, child, module in replaced:
            parent._modules[child] = module
