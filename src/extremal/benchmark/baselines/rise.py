"""RISE: random masks, weighted by the probability of the masked input (Petsiuk, Das, Saenko, 2018)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from extremal.benchmark.baselines.method import FieldSettings, Maps, ScoreModule, attribute_in_batches
from extremal.masking.grid import resize
from extremal.networks.network import Network
from extremal.scores.target import Target

BATCH_SIZE = 40  # masked inputs evaluated at once


@dataclass(frozen=True)
class Rise(FieldSettings):
    """S = Σ p(target | x·m)·m / (masks·share), where m are coarse random grids, enlarged and shifted at random."""

    masks: int = 4000
    cells: int = 7  # of the random grid along each dimension
    share: float = 0.5  # fraction of the cells that are kept
    seed: int = 0
    name: str = "rise"
    smooth: float = 0.0

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return the maps; costs `masks` forward passes per input; consecutive equal inputs share the passes."""

        def attribute(scores: ScoreModule, batch: Tensor, classes: list[int]) -> Tensor:
            maps: list[Tensor] = []
            for first, last in _equal_runs(batch):
                maps += [self._attribute_input(scores, batch[first : first + 1], classes[first:last])]
            return torch.cat(maps)

        return attribute_in_batches(network, x, target, attribute)

    @torch.no_grad()
    def _attribute_input(self, scores: ScoreModule, x: Tensor, classes: list[int]) -> Tensor:
        """Return the maps of one input (1, C, *S) for several classes: (K, 1, *S)."""
        shape = tuple(x.shape[2:])
        total = x.new_zeros(len(classes), 1, *shape)
        for masks in self.draw_masks(shape, x):
            weights = scores(x * masks).softmax(1)[:, classes]  # (B, K)
            total += torch.einsum("bk,b...->k...", weights, masks)
        return total / (self.masks * self.share)

    def draw_masks(self, shape: tuple[int, ...], like: Tensor) -> Iterator[Tensor]:
        """Yield the random masks in batches: (B, 1, *S) in [0, 1], the same for the same seed."""
        generator = torch.Generator().manual_seed(self.seed)
        cell = [-(-size // self.cells) for size in shape]
        for first in range(0, self.masks, BATCH_SIZE):
            count = min(BATCH_SIZE, self.masks - first)
            grid = (
                torch.rand(count, 1, *[self.cells] * len(shape), generator=generator, dtype=torch.float32) < self.share
            )
            wide = resize(grid.to(like), tuple((self.cells + 1) * length for length in cell))
            starts = torch.stack([torch.randint(length, (count,), generator=generator) for length in cell], 1)
            crops = [
                mask[(slice(None), *(slice(s, s + size) for s, size in zip(start, shape, strict=True)))]
                for mask, start in zip(wide, starts.tolist(), strict=True)
            ]
            yield torch.stack(crops)


def _equal_runs(x: Tensor) -> list[tuple[int, int]]:
    """Return first and last + 1 of each run of consecutive equal inputs."""
    changes = [i for i in range(1, len(x)) if not torch.equal(x[i], x[i - 1])]
    return list(zip([0, *changes], [*changes, len(x)], strict=True))
