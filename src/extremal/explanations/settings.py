"""The terms of a question, from what a user hands in: checked once, and told in full to whoever repeats the run."""

import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.domain import Domain
from extremal.masking.games import Game, Reward, game_named
from extremal.masking.grid import short_side
from extremal.masking.perturbations import Perturbation, ScaleChannels, perturbation_named, places_of
from extremal.networks.network import Network
from extremal.scores import Score, score_named

AREAS = (0.025, 0.05, 0.1, 0.2, 0.4)
LEAST_SIDE = 4  # places; smooth masks of less are hardly masks

Places = Tensor | np.ndarray[Any, Any]  # one value for each place of an input as the network takes it: (*S)


@dataclass(frozen=True)
class Terms:
    """What was chosen, by name or as given."""

    game: Game
    perturbation: Perturbation
    score: Score
    seed: int
    within: Tensor | None = None  # (*S) bool: where masks may be above zero
    units: Tensor | None = None  # (*S) int64: the unit of each place, −1 for none

    def domain(self, net: Network, x: Tensor) -> Domain:
        """Where masks for inputs x (N, C, *S), or for activations (N, K, ...), live."""
        shape = places_of(self.perturbation, x)
        if isinstance(self.perturbation, ScaleChannels):
            return Domain(shape, connected=False)
        within, units = (None if given is None else given.to(x.device) for given in (self.within, self.units))
        return Domain(shape, tuple(net.spacing), within, units)

    def settings(self, net: Network) -> dict[str, Any]:
        """All of it as plain values, with the network, the versions and the machine's part in the numbers."""
        from extremal._version import __version__

        return {
            "versions": {"extremal": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "network": net.name,
            "weights": net.weight_hash(),
            "spacing": list(net.spacing),
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


def terms_named(
    game: str | Game | Reward,
    perturbation: str | Perturbation,
    score: str | Score,
    seed: int,
    *,
    within: Places | None = None,
    units: Places | None = None,
) -> Terms:
    """The terms of these short names, or as given."""
    if within is not None and units is not None:
        raise ExtremalValueError(
            "within and units must not both be given, got both; give the label −1 to units outside of the region"
        )
    chosen = game_named(game), perturbation_named(perturbation), score_named(score), checked_seed(seed)
    return Terms(*chosen, checked_within(within), checked_units(units))


def checked_domain(terms: Terms, net: Network, shape: tuple[int, ...], areas: tuple[float, ...]) -> None:
    """Raise where masks of these areas cannot be made for inputs of shape S."""
    check_spacing(net, shape)
    if terms.units is None and short_side(shape) < LEAST_SIDE:
        raise ExtremalValueError(
            f"an input must have room for smooth masks, at least {LEAST_SIDE} places along its short side, got "
            f"{' × '.join(map(str, shape))}; pass a larger input, or units to choose from"
        )
    for name, given in (("within", terms.within), ("units", terms.units)):
        if given is not None and tuple(given.shape) != shape:
            raise ExtremalValueError(
                f"{name} must have the shape {shape} of the input as the network takes it, got {tuple(given.shape)}"
            )
    if terms.within is not None:
        share = float(terms.within.double().mean())
        if not areas[-1] < share:
            raise ExtremalValueError(
                f"areas must be smaller than the region they lie within, which has {share:.4g} of all places, got "
                f"{areas[-1]:g}; ask for smaller areas, or a larger region"
            )
    if terms.units is not None:
        counts = torch.bincount(terms.units[terms.units >= 0]).double() / terms.units.numel()
        least = float(counts[counts > 0].min())
        if areas[0] < least * (1 - 1e-9):
            raise ExtremalValueError(
                f"areas must hold the smallest unit at least, which has {least:.4g} of all places, got {areas[0]:g}; "
                "ask for larger areas, or pass smaller units"
            )
        if not areas[-1] < float(counts.sum()):
            raise ExtremalValueError(
                f"areas must be smaller than all units together, which have {float(counts.sum()):.4g} of all places, "
                f"got {areas[-1]:g}; ask for smaller areas"
            )


def check_spacing(net: Network, shape: tuple[int, ...]) -> None:
    """Raise where a network's spacing is not one of inputs of shape S."""
    wrong = [gap for gap in net.spacing if not 0 < gap < float("inf")]
    if wrong or (net.spacing and len(net.spacing) != len(shape)):
        raise ExtremalValueError(
            f"spacing must be a positive number for each of the {len(shape)} dimensions of an input, "
            f"got {tuple(net.spacing)}; e.g. (2, 1, 1) for slices that are twice as far apart as pixels"
        )


def checked_within(within: Places | None) -> Tensor | None:
    """A region as a bool tensor (*S)."""
    if within is None:
        return None
    found = torch.as_tensor(within).detach().cpu()
    if found.dtype != torch.bool:
        raise ExtremalTypeError(
            f"within must be bool (*S), true where masks may keep places, got {found.dtype}; e.g. mask > 0.5"
        )
    if not found.any():
        raise ExtremalValueError("within must be true somewhere, got a region without places; check how it was made")
    return found.clone()


def checked_units(units: Places | None) -> Tensor | None:
    """Labels of units as an int64 tensor (*S), numbered 0 .. U−1 without gaps, −1 for no unit."""
    if units is None:
        return None
    found = torch.as_tensor(units).detach().cpu()
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise ExtremalTypeError(
            f"units must be whole numbers (*S), the label of each place, got {found.dtype}; e.g. superpixels"
        )
    found = found.long()
    labels, numbers = found.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    outside = int((labels < 0).sum())
    if len(labels) - outside < 2:
        raise ExtremalValueError(
            f"units must name at least two units to choose from, got {len(labels) - outside}; label places 0, 1, 2, "
            "..., and −1 where nothing may be kept"
        )
    renumbered: Tensor = (numbers - outside).clamp_min(-1)
    return renumbered


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


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as lines of name and value.

    >>> list(flattened({"seed": 0, "solver": {"name": "path", "betas": [0.9, 0.99]}}))
    [('seed', '0'), ('solver name', 'path'), ('solver betas', '0.9, 0.99')]
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name} ")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            yield f"{prefix}{name}".replace("_", " "), shown
