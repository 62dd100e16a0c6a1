"""Explanations of one input that are saved in one file."""

import os
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations.explanation import Explanation
from extremal.explanations.explanation_file import from_tensors, to_tensors
from extremal.explanations.settings import Settings, SettingsOptions, merge_settings
from extremal.file_checks import to_path
from extremal.networks.inputs import ImagesLike, prepare, read_stacks, take_spacing
from extremal.networks.network import Network
from extremal.networks.torch_state import in_standard_modes
from extremal.networks.turns import exclusive
from extremal.scores.classes import Score
from extremal.scores.target import Target, count_targets, parse_target
from extremal.tensor_files import FormatError, fields_equal, read_tensors, unreadable_file_error, write_tensors

FORMAT = 1  # of the saved file


@dataclass(frozen=True, eq=False)
class Bundle:
    """Explanations of one input, each a field, and plain values."""

    noun: ClassVar[str]  # of the file, with its article
    parts: ClassVar[tuple[str, ...]]  # names of the fields that are explanations

    def explanations(self) -> tuple[Explanation, ...]:
        """Return the explanations, in the order of `parts`."""
        return tuple(getattr(self, name) for name in self.parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file with JSON metadata, atomically."""
        tensors: dict[str, Tensor] = {}
        head: dict[str, Any] = {}
        for name in self.parts:
            more, head[name] = to_tensors(getattr(self, name))
            tensors |= {f"{name}.{key}": tensor for key, tensor in more.items()}
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in self.parts}
        write_tensors(to_path(path, self.noun), tensors, {"format": FORMAT, "parts": head, "values": plain})

    @classmethod
    @in_standard_modes
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` wrote; no code is run from it.

        Raises:
            ExtremalValueError: the file is missing, broken, or of another kind.
        """
        path = to_path(path, cls.noun)
        tensors, head = read_tensors(path, cls.noun)
        try:
            if head["format"] != FORMAT or sorted(head["parts"]) != sorted(cls.parts):
                raise FormatError(f"it must have the parts {', '.join(cls.parts)}")
            explanations = {}
            for name in cls.parts:
                own = {key.removeprefix(f"{name}."): tensors[key] for key in tensors if key.startswith(f"{name}.")}
                explanations[name] = from_tensors(Explanation, own, head["parts"][name])
            result = cls(**explanations, **cls._read_values(head["values"]))
            result._check()
        except Exception as error:  # a damaged file can fail in any way
            raise unreadable_file_error(path, cls.noun, error) from None
        return result

    @classmethod
    def _read_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the plain values of a file as those of the fields."""
        return values

    def _check(self) -> None:
        """Raise unless the parts are of the same single input and areas.

        Raises:
            FormatError: they are not.
        """
        first, *others = self.explanations()
        same = all(other.areas == first.areas and other.inputs.shape == first.inputs.shape for other in others)
        if len(first.inputs) != 1 or not same:
            raise FormatError("its parts must be of one input and the same areas")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return fields_equal(self, other)

    __hash__ = None  # type: ignore[assignment]


def prepare_single(network: Network, image: ImagesLike, what: str) -> tuple[Network, Tensor]:
    """Return the network, with the spacing of a volume, and the prepared input (1, C, *S).

    Raises:
        ExtremalValueError: there are several.
    """
    with exclusive(network.model, network.name):
        image = read_stacks(network, image)
        network = take_spacing(network, image)
        x = prepare(network, image)
    if len(x) != 1:
        raise ExtremalValueError(f"{what} must be of one image, got {len(x)}; call it for each")
    return network, x


def check_single_target(target: Target, score: Score, what: str) -> None:
    """Check that a target is one, of an input; a group of classes is one.

    Raises:
        ExtremalValueError, ExtremalTypeError: there are none or several, or it is no target.
    """
    count = count_targets(parse_target(target, score))
    if count not in (None, 1):
        raise ExtremalValueError(f"{what} must be of one target, got {count}; call it for each")


def merge_game_free(settings: Settings | None, options: SettingsOptions, what: str) -> Settings:
    """Return the given settings, or those of the options, without a game of their own.

    Raises:
        ExtremalTypeError: a game or several explanations are asked for.
    """
    merged = merge_settings(settings, options)
    if merged.game.name != "preserve":
        raise ExtremalTypeError(f"{what} choose their games themselves, got game={merged.game.name!r}; leave it out")
    if merged.alternatives != 1:
        raise ExtremalTypeError(
            f"{what} are one answer, got alternatives={merged.alternatives}; leave it out, or use explain"
        )
    return merged
