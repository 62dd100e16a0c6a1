"""`ChannelExplanation`: the channels of a layer that an answer needs, with the evidence."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.channels.values import ChannelCurve, SmallestSet
from extremal.explanations.channels.views import ChannelViews
from extremal.explanations.concatenation import SETTINGS_FIELD, SHARED_FIELD, STEPS_FIELD, TRACE_FIELD, concatenate
from extremal.explanations.explanation_file import read_statuses, read_targets
from extremal.explanations.field_checks import (
    Sizes,
    TensorRule,
    are_counts,
    check_field,
    check_inputs,
    check_not_empty,
    check_tensors,
    is_list,
    is_number,
    is_text,
    is_whole,
)
from extremal.explanations.validation import validate_image
from extremal.explanations.verdict import (
    NO_CHANNEL_TO_KEEP,
    NOTHING_FOUND,
    Status,
    Verdict,
    compute_effects,
    find_largest_effects,
    has_effect,
    reach_verdict,
)
from extremal.file_checks import to_path
from extremal.masking.area import cut
from extremal.masking.grid import resize
from extremal.networks.torch_state import in_standard_modes
from extremal.scores.class_group import ResolvedClass
from extremal.tensor_files import fields_equal, read_tensors, unreadable_file_error, write_tensors

FORMAT = 1  # of the saved file
KIND = "an explanation of channels"  # of file, in messages
TIE_MARGIN = 1e-3  # of the effect; a ranking's set within this margin counts as a tie


@dataclass(frozen=True, eq=False, repr=False)
class ChannelExplanation(ChannelViews):
    """Sets of channels of one layer for N inputs at A counts, with the network's scores.

    Scores are Φ of the masked output of the layer: Φ(m ⊗ x_l) for the preserve and dual games, Φ((1 − m) ⊗ x_l) for
    delete.
    """

    layer: str = field(metadata=SHARED_FIELD)  # name of the module with the masked output
    axis: int = field(metadata=SHARED_FIELD)  # of the layer's output, along which the K units lie; 0 is the batch
    bypassed: bool = field(metadata=SHARED_FIELD)  # part of the answer bypasses the layer, untouched by masks
    counts: tuple[int, ...] = field(metadata=SHARED_FIELD)  # (A,) rising, in 1..K−1
    masks: Tensor  # (N, A, K) in [0, 1], with means exactly counts/K from `path`
    scores: Tensor  # (N, A) of the masks as found
    binary_scores: Tensor  # (N, A) of exactly these counts of channels
    random_scores: Tensor  # (N, A, R) of random sets
    ranked_scores: Tensor  # (N, A, M) of the top channels by each ranking
    rankings: Tensor  # (N, M, K), higher is more
    ranking_names: tuple[str, ...] = field(metadata=SHARED_FIELD)  # (M,)
    smallest_mask: Tensor  # (N, K) of zeros and ones: the smallest sufficient set
    smallest_effect: Tensor  # (N,)
    below_count: Tensor  # (N,) int64, the largest insufficient count tried below it; 0: none
    below_effect: Tensor  # (N,)
    maps: Tensor  # (N, A, h, w) Σ_k m_k·x_k of the cut masks; (N, A, 0, 0) if the layer has no places
    score_full: Tensor  # (N,) of the whole network
    score_blank: Tensor  # (N,) of the layer's output at zero
    inputs: Tensor  # (N, C, *S) prepared for the network
    pictures: Tensor  # (N, H, W, 3) uint8, the inputs for display; (N, 0, 0, 3) if they are not images
    trace_step: Tensor = field(metadata=STEPS_FIELD)  # (T,) step in which each intermediate mask was evaluated
    trace_area: Tensor = field(metadata=TRACE_FIELD)  # (N, T) its fraction of the channels
    trace_reward: Tensor = field(metadata=TRACE_FIELD)  # (N, T) its reward
    trace_grey: Tensor = field(metadata=TRACE_FIELD)  # (N, T) its greyness
    target: tuple[ResolvedClass | None, ...]  # (N,) class index, or indices of a group; None: another query
    target_names: tuple[str, ...]  # (N,)
    status: tuple[tuple[Status, ...], ...]  # (N, A)
    keeps: bool = field(metadata=SHARED_FIELD)  # masks are judged by what they keep; False: by what they delete
    share: float = field(metadata=SHARED_FIELD)  # fraction of the whole effect that the smallest sets have
    # versions, seed, network, weight hash, solver, counts: everything needed to repeat the run
    settings: dict[str, Any] = field(metadata=SETTINGS_FIELD)
    activity: Tensor | None = None  # (N, A, h, w) √Σ_k m_k·x_k² of the cut masks; None: in older files
    smallest_activity: Tensor | None = None  # (N, h, w) that of the smallest sets

    @classmethod
    def concatenate(cls, parts: Sequence["ChannelExplanation"]) -> "ChannelExplanation":
        """Join explanations of different inputs with the same settings; their evaluations are added up."""
        return concatenate(parts)

    @property
    def is_class(self) -> bool:
        """Whether the target of every input is a class or a group of classes, which `target` stores completely."""
        return None not in self.target

    @property
    def total(self) -> int:
        """Number of channels, K."""
        return self.masks.shape[2]

    @property
    def areas(self) -> tuple[float, ...]:
        """The counts as fractions of the channels: (A,)."""
        return tuple(count / self.total for count in self.counts)

    def effects(self, scores: Tensor) -> Tensor:
        """Return scores (N, ...) as fractions of the whole effect (`compute_effects`)."""
        return compute_effects(scores, self.score_blank, self.score_full, self.keeps)

    def largest_effects(self) -> Tensor:
        """Return the largest effect of any set of each input: (N,)."""
        scores = (self.scores, self.binary_scores, self.random_scores, self.ranked_scores)
        return find_largest_effects(*map(self.effects, scores))

    def has_effect(self) -> Tensor:
        """Return whether destroying all channels lowers the score, and by enough to divide by: (N,) bool."""
        return has_effect(self.largest_effects(), self.score_full, self.score_blank)

    def curve(self, image: int = 0) -> ChannelCurve:
        """Return effects over the number of channels."""
        image = validate_image(image, len(self.masks))
        random = self.effects(self.random_scores)[image]
        ranked = self.effects(self.ranked_scores)[image]
        return ChannelCurve(
            self.counts,
            tuple(self.effects(self.scores)[image].tolist()),
            tuple(self.effects(self.binary_scores)[image].tolist()),
            tuple(random.median(1).values.tolist()),
            tuple(random.amax(1).tolist()),
            {name: tuple(ranked[:, m].tolist()) for m, name in enumerate(self.ranking_names)},
        )

    @property
    def verdict(self) -> tuple[tuple[Verdict, ...], ...]:
        """Verdicts (N, A): sufficient, insufficient, chance is enough, or suspect.

        Chance is enough if a random set is sufficient, too. A set is suspect if a ranking has a better one of its size;
        a ranking that merely equals it confirms both.
        """
        soft, cuts = self.effects(self.scores).tolist(), self.effects(self.binary_scores).tolist()
        random, ranked = self.effects(self.random_scores).tolist(), self.effects(self.ranked_scores).tolist()
        largest = self.largest_effects().tolist()

        def judge(n: int, k: int) -> Verdict:
            if self.status[n][k] == Status.NOT_FINITE:
                return NOTHING_FOUND
            if self.score_full[n] < self.score_blank[n]:
                return NO_CHANNEL_TO_KEEP
            better = [value for value in ranked[n][k] if not value <= cuts[n][k] + TIE_MARGIN]
            found = soft[n][k], cuts[n][k]
            return reach_verdict(*found, [], random[n][k], self.share, "set", better, largest=largest[n])

        return tuple(tuple(judge(n, k) for k in range(len(self.counts))) for n in range(len(self.masks)))

    @in_standard_modes
    def binary(self, count: int) -> Tensor:
        """Return the sets at one of the computed counts: (N, K) of zeros and ones."""
        if count not in self.counts:
            raise ExtremalValueError(
                f"count must be one of the computed counts {', '.join(map(str, self.counts))}, got {count}; "
                "explain again with this count"
            )
        column = self.counts.index(count)
        return cut(self.masks[:, column, None, None], (self.areas[column],))[:, 0, 0]

    def channels(self, count: int, image: int = 0) -> tuple[int, ...]:
        """Return the indices of the channels in the set of this count, rising."""
        image = validate_image(image, len(self.masks))
        return tuple(self.binary(count)[image].nonzero()[:, 0].tolist())

    def smallest(self, image: int = 0) -> SmallestSet:
        """Return the smallest sufficient set of one input, with its certificate.

        The set of all channels if destroying all of them raises the score, or lowers it by too little to divide by; the
        verdicts then say so.
        """
        image = validate_image(image, len(self.masks))
        return SmallestSet(
            tuple(self.smallest_mask[image].nonzero()[:, 0].tolist()),
            float(self.smallest_effect[image]),
            int(self.below_count[image]),
            float(self.below_effect[image]),
            self.share,
        )

    @in_standard_modes
    def map(self, count: int, image: int = 0) -> Tensor:
        """Return Σ_k m_k·x_k of the set of this count, resized from the layer's lattice to the input: (H, W).

        Raises:
            ExtremalValueError: the layer has no places, or the count was not computed.
        """
        image = validate_image(image, len(self.masks))
        self.binary(count)  # checks the count
        return self._to_input_size(self.maps[image, self.counts.index(count)])

    @in_standard_modes
    def activity_map(self, count: int | None = None, image: int = 0) -> Tensor:
        """Return √Σ_k m_k·x_k², how active the set of this count is, resized to the input: (H, W) ≥ 0.

        Args:
            count: one of the computed counts; None: the smallest sufficient set that was found.
            image: index of the input, 0..N − 1.

        Raises:
            ExtremalValueError: the layer has no places, or the count was not computed.
        """
        image = validate_image(image, len(self.masks))
        if count is None:
            count = self._choose_count(image)
            found = None if self.smallest_activity is None else self.smallest_activity[image]
        else:
            self.binary(count)  # checks the count
            found = None if self.activity is None else self.activity[image, self.counts.index(count)]
        return self.map(count, image) if found is None else self._to_input_size(found)

    def _to_input_size(self, layer_map: Tensor) -> Tensor:
        if layer_map.numel() == 0:
            raise ExtremalValueError(
                f"a map must be of a layer whose channels have places, {self.layer!r} has none; choose an earlier layer"
            )
        return resize(layer_map[None, None], tuple(self.inputs.shape[2:]))[0, 0]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file with JSON metadata, atomically."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values = {name: value for name, value in values.items() if value is not None}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        metadata = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        write_tensors(to_path(path, KIND), tensors, {"channels": FORMAT, **metadata})

    @classmethod
    @in_standard_modes
    def load(cls, path: str | os.PathLike[str]) -> "ChannelExplanation":
        """Read a file that `save` wrote; no code from the file is run.

        Raises:
            ExtremalValueError: the file is missing, broken, or not an explanation of channels.
        """
        path = to_path(path, KIND)
        tensors, metadata = read_tensors(path, KIND)
        try:
            if metadata.pop("channels") != FORMAT:
                raise KeyError("channels")
            _check_fields(tensors, metadata)
            for name in ("counts", "target_names", "ranking_names"):
                metadata[name] = tuple(metadata[name])
            metadata["target"] = read_targets(metadata["target"])
            metadata["status"] = read_statuses(metadata["status"])
            return cls(**{**metadata, **tensors})
        except Exception as error:  # a damaged file can fail in any way
            raise unreadable_file_error(path, KIND, error) from None

    def __eq__(self, other: object) -> bool:
        return fields_equal(self, other) if isinstance(other, ChannelExplanation) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


_TENSOR_RULES = {
    "masks": TensorRule("float", "N A K", 0.0, 1.0),
    "scores": TensorRule("float", "N A"),
    "binary_scores": TensorRule("float", "N A"),
    "random_scores": TensorRule("float", "N A R"),
    "ranked_scores": TensorRule("float", "N A M"),
    "rankings": TensorRule("float", "N M K"),
    "smallest_mask": TensorRule("float", "N K", 0.0, 1.0),
    "smallest_effect": TensorRule("float", "N"),
    "below_count": TensorRule("int64", "N", 0),
    "below_effect": TensorRule("float", "N"),
    "maps": TensorRule("float", "N A h w"),
    "activity": TensorRule("float", "N A h w", 0.0, is_optional=True),
    "smallest_activity": TensorRule("float", "N h w", 0.0, is_optional=True),
    "score_full": TensorRule("float", "N"),
    "score_blank": TensorRule("float", "N"),
    "inputs": TensorRule("float", "N C *S"),
    "pictures": TensorRule("uint8", "N H W 3"),
    "trace_step": TensorRule("number", "T"),
    "trace_area": TensorRule("number", "N T"),
    "trace_reward": TensorRule("number", "N T"),
    "trace_grey": TensorRule("number", "N T"),
}
_MAY_BE_EMPTY = ("T", "H", "W", "h", "w")  # sizes of traces, pictures and maps


def _check_fields(tensors: dict[str, Tensor], head: dict[str, Any]) -> None:
    """Check all fields of a file.

    Raises:
        FormatError: one is missing or breaks its rule.
    """
    sizes: Sizes = {}
    check_field(head, "counts", "rising whole numbers from 1", are_counts)
    sizes["A"] = len(head["counts"])
    is_broken = Status.NOT_FINITE.value in str(head.get("status"))
    check_tensors(tensors, head, _TENSOR_RULES, sizes, allows_nan=is_broken)
    check_inputs(head, sizes)
    total, n_rankings = sizes["K"], sizes["M"]
    check_field(head, "counts", f"below {total}, the number of channels", lambda counts: counts[-1] < total)
    check_field(
        head,
        "ranking_names",
        f"{n_rankings} distinct names",
        lambda value: is_list(value, is_text) and len(value) == len(set(value)) == n_rankings,
    )
    check_field(head, "layer", "text", is_text)
    check_field(head, "axis", "a whole number", is_whole)
    check_field(head, "bypassed", "true or false", lambda value: isinstance(value, bool))
    check_field(head, "share", "a number above 0", lambda value: is_number(value, 1e-9, 1e9))
    check_not_empty(sizes, _MAY_BE_EMPTY)
