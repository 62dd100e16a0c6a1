"""`class_channels`: rank the channels of a layer by how often a class needs them (paper, section 3.4)."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError, check_installed
from extremal.explanations.channels.explain import explain_channels
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.validation import validate_seed
from extremal.explanations.verdict import SUFFICIENT_EFFECT
from extremal.file_checks import to_path
from extremal.files import atomic_file
from extremal.masking.games import Game, Reward
from extremal.masking.solvers import OnStep, Solver
from extremal.networks.inputs import ImagesLike, prepare_each
from extremal.networks.network import Network
from extremal.networks.resolve import as_network
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import format_value, validate_callbacks
from extremal.scores import ClassGroup, Score
from extremal.scores.class_group import ResolvedClass
from extremal.scores.class_query import ClassQuery
from extremal.scores.classes import get_score
from extremal.scores.target import parse_target

if TYPE_CHECKING:
    import pyarrow

N_BOOTSTRAP = 2000  # bootstrap samples
CONFIDENCE = 0.95  # of the intervals


@dataclass(frozen=True, eq=False)
class ClassChannels:
    """Frequency of each channel in the smallest sufficient set, over N images of one class."""

    layer: str
    target: ResolvedClass  # class index, or indices of a group
    target_name: str
    mean: Tensor  # (K,) fraction of the images whose smallest sufficient set contains the channel
    low: Tensor  # (K,) lower end of its 95 % bootstrap interval over images
    high: Tensor  # (K,) upper end
    sets: Tensor  # (N, K) of zeros and ones, the smallest sufficient sets
    effects: Tensor  # (N,) of these sets
    pictures: Tensor  # (N, H, W, 3) uint8, the images for display; (N, 0, 0, 3) if inputs are not images
    settings: dict[str, Any]  # everything needed to repeat the run

    def ranking(self) -> tuple[int, ...]:
        """Return channel indices, the most often needed first; ties are in the order of their indices."""
        return tuple(torch.argsort(self.mean, descending=True, stable=True).tolist())

    def table(self) -> "pyarrow.Table":
        """Return one row per channel in this order: rank, channel, mean, low, high."""
        check_installed("pyarrow", purpose="a table", extra="jobs")
        import pyarrow

        order = list(self.ranking())
        columns = {
            "layer": [self.layer] * len(order),
            "target": [self.target if isinstance(self.target, int) else list(self.target)] * len(order),
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
        """Write the table as parquet, atomically."""
        import pyarrow.parquet

        with atomic_file(to_path(path, "an output")) as temporary:
            pyarrow.parquet.write_table(self.table(), temporary)


@in_standard_modes
def class_channels(
    network: Network | nn.Module | str,
    images: Sequence[ImagesLike] | Tensor,
    layer: str,
    target: int | str | ClassGroup,
    *,
    axis: int | None = None,
    game: str | Game | Reward = "preserve",
    solver: str | Solver = "path",
    score: str | Score = "margin",
    share: float = SUFFICIENT_EFFECT,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> ClassChannels:
    """Rank the channels of a layer by how often a class needs them.

    Channels are ranked by the mean, over images, of the masks of the smallest sufficient sets.

    >>> _ = torch.manual_seed(0)
    >>> toy = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    >>> ranking = class_channels(toy, torch.rand(4, 3, 16, 16), "1", 1)
    >>> ranking.mean.shape, len(ranking.ranking())
    (torch.Size([8]), 8)

    Args:
        network, layer, axis, game, solver, score, share, seed, on_step: as for `explain_channels`.
        images: of the class, at least one, each as for `explain`; or prepared (N, C, *S).
        target: class index or name, or a group of classes.

    Returns:
        A `ClassChannels` over the N images in which the layer supports the class; a warning says if others are left
        out.

    Raises:
        ExtremalValueError, ExtremalTypeError: no image is left, or input breaks a rule; the message names rule, value
            and remedy.
    """
    validate_callbacks(on_step=on_step)
    seed, net = validate_seed(seed), as_network(network)
    query = parse_target(target, get_score(score))
    if not isinstance(query, ClassQuery) or query.classes is None or query.count is not None:
        raise ExtremalTypeError(
            f"a class must be given by its index or name, or as one group for all images, got {format_value(target)}; "
            "pass scores.ClassGroup for several classes scored as one"
        )
    prepared = prepare_each(net, images)
    if not prepared:
        raise ExtremalValueError(
            f"a class must have at least one image, got none for {target!r}; pass images that show it"
        )
    x = _concatenate(prepared)
    explanation = explain_channels(
        net,
        x,
        layer,
        target,
        axis=axis,
        game=game,
        solver=solver,
        score=score,
        share=share,
        seed=seed,
        on_step=on_step,
    )
    class_index = explanation.target[0]
    assert class_index is not None
    counts = _find_images_with_effect(explanation)
    sets = explanation.smallest_mask[counts]
    low, high = bootstrap_interval(sets, seed)
    return ClassChannels(
        layer=layer,
        target=class_index,
        target_name=explanation.target_names[0],
        mean=sets.mean(0),
        low=low,
        high=high,
        sets=sets,
        effects=explanation.smallest_effect[counts],
        pictures=explanation.pictures[counts],
        settings=explanation.settings,
    )


def _find_images_with_effect(explanation: ChannelExplanation) -> Tensor:
    """Return which images count, (N,) bool: those in which the layer has an effect that channels can have a share of.

    Raises:
        ExtremalValueError: there is none.
    """
    counts = explanation.has_effect()
    n_left_out = int((~counts).sum())
    if n_left_out == len(counts):
        raise ExtremalValueError(
            f"a class must have an image that {explanation.layer} supports, {explanation.target_names[0]} has none "
            f"among {len(counts)}: {explanation.verdict[0][0].reason}; choose another layer, or images that show it"
        )
    if n_left_out:
        warnings.warn(
            f"{n_left_out} of {len(counts)} images are left out, in which {explanation.layer} does not support "
            f"{explanation.target_names[0]}, or too little to divide by",
            UserWarning,
            stacklevel=4,
        )
    return counts


def _concatenate(prepared: list[Tensor]) -> Tensor:
    first = tuple(prepared[0].shape[1:])
    for index, x in enumerate(prepared):
        if tuple(x.shape[1:]) != first:
            raise ExtremalValueError(
                f"images of a class must have one size once prepared for the network, got {first} and, for image "
                f"{index}, {tuple(x.shape[1:])}; resize them, or give the network a preprocess that does"
            )
    return torch.cat(prepared)


def bootstrap_interval(values: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the 95 % bootstrap interval of the mean of values (N, K) over the first axis: two (K,)."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(0, len(values), (N_BOOTSTRAP, len(values)), generator=generator)
    counts = values.new_zeros(N_BOOTSTRAP, len(values)).scatter_add_(1, draws, values.new_ones(draws.shape))
    means = counts @ values / len(values)
    quantiles = means.new_tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    low, high = torch.quantile(means, quantiles, dim=0)
    return low, high


@in_standard_modes
def class_overlap(classes: Sequence[ClassChannels]) -> Tensor:
    """Return the overlap of the channels that classes need: (C, C).

    Σ_k min(a_k, b_k) / Σ_k max(a_k, b_k) of their means.

    Raises:
        ExtremalValueError: there are none, or they are not of one axis of one layer of one network.
    """
    if not classes:
        raise ExtremalValueError("classes must be at least one result of class_channels, got none; pass a list of them")
    layers = {(ranking.layer, ranking.settings["weights"]) for ranking in classes}
    if len(layers) > 1:
        raise ExtremalValueError(
            "classes must be of one layer of one network, got the layers "
            f"{', '.join(sorted(layer for layer, _ in layers))}; run class_channels with the same network and layer"
        )
    counts = sorted({len(ranking.mean) for ranking in classes})
    if len(counts) > 1:
        raise ExtremalValueError(
            f"classes must be ranked along one axis of the layer, got {counts[0]} and {counts[-1]} channels; run "
            "class_channels with the same axis"
        )
    means = torch.stack([ranking.mean for ranking in classes])
    intersection = torch.minimum(means[:, None], means[None]).sum(2)
    return intersection / torch.maximum(means[:, None], means[None]).sum(2).clamp_min(1e-12)
