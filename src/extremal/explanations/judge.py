"""`judge`: the evidence for masks that are given; and the result, whoever found the masks."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations import evidence, verdict
from extremal.explanations.batches import Block, in_blocks
from extremal.explanations.explanation import Explanation
from extremal.explanations.objective import Question
from extremal.explanations.settings import AREAS, Places, Terms, checked_areas, checked_domain, terms_named
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import Perturb, Perturbation, prepared
from extremal.masking.solvers import Solution, Trace
from extremal.networks.inputs import Input, prepare
from extremal.networks.network import Network, Run
from extremal.networks.resolve import as_network
from extremal.scores import Score
from extremal.scores.target import Target, mirrored, spread


def judge(
    network: Network | nn.Module | str,
    image: Input,
    masks: Tensor,
    target: Target = None,
    *,
    areas: Sequence[float] = AREAS,
    game: str | Game | Reward = "preserve",
    perturbation: str | Perturbation = "blur",
    score: str | Score = "margin",
    within: Places | None = None,
    units: Places | None = None,
    seed: int = 0,
    on_evidence: evidence.Progress | None = None,
) -> Explanation:
    """The evidence for masks that another method found, as `explain` gathers it for its own.

    >>> from extremal.area import cut
    >>> toy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> saliency = torch.rand(1, 1, 1, 32, 32)  # (N, 1, 1, *S): any map, cut to each area
    >>> masks = cut(saliency.expand(-1, 2, -1, -1, -1), (0.1, 0.3))
    >>> judge(toy, torch.rand(1, 3, 32, 32), masks, areas=(0.1, 0.3)).areas
    (0.1, 0.3)

    Args:
        network, image, target, game, perturbation, score, within, units, seed, on_evidence: as `explain` takes them.
        masks: (N, A, 1, *S) in [0, 1], one for each area in rising order; `area.cut` makes them from a saliency map.
        areas: (A,) shares of places in (0, 1); binary scores are of the masks cut to exactly these.

    Returns:
        An `Explanation` of N inputs at A areas, on the CPU, with an empty trace.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    wanted = checked_areas(areas)
    terms = terms_named(game, perturbation, score, seed, within=within, units=units)
    net = as_network(network)
    x = spread(prepare(net, image), target)
    checked_domain(terms, net, tuple(x.shape[2:]), wanted)
    _check_masks(masks, (len(x), len(wanted), 1, *x.shape[2:]))
    settings = {**terms.settings(net), "solver": {"name": "given"}, "mirror": mirrored(net, x, target)}

    def answered(run: Run, question: Question, block: Block) -> Explanation:
        part = question.x
        nothing = torch.zeros(len(part), 0)
        trace = Trace(torch.zeros(0, dtype=torch.int64), nothing, nothing, nothing)
        finite = torch.ones(len(part), dtype=torch.bool, device=part.device)
        solution = Solution(masks[block.first : block.last].detach().to(part), finite, trace)
        return judged(net, run, question, solution, wanted, terms, settings, block.rows, block.evidence(on_evidence))

    return in_blocks(net, x, target, terms, answered)


def _check_masks(masks: Tensor, wanted: tuple[int, ...]) -> None:
    if not isinstance(masks, Tensor) or not masks.is_floating_point():
        kind = masks.dtype if isinstance(masks, Tensor) else type(masks).__name__
        raise ExtremalTypeError(f"masks must be a floating tensor (N, A, 1, *S), got {kind}; convert with .float()")
    if tuple(masks.shape) != wanted:
        raise ExtremalValueError(
            f"masks must have the shape (N, A, 1, *S) = {wanted} of these inputs and areas, got {tuple(masks.shape)}"
        )
    if not bool(((masks >= 0) & (masks <= 1)).all()):
        raise ExtremalValueError(
            f"masks must lie in [0, 1], got values from {float(masks.min()):.3g} to {float(masks.max()):.3g}; "
            "cut a saliency map with area.cut"
        )


def judged(
    net: Network,
    run: Run,
    question: Question,
    solution: Solution,
    areas: tuple[float, ...],
    terms: Terms,
    settings: dict[str, Any],
    rows: int,
    on_evidence: evidence.Progress | None,
) -> Explanation:
    """Gather the evidence for a solution, and build the result."""
    game = question.game
    unseen = evidence.unseen_perturbations(question.perturbation, terms.seed)
    gradients, forwards = run.gradients, run.forwards  # so far the solver's
    perturbs = {name: prepared(perturbation, question.x) for name, perturbation in unseen.items()}
    asked = {name: question.evaluator(perturb) for name, perturb in perturbs.items()}
    family = question.domain.level_set(solution.masks)
    controls = evidence.random_masks(question.domain, areas, terms.seed, solution.masks)
    found = evidence.gather(question.evaluate, asked, game, solution.masks, areas, family, controls, on_evidence)
    speaking = agreed(question, perturbs.values(), solution.masks, rows, settings["mirror"])
    evaluations = {
        "gradients": gradients,
        "forwards": forwards,
        "evidence_gradients": run.gradients - gradients,
        "evidence_forwards": run.forwards - forwards,
    }
    effects = verdict.shares(found.scores, question.blank.view(-1, 1), question.full.view(-1, 1), game.keeps)
    return Explanation(
        areas=areas,
        **held({**asked_values(net, question), **_found_values(solution, found), "agreement": speaking}),
        target=question.target,
        target_names=question.names,
        unseen_names=tuple(unseen),
        status=verdict.statuses(effects, solution.finite),
        keeps=game.keeps,
        settings={**settings, "evaluations": evaluations},
    )


def agreed(question: Question, perturbs: Iterable[Perturb], like: Tensor, rows: int, mirror: bool) -> Tensor:
    """The `evidence.agreement` of a question under unseen perturbations: (N, 1, *S) ≥ 0.

    Args:
        question: about N inputs.
        perturbs: the perturbations, prepared for these inputs.
        like: (N, ..., *S) masks, for shape and dtype.
        rows: of the network at once.
        mirror: whether the mirrored inputs ask the same question.
    """
    flips = (False, True) if mirror else (False,)
    orientations = ([question.evaluator(perturb, flip) for flip in flips] for perturb in perturbs)
    return evidence.agreement(orientations, like, rows, question.domain.spacing)


def asked_values(net: Network, question: Question) -> dict[str, Tensor | None]:
    """The fields of an explanation that tell what was asked."""
    with torch.no_grad():
        blanks = question.blanks()
    return {
        "score_full": question.full,
        "score_blank": question.blank,
        "inputs": question.x,
        "pictures": net.pictures(question.x),
        "destroyed": net.pictures(blanks),
        "within": question.domain.within,
        "units": question.domain.units,
    }


def _found_values(solution: Solution, found: evidence.Evidence) -> dict[str, Tensor | None]:
    """The fields of an explanation that tell what was found."""
    return {
        "masks": solution.masks,
        "mask_areas": solution.masks.flatten(2).mean(2),
        "scores": found.scores,
        "binary_scores": found.binary_scores,
        "unseen_scores": found.unseen_scores,
        "unseen_blank": found.unseen_blank,
        "control_scores": found.control_scores,
        "trace_step": solution.trace.step,
        "trace_area": solution.trace.area,
        "trace_reward": solution.trace.reward,
        "trace_grey": solution.trace.grey,
        "fields": solution.fields,
    }


def held(values: dict[str, Tensor | None]) -> dict[str, Any]:
    """On the processor, without a gradient."""
    return {name: None if value is None else value.detach().cpu() for name, value in values.items()}
