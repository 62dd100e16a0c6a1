"""`explain`: search for masks, and collect their evidence."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from extremal.explanations.batches import Batch
from extremal.explanations.build_objective import build_problem
from extremal.explanations.chunking import ChunkedReward, halve_if_needed
from extremal.explanations.effort import NORMAL
from extremal.explanations.evaluations import Evaluations
from extremal.explanations.evidence import OnEvidence
from extremal.explanations.exclusion import exclude_others, region_of, restrict_objective
from extremal.explanations.explanation import Explanation
from extremal.explanations.judge import build_explanation
from extremal.explanations.objective import Objective
from extremal.explanations.place_maps import PlaceMap
from extremal.explanations.preparation import PreparedRun, prepare_run
from extremal.explanations.progress_bar import progress_bar, validate_progress
from extremal.explanations.settings import (
    AREAS,
    Settings,
    merge_options,
)
from extremal.explanations.shared_batch import explain_parts, share_batch
from extremal.explanations.verdict import Status
from extremal.masking.device_tensors import copy_to
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import PerturbationLike
from extremal.masking.solvers import OnStep, Solver
from extremal.masking.solvers.problem import RewardMasks
from extremal.networks.inputs import ImagesLike
from extremal.networks.network import Network
from extremal.networks.replicas import Devices
from extremal.networks.run import Run
from extremal.networks.torch_state import in_standard_modes
from extremal.scores.classes import Score
from extremal.scores.target import Target


@merge_options
@in_standard_modes
def explain(
    network: Network | nn.Module | str,
    image: ImagesLike,
    target: Target = None,
    *,
    areas: Sequence[float] = AREAS,
    game: str | Game | Reward = "preserve",
    perturbation: PerturbationLike = "mixed",
    solver: str | Solver = "consensus",
    score: str | Score = "margin",
    within: PlaceMap | None = None,
    units: PlaceMap | None = None,
    seed: int = 0,
    alternatives: int = 1,
    effort: str = NORMAL,
    settings: Settings | None = None,
    on_step: OnStep | None = None,
    on_evidence: OnEvidence | None = None,
    progress: bool | None = None,
    devices: Devices | None = None,
) -> Explanation:
    """Find the smallest smooth regions of an input that maximally affect a network's output (paper, section 3).

    m_a = argmax of the game's reward over smooth masks with mean a, for every area a, with the evidence for each mask.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> toy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> result = explain(toy, torch.rand(1, 3, 32, 32), areas=(0.1, 0.3))
    >>> result.masks.shape, [round(float(a), 4) for a in result.mask_areas[0]]
    (torch.Size([1, 2, 1, 32, 32]), [0.1, 0.3])

    Args:
        network: a `Network`, any `nn.Module` or function (B, C, *S) -> (B, classes), or a name that `zoo.load` takes.
            Threads that share a network take turns.
        image: a path, a Pillow image, a uint8 array (H, W, C), a prepared tensor (N, C, *S), or a list of these.
        target: a class index or name, a `scores.Query`, or a callable output -> (B,): one for all inputs, one for each,
            or several for a single input; None: the top class. A list of classes inside the list, or a
            `scores.ClassGroup`, is a group that is scored as one class: `target=[["tiger cat", "Egyptian cat"]]`.
        areas: shares of places in (0, 1), distinct; they are sorted.
        game: preserve, delete, dual, a `Game`, or a callable (evaluate, mask) -> (N, K).
        perturbation: mixed (blur, fade and noise in turn), blur, fade, constant, noise, or a callable
            x -> (mask -> perturbed x); several of these form a mix.
        solver: consensus, path, penalty, search (needs no gradient), or a solver with its own settings.
        score: of the target class: margin, logit, probability, log-probability, contrastive, negative, sigmoid, or a
            callable (output, classes) -> (B,); for groups of classes it must be marked with `scores.accept_groups`.
        within: (*S) bool, true where masks may keep places (or delete them); areas stay shares of all places.
        units: (*S) whole numbers, the unit of each place (superpixels, patches, tokens), −1 for none: masks then hold
            whole units, as many as fit into the area, and are not smooth.
        seed: of noise and controls.
        alternatives: number of explanations to search for, each outside of those before it; each costs a run of its
            own. `Explanation.regions` lists the sufficient ones, `Explanation.alternatives` holds all but the first.
        effort: fast, normal or thorough: the steps of solvers passed by their name, and the number of controls; see
            `docs/solver.md` for what each costs and gives.
        settings: `Settings`, instead of the options from `areas` to `effort`.
        on_step: called after each step of the solver with a `Step`.
        on_evidence: called while the evidence is collected, with the number of masks done and the total.
        progress: whether to show a progress bar; None: in a notebook only.
        devices: names of devices that share the inputs, or `auto` for all of the fastest kind; each has a copy of the
            network, and the callbacks are called from its thread, one at a time. None: `auto` if the network is passed
            by its name and the target is a class; otherwise the network's own device.

    Returns:
        An `Explanation` of N inputs at A areas, on the CPU.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    assert settings is not None  # `merge_options` passes them
    validate_progress(progress, on_step, on_evidence)
    prepared = prepare_run(network, image, target, settings)
    parts = share_batch(prepared, network, devices)

    def explain_part(part: PreparedRun, on_step: OnStep | None, on_evidence: OnEvidence | None) -> list[Explanation]:
        return _explain_part(part, settings, on_step, on_evidence)

    with progress_bar(progress, on_step, on_evidence) as callbacks:
        results = explain_parts(parts, explain_part, *callbacks)
    result = Explanation.concatenate([explanation for found in results for explanation in found])
    for n, statuses in enumerate(result.status):
        if Status.NOT_FINITE in statuses:
            warnings.warn(
                f"the run of input {n} met a score that is not finite and ended; "
                "its masks are zero, its status says so",
                RuntimeWarning,
                stacklevel=4,
            )
    return result


def _explain_part(
    prepared: PreparedRun, settings: Settings, on_step: OnStep | None, on_evidence: OnEvidence | None
) -> list[Explanation]:
    """Explain the inputs of one device, batch by batch."""
    results = []
    with prepared.net.frozen(settings.seed) as run:
        for batch, objective, cost in prepared.build_objectives(run, settings):

            def search(part: Objective, cost: Evaluations, batch: Batch = batch) -> Explanation:
                return _search(run, part, settings, prepared, batch, cost, on_step, on_evidence)

            results += halve_if_needed(search, objective, cost)
    return results


def _search(
    run: Run,
    objective: Objective,
    settings: Settings,
    prepared: PreparedRun,
    batch: Batch,
    cost: Evaluations,
    on_step: OnStep | None,
    on_evidence: OnEvidence | None,
) -> Explanation:
    """Search for one explanation after the other, each outside of the regions of those before it.

    Args:
        cost: of the set-up, which belongs to the first explanation.
    """

    def search(part: Batch, objective: Objective, reward: RewardMasks, cost: Evaluations) -> Explanation:
        problem = build_problem(reward, objective, prepared.mirror, settings.seed)
        with run.counted() as solving:
            solution = settings.solver.solve(problem, settings.areas, part.report_steps(on_step))
        report, cost = part.report_evidence(on_evidence), cost.with_solver(solving)
        return build_explanation(run, objective, solution, settings, prepared.provenance, batch.max_rows, cost, report)

    reward = ChunkedReward(objective, batch.max_rows, partial(objective.check_gradient, run.network))
    explanations = [search(batch.subdivide(0, settings.alternatives), objective, reward, cost)]
    for index in range(1, settings.alternatives):
        regions = torch.stack([region_of(explanation) for explanation in explanations]).any(0)  # (N, *S)
        part, found = batch.subdivide(index, settings.alternatives), list[Explanation]()
        for n, excluded in enumerate(copy_to(regions, objective.x) > 0):  # each input has its own
            rest = restrict_objective(objective, n, excluded)
            outside = exclude_others(ChunkedReward(rest, batch.max_rows), rest.domain)
            found.append(search(part.subdivide(n, len(regions)), rest, outside, Evaluations()))
        explanations.append(Explanation.concatenate(found))
    return replace(explanations[0], alternatives=tuple(explanations[1:]))


__all__ = ["explain"]
