"""`class_channels`: which channels of a layer a class needs, over many images of it (paper, section 3.4)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations.channels.explain import explain_channels
from extremal.explanations.verdict import SUFFICIENT_EFFECT
from extremal.files import atomic_file
from extremal.masking.games import Game, Reward
from extremal.masking.solvers import OnStep, Solver
from extremal.networks.inputs import ImagesLike, prepare
from extremal.networks.network import Network
from extremal.networks.resolve import as_network
from extremal.scores import Score

if TYPE_CHECKING:
    import pyarrow

N_BOOTSTRAP = 2000  # bootstrap samples
CONFIDENCE = 0.95  # of the intervals


@dataclass(frozen=True, eq=False)
class ClassChannels:
    """How often each channel is in the smallest sufficient set, over N images of one class."""

    layer: str
    target: int
    target_name: str
    mean: Tensor  # (K,) share of the images whose smallest sufficient set holds the channel
    low: Tensor  # (K,) lower end of its 95 % bootstrap interval over images
    high: Tensor  # (K,) upper end
    sets: Tensor  # (N, K) of zeros and ones, the smallest sufficient sets
    effects: Tensor  # (N,) of these sets
    pictures: Tensor  # (N, H, W, 3) uint8, the images to look at; (N, 0, 0, 3) where they are not pictures
    settings: dict[str, Any]  # everything to repeat the run

    def ranking(self) -> tuple[int, ...]:
        """Channel indices, the most often needed first; equals in the order of their indices."""
        return tuple(torch.argsort(self.mean, descending=True, stable=True).tolist())

    def table(self) -> "pyarrow.Table":
        """One row a channel in this order: rank, channel, mean, low, high."""
        import pyarrow

        order = list(self.ranking())
        columns = {
            "layer": [self.layer] * len(order),
            "target": [self.target] * len(order),
            "target_name": [self.target_name] * len(order),
            "rank": list(range(len(order))),
            "channel": order,
            "mean": self.mean[order].tolist(),
            "low": self.low[order].tolist(),
            "high": self.high[order].tolist(),
            "images": [len(self.sets)] * len(order),
        }
        return pyarrow.table(columns)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as parquet; the file appears whole or not at all."""
        import pyarrow.parquet

        with atomic_file(Path(path)) as aside:
            pyarrow.parquet.write_table(self.table(), aside)


def class_channels(
    network: Network | nn.Module | str,
    images: Sequence[ImagesLike] | Tensor,
    layer: str,
    target: int | str,
    *,
    axis: int | None = None,
    game: str | Game | Reward = "preserve",
    solver: str | Solver = "path",
    score: str | Score = "margin",
    share: float = SUFFICIENT_EFFECT,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> ClassChannels:
    """The mean over images of the masks of the smallest sufficient sets of channels, which ranks them for a class.

    >>> _ = torch.manual_seed(0)
    >>> toy = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    >>> found = class_channels(toy, torch.rand(4, 3, 16, 16), "1", 0)
    >>> found.mean.shape, len(found.ranking())
    (torch.Size([8]), 8)

    Args:
        network, layer, axis, game, solver, score, share, seed, on_step: as `explain_channels` takes them.
        images: of the class, at least one, each as `explain` takes it; or prepared (N, C, *S).
        target: class index or name.

    Returns:
        A `ClassChannels` over N images.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    net = as_network(network)
    if len(images) == 0:
        raise ExtremalValueError(
            f"a class must have at least one image, got none for {target!r}; give images that show it"
        )
    x = images if isinstance(images, Tensor) else _prepare_batch(net, images)
    found = explain_channels(
        *(net, x, layer, target),
        axis=axis,
        game=game,
        solver=solver,
        score=score,
        share=share,
        seed=seed,
        on_step=on_step,
    )
    class_index = found.target[0]
    if class_index is None:
        raise ExtremalTypeError(f"a class must be given by its index or name, got {target!r}; e.g. 281")
    sets = found.smallest_mask
    low, high = bootstrap_interval(sets, seed)
    return ClassChannels(
        layer=layer,
        target=class_index,
        target_name=found.target_names[0],
        mean=sets.mean(0),
        low=low,
        high=high,
        sets=sets,
        effects=found.smallest_effect,
        pictures=found.pictures,
        settings=found.settings,
    )


def _prepare_batch(net: Network, images: Sequence[ImagesLike]) -> Tensor:
    prepared = [prepare(net, image) for image in images]
    first = tuple(prepared[0].shape[1:])
    for index, x in enumerate(prepared):
        if tuple(x.shape[1:]) != first:
            raise ExtremalValueError(
                f"images of a class must have one size as the network takes them, got {first} and, for image {index}, "
                f"{tuple(x.shape[1:])}; resize them, or give the network a preprocess that does"
            )
    return torch.cat(prepared)


def bootstrap_interval(values: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The 95 % bootstrap interval of the mean of values (N, K) over the first axis: two (K,)."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(0, len(values), (N_BOOTSTRAP, len(values)), generator=generator)
    counts = torch.zeros(N_BOOTSTRAP, len(values)).scatter_add_(1, draws, torch.ones(N_BOOTSTRAP, len(values)))
    means = counts @ values / len(values)
    edges = torch.tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    low, high = torch.quantile(means, edges, dim=0)
    return low, high


def class_overlap(classes: Sequence[ClassChannels]) -> Tensor:
    """How much classes share the channels they need: (C, C), Σ_k min(a_k, b_k) / Σ_k max(a_k, b_k) of their means.

    Raises:
        ExtremalValueError: they are not of one layer of one network.
    """
    homes = {(one.layer, one.settings["weights"]) for one in classes}
    if len(homes) > 1:
        raise ExtremalValueError(
            f"classes must be of one layer of one network, got the layers {', '.join(sorted(h[0] for h in homes))}; "
            "run class_channels with the same network and layer"
        )
    means = torch.stack([one.mean for one in classes])
    both = torch.minimum(means[:, None], means[None]).sum(2)
    return both / torch.maximum(means[:, None], means[None]).sum(2).clamp_min(1e-12)
