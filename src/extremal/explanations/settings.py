"""Validated settings of a run, and the provenance stored with its result."""

import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import numpy as np
import torch
from torch import Tensor

from extremal._version import __version__
from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.domain import Domain
from extremal.masking.games import GAMES, Game, Reward, get_game
from extremal.masking.grid import short_side
from extremal.masking.perturbations import PERTURBATIONS, Perturbation, ScaleChannels, get_perturbation, mask_shape
from extremal.masking.solvers import SOLVERS, Path, Penalty, Solver, get_solver
from extremal.networks.network import Network
from extremal.scores.classes import SCORES, Score, get_score, margin

AREAS = (0.025, 0.05, 0.1, 0.2, 0.4)
MIN_SIDE = 4  # places along the short side; smaller smooth masks have no room to vary
MAX_ALTERNATIVES = 16  # explanations of one input, each of which costs a run of its own

PlaceMap = Tensor | np.ndarray[Any, Any]  # one value for each place of an input as the network takes it: (*S)
T = TypeVar("T")


class SettingsOptions(TypedDict, total=False):
    """The options of `explain`, as keyword arguments: see there for what each means."""

    areas: Sequence[float]
    game: str | Game | Reward
    perturbation: str | Perturbation
    solver: str | Solver
    score: str | Score
    within: PlaceMap | None
    units: PlaceMap | None
    alternatives: int
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """Everything that decides a result besides network, input and target; validated when it is made.

    Short names are resolved: `Settings(game="delete").game` is a `Game`.

    >>> Settings(areas=(0.1, 0.2), game="delete").areas
    (0.1, 0.2)

    Raises:
        ExtremalValueError, ExtremalTypeError: an option breaks a rule; the message names rule, value and remedy.
    """

    areas: tuple[float, ...] = AREAS  # shares of places in (0, 1), rising
    game: Game = GAMES["preserve"]
    perturbation: Perturbation = PERTURBATIONS["blur"]
    solver: Solver = field(default_factory=lambda: SOLVERS["path"])
    score: Score = margin
    within: Tensor | None = None  # (*S) bool: where masks may be above zero; None: everywhere
    units: Tensor | None = None  # (*S) int64: the unit of each place, −1 for none; None: smooth masks
    alternatives: int = 1  # explanations to search for, each outside of those before it
    seed: int = 0  # of noise and controls

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[SettingsOptions]) -> None: ...

    def __post_init__(self) -> None:
        if self.within is not None and self.units is not None:
            raise ExtremalValueError(
                "within and units must not both be given, got both; give the label −1 to units outside of the region"
            )
        validated = {
            "areas": validate_areas(self.areas, stacklevel=4),
            "game": get_game(self.game),
            "perturbation": get_perturbation(self.perturbation),
            "solver": get_solver(self.solver),
            "score": get_score(self.score),
            "within": _validate_within(self.within),
            "units": _validate_units(self.units),
            "alternatives": _validate_alternatives(self.alternatives),
            "seed": validate_seed(self.seed),
        }
        for name, value in validated.items():
            object.__setattr__(self, name, value)

    def replace(self, **options: Unpack[SettingsOptions]) -> "Settings":
        """Return a copy with some options replaced.

        >>> Settings(seed=3).replace(game="dual").seed
        3
        """
        return replace(self, **options)  # type: ignore[arg-type]  # short names are resolved

    def domain(self, net: Network, x: Tensor) -> Domain:
        """Return the domain of masks for inputs x (N, C, *S), or for activations (N, K, ...)."""
        shape = mask_shape(self.perturbation, x)
        if isinstance(self.perturbation, ScaleChannels):
            return Domain(shape, has_neighbours=False)
        within, units = (None if value is None else value.to(x.device) for value in (self.within, self.units))
        return Domain(shape, tuple(net.spacing), within, units)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, without `within` and `units`, which results hold as tensors.

        >>> Settings.from_dict(Settings(game="dual").as_dict()).game.name
        'dual'
        """
        return {
            "areas": list(self.areas),
            "game": self.game.name,
            "perturbation": repr(self.perturbation),
            "solver": self.solver.settings(),
            "score": getattr(self.score, "__name__", repr(self.score)),
            "alternatives": self.alternatives,
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> "Settings":
        """Restore settings from `as_dict` or from the settings of a result.

        Args:
            values: plain values; what is missing takes its default.
            options: entries that replace those of `values` unless they are None; needed for callables, which have no
                short name.

        Raises:
            ExtremalValueError: an entry is a callable without a short name, and is not passed as an option.
        """
        known: dict[str, Callable[[Any], Any]] = {
            "areas": tuple,
            "game": lambda value: _find_known("game", value, GAMES),
            "perturbation": lambda value: _find_known(
                "perturbation", value, {repr(known): known for known in PERTURBATIONS.values()} | PERTURBATIONS
            ),
            "solver": restore_solver,
            "score": lambda value: _find_known("score", value, {fn.__name__: fn for fn in SCORES.values()} | SCORES),
            "alternatives": int,
            "seed": int,
        }
        given = {name: value for name, value in (options or {}).items() if value is not None}
        read = {name: load(values[name]) for name, load in known.items() if name in values and name not in given}
        return cls(**{**read, **given})

    def provenance(self, net: Network) -> dict[str, Any]:
        """Return what a result stores to be repeated: settings, network, versions, device."""
        settings = self.as_dict()
        return {
            "versions": {"extremal": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "network": net.name,
            "weights": net.weight_hash(),
            "spacing": list(net.spacing),
            "accelerate": net.accelerate,
            "precision": net.precision,
            **{name: settings[name] for name in ("game", "perturbation", "score", "seed")},
            "threads": torch.get_num_threads(),
            "dtype": str(net.anchor.dtype),
            "device": str(net.anchor.device),
            "solver": settings["solver"],
        }


def merge_settings(settings: Settings | None, options: SettingsOptions) -> Settings:
    """Return the given settings, or those of the options.

    >>> merge_settings(None, {"game": "dual"}).game.name
    'dual'

    Raises:
        ExtremalTypeError: an option is unknown, or options are passed besides the settings.
    """
    unknown = sorted(set(options) - {entry.name for entry in fields(Settings)})
    if unknown:
        names = ", ".join(entry.name for entry in fields(Settings))
        raise ExtremalTypeError(f"options must be among {names}, got {', '.join(unknown)}; leave it out")
    if settings is None:
        return Settings(**options)
    if options:
        raise ExtremalTypeError(
            f"options must be passed by settings or by name, got settings and {', '.join(options)}; "
            "use settings.replace(...)"
        )
    return settings


def restore_solver(settings: Mapping[str, Any]) -> Solver:
    """Return the solver of these plain settings.

    >>> restore_solver(Path().settings()).name
    'path'

    Raises:
        ExtremalValueError: the solver is not one of this version.
    """
    kinds: dict[Any, Callable[..., Solver]] = {"path": Path, "penalty": Penalty}
    name, rest = settings.get("name"), {key: value for key, value in settings.items() if key != "name"}
    try:
        return kinds[name](**{key: tuple(value) if isinstance(value, list) else value for key, value in rest.items()})
    except (KeyError, TypeError):
        raise ExtremalValueError(
            f"a solver must be one of {', '.join(kinds)} with settings of this version, got {name!r} with "
            f"{', '.join(rest) or 'none'}; pass it as solver"
        ) from None


def _find_known(option: str, value: str, known: Mapping[str, T]) -> T:
    if value not in known:
        raise ExtremalValueError(
            f"the {option} of the explanation was {value!r}, which has no short name: pass it as {option}"
        )
    return known[value]


def validate_domain(settings: Settings, net: Network, shape: tuple[int, ...]) -> None:
    """Raise if masks of the settings' areas cannot be made for inputs of shape S."""
    areas = settings.areas
    _validate_spacing(net, shape)
    if settings.units is None and short_side(shape) < MIN_SIDE:
        raise ExtremalValueError(
            f"an input must have room for smooth masks, at least {MIN_SIDE} places along its short side, got "
            f"{' × '.join(map(str, shape))}; pass a larger input, or units to choose from"
        )
    for name, value in (("within", settings.within), ("units", settings.units)):
        if value is not None and tuple(value.shape) != shape:
            raise ExtremalValueError(
                f"{name} must have the shape {shape} of the input as the network takes it, got {tuple(value.shape)}"
            )
    if settings.within is not None:
        share = float(settings.within.double().mean())
        if not areas[-1] < share:
            raise ExtremalValueError(
                f"areas must be smaller than the region they lie within, which has {share:.4g} of all places, got "
                f"{areas[-1]:g}; ask for smaller areas, or a larger region"
            )
    if settings.units is not None:
        shares = torch.bincount(settings.units[settings.units >= 0]).double() / settings.units.numel()
        smallest = float(shares[shares > 0].min())
        if areas[0] < smallest * (1 - 1e-9):
            raise ExtremalValueError(
                f"areas must hold the smallest unit at least, which has {smallest:.4g} of all places, got "
                f"{areas[0]:g}; ask for larger areas, or pass smaller units"
            )
        if not areas[-1] < float(shares.sum()):
            raise ExtremalValueError(
                f"areas must be smaller than all units together, which have {float(shares.sum()):.4g} of all places, "
                f"got {areas[-1]:g}; ask for smaller areas"
            )


def _validate_spacing(net: Network, shape: tuple[int, ...]) -> None:
    wrong = [distance for distance in net.spacing if not 0 < distance < float("inf")]
    if wrong or (net.spacing and len(net.spacing) != len(shape)):
        raise ExtremalValueError(
            f"spacing must be a positive number for each of the {len(shape)} dimensions of an input, "
            f"got {tuple(net.spacing)}; e.g. (2, 1, 1) for slices that are twice as far apart as pixels"
        )


def _validate_within(within: PlaceMap | None) -> Tensor | None:
    """Return a region as a bool tensor (*S)."""
    if within is None:
        return None
    region = torch.as_tensor(within).detach().cpu()
    if region.dtype != torch.bool:
        raise ExtremalTypeError(
            f"within must be bool (*S), true where masks may keep places, got {region.dtype}; e.g. mask > 0.5"
        )
    if not region.any():
        raise ExtremalValueError("within must be true somewhere, got a region without places; check how it was made")
    return region.clone()


def _validate_units(units: PlaceMap | None) -> Tensor | None:
    """Return labels of units as an int64 tensor (*S), numbered 0 .. U−1 without gaps, −1 for no unit."""
    if units is None:
        return None
    labelled = torch.as_tensor(units).detach().cpu()
    if labelled.is_floating_point() or labelled.is_complex() or labelled.dtype == torch.bool:
        raise ExtremalTypeError(
            f"units must be whole numbers (*S), the label of each place, got {labelled.dtype}; e.g. superpixels"
        )
    labels, numbers = labelled.long().unique(return_inverse=True)  # type: ignore[no-untyped-call]
    n_outside = int((labels < 0).sum())
    if len(labels) - n_outside < 2:
        raise ExtremalValueError(
            f"units must name at least two units to choose from, got {len(labels) - n_outside}; label places 0, 1, 2, "
            "..., and −1 where nothing may be kept"
        )
    renumbered: Tensor = (numbers - n_outside).clamp_min(-1)
    return renumbered


def validate_areas(areas: Sequence[float], *, stacklevel: int = 3) -> tuple[float, ...]:
    """Return the areas sorted, with a warning if they were not.

    >>> validate_areas([0.1, 0.2])
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
        message = f"areas were sorted: {', '.join(f'{a:g}' for a in sorted(values))}"
        warnings.warn(message, UserWarning, stacklevel=stacklevel)
    return tuple(sorted(values))


def _validate_alternatives(alternatives: int) -> int:
    if isinstance(alternatives, bool) or not hasattr(alternatives, "__index__"):
        raise ExtremalTypeError(f"alternatives must be a whole number, got {alternatives!r}; e.g. 3")
    if not 1 <= alternatives.__index__() <= MAX_ALTERNATIVES:
        raise ExtremalValueError(
            f"alternatives must lie in 1..{MAX_ALTERNATIVES}, got {alternatives}; "
            "each costs as much as a run of its own"
        )
    return alternatives.__index__()


def validate_seed(seed: int) -> int:
    """Return a seed that every random generator takes.

    >>> validate_seed(7)
    7
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise ExtremalTypeError(f"seed must be a whole number, got {seed!r}; e.g. 0")
    if not 0 <= seed.__index__() < 2**32:
        raise ExtremalValueError(f"seed must lie in 0..2**32 - 1, got {seed}; e.g. 0")
    return seed.__index__()


def validate_image(image: int, count: int) -> int:
    """Return the index of one of `count` inputs.

    >>> validate_image(0, 2)
    0
    """
    if not 0 <= image < count:
        raise ExtremalValueError(f"image must lie in 0..{count - 1} for {count} inputs, got {image}")
    return image


def flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as pairs of name and value.

    >>> list(flatten_settings({"seed": 0, "solver": {"name": "path", "betas": [0.9, 0.99]}}))
    [('seed', '0'), ('solver name', 'path'), ('solver betas', '0.9, 0.99')]
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flatten_settings(value, f"{prefix}{name} ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            yield f"{prefix}{name}".replace("_", " "), text
