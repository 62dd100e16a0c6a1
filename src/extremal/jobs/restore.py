"""`rebuilt`: an explanation back from its row, equal to rounding; `cut_masks`: its masks alone, without a network."""

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.explanations.batches import plan_batches
from extremal.explanations.evidence import unseen_perturbations
from extremal.explanations.explanation import Explanation
from extremal.explanations.judge import input_fields, to_cpu, unseen_agreement
from extremal.explanations.objective import build_objective
from extremal.explanations.settings import Settings
from extremal.explanations.verdict import Status
from extremal.files import content_hash
from extremal.jobs.packing import unpacked, unpacked_shares
from extremal.jobs.rows import DONE
from extremal.jobs.store import diff_settings
from extremal.masking.domain import Domain
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import Perturbation, prepare_perturbation
from extremal.masking.solvers import rebuild_masks
from extremal.masking.units import cut_to_units
from extremal.networks.inputs import One, prepare
from extremal.networks.network import Network
from extremal.networks.resolve import as_network
from extremal.scores import Score
from extremal.scores.target import Target, find_required_layers, parse_target

NETWORK_SETTINGS = ("spacing", "accelerate", "precision", "dtype")  # settings of a network beside its weights that make the numbers
SCORE_TOLERANCE = 0.01  # of the effect, by which the whole input may score otherwise than it did: rounding is far below
SCORE_COLUMNS = (  # columns of numbers that are fields of an explanation
    "score_full",
    "score_blank",
    "mask_areas",
    "scores",
    "binary_scores",
    "unseen_scores",
    "unseen_blank",
    "control_scores",
)


def rebuild(
    row: Mapping[str, Any],
    network: Network | nn.Module | str,
    picture: One | None = None,
    *,
    settings: Mapping[str, Any],
    target: Target = None,
    game: str | Game | Reward | None = None,
    perturbation: str | Perturbation | None = None,
    score: str | Score | None = None,
) -> Explanation:
    """The explanation that a row is of, of its one input, equal to rounding.

    Scores, trace (its areas and greyness to 5e-7) and verdicts are those of the row. The masks are made of their
    fields, the input of its picture. The network is asked again only for the agreement, which is too large for a row:
    four forward-backward passes for each unseen perturbation and orientation (32 where there are four and the input may
    be mirrored), and about ten forward passes for checks. What ran in a batch may round otherwise alone, in single
    precision in the sixth place.

    Args:
        row: of `SCHEMA`, as pyarrow or pandas hand it out.
        network: with the weights and the preprocessing that were explained.
        picture: the input, as `explain` takes it; None: it is read from the row's path. The bytes of a file must have
            the row's hash.
        settings: that all rows share (`shared_settings`).
        target: the question that was asked, where it was no class.
        game, perturbation, score: those of the run; needed only where they have no short name.

    Raises:
        ExtremalValueError: the row failed or is broken, or picture, network, terms or version are not those of the row.
    """
    key, net = row["key"], as_network(network)
    if settings["accelerate"] == "onednn" and net.accelerate == "portable":
        net = replace(net, accelerate="onednn")  # as the workers of the run did
    _check_row(row)
    x = _input(row, net, picture)
    shape = tuple(x.shape[2:])
    within, units = _region_and_units(row, shape)
    validated = Settings.from_dict(
        settings,
        {"game": game, "perturbation": perturbation, "score": score, "within": within, "units": units},
    )
    _check_network(validated.provenance(net), settings, net.name)
    asked_of: Target = int(row["target"]) if row["target"] is not None and row["target"] >= 0 else target
    if asked_of is None:
        raise ExtremalValueError(
            f"the target of row {key!r} was no class but a question, {row['target_name']!r}: pass it as target"
        )

    query = parse_target(asked_of, validated.score)
    with net.frozen(validated.seed) as run:
        (batch,) = plan_batches(run, x := x.clone(), find_required_layers(net, query))
        objective = build_objective(run, x, query, validated)
        _check_score(row, float(objective.score_input[0]), net)
        fields = _decode(row, "fields", x.dtype, (1, *row["fields_shape"])).to(x.device)
        with torch.no_grad():
            masks = rebuild_masks(settings["solver"], fields, tuple(row["areas"]), objective.domain)
        if not any(row["mask_areas"]):  # the run was not finite
            masks = torch.zeros_like(masks)
        unseen = unseen_perturbations(objective.perturbation, validated.seed).values()
        perturbs = (prepare_perturbation(perturbation, objective.x) for perturbation in unseen)
        agreement = unseen_agreement(objective, perturbs, masks, batch.max_rows, bool(row["mirror"]))
        tensors = to_cpu(
            {
                **input_fields(net, objective),
                "masks": masks,
                "fields": fields,
                "agreement": agreement,
                **_decode_scores(row, objective.score_input.dtype),
                **_decode_trace(row, x.dtype),
            }
        )
    return Explanation(
        areas=tuple(row["areas"]),
        **tensors,
        target=objective.class_indices,
        target_names=(row["target_name"],),
        unseen_names=tuple(row["unseen_names"]),
        status=(tuple(Status(status) for status in row["statuses"]),),
        keeps=validated.game.keeps,
        settings={**settings, "mirror": bool(row["mirror"]), "evaluations": dict(row["counts"])},
    )


def cut_masks(row: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor:
    """The masks of a row cut to black and white, (A, *S) bool, without its network and its picture.

    Those of a run that was not finite were zero, and are cut to nothing.

    Args:
        row: of `SCHEMA`; of its columns the areas, the fields, the shapes, `within` and `units` are enough, and what
            messages tell.
        settings: that all rows share (`shared_settings`).

    Raises:
        ExtremalValueError: the row failed, is broken, or tells no fields or shape; or the solver is of another version.
    """
    _check_row(row)
    if row["input_shape"] is None:
        raise ExtremalValueError(
            f"a row must tell the shape of its input, {row['key']!r} of a former version does not; explain it again"
        )
    shape, areas = tuple(row["input_shape"]), tuple(row["areas"])
    if not any(row["mask_areas"]):
        return torch.zeros(len(areas), *shape, dtype=torch.bool)
    within, units = _region_and_units(row, shape)
    domain = Domain(shape, tuple(settings["spacing"]), within, units)
    fields = _decode(row, "fields", getattr(torch, settings["dtype"].removeprefix("torch.")), (1, *row["fields_shape"]))
    with torch.no_grad():
        masks = rebuild_masks(settings["solver"], fields, areas, domain)
    return cut_to_units(masks, areas, units)[0, :, 0] > 0


def _region_and_units(row: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[Tensor | None, Tensor | None]:
    """Where masks were allowed, and the unit of each place: each (*S), or None where there is none."""
    within = None if row["within"] is None else _decode(row, "within", torch.bool, shape)
    units = None if row["units"] is None else _decode(row, "units", torch.int32, shape).long()
    return within, units


def _check_row(row: Mapping[str, Any]) -> None:
    if row["status"] != DONE:
        raise ExtremalValueError(
            f"a row must hold an explanation to be rebuilt, {row['key']!r} failed: {row['error']}; explain it again"
        )
    if row["fields"] is None:
        raise ExtremalValueError(
            f"a row must hold the fields of its masks to be rebuilt, {row['key']!r} has none: its masks were given, or "
            "its solver tells none; keep such explanations with save"
        )


def _input(row: Mapping[str, Any], net: Network, picture: One | None) -> Tensor:
    """The row's input, prepared: (1, C, *S)."""
    shown = row["path"] if picture is None else picture
    if picture is None and not isinstance(shown, str):  # pandas has NaN for null
        raise ExtremalValueError(f"a row without a path needs its picture, {row['key']!r} has none; pass it as picture")
    x = prepare(net, shown)
    if isinstance(shown, str | os.PathLike) and content_hash(shown) != row["content_hash"]:
        raise ExtremalValueError(
            f"a picture must be the one that was explained, the bytes of {str(shown)!r} are not those of row "
            f"{row['key']!r}; put the former file there, or explain again"
        )
    if len(x) != 1:
        raise ExtremalValueError(f"a row is of one input, got {len(x)}; pass the one of row {row['key']!r}")
    return x


def _check_network(now: Mapping[str, Any], settings: Mapping[str, Any], name: str) -> None:
    if now["weights"] != settings["weights"]:
        raise ExtremalValueError(
            f"a network must be the one that was explained, {name}'s weights are not those of the row; "
            "load the same weights, or explain again"
        )
    found = diff_settings({name: settings[name] for name in NETWORK_SETTINGS}, {name: now[name] for name in NETWORK_SETTINGS})
    if found:
        raise ExtremalValueError(
            f"a network must be set as when it was explained, {name} is not: {'; '.join(found)}; load it alike"
        )


def _check_score(row: Mapping[str, Any], now: float, net: Network) -> None:
    if not abs(now - row["score_full"]) <= SCORE_TOLERANCE * abs(row["score_full"] - row["score_blank"]):
        raise ExtremalValueError(
            f"an input must score as its row tells, {row['key']!r} scored {row['score_full']:.6g} and scores {now:.6g} "
            f"now; check the picture, and the preprocessing of {net.name}"
        )


def _decode_scores(row: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """The scores (1, ...) of a row."""
    return {name: torch.tensor(_to_lists(row[name]), dtype=dtype)[None] for name in SCORE_COLUMNS}


def _to_lists(values: Any) -> Any:
    """Nested lists of what may be numpy's, which pandas hands out."""
    return [_to_lists(value) for value in values] if hasattr(values, "__len__") else values


def _decode_trace(row: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """The trace of a row."""

    def shares(data: bytes, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
        return unpacked_shares(data, dtype, len(row["areas"])).view(tuple(shape))

    return {
        "trace_step": _decode(row, "trace_step", torch.int64, (-1,)),
        "trace_area": _decode(row, "trace_area", dtype, (1, -1), shares),
        "trace_reward": _decode(row, "trace_reward", dtype, (1, -1)),
        "trace_grey": _decode(row, "trace_grey", dtype, (1, -1), shares),
    }


def _decode(
    row: Mapping[str, Any],
    name: str,
    dtype: torch.dtype,
    shape: Sequence[int],
    read: Callable[[bytes, torch.dtype, Sequence[int]], Tensor] = unpacked,
) -> Tensor:
    """The tensor in a column."""
    try:
        return read(row[name], dtype, shape)
    except (zlib.error, RuntimeError, TypeError, ValueError):
        raise ExtremalValueError(
            f"a row must be whole, {name} of row {row['key']!r} is broken or not of shape {tuple(shape)}; explain it "
            "again"
        ) from None
