"""Restore explanations from table rows, equal up to rounding, or their masks alone without a network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.explanations.batches import plan_batches
from extremal.explanations.build_objective import build_objective, build_problem
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.evidence import unseen_perturbations
from extremal.explanations.exclusion import exclude_others
from extremal.explanations.explanation import Explanation
from extremal.explanations.judge import input_fields, to_cpu, unseen_agreement
from extremal.explanations.objective import Objective
from extremal.explanations.preparation import check_same_weights, find_layers
from extremal.explanations.settings import Settings
from extremal.explanations.stability import Stability
from extremal.explanations.verdict import Status
from extremal.file_checks import quote
from extremal.jobs.row_inputs import complete_settings, open_input
from extremal.jobs.rows import DONE
from extremal.jobs.store import diff_settings
from extremal.masking.domain import Domain
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import PerturbationLike, prepare_perturbation
from extremal.masking.solvers import Consensus, Search, rebuild_masks
from extremal.masking.solvers.problem import RewardMasks
from extremal.masking.units import cut_to_units
from extremal.networks.inputs import ImageLike
from extremal.networks.network import Network
from extremal.networks.resolve import as_network
from extremal.number_checks import format_value
from extremal.scores import ClassGroup, Score
from extremal.scores.target import Target, find_required_layers, parse_target

NETWORK_SETTINGS = ("spacing", "accelerate", "precision", "dtype")  # settings of a network that change its numbers
SCORE_TOLERANCE = 0.01  # of the whole effect: allowed difference of an input's score; rounding is far below
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
    image: ImageLike | None = None,
    *,
    settings: Mapping[str, Any],
    target: Target = None,
    game: str | Game | Reward | None = None,
    perturbation: PerturbationLike | None = None,
    score: str | Score | None = None,
) -> Explanation:
    """Restore the explanation of one input from its row, equal up to rounding.

    Scores, trace and verdicts are read from the row; masks are rebuilt from their parameters, and the input from its
    image. The network is evaluated only for the agreement, which is too large for a row: three or four
    forward-backward passes for each orientation and each way of destroying (`consensus`; 18 or 24 if there are three
    ways and the input may be mirrored) or four for each unseen perturbation (other solvers; none for `search`), and
    about ten forward passes for checks. An input that was explained in a batch may round differently alone, in the
    sixth decimal place in single precision.

    Args:
        row: of `SCHEMA`, as pyarrow or pandas return it.
        network: the one that was explained, with the same weights and preprocessing.
        image: the input, as `explain` takes it; None: it is read from the row's path, and its bytes must have the
            row's hash.
        settings: those that all rows of the run share (`jobs.settings`).
        target: the query, if the target was neither a class nor a group of classes.
        game, perturbation, score: those of the run; needed only if they have no short name.

    Raises:
        ExtremalValueError: the row failed or is incomplete, or image, network, settings or version are not those of the
            row.
    """
    check_restorable(row)
    settings = _read_settings(settings)
    key, net = row["key"], as_network(network)
    if settings.get("accelerate") == "onednn" and net.accelerate == "portable":
        net = replace(net, accelerate="onednn")  # as the workers of the run did
    opened, settings = open_input(row, net, image), complete_settings(row, settings)
    net, x = opened.net, opened.x
    shape = tuple(x.shape[2:])
    within, units = find_regions(row, shape)
    given = {"game": game, "perturbation": perturbation, "score": score}
    validated = Settings.from_dict(settings, given).replace(units=units)
    _check_network(validated.provenance(net), settings, net.name)
    row_target = _read_target(row, target)
    if row_target is None:
        raise ExtremalValueError(
            f"the target of row {key!r} was not a class but {row['target_name']!r}; pass this query as target"
        )

    query = parse_target(row_target, validated.score)
    with net.frozen(validated.seed) as run:
        layers = find_layers(run, x := x.clone(), validated)
        keep = [*find_required_layers(net, query), *(layer.name for layer in layers)]
        (batch,) = plan_batches(run, x, keep)
        objective = build_objective(run, x, query, validated, layers)
        objective = replace(objective, domain=replace(objective.domain, within=within))  # of an alternative with units
        _check_score(row, float(objective.score_input[0]), net)
        parameters, masks = restore_masks(row, settings["solver"], objective.domain, x)
        reward: RewardMasks = ChunkedReward(objective, batch.max_rows)
        if row.get("alternative"):
            reward = exclude_others(reward, objective.domain)
        agreement = _find_agreement(
            objective, reward, validated, masks, parameters, batch.max_rows, bool(row["mirror"])
        )
        tensors = to_cpu(
            {
                **input_fields(net, objective),
                "masks": masks,
                "fields": parameters,
                "agreement": agreement,
                **decode_scores(row, objective.score_input.dtype),
                **decode_trace(row, x.dtype),
            }
        )
    result = Explanation(
        areas=tuple(row["areas"]),
        **tensors,
        target=objective.class_indices,
        **read_stored_facts(row, settings, validated.game, opened.stack),
    )
    return replace(result, stability=read_stability(row, result))


def _find_agreement(
    objective: Objective,
    reward: RewardMasks,
    settings: Settings,
    masks: Tensor,
    parameters: Tensor,
    max_rows: int,
    mirror: bool,
) -> Tensor:
    """Return the agreement as the run found it: at the start of its solver, or under unseen perturbations."""
    if isinstance(settings.solver, Consensus):
        problem = build_problem(reward, objective, mirror, settings.seed)
        return settings.solver.find_support(problem)
    if isinstance(settings.solver, Search):
        return settings.solver.find_support(parameters, objective.domain)
    unseen = unseen_perturbations(objective.perturbation, settings.seed).values()
    perturbs = (prepare_perturbation(perturbation, objective.x) for perturbation in unseen)
    return unseen_agreement(objective, perturbs, masks, max_rows, mirror)


def cut_masks(row: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor:
    """Return the masks of a row cut to black and white, (A, *S) bool, without its network and its image.

    Masks of a run that was not finite are zero, and so are their cuts.

    Args:
        row: of `SCHEMA`; needed are the areas, the parameters, the shapes, the spacing, `within` and `units`, and the
            columns that messages name.
        settings: that all rows of the run share (`jobs.settings`).

    Raises:
        ExtremalValueError: the row failed, is incomplete, or has no parameters or shape; or its solver is of another
            version.
    """
    check_restorable(row)
    settings = _read_settings(settings)
    if row["input_shape"] is None:
        raise ExtremalValueError(
            f"a row must have an input_shape, row {row['key']!r} has none; explain its image again with this version"
        )
    shape, areas = tuple(row["input_shape"]), tuple(row["areas"])
    if not any(row["mask_areas"]):
        return torch.zeros(len(areas), *shape, dtype=torch.bool)
    within, units = find_regions(row, shape)
    try:
        domain = Domain(shape, tuple(complete_settings(row, settings)["spacing"]), within, units)
        _, masks = restore_masks(row, settings["solver"], domain, empty_like_run(settings))
        return cut_to_units(masks, areas, units, None if within is None else within.unsqueeze(0))[0, :, 0] > 0
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, ExtremalError):
            raise
        raise ExtremalValueError(
            f"a row must hold masks that its settings can rebuild, row {quote(row['key'])} does not "
            f"({type(error).__name__}); explain its image again"
        ) from None


def restore_masks(
    row: Mapping[str, Any], solver: Mapping[str, Any], domain: Domain, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the parameters of a row (1, A, 1, *lattice), and its masks (1, A, 1, *S), zero if the run was not finite.

    Args:
        row: of `SCHEMA`.
        solver: the settings of the solver.
        domain: of the masks.
        like: for dtype and device.
    """
    parameters = decode_parameters(row, like.dtype).to(like.device)
    with torch.no_grad():
        masks = rebuild_masks(solver, parameters, tuple(row["areas"]), domain)
    return parameters, masks if any(row["mask_areas"]) else torch.zeros_like(masks)


def empty_like_run(settings: Mapping[str, Any]) -> Tensor:
    """Return an empty tensor of the dtype of a run, on the CPU."""
    return torch.empty(0, dtype=getattr(torch, settings["dtype"].removeprefix("torch.")))


def _read_target(row: Mapping[str, Any], query: Target) -> Target:
    """Return the class or the group of a row; if it is neither, the query."""
    if row["target"] is not None and row["target"] >= 0:
        return int(row["target"])
    group: Any = row.get("group")
    return ClassGroup([int(index) for index in group]) if hasattr(group, "__len__") else query


def find_regions(row: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[Tensor | None, Tensor | None]:
    """Return where masks were allowed, and the unit of each place: each (*S) or None."""
    within = None if row["within"] is None else _decode(row, "within", torch.bool, shape)
    units = None if row["units"] is None else _decode(row, "units", torch.int64, shape)
    return within, units


def _read_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of explanations, which those of a run have under the name `explain`."""
    found = settings.get("explain", settings) if isinstance(settings, Mapping) else None
    if not isinstance(found, Mapping) or "solver" not in found:
        raise ExtremalTypeError(
            f"settings must be those of a run, got {format_value(settings)}; pass what jobs.settings(folder) returns"
        )
    return found


def check_restorable(row: Mapping[str, Any]) -> None:
    """Raise unless a row holds an explanation with the parameters of its masks."""
    if row["status"] != DONE:
        raise ExtremalValueError(
            f"a row must hold an explanation to be restored, row {row['key']!r} failed: {row['error']}; explain its "
            "image again"
        )
    if row["parameters"] is None:
        raise ExtremalValueError(
            f"a row must hold the parameters of its masks to be restored, row {row['key']!r} has none: its masks were "
            "not found by a solver that keeps them; write such explanations with save"
        )


def _check_network(current: Mapping[str, Any], settings: Mapping[str, Any], name: str) -> None:
    check_same_weights(current["weights"], settings, name)
    stored, requested = ({name: values[name] for name in NETWORK_SETTINGS} for values in (settings, current))
    differences = diff_settings(stored, requested)
    if differences:
        raise ExtremalValueError(
            f"a network must have the settings that it was explained with, {name} has not: {'; '.join(differences)}; "
            "load it with the same settings"
        )


def _check_score(row: Mapping[str, Any], score: float, net: Network) -> None:
    if not abs(score - row["score_full"]) <= SCORE_TOLERANCE * abs(row["score_full"] - row["score_blank"]):
        raise ExtremalValueError(
            f"an input must have the score of its row, {row['key']!r} had {row['score_full']:.6g} and now has "
            f"{score:.6g}; check the image, and the preprocessing of {net.name}"
        )


def read_stored_facts(
    row: Mapping[str, Any], settings: Mapping[str, Any], game: Game, stack: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields of an explanation that are neither tensors nor its target."""
    return {
        "target_names": (row["target_name"],),
        "unseen_names": tuple(row["unseen_names"]),
        "left_out": (tuple(row["left_out"]),),
        "status": (tuple(Status(status) for status in row["statuses"]),),
        "keeps": game.keeps,
        "settings": {**settings, "mirror": bool(row["mirror"]), "evaluations": dict(row["counts"]), **stack},
    }


def decode_scores(row: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the scores (1, ...) of a row."""
    return {name: torch.tensor(_to_lists(row[name]), dtype=dtype)[None] for name in SCORE_COLUMNS}


def _to_lists(values: Any) -> Any:
    """Return nested lists of plain numbers; pandas returns nested arrays."""
    return [_to_lists(value) for value in values] if hasattr(values, "__len__") else values


def decode_parameters(row: Mapping[str, Any], dtype: torch.dtype) -> Tensor:
    """Return the parameters of a row's masks: (1, A, 1, *lattice)."""
    return _decode(row, "parameters", dtype, (1, *row["parameters_shape"]))


def decode_trace(row: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the trace of a row."""
    values = {name: _decode(row, name, dtype, (1, -1)) for name in ("trace_area", "trace_reward", "trace_grey")}
    return {"trace_step": _decode(row, "trace_step", torch.int64, (-1,)), **values}


def _decode(row: Mapping[str, Any], name: str, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """Return the tensor of this shape in a column."""
    try:
        return torch.from_numpy(np.array(row[name])).to(dtype).view(tuple(shape))
    except (RuntimeError, TypeError, ValueError):
        raise ExtremalValueError(
            f"a row must be complete, {name} of row {row['key']!r} is missing or not of shape {tuple(shape)}; explain "
            "its image again"
        ) from None


def read_stability(row: Mapping[str, Any], explanation: Explanation) -> Stability | None:
    """Return what a row stores of the stability, as that of one copy, which is enough for the verdicts."""
    if row.get("stable_ious") is None or row.get("core_shares") is None:
        return None
    ious = torch.tensor(row["stable_ious"])[None, :, None]
    return Stability(
        areas=explanation.areas,
        ious=ious,
        core=torch.zeros_like(explanation.masks, dtype=torch.bool),
        core_shares=torch.tensor(row["core_shares"])[None],
        effects=torch.full_like(ious, math.nan),
        unseen_effects=torch.full_like(ious, math.nan),
        smallest_areas=torch.full((1, 1), math.nan),
        seed=0,
        evaluations=0,
    )
