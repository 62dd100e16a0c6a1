"""`judge`: the evidence for given masks; `build_explanation`: the result, for masks of any origin."""

from collections.abc import Iterable, Sized
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations import evidence, verdict
from extremal.explanations.chunking import halve_if_needed
from extremal.explanations.controls import draw_controls
from extremal.explanations.effort import EFFORTS
from extremal.explanations.evaluations import Evaluations
from extremal.explanations.explanation import Explanation
from extremal.explanations.objective import Objective
from extremal.explanations.preparation import prepare_run
from extremal.explanations.settings import Settings, SettingsOptions, merge_settings
from extremal.masking.device_tensors import copy_to
from extremal.masking.perturbations import Perturb, prepare_perturbation
from extremal.masking.solvers import Solution, Trace
from extremal.networks.inputs import ImagesLike
from extremal.networks.network import Network
from extremal.networks.run import Run
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import validate_callbacks
from extremal.scores.target import Target


@in_standard_modes
def judge(
    network: Network | nn.Module | str,
    image: ImagesLike,
    masks: Tensor,
    target: Target = None,
    *,
    settings: Settings | None = None,
    on_evidence: evidence.OnEvidence | None = None,
    **options: Unpack[SettingsOptions],
) -> Explanation:
    """Collect the evidence for masks of another method, as `explain` does for its own.

    >>> from extremal.masking.area import cut
    >>> toy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> saliency = torch.rand(1, 1, 1, 32, 32)  # (N, 1, 1, *S): any map, cut to each area
    >>> masks = cut(saliency.expand(-1, 2, -1, -1, -1), (0.1, 0.3))
    >>> judge(toy, torch.rand(1, 3, 32, 32), masks, areas=(0.1, 0.3)).areas
    (0.1, 0.3)

    Args:
        network, image, target, settings, on_evidence: as for `explain`.
        masks: (N, A, 1, *S) in [0, 1], one per area in the order of `areas`; `masking.area.cut` makes them from a
            saliency map.
        options: as for `explain`; binary scores are of the masks cut to exactly `areas`. No solver runs.

    Returns:
        An `Explanation` of N inputs at A areas, on the CPU, with an empty trace.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    validate_callbacks(on_evidence=on_evidence)
    settings = merge_settings(settings, options)
    prepared = prepare_run(network, image, target, settings)
    _check_masks(masks, (len(prepared.x), len(settings.areas), 1, *prepared.x.shape[2:]))
    if isinstance(options.get("areas"), Sized):  # an iterator has no order any more
        masks = masks[:, [list(map(float, options["areas"])).index(area) for area in settings.areas]]
    provenance = {**prepared.provenance, "solver": {"name": "given"}}
    results = []
    with prepared.net.frozen(settings.seed) as run:
        for batch, objective, cost in prepared.build_objectives(run, settings, for_solver=False):
            given, report = copy_to(masks[batch.inputs].detach(), objective.x), batch.report_evidence(on_evidence)

            def build(
                part: Objective,
                cost: Evaluations,
                given: Tensor = given,
                max_rows: int = batch.max_rows,
                report: evidence.OnEvidence | None = report,
            ) -> Explanation:
                solution = _as_solution(given[part.input_index])  # of a part of the batch, if memory ran out
                return build_explanation(run, part, solution, settings, provenance, max_rows, cost, report)

            results += halve_if_needed(build, objective, cost)
    return Explanation.concatenate(results)


def _check_masks(masks: Tensor, shape: tuple[int, ...]) -> None:
    if not isinstance(masks, Tensor) or not masks.is_floating_point():
        kind = masks.dtype if isinstance(masks, Tensor) else type(masks).__name__
        remedy = "convert with .float()" if isinstance(masks, Tensor) else "convert an array with torch.from_numpy"
        raise ExtremalTypeError(f"masks must be a floating tensor (N, A, 1, *S), got {kind}; {remedy}")
    if tuple(masks.shape) != shape:
        raise ExtremalValueError(
            f"masks must have the shape (N, A, 1, *S) = {shape} of these inputs and areas, got {tuple(masks.shape)}"
        )
    if not bool(((masks >= 0) & (masks <= 1)).all()):
        raise ExtremalValueError(
            f"masks must lie in [0, 1], got values from {float(masks.min()):.3g} to {float(masks.max()):.3g}; "
            "cut a saliency map with masking.area.cut"
        )


def _as_solution(masks: Tensor) -> Solution:
    """Return given masks (N, A, 1, *S) as a solution with an empty trace."""
    empty = masks.new_zeros(len(masks), 0).cpu()
    trace = Trace(torch.zeros(0, dtype=torch.int64), empty, empty, empty)
    return Solution(masks, torch.ones(len(masks), dtype=torch.bool, device=masks.device), trace)


def build_explanation(
    run: Run,
    objective: Objective,
    solution: Solution,
    settings: Settings,
    provenance: dict[str, Any],
    max_rows: int,
    cost: Evaluations,
    on_evidence: evidence.OnEvidence | None,
) -> Explanation:
    """Collect the evidence for a solution, and build the result.

    Args:
        run: the frozen network.
        objective: of N inputs.
        solution: masks of them.
        settings: of the run.
        provenance: the settings that the result stores.
        max_rows: of the network at once.
        cost: evaluations so far.
        on_evidence: as for `explain`.
    """
    game, areas, seed = objective.game, settings.areas, settings.seed
    unseen = evidence.unseen_perturbations(objective.perturbation, seed)
    perturbs = {name: prepare_perturbation(perturbation, objective.x) for name, perturbation in unseen.items()}
    counting = replace(objective, ways=objective.ways.counting)
    family = objective.domain.exact_area_family(solution.masks)
    controls = draw_controls(objective, areas, EFFORTS[settings.effort], seed, solution.masks)
    known = None if solution.cut_rewards is None else game.find_scores(solution.cut_rewards)
    with run.counted() as count:
        collected = evidence.collect_evidence(
            objective.evaluate,
            partial(objective.evaluate_under, perturbs=tuple(perturbs.values())),
            len(perturbs),
            game,
            solution.masks,
            areas,
            family,
            controls,
            on_evidence,
            counting.evaluate_way,
            binary_scores=known,
        )
        agreement = solution.support
        if agreement is None and not run.network.gradient:
            agreement = torch.ones_like(solution.masks[:, 0])
        if agreement is None:
            agreement = unseen_agreement(objective, perturbs.values(), solution.masks, max_rows, provenance["mirror"])
    effects = objective.compute_effects(collected.scores)
    tensors = {**input_fields(run.network, objective), **_solution_fields(solution, collected), "agreement": agreement}
    return Explanation(
        areas=areas,
        **to_cpu(tensors),
        target=objective.class_indices,
        target_names=objective.names,
        unseen_names=tuple(unseen),
        left_out=objective.ways.left_out,
        status=verdict.assign_status(effects, solution.finite),
        keeps=game.keeps,
        settings={**provenance, "evaluations": asdict(cost.with_evidence(count))},
    )


def unseen_agreement(
    objective: Objective, perturbs: Iterable[Perturb], like: Tensor, max_rows: int, mirror: bool
) -> Tensor:
    """Return the `evidence.agreement` of an objective under unseen perturbations: (N, 1, *S) ≥ 0.

    Args:
        objective: of N inputs.
        perturbs: the perturbations, prepared for these inputs.
        like: (N, ..., *S) masks, for shape and dtype.
        max_rows: of the network at once.
        mirror: whether the mirrored inputs ask the same question.
    """
    flips = (False, True) if mirror else (False,)
    orientations = ([objective.evaluator(perturb, flip) for flip in flips] for perturb in perturbs)
    return evidence.agreement(orientations, like, max_rows, objective.domain.spacing)


def input_fields(net: Network, objective: Objective) -> dict[str, Tensor | None]:
    """Return the fields of an explanation about its inputs and what was asked of them."""
    with torch.no_grad():
        destroyed = objective.destroyed_inputs()
    within = objective.domain.within
    return {
        "score_full": objective.score_input,
        "score_blank": objective.score_destroyed,
        "inputs": objective.x,
        "pictures": net.to_images_or_empty(objective.x),
        "destroyed": net.to_images_or_empty(destroyed),
        "within": None if within is None else within.expand(len(objective.x), *within.shape).clone(),
        "units": objective.domain.units,
    }


def _solution_fields(solution: Solution, collected: evidence.Evidence) -> dict[str, Tensor | None]:
    """Return the fields of an explanation about its masks."""
    return {
        "masks": solution.masks,
        "mask_areas": solution.masks.flatten(2).mean(2),
        "scores": collected.scores,
        "binary_scores": collected.binary_scores,
        "unseen_scores": collected.unseen_scores,
        "unseen_blank": collected.unseen_blank,
        "control_scores": collected.control_scores,
        "trace_step": solution.trace.step,
        "trace_area": solution.trace.area,
        "trace_reward": solution.trace.reward,
        "trace_grey": solution.trace.grey,
        "fields": solution.fields,
    }


def to_cpu(tensors: dict[str, Tensor | None]) -> dict[str, Any]:
    """Return the tensors on the CPU, without a gradient."""
    return {name: None if tensor is None else tensor.detach().cpu() for name, tensor in tensors.items()}
