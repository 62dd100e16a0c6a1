"""The terms of a question, from what a user hands in: checked once, and told in full to whoever repeats the run."""

import platform
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.games import Game, Reward, game_named
from extremal.network import Network
from extremal.perturbations import Perturbation, perturbation_named
from extremal.scores import Score, score_named

AREAS = (0.025, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Terms:
    """What was chosen, by name or as given."""

    game: Game
    perturbation: Perturbation
    score: Score
    seed: int

    def settings(self, net: Network) -> dict[str, Any]:
        """All of it as plain values, with the network, the versions and the machine's part in the numbers."""
        from extremal import __version__

        return {
            "versions": {"extremal": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "network": net.name,
            "weights": net.weight_hash(),
            "fuse": net.fuse,
            "precision": net.precision,
            "game": self.game.name,
            "perturbation": repr(self.perturbation),
            "score": getattr(self.score, "__name__", repr(self.score)),
            "seed": self.seed,
            "threads": torch.get_num_threads(),
            "dtype": str(net.anchor.dtype),
            "device": str(net.anchor.device),
        }


def terms_named(game: str | Game | Reward, perturbation: str | Perturbation, score: str | Score, seed: int) -> Terms:
    """The terms of these short names, or as given."""
    return Terms(game_named(game), perturbation_named(perturbation), score_named(score), checked_seed(seed))


def checked_areas(areas: Sequence[float]) -> tuple[float, ...]:
    """The areas, sorted, told if they were not.

    >>> checked_areas([0.1, 0.2])
    (0.1, 0.2)
    """
    try:
        values = tuple(float(area) for area in areas)
    except (TypeError, ValueError):
        raise ExtremalTypeError(f"areas must be a sequence of numbers, got {areas!r}; e.g. (0.05, 0.1)") from None
    if not values:
        raise ExtremalValueError("areas must name at least one area, got none; e.g. (0.05, 0.1)")
    for area in values:
        if not 0 < area < 1:
            raise ExtremalValueError(
                f"areas must lie in (0, 1), got {area:g}; an area is the share of places kept, e.g. 0.05"
            )
    if len(set(values)) < len(values):
        twice = next(area for area in values if values.count(area) > 1)
        raise ExtremalValueError(f"areas must be distinct, got {twice:g} twice; leave one out")
    if list(values) != sorted(values):
        warnings.warn(f"areas were sorted: {', '.join(f'{a:g}' for a in sorted(values))}", UserWarning, stacklevel=3)
    return tuple(sorted(values))


def checked_seed(seed: int) -> int:
    """A seed that every random generator takes.

    >>> checked_seed(7)
    7
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise ExtremalTypeError(f"seed must be a whole number, got {seed!r}; e.g. 0")
    if not 0 <= seed.__index__() < 2**32:
        raise ExtremalValueError(f"seed must lie in 0..2**32 - 1, got {seed}; e.g. 0")
    return seed.__index__()


def checked_image(image: int, count: int) -> int:
    """The index of one of so many inputs.

    >>> checked_image(0, 2)
    0
    """
    if not 0 <= image < count:
        raise ExtremalValueError(f"image must lie in 0..{count - 1} for {count} inputs, got {image}")
    return image


def as_network(network: Network | nn.Module | str) -> Network:
    """A `Network`, a module wrapped as one, or a zoo name loaded."""
    if isinstance(network, str):
        from extremal import zoo

        return zoo.load(network)
    return network if isinstance(network, Network) else Network(network)
