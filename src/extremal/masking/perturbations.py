"""Perturbations: the effect of a mask on an input.

A perturbation is a callable `x -> perturb`, with x the prepared input (N, C, *S) and `perturb` a callable
`mask -> perturbed input`, (N, K, 1, *S) -> (N, K, C, *S): K masks for each input. The contract:
`perturb(1)` is the input, `perturb(0)` is the destroyed input. Two optional methods adapt it:
`mask_shape(x) -> (K,)` if its masks have a value for each channel of x, as `ScaleChannels`, and
`with_spacing(spacing) -> Perturbation` if its lengths depend on the distances of places.

>>> import torch
>>> perturb = Blur()(torch.rand(1, 3, 32, 32))
>>> perturb(torch.full((1, 5, 1, 32, 32), 0.5)).shape
torch.Size([1, 5, 3, 32, 32])
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import quote
from extremal.masking.blur import Blur
from extremal.masking.replacements import Constant, Extreme, Fade, Mosaic, Noise, Perturb
from extremal.number_checks import refuse_class, validate_whole

Perturbation = Callable[[Tensor], Perturb]  # x (N, C, *S) -> Perturb
P = TypeVar("P")

MAX_AXIS = 64  # of a tensor of torch


@dataclass(frozen=True)
class ScaleChannels:
    """Fade each channel of a layer's output to zero by its own mask value: (m ⊗ x)_k = m_k·x_k.

    >>> import torch
    >>> perturb = ScaleChannels()(torch.ones(1, 4, 2, 2))
    >>> perturb(torch.tensor([0.0, 0.5, 1.0, 1.0]).view(1, 1, 1, 4))[0, 0, :, 0, 0]
    tensor([0.0000, 0.5000, 1.0000, 1.0000])
    """

    axis: int | None = None  # of the channels; None: 1, but 2 for a transformer's (B, tokens, channels)

    def __post_init__(self) -> None:
        if self.axis is not None:
            object.__setattr__(self, "axis", validate_whole(self.axis, "axis", -MAX_AXIS, MAX_AXIS))

    def axis_of(self, x: Tensor) -> int:
        """Return the axis of x (N, ...) along which the channels lie, 1 .. x.ndim − 1.

        Raises:
            ExtremalValueError: x has no such axis, or it is the batch axis.
        """
        axis = (2 if x.ndim == 3 else 1) if self.axis is None else self.axis
        if not -x.ndim < axis < x.ndim or axis == 0:
            raise ExtremalValueError(
                f"axis must be one of 1..{x.ndim - 1} for an output of shape {tuple(x.shape)} (axis 0 is the batch), "
                f"got {axis}"
            )
        return axis % x.ndim

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of masks for x, (K,): one value per channel."""
        return (x.shape[self.axis_of(x)],)

    def __call__(self, x: Tensor) -> Perturb:
        """Return the map from masks (N, K, 1, channels) to perturbed outputs of x (N, ...)."""
        axis = self.axis_of(x)
        leading, trailing = [1] * (axis - 1), [1] * (x.ndim - 1 - axis)
        return lambda mask: mask.view(*mask.shape[:2], *leading, -1, *trailing) * x.unsqueeze(1)


@dataclass(frozen=True)
class Mix:
    """Several perturbations in one run, each a way of destroying the input.

    A mix is never applied as such: an objective evaluates its ways in turn, or all of them, and expresses their scores
    as shares of each way's own effect (`explanations.ways`).

    >>> Mix((Blur(), Fade())).with_spacing((2.0, 1.0)).perturbations[1]
    Fade()
    """

    perturbations: tuple[Perturbation, ...]  # at least one, no two alike

    def __post_init__(self) -> None:
        if not self.perturbations:
            raise ExtremalValueError("a mix must have at least one perturbation, got none; e.g. ('blur', 'fade')")
        for index, way in enumerate(self.perturbations):
            if isinstance(way, Mix) or not callable(way):
                raise ExtremalTypeError(
                    f"a mix must consist of single perturbations, got {type(way).__name__}; "
                    "name the perturbations one by one"
                )
            if isinstance(way, ScaleChannels):
                raise ExtremalTypeError(
                    "a mix must be about places of an input, got ScaleChannels, which masks channels; leave it out"
                )
            if way in self.perturbations[:index]:
                raise ExtremalValueError(
                    f"the perturbations of a mix must differ, got {name_perturbation(way)} twice; leave one out"
                )

    def with_spacing(self, spacing: Sequence[float]) -> "Mix":
        """Adapt every way to the distances of places."""
        return Mix(tuple(with_spacing(way, spacing) for way in self.perturbations))

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of masks for x (N, C, *S), the same for every way.

        Raises:
            ExtremalValueError: the ways have masks of different shapes.
        """
        shapes = {name: mask_shape(way, x) for name, way in split_ways(self).items()}
        first, *others = shapes.values()
        if any(shape != first for shape in others):
            listed = ", ".join(f"{shape} for {name}" for name, shape in shapes.items())
            raise ExtremalValueError(f"the perturbations of a mix must have masks of one shape, got {listed}")
        return first


PERTURBATIONS: dict[str, Perturbation | Mix] = {
    "mixed": Mix((Blur(), Fade(), Noise())),
    "blur": Blur(),
    "fade": Fade(),
    "constant": Constant(-1.0),
    "noise": Noise(),
}
PerturbationLike = str | Perturbation | Mix | Sequence[str | Perturbation]  # what `get_perturbation` takes


def get_perturbation(perturbation: PerturbationLike) -> Perturbation | Mix:
    """Return the perturbation of this short name, the callable or mix itself, or the mix of several of these.

    >>> get_perturbation(("blur", "noise"))
    Mix(perturbations=(Blur(levels=8, sigma=20.0, spacing=()), Noise(seed=0)))
    """
    kinds = f"one of {', '.join(PERTURBATIONS)}, a callable, or several of these"
    if isinstance(perturbation, str):
        if perturbation not in PERTURBATIONS:
            raise ExtremalValueError(f"perturbation must be {kinds}, got {quote(perturbation)}")
        return PERTURBATIONS[perturbation]
    if isinstance(perturbation, Mix):
        return perturbation
    if isinstance(perturbation, list | tuple):
        return Mix(tuple(get_perturbation(way) for way in perturbation))  # type: ignore[misc]  # checked by Mix
    refuse_class(perturbation, "perturbation")
    if not callable(perturbation):
        raise ExtremalTypeError(f"perturbation must be {kinds}, got {type(perturbation).__name__}")
    return perturbation


def split_ways(perturbation: Perturbation | Mix) -> dict[str, Perturbation]:
    """Return the single perturbations of a perturbation, by name: those of a mix, or itself.

    >>> list(split_ways(PERTURBATIONS["mixed"]))
    ['blur', 'fade', 'noise']
    """
    ways = perturbation.perturbations if isinstance(perturbation, Mix) else (perturbation,)
    names = [name_perturbation(way) for way in ways]
    return {
        name if names.count(name) == 1 else f"{name} {number}": way
        for number, (name, way) in enumerate(zip(names, ways, strict=True), start=1)
    }


def name_perturbation(perturbation: Perturbation) -> str:
    """Return the short name of a perturbation, or the name of its function or class.

    >>> name_perturbation(Blur(spacing=(2.0, 1.0))), name_perturbation(Constant(0.5))
    ('blur', 'Constant')
    """
    plain: Any = replace(perturbation, spacing=()) if isinstance(perturbation, Blur | Mosaic) else perturbation
    for name, known in PERTURBATIONS.items():
        if type(known) is type(plain) and known == plain:
            return name
    return str(getattr(plain, "__name__", type(plain).__name__))


def with_spacing(perturbation: P, spacing: Sequence[float]) -> P:
    """Adapt a perturbation to the distances of places; return it unchanged if it does not use them."""
    adapt: Callable[[Sequence[float]], P] | None = getattr(perturbation, "with_spacing", None)
    return perturbation if adapt is None else adapt(spacing)


def mask_shape(perturbation: Perturbation | Mix, x: Tensor) -> tuple[int, ...]:
    """Return the shape of a perturbation's masks for x (N, C, *S): S, or that of its own `mask_shape`."""
    shape_for: Callable[[Tensor], tuple[int, ...]] | None = getattr(perturbation, "mask_shape", None)
    return tuple(x.shape[2:]) if shape_for is None else shape_for(x)


def prepare_perturbation(perturbation: Perturbation, x: Tensor) -> Perturb:
    """Apply a perturbation to x and check its contract: shapes, and perturb(1) = x.

    Raises:
        ExtremalValueError: the contract is broken.
    """
    perturb = perturbation(x)
    if not callable(perturb):
        raise ExtremalTypeError(
            "a perturbation of x must be a function mask -> perturbed x, "
            f"{name_perturbation(perturbation)} returned {type(perturb).__name__}; return such a function"
        )
    ones = x.new_ones(x.shape[0], 1, 1, *mask_shape(perturbation, x))
    unperturbed = perturb(ones)
    if not isinstance(unperturbed, Tensor):
        raise ExtremalTypeError(
            "a perturbation maps masks (N, K, 1, *S) to a tensor (N, K, C, *S), "
            f"{name_perturbation(perturbation)} returned {type(unperturbed).__name__}; return a tensor"
        )
    expected_shape = (x.shape[0], 1, *x.shape[1:])
    if tuple(unperturbed.shape) != expected_shape:
        raise ExtremalValueError(
            f"a perturbation maps masks (N, K, 1, *S) to inputs (N, K, C, *S): expected {expected_shape} for a mask "
            f"{tuple(ones.shape)}, got {tuple(unperturbed.shape)}"
        )
    difference, largest = torch.stack([(unperturbed[:, 0] - x).abs().max(), x.abs().max()]).tolist()
    if not difference <= 1e-4 * max(1.0, largest):
        raise ExtremalValueError(
            f"a perturbation must return the input unchanged where the mask is 1, got a difference of {difference:.3g};"
            " check that mask 1 keeps and mask 0 destroys"
        )
    return perturb


def destroy(x: Tensor, perturbation: Perturbation) -> Tensor:
    """Return inputs (N, C, *S) as a perturbation leaves them where masks are zero everywhere.

    >>> destroy(torch.tensor([[[1.0, 2.0]]]), Constant(0.5)).tolist()
    [[[0.5, 0.5]]]

    Raises:
        ExtremalValueError: the perturbation breaks its contract (`prepare_perturbation`).
    """
    zeros = x.new_zeros(len(x), 1, 1, *mask_shape(perturbation, x))
    return prepare_perturbation(perturbation, x)(zeros)[:, 0]


__all__ = [
    "PERTURBATIONS",
    "Blur",
    "Constant",
    "Extreme",
    "Fade",
    "Mix",
    "Mosaic",
    "Noise",
    "Perturb",
    "Perturbation",
    "PerturbationLike",
    "ScaleChannels",
    "destroy",
    "get_perturbation",
    "mask_shape",
    "name_perturbation",
    "prepare_perturbation",
    "split_ways",
    "with_spacing",
]
