"""`explain`: choose the parts, run the solver, gather the evidence, build the result."""

import platform
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from extremal import evidence
from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanation import Explanation
from extremal.games import Evaluate, Game, Reward, game_named
from extremal.inputs import Input, prepare
from extremal.network import Network, Run
from extremal.perturbations import Perturb, Perturbation, perturbation_named, prepared
from extremal.scores import Score, score_named
from extremal.solvers import OnStep, Problem, Solver, solver_named

AREAS = (0.025, 0.05, 0.1, 0.2, 0.4)

Ask = Callable[[Any], Tensor]  # output of the network -> (B,)
Target = int | str | Sequence[int | str] | Tensor | Ask | None


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
    chosen = _Parts(
        game_named(game), perturbation_named(perturbation), solver_named(solver), score_named(score), checked_seed(seed)
    )
    net = as_network(network)
    with net.frozen(chosen.seed) as run:
        x = prepare(net, image).clone()  # a clone made here may be saved for backward whatever the caller's mode
        question = _question(net, run, x, target, chosen)
        if not on_input(question.reward, x):
            raise ExtremalValueError(
                f"a network's score must depend on its input with a gradient, {net.name}'s does not; "
                "look for no_grad, detach, rounding or argmax inside it"
            )
        mirror = net.mirror and x.ndim == 4
        problem = Problem(question.reward, len(x), tuple(x.shape[2:]), mirror, x.dtype, x.device)
        solution = chosen.solver.solve(problem, wanted, on_step)
        gradients = run.gradients
        unseen = evidence.unseen_perturbations(chosen.perturbation, chosen.seed)
        asked = {name: question.evaluator(prepared(p, x)) for name, p in unseen.items()}
        found = evidence.gather(question.evaluate, asked, chosen.game, solution.masks, wanted, chosen.seed, on_evidence)
        settings = {
            **_settings(net, chosen),
            "mirror": mirror,
            "evaluations": {"gradients": gradients, "forwards": run.forwards},
        }
        result = _build(net, x, question, wanted, solution, found, tuple(unseen), chosen.game, settings)
    for n in range(len(x)):
        if not solution.finite[n]:
            warnings.warn(
                f"the run of input {n} met a score that is not finite and ended; "
                "its masks are zero, its status says so",
                RuntimeWarning,
                stacklevel=2,
            )
    return result


@dataclass(frozen=True)
class _Parts:
    """What was chosen, by name or as given."""

    game: Game
    perturbation: Perturbation
    solver: Solver
    score: Score
    seed: int


@dataclass(frozen=True, eq=False)
class _Question:
    """Φ over masks for a batch of inputs."""

    ask: Callable[[Tensor, int], Tensor]  # inputs (N·K, C, *S), K -> (N·K,)
    perturb: Perturb
    game: Game
    target: tuple[int, ...]
    names: tuple[str, ...]
    full: Tensor  # (N,)
    blank: Tensor  # (N,)

    def evaluator(self, perturb: Perturb, mirrored: bool = False) -> Evaluate:
        """Φ(mask ⊗ x) under a perturbation: (N, K, 1, *S) -> (N, K)."""

        def evaluate(mask: Tensor) -> Tensor:
            inputs = perturb(mask)
            if mirrored:
                inputs = inputs.flip(-1)
            return self.ask(inputs.flatten(0, 1), mask.shape[1]).view(mask.shape[:2])

        return evaluate

    def evaluate(self, mask: Tensor) -> Tensor:
        """Φ(mask ⊗ x) under the perturbation of the run."""
        return self.evaluator(self.perturb)(mask)

    def reward(self, mask: Tensor, mirrored: bool) -> Tensor:
        """What the game pays: (N, K, 1, *S) -> (N, K)."""
        rewards = self.game.reward(self.evaluator(self.perturb, mirrored), mask)
        if rewards.shape != mask.shape[:2]:
            raise ExtremalValueError(
                f"a game must pay one reward a mask, (N, K) = {tuple(mask.shape[:2])}, got {tuple(rewards.shape)}"
            )
        return rewards


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


def _question(net: Network, run: Run, x: Tensor, target: Target, chosen: _Parts) -> _Question:
    perturb = prepared(chosen.perturbation, x)
    with torch.no_grad():
        if callable(target) and not isinstance(target, Tensor):
            indices, ask = (-1,) * len(x), _asked(run, target)
            names = (getattr(target, "__name__", type(target).__name__),) * len(x)
            full = ask(x, 1)
        else:
            output = run(x)
            _check_finite(output, "the whole input", net.name)
            indices = resolve_targets(net, output, target)
            classes = torch.tensor(indices, device=x.device)
            names = tuple(net.label(index) for index in indices)

            def ask(inputs: Tensor, repeats: int) -> Tensor:
                return _per_row(chosen.score(run(inputs), classes.repeat_interleave(repeats)), len(inputs), "score")

            full = _per_row(chosen.score(output, classes), len(x), "score")
        blank = ask(perturb(x.new_zeros(len(x), 1, 1, *x.shape[2:])).flatten(0, 1), 1)
    _check_finite(full, "the whole input", net.name)
    _check_finite(blank, "the destroyed input", net.name)
    for n, (high, low) in enumerate(zip(full.tolist(), blank.tolist(), strict=True)):
        if abs(high - low) <= 1e-6 * max(1.0, abs(high)):
            raise ExtremalValueError(
                f"a score must change when the input is destroyed, input {n} scores {high:.6g} whole and {low:.6g} "
                "destroyed; the network does not depend on the input, or the perturbation does not change it: "
                "try another perturbation, score or target"
            )
    return _Question(ask, perturb, chosen.game, indices, names, full, blank)


def _asked(run: Run, target: Ask) -> Callable[[Tensor, int], Tensor]:
    def ask(inputs: Tensor, _: int) -> Tensor:
        return _per_row(target(run.raw(inputs)), len(inputs), "target")

    return ask


def _per_row(scores: object, rows: int, what: str) -> Tensor:
    if not isinstance(scores, Tensor):
        raise ExtremalTypeError(f"a {what} callable must return a tensor (B,), got {type(scores).__name__}")
    if scores.shape != (rows,) or not scores.is_floating_point():
        raise ExtremalValueError(
            f"a {what} callable must return one floating score an input, shape ({rows},), "
            f"got {tuple(scores.shape)} {scores.dtype}"
        )
    return scores


def _check_finite(scores: Tensor, what: str, name: str) -> None:
    broken = int((~torch.isfinite(scores)).sum())
    if broken:
        raise ExtremalValueError(
            f"a network must return finite scores, {name} returned {broken} NaN or infinite ones for {what}; "
            "check its weights and the range of the input"
        )


def resolve_targets(net: Network, output: Tensor, target: Target) -> tuple[int, ...]:
    """Class indices (N,) from an index, a name, one of these for each input, or None for the top class."""
    count, classes = output.shape[:2]
    if target is None:
        return tuple(output.argmax(1).tolist())
    if isinstance(target, Tensor):
        target = target.tolist()
    each: Sequence[Any] = list(target) if isinstance(target, list | tuple | range) else [target] * count
    if len(each) != count:
        raise ExtremalValueError(f"target must be one class, or one for each of {count} inputs, got {len(each)}")
    return tuple(_class_index(net, entry, classes) for entry in each)


def _class_index(net: Network, target: object, classes: int) -> int:
    if isinstance(target, str):
        index = net.index(target)
    elif isinstance(target, bool) or not hasattr(target, "__index__"):
        raise ExtremalTypeError(
            f"target must be a class index, a class name or a callable on the output, got {type(target).__name__}"
        )
    else:
        index = target.__index__()
    if not 0 <= index < classes:
        raise ExtremalValueError(f"target must lie in 0..{classes - 1} for {net.name}, got {index}")
    return index


def on_input(reward: Callable[[Tensor, bool], Tensor], x: Tensor) -> bool:
    """Whether the reward has a gradient with respect to a mask at all; costs one pass an input."""
    mask = x.new_full((len(x), 1, 1, *x.shape[2:]), 0.5).requires_grad_()
    rewards = reward(mask, False)
    return rewards.requires_grad


def _settings(net: Network, chosen: _Parts) -> dict[str, Any]:
    from extremal import __version__

    return {
        "versions": {"extremal": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "network": net.name,
        "weights": net.weight_hash(),
        "game": chosen.game.name,
        "perturbation": repr(chosen.perturbation),
        "solver": chosen.solver.settings(),
        "score": getattr(chosen.score, "__name__", repr(chosen.score)),
        "seed": chosen.seed,
        "threads": torch.get_num_threads(),
        "dtype": str(net.anchor.dtype),
        "device": str(net.anchor.device),
    }


def _build(
    net: Network,
    x: Tensor,
    question: _Question,
    areas: tuple[float, ...],
    solution: Any,
    found: evidence.Evidence,
    unseen_names: tuple[str, ...],
    game: Game,
    settings: dict[str, Any],
) -> Explanation:
    empty = torch.zeros(len(x), 0, 0, 3, dtype=torch.uint8)
    pictures = net.picture(x)
    with torch.no_grad():
        blank = question.perturb(x.new_zeros(len(x), 1, 1, *x.shape[2:])).flatten(0, 1)
    destroyed = net.picture(blank)
    spans = (question.full - question.blank).view(-1, 1)
    effects = (found.scores - question.blank.view(-1, 1)) / spans
    values = {
        "masks": solution.masks,
        "mask_areas": solution.masks.flatten(2).mean(2),
        "scores": found.scores,
        "binary_scores": found.binary_scores,
        "unseen_scores": found.unseen_scores,
        "unseen_blank": found.unseen_blank,
        "control_scores": found.control_scores,
        "score_full": question.full,
        "score_blank": question.blank,
        "inputs": x,
        "trace_step": solution.trace.step,
        "trace_area": solution.trace.area,
        "trace_reward": solution.trace.reward,
        "trace_grey": solution.trace.grey,
    }
    return Explanation(
        areas=areas,
        **{name: value.detach().cpu() for name, value in values.items()},
        pictures=empty if pictures is None else pictures,
        destroyed=empty if destroyed is None else destroyed,
        target=question.target,
        target_names=question.names,
        unseen_names=unseen_names,
        status=evidence.statuses(effects if game.keeps else 1 - effects, solution.finite),
        keeps=game.keeps,
        settings=settings,
    )


__all__ = ["AREAS", "explain"]
