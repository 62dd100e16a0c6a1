"""The lower bounds: the centre of the input, and smooth noise."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from extremal.benchmark.baselines.method import Maps
from extremal.masking.grid import gaussian_blur, scale_length
from extremal.networks.network import Network
from extremal.scores.target import Target


@dataclass(frozen=True)
class Centre:
    """Places near the centre of the input first: what photographers' habits alone give."""

    name: str = "centre"
    smooth: float = 0.0

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """1 at the centre, falling with the distance from it to 0 in the farthest corner: (N, 1, *S)."""
        axes = [torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2 for size in x.shape[2:]]
        distance = torch.stack([axis.square() for axis in torch.meshgrid(*axes, indexing="ij")]).sum(0).sqrt()
        values = 1 - distance / distance.max().clamp_min(1e-12)
        return Maps(values.expand(len(x), 1, *x.shape[2:]).clone(), 0)


@dataclass(frozen=True)
class Random:
    """Smooth noise, the same for the same seed and input."""

    seed: int = 0
    width: float = 21.0  # px at a short side of 224 px, of the Gaussian
    name: str = "random"
    smooth: float = 0.0

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Standard normal noise, blurred, in [0, 1]: (N, 1, *S); each input draws by its own content."""
        maps = []
        for one in x:
            content = int(one.double().abs().sum().item() * 2**16) % 2**31  # not its place in the batch
            generator = torch.Generator().manual_seed(self.seed + content)
            noise = torch.randn(1, 1, *x.shape[2:], generator=generator, dtype=torch.float64).to(x)
            smooth = gaussian_blur(noise, scale_length(self.width, tuple(x.shape[2:])))
            low, high = smooth.amin(), smooth.amax()
            maps.append((smooth - low) / (high - low).clamp_min(1e-12))
        return Maps(torch.cat(maps), 0)
