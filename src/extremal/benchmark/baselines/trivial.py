"""Trivial baselines: the centre of the input, and smooth noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from extremal.benchmark.baselines.method import FieldSettings, Maps
from extremal.masking.grid import gaussian_blur, scale_length
from extremal.networks.network import Network
from extremal.scores.target import Target


@dataclass(frozen=True)
class Centre(FieldSettings):
    """Places near the centre of the input first, where photographers tend to put their subject."""

    name: str = "centre"
    smooth: float = 0.0

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return 1 at the centre, falling with the distance to 0 in the farthest corner: (N, 1, *S)."""
        axes = [torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2 for size in x.shape[2:]]
        distance = torch.stack([axis.square() for axis in torch.meshgrid(*axes, indexing="ij")]).sum(0).sqrt()
        values = 1 - distance / distance.max().clamp_min(1e-12)
        return Maps(values.expand(len(x), 1, *x.shape[2:]).clone(), 0)


@dataclass(frozen=True)
class Random(FieldSettings):
    """Smooth noise, the same for the same seed and input."""

    seed: int = 0
    width: float = 21.0  # px at a short side of 224 px, of the Gaussian
    name: str = "random"
    smooth: float = 0.0

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return blurred normal noise in [0, 1]: (N, 1, *S); the content of each input decides its noise."""
        maps = []
        for single in x:
            content = int(single.double().abs().sum().item() * 2**16) % 2**31  # rather than its index in the batch
            generator = torch.Generator().manual_seed(self.seed + content)
            noise = torch.randn(1, 1, *x.shape[2:], generator=generator, dtype=torch.float64).to(x)
            smooth = gaussian_blur(noise, scale_length(self.width, tuple(x.shape[2:])))
            low, high = smooth.amin(), smooth.amax()
            maps.append((smooth - low) / (high - low).clamp_min(1e-12))
        return Maps(torch.cat(maps), 0)
