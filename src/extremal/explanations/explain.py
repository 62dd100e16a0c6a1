"""`explain`: choose the parts, find the masks, gather the evidence."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from extremal.explanations.batches import Block, in_blocks
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.evidence import Progress
from extremal.explanations.exclusion import Elsewhere, checked_alternatives, taken_by
from extremal.explanations.explanation import Explanation
from extremal.explanations.judge import judged
from extremal.explanations.objective import Question
from extremal.explanations.settings import AREAS, Places, checked_areas, checked_domain, terms_named
from extremal.explanations.verdict import Status
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import Perturbation
from extremal.masking.solvers import OnStep, Problem, Solver, solver_named
from extremal.networks.inputs import Input, prepare
from extremal.networks.network import Network, Run
from extremal.networks.resolve import as_network
from extremal.scores import Score
from extremal.scores.target import Target, mirrored, spread


def explain(
    network: Network | nn.Module | str,
    image: Input,
    target: Target = None,
    *,
    areas: Sequence[float] = AREAS,
    game: str | Game | Reward = "preserve",
    perturbation: str | Perturbation = "blur",
    solver: str | Solver = "path",
    score: str | Score = "margin",
    within: Places | None = None,
    units: Places | None = None,
    seed: int = 0,
    alternatives: int = 1,
    on_step: OnStep | None = None,
    on_evidence: Progress | None = None,
) -> Explanation:
    """The smallest smooth regions of an input that maximally affect a network's output (paper, section 3).

    m_a = argmax over smooth masks with mean a of the game's reward, for every area a, with the evidence for each.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> toy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> result = explain(toy, torch.rand(1, 3, 32, 32), areas=(0.1, 0.3))
    >>> result.masks.shape, [round(float(a), 4) for a in result.mask_areas[0]]
    (torch.Size([1, 2, 1, 32, 32]), [0.1, 0.3])

    Args:
        network: a `Network`, any `nn.Module` (B, C, *S) -> (B, classes), or a name that `zoo.load` takes.
        image: a path, a Pillow picture, a uint8 array (H, W, C), a prepared tensor (N, C, *S), or a list of these.
        target: a class index or name, a `scores.Query`, or a callable output -> (B,); one for all inputs or one for
            each, several for one input; None is the top class.
        areas: shares of places in (0, 1), distinct; they are sorted.
        game: preserve, delete, dual, a `Game`, or a callable (evaluate, mask) -> (N, K).
        perturbation: blur, fade, constant, noise, or a callable x -> (mask -> perturbed x).
        solver: path, penalty, or a solver with its own settings.
        score: what is asked of the target class: margin, logit, probability, log-probability, contrastive, negative, or
            a callable (output, classes) -> (B,).
        within: (*S) bool, true where masks may keep places (or delete them); areas stay shares of all places.
        units: (*S) whole numbers, the unit of each place (superpixels, patches, tokens), −1 for none: masks then hold
            whole units, as many as fit into the area, and are not smooth.
        seed: of noise and controls.
        alternatives: how many answers to look for, each where those before it are not; each costs a run of its own.
            `Explanation.regions` tells those that are sufficient, `Explanation.alternatives` holds all but the first.
        on_step: called after each step of the solver with a `Step`.
        on_evidence: called while the evidence is gathered, with masks done and masks in all.

    Returns:
        An `Explanation` of N inputs at A areas, on the CPU.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    wanted = checked_areas(areas)
    chosen, copies = solver_named(solver), checked_alternatives(alternatives)
    terms = terms_named(game, perturbation, score, seed, within=within, units=units)
    net = as_network(network)
    x = spread(prepare(net, image), target)
    checked_domain(terms, net, tuple(x.shape[2:]), wanted)
    mirror = mirrored(net, x, target)
    settings = {**terms.settings(net), "solver": chosen.settings(), "mirror": mirror}

    def answered(run: Run, question: Question, block: Block) -> Explanation:
        question.check_gradient(net.name)
        run.forwards += run.gradients  # what posing the question took is not the solver's
        run.gradients = 0
        x, found = question.x, list[Explanation]()
        reward: Callable[[Tensor, bool], Tensor] = ChunkedReward(question, block.rows)
        for index in range(copies):
            part = block.part(index, copies)
            problem = Problem(reward, len(x), question.domain, mirror, x.dtype, x.device, terms.seed)
            solution = chosen.solve(problem, wanted, part.steps(on_step))
            told = part.evidence(on_evidence)
            found.append(judged(net, run, question, solution, wanted, terms, settings, block.rows, told))
            run.gradients, run.forwards = 0, 0  # each answer tells what it cost itself
            reward = Elsewhere(reward, taken_by(found[-1]).to(x))
        return replace(found[0], alternatives=tuple(found[1:]))

    result = in_blocks(net, x, target, terms, answered)
    for n, statuses in enumerate(result.status):
        if Status.NOT_FINITE in statuses:
            warnings.warn(
                f"the run of input {n} met a score that is not finite and ended; "
                "its masks are zero, its status says so",
                RuntimeWarning,
                stacklevel=2,
            )
    return result


__all__ = ["explain"]
