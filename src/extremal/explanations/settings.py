"""Validated settings of a run, and the provenance stored with its result."""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial, wraps
from operator import attrgetter, methodcaller
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, TypeVar, Unpack, cast

import torch
from torch import Tensor

from extremal._version import __version__
from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations.effort import EFFORTS, NORMAL, validate_effort
from extremal.explanations.place_maps import PlaceMap, validate_units, validate_within
from extremal.explanations.validation import validate_alternatives, validate_areas, validate_seed
from extremal.masking.domain import Domain
from extremal.masking.games import GAMES, Game, Reward, get_game
from extremal.masking.grid import short_side
from extremal.masking.perturbations import (
    PERTURBATIONS,
    Mix,
    Perturbation,
    PerturbationLike,
    ScaleChannels,
    get_perturbation,
    mask_shape,
)
from extremal.masking.solvers import SOLVERS, Solver, get_solver, restore_solver
from extremal.networks.network import Network
from extremal.networks.sounds.reader import SoundReader
from extremal.scores.classes import SCORES, Score, get_score, margin

AREAS = (0.025, 0.05, 0.1, 0.2, 0.4)
DEFAULT_SOLVER: Any = "consensus"
MIN_SIDE = 4  # places along the short side; smaller smooth masks have no room to vary

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class SettingsOptions(TypedDict, total=False):
    """The options of `explain`, as keyword arguments: see there for what each means."""

    areas: Sequence[float]
    game: str | Game | Reward
    perturbation: PerturbationLike
    solver: str | Solver
    score: str | Score
    within: PlaceMap | None
    units: PlaceMap | None
    alternatives: int
    seed: int
    effort: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """Everything besides network, input and target that decides a result; validated on creation.

    Short names are resolved: `Settings(game="delete").game` is a `Game`.

    >>> Settings(areas=(0.1, 0.2), game="delete").areas
    (0.1, 0.2)

    Raises:
        ExtremalValueError, ExtremalTypeError: an option breaks a rule; the message names rule, value and remedy.
    """

    areas: tuple[float, ...] = AREAS  # shares of places in (0, 1), rising
    game: Game = GAMES["preserve"]
    perturbation: Perturbation | Mix = PERTURBATIONS["mixed"]
    solver: Solver = DEFAULT_SOLVER  # a solver passed by name takes the settings of the effort
    score: Score = margin
    within: Tensor | None = None  # (*S) bool: where masks may be above zero; None: everywhere
    units: Tensor | None = None  # (*S) int64: the unit of each place, −1 for none; None: smooth masks
    alternatives: int = 1  # explanations to search for, each outside of those before it
    seed: int = 0  # of noise and controls
    effort: str = NORMAL  # decides the steps of solvers passed by name, and the number of controls

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[SettingsOptions]) -> None: ...

    def __post_init__(self) -> None:
        if self.within is not None and self.units is not None:
            raise ExtremalValueError(
                "within and units must not both be given, got both; give the label −1 to units outside of the region"
            )
        given = self.solver
        for name, option in _OPTIONS.items():
            object.__setattr__(self, name, option.validate(getattr(self, name)))
        if isinstance(given, str):
            object.__setattr__(self, "solver", EFFORTS[self.effort].solver(given))

    def replace(self, **options: Unpack[SettingsOptions]) -> "Settings":
        """Return a copy with some options replaced.

        Another effort also replaces the solver, if it is that of the former effort.

        >>> Settings(seed=3).replace(game="dual").seed
        3
        """
        name = getattr(self.solver, "name", "")
        if "effort" in options and name in SOLVERS and self.solver == EFFORTS[self.effort].solver(name):
            options.setdefault("solver", name)
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
            name: option.to_plain(getattr(self, name))
            for name, option in _OPTIONS.items()
            if option.to_plain is not None
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
        given = {name: value for name, value in (options or {}).items() if value is not None}
        stored = {
            name: option.from_plain(values[name])
            for name, option in _OPTIONS.items()
            if option.from_plain is not None and name in values and name not in given
        }
        return cls(**{**stored, **given})

    def provenance(self, net: Network) -> dict[str, Any]:
        """Return what a result stores so that it can be repeated: settings, network, versions, device."""
        settings = self.as_dict()
        return {
            "versions": {"extremal": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "network": net.name,
            "weights": net.weight_hash(),
            **({} if net.random_weights is None else {"random_weights": net.random_weights}),
            **({"source": net.source} if net.source else {}),
            **({"sample_rate": net.reader.rate} if isinstance(net.reader, SoundReader) else {}),
            "spacing": list(net.spacing),
            "accelerate": net.accelerate,
            "precision": net.precision,
            **{name: settings[name] for name in ("game", "perturbation", "score", "seed", "effort")},
            "threads": torch.get_num_threads(),
            "dtype": str(net.dtype),
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
    if not isinstance(settings, Settings):
        raise ExtremalTypeError(
            f"settings must be extremal.Settings, got {type(settings).__name__}; e.g. Settings(areas=(0.1, 0.2))"
        )
    if options:
        raise ExtremalTypeError(
            f"options must be passed by settings or by name, got settings and {', '.join(options)}; "
            "use settings.replace(...)"
        )
    return settings


def merge_options(function: F) -> F:
    """Decorate a function with keyword arguments for the options: it gets them as its argument `settings`.

    Options that equal their defaults count as well, so that none is ignored where `settings` are passed.

    >>> @merge_options
    ... def find_seed(*, seed: int = 0, settings: Settings | None = None):
    ...     return settings.seed
    >>> find_seed(), find_seed(seed=1), find_seed(settings=Settings(seed=2))
    (0, 1, 2)
    """

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        passed = {name: options.pop(name) for name in _OPTIONS if name in options}
        merged = merge_settings(options.pop("settings", None), cast(SettingsOptions, passed))
        return function(*arguments, settings=merged, **options)

    wrapper: Any = run
    return cast(F, wrapper)


def _find_known(option: str, known: Mapping[str, T]) -> Callable[[str], T]:
    """Return a function that finds the value of a name."""

    def find(name: str) -> T:
        if name not in known:
            raise ExtremalValueError(
                f"the {option} of the explanation was {name!r}, which has no short name: pass it as {option}"
            )
        return known[name]

    return find


def _restore_perturbation(plain: str | list[str]) -> Perturbation | Mix:
    """Return the perturbation of a plain value: that of its text, or the mix of several texts."""
    find = _find_known("perturbation", {repr(known): known for known in PERTURBATIONS.values()} | PERTURBATIONS)
    return find(plain) if isinstance(plain, str) else get_perturbation([find(way) for way in plain])  # type: ignore[misc]


class _Option(NamedTuple):
    """Validation of one option, and its conversion to plain values and back; None if results hold a tensor."""

    validate: Callable[[Any], Any]
    to_plain: Callable[[Any], Any] | None = None
    from_plain: Callable[[Any], Any] | None = None


_OPTIONS = {
    "areas": _Option(partial(validate_areas, stacklevel=4), list, tuple),
    "game": _Option(get_game, attrgetter("name"), _find_known("game", GAMES)),
    "perturbation": _Option(
        get_perturbation,
        lambda value: [repr(way) for way in value.perturbations] if isinstance(value, Mix) else repr(value),
        _restore_perturbation,
    ),
    "solver": _Option(get_solver, methodcaller("settings"), restore_solver),
    "score": _Option(
        get_score,
        lambda score: getattr(score, "__name__", repr(score)),
        _find_known("score", {known.__name__: known for known in SCORES.values()} | SCORES),
    ),
    "within": _Option(validate_within),
    "units": _Option(validate_units),
    "alternatives": _Option(validate_alternatives, int, int),
    "seed": _Option(validate_seed, int, int),
    "effort": _Option(validate_effort, str, str),
}


def validate_domain(settings: Settings, net: Network, shape: tuple[int, ...]) -> None:
    """Raise if masks of the settings' areas cannot be made for inputs of shape S."""
    areas = settings.areas
    _validate_spacing(net, shape)
    if settings.units is None and short_side(shape) < MIN_SIDE:
        remedy = "pass a larger input, or units to choose from"
        if len(shape) == 2 and shape[0] >= MIN_SIDE > shape[1]:
            remedy = f"{remedy}; if the last axis has the channels, put them first with x.movedim(-1, 1)"
        raise ExtremalValueError(
            f"an input must have room for smooth masks, at least {MIN_SIDE} places along its short side, got "
            f"{' × '.join(map(str, shape))}; {remedy}"
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
    if net.spacing and len(net.spacing) != len(shape):
        raise ExtremalValueError(
            f"spacing must be a positive number for each of the {len(shape)} dimensions of an input, "
            f"got {tuple(net.spacing)}; e.g. (2, 1, 1) for slices that are twice as far apart as pixels"
        )


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
