"""`explain` and `judge`: choose the parts, find masks or take them, gather the evidence, build the result."""

import platform
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from extremal import evidence
from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanation import Explanation
from extremal.games import Game, Reward, game_named
from extremal.inputs import Input, prepare
from extremal.network import Network, Run
from extremal.perturbations import Perturbation, perturbation_named, prepared
from extremal.question import Question, Target, Terms, pose
from extremal.scores import Score, score_named
from extremal.solvers import OnStep, Problem, Solution, Solver, Trace, solver_named

AREAS = (0.025, 0.05, 0.1, 0.2, 0.4)


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
    seed: int = 0,
    on_step: OnStep | None = None,
    on_evidence: evidence.Progress | None = None,
) -> Explanation:
    """The smallest smooth regions of an input that maximally affect a network's output (paper, section 3).

    m_a = argmax over smooth masks with mean a of the game's reward, for every area a, with the evidence for each.

    >>> _ = torch.manual_seed(0)
    >>> toy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> result = explain(toy, torch.rand(1, 3, 32, 32), areas=(0.1, 0.3))
    >>> result.masks.shape, [round(float(a), 4) for a in result.mask_areas[0]]
    (torch.Size([1, 2, 1, 32, 32]), [0.1, 0.3])

    Args:
        network: a `Network`, any `nn.Module` (B, C, *S) -> (B, classes), or a name that `zoo.load` takes.
        image: a path, a Pillow picture, a uint8 array (H, W, C), or a prepared tensor (N, C, *S).
        target: a class index or name, one for each input, or a callable output -> (B,); None is the top class.
        areas: shares of places in (0, 1), distinct; they are sorted.
        game: preserve, delete, dual, a `Game`, or a callable (evaluate, mask) -> (N, K).
        perturbation: blur, fade, constant, noise, or a callable x -> (mask -> perturbed x).
        solver: path, penalty, or a solver with its own settings.
        score: what is asked of the target class: margin, logit, probability, contrastive, or a callable.
        seed: of noise and controls.
        on_step: called after each step of the solver with a `Step`.
        on_evidence: called while the evidence is gathered, with masks done and masks in all.

    Returns:
        An `Explanation` of N inputs at A areas, on the CPU.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    wanted = checked_areas(areas)
    chosen = solver_named(solver)
    terms = _terms(game, perturbation, score, seed)
    net = as_network(network)
    with net.frozen(terms.seed) as run:
        x = prepare(net, image).clone()  # a clone made here may be saved for backward whatever the caller's mode
        question = pose(net, run, x, target, terms)
        if not question.has_gradient():
            raise ExtremalValueError(
                f"a network's score must depend on its input with a gradient, {net.name}'s does not; "
                "look for no_grad, detach, rounding or argmax inside it"
            )
        run.forwards, run.gradients = run.forwards + run.gradients, 0  # the question went forward only, so far
        mirror = net.mirror and x.ndim == 4
        problem = Problem(question.reward, len(x), tuple(x.shape[2:]), mirror, x.dtype, x.device, terms.seed)
        solution = chosen.solve(problem, wanted, on_step)
        settings = {**_settings(net, terms), "solver": chosen.settings(), "mirror": mirror}
        result = _judged(net, run, question, solution, wanted, terms, settings, on_evidence)
    for n in range(len(x)):
        if not solution.finite[n]:
            warnings.warn(
                f"the run of input {n} met a score that is not finite and ended; "
                "its masks are zero, its status says so",
                RuntimeWarning,
                stacklevel=2,
            )
    return result


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
        network, image, target, game, perturbation, score, seed, on_evidence: as `explain` takes them.
        masks: (N, A, 1, *S) in [0, 1], one for each area in rising order; `area.cut` makes them from a saliency map.
        areas: (A,) shares of places in (0, 1); binary scores are of the masks cut to exactly these.

    Returns:
        An `Explanation` of N inputs at A areas, on the CPU, with an empty trace.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    wanted = checked_areas(areas)
    terms = _terms(game, perturbation, score, seed)
    net = as_network(network)
    with net.frozen(terms.seed) as run:
        x = prepare(net, image).clone()
        question = pose(net, run, x, target, terms)
        _check_masks(masks, (len(x), len(wanted), 1, *x.shape[2:]))
        nothing = torch.zeros(len(x), 0)
        trace = Trace(torch.zeros(0, dtype=torch.int64), nothing, nothing, nothing)
        solution = Solution(masks.detach().to(x), torch.ones(len(x), dtype=torch.bool, device=x.device), trace)
        settings = {**_settings(net, terms), "solver": {"name": "given"}, "mirror": False}
        return _judged(net, run, question, solution, wanted, terms, settings, on_evidence)


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


def _terms(game: str | Game | Reward, perturbation: str | Perturbation, score: str | Score, seed: int) -> Terms:
    return Terms(game_named(game), perturbation_named(perturbation), score_named(score), checked_seed(seed))


def checked_areas(areas: Sequence[float]) -> tuple[float, ...]:
    """The areas, sorted, told if they were not.

    >>> checked_areas([0.1, 0.2])
    (0.1, 0.2)
    """
    try:
        values = tuple(float(area) for area in areas)
    except (TypeError, ValueError):
        raise ExtremalTypeError(f"areas must be a sequence of numbers, got {areas!r}; e.g. (0.05, 0.1)") from None
    if not values:
        raise ExtremalValueError("areas must name at least one area, got none; e.g. (0.05, 0.1)")
    for area in values:
        if not 0 < area < 1:
            raise ExtremalValueError(
                f"areas must lie in (0, 1), got {area:g}; an area is the share of places kept, e.g. 0.05"
            )
    if len(set(values)) < len(values):
        twice = next(area for area in values if values.count(area) > 1)
        raise ExtremalValueError(f"areas must be distinct, got {twice:g} twice; leave one out")
    if list(values) != sorted(values):
        warnings.warn(f"areas were sorted: {', '.join(f'{a:g}' for a in sorted(values))}", UserWarning, stacklevel=3)
    return tuple(sorted(values))


def checked_seed(seed: int) -> int:
    """A seed that every random generator takes.

    >>> checked_seed(7)
    7
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise ExtremalTypeError(f"seed must be a whole number, got {seed!r}; e.g. 0")
    if not 0 <= seed.__index__() < 2**32:
        raise ExtremalValueError(f"seed must lie in 0..2**32 - 1, got {seed}; e.g. 0")
    return seed.__index__()


def as_network(network: Network | nn.Module | str) -> Network:
    """A `Network`, a module wrapped as one, or a zoo name loaded."""
    if isinstance(network, str):
        from extremal import zoo

        return zoo.load(network)
    return network if isinstance(network, Network) else Network(network)


def _settings(net: Network, terms: Terms) -> dict[str, Any]:
    from extremal import __version__

    return {
        "versions": {"extremal": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "network": net.name,
        "weights": net.weight_hash(),
        "game": terms.game.name,
        "perturbation": repr(terms.perturbation),
        "score": getattr(terms.score, "__name__", repr(terms.score)),
        "seed": terms.seed,
        "threads": torch.get_num_threads(),
        "dtype": str(net.anchor.dtype),
        "device": str(net.anchor.device),
    }


def _judged(
    net: Network,
    run: Run,
    question: Question,
    solution: Solution,
    areas: tuple[float, ...],
    terms: Terms,
    settings: dict[str, Any],
    on_evidence: evidence.Progress | None,
) -> Explanation:
    """Gather the evidence for a solution, and build the result."""
    x, game = question.x, question.game
    unseen = evidence.unseen_perturbations(terms.perturbation, terms.seed)
    gradients, forwards = run.gradients, run.forwards
    asked = {name: question.evaluator(prepared(p, x)) for name, p in unseen.items()}
    found = evidence.gather(question.evaluate, asked, game, solution.masks, areas, terms.seed, on_evidence)
    speaking = evidence.agreement(asked, solution.masks)
    settings["evaluations"] = {
        "gradients": gradients,
        "forwards": forwards,
        "evidence_gradients": run.gradients - gradients,
        "evidence_forwards": run.forwards - forwards,
    }
    with torch.no_grad():
        blanks = question.blanks()
    effects = (found.scores - question.blank.view(-1, 1)) / (question.full - question.blank).view(-1, 1)
    values = {
        "masks": solution.masks,
        "mask_areas": solution.masks.flatten(2).mean(2),
        "scores": found.scores,
        "binary_scores": found.binary_scores,
        "unseen_scores": found.unseen_scores,
        "unseen_blank": found.unseen_blank,
        "control_scores": found.control_scores,
        "agreement": speaking,
        "score_full": question.full,
        "score_blank": question.blank,
        "inputs": x,
        "pictures": net.picture(x),
        "destroyed": net.picture(blanks),
        "trace_step": solution.trace.step,
        "trace_area": solution.trace.area,
        "trace_reward": solution.trace.reward,
        "trace_grey": solution.trace.grey,
    }
    none = torch.zeros(len(x), 0, 0, 3, dtype=torch.uint8)  # where the input is not a picture
    return Explanation(
        areas=areas,
        **{name: none if value is None else value.detach().cpu() for name, value in values.items()},
        target=question.target,
        target_names=question.names,
        unseen_names=tuple(unseen),
        status=evidence.statuses(effects if game.keeps else 1 - effects, solution.finite),
        keeps=game.keeps,
        settings=settings,
    )


__all__ = ["AREAS", "explain", "judge"]
