"""Plans of `explain_sets`, `contrast` and `explain_tokens`: each run of `explain`, and what is evaluated besides."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Unpack

from torch import Tensor, nn

from extremal.errors import NoEffectError
from extremal.explanations.evaluations import Evaluations
from extremal.explanations.evidence import unseen_perturbations
from extremal.explanations.objective import Objective
from extremal.explanations.preflight.cost import Cost
from extremal.explanations.preflight.plan import Plan, plan
from extremal.explanations.preparation import as_asked_by, prepare_run
from extremal.explanations.sets.answer_tokens import list_token_queries, validate_token_settings
from extremal.explanations.sets.bundle import check_single_target, merge_game_free, prepare_single
from extremal.explanations.sets.class_contrast import find_contrast, validate_contrast_settings
from extremal.explanations.sets.region_sets import GAMES
from extremal.explanations.settings import Settings, SettingsOptions
from extremal.masking.perturbations import split_ways
from extremal.masking.solvers import uses_gradients
from extremal.networks.inputs import ImagesLike
from extremal.networks.network import Network
from extremal.networks.resolve import as_network
from extremal.networks.torch_state import in_standard_modes
from extremal.scores.answer import MAX_ANSWER_TOKENS, Answer
from extremal.scores.target import Target


@dataclass(frozen=True)
class BundlePlan:
    """Several runs of `explain` for one input before they are started."""

    parts: dict[str, Plan]  # by what they find
    more: Evaluations = field(default_factory=Evaluations)  # besides these runs
    without_effect: tuple[str, ...] = ()  # tokens that do not depend on the picture, and get no run

    @property
    def evaluations(self) -> Evaluations | None:
        """Evaluations of all runs together, and those besides; None if a solver's cost is unknown."""
        counts = [part.evaluations for part in self.parts.values()]
        known = [count for count in counts if count is not None]
        return sum(known, self.more) if len(known) == len(counts) else None

    @property
    def seconds(self) -> float | None:
        """Seconds of all, without figures and files; None if unknown."""
        times = [part.seconds for part in self.parts.values()]
        known = [seconds for seconds in times if seconds is not None]
        pace = next(iter(self.parts.values())).pace
        more = pace.evidence * self.more.evidence_gradients
        more += pace.evidence_forward * (self.more.evidence_forwards + self.more.forwards)
        return sum(known) + more if len(known) == len(times) else None

    @property
    def memory(self) -> int:
        """Bytes of the weights and of the gradients of the rows that are evaluated at once."""
        return max(part.memory for part in self.parts.values())

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, including derived ones."""
        total = self.evaluations
        return {
            "parts": {name: part.as_dict() for name, part in self.parts.items()},
            "more": asdict(self.more),
            "without_effect": list(self.without_effect),
            "evaluations": total and asdict(total),
            "seconds": self.seconds,
            "memory": self.memory,
        }


@in_standard_modes
def plan_sets(
    network: Network | nn.Module | str,
    image: ImagesLike,
    target: Target = None,
    *,
    settings: Settings | None = None,
    **options: Unpack[SettingsOptions],
) -> BundlePlan:
    """Plan `explain_sets`, which takes the same arguments, by a few evaluations and without a solver.

    Raises:
        ExtremalValueError, ExtremalTypeError: as `explain_sets` raises them before its solver runs.
    """
    settings = merge_game_free(settings, options, "sets of regions")
    check_single_target(target, settings.score, "sets of regions")
    net, x = prepare_single(as_asked_by(network, settings.solver), image, "sets of regions")
    parts = {name: plan(net, x, target, settings=settings.replace(game=game)) for name, game in GAMES.items()}
    judging = _examine(net, x, target, settings.replace(game="delete"), Cost.judgement, for_solver=False)
    return BundlePlan(parts, judging)


@in_standard_modes
def plan_contrast(
    network: Network | nn.Module | str,
    image: ImagesLike,
    target: int | str | None = None,
    other: int | str | None = None,
    *,
    settings: Settings | None = None,
    **options: Unpack[SettingsOptions],
) -> BundlePlan:
    """Plan `contrast`, which takes the same arguments, by a few evaluations and without a solver.

    Raises:
        ExtremalValueError, ExtremalTypeError: as `contrast` raises them before its solver runs.
    """
    settings = validate_contrast_settings(settings, options)
    net, x = prepare_single(as_asked_by(network, settings.solver), image, "a contrast")
    asked = find_contrast(net, x, target, other, settings)
    parts = {
        question.name: plan(net, x, question.query, settings=settings.replace(game=question.game))
        for question in asked.questions.values()
    }

    def count_answers(cost: Cost) -> Evaluations:
        return Evaluations(forwards=1 + len(settings.areas) * _count_perturbations(cost.objective, settings))

    loss = asked.questions["loss"]
    return BundlePlan(parts, _examine(net, x, loss.query, settings.replace(game=loss.game), count_answers))


@in_standard_modes
def plan_tokens(
    network: Network | nn.Module | str,
    image: ImagesLike,
    answer: Answer,
    *,
    settings: Settings | None = None,
    **options: Unpack[SettingsOptions],
) -> BundlePlan:
    """Plan `explain_tokens`, which takes the same arguments; the model's own answer is generated.

    Raises:
        ExtremalValueError, ExtremalTypeError: as `explain_tokens` raises them before its solver runs.
    """
    settings = validate_token_settings(answer, settings, options)
    net, x = prepare_single(as_network(network), image, "the tokens of an answer")
    settled = answer.settle_one(net, x)
    queries = list_token_queries(settled, settled.list_tokens(net))
    generated = min(len(queries) + 1, MAX_ANSWER_TOKENS) if answer.text is None else 0
    more, without_effect = Evaluations(forwards=generated), list[str]()
    parts = {"answer": plan(net, x, settled, settings=settings)}
    for name, query in queries.items():
        try:
            parts[name] = plan(net, x, query, settings=settings)
        except NoEffectError:
            without_effect.append(name)
            more += _count_setup(net, x, query, settings)
    return BundlePlan(parts, more, tuple(without_effect))


def _examine(
    net: Network,
    x: Tensor,
    target: Target,
    settings: Settings,
    count: Callable[[Cost], Evaluations],
    *,
    for_solver: bool = True,
) -> Evaluations:
    """Build the objective of one input, and count evaluations by its cost."""
    prepared = prepare_run(net, x, target, settings)
    with prepared.net.frozen(settings.seed) as run:
        ((batch, objective, setup),) = prepared.build_objectives(run, settings, for_solver=for_solver)
        if for_solver and uses_gradients(settings.solver):
            objective.check_gradient(prepared.net)
        return count(Cost(run, objective, settings, setup, mirror=prepared.mirror, rows=batch.max_rows))


def _count_setup(net: Network, x: Tensor, target: Target, settings: Settings) -> Evaluations:
    """Count the evaluations by which `explain` finds that a target does not depend on its input."""
    prepared = prepare_run(net, x, target, settings)
    with prepared.net.frozen(settings.seed) as run, run.counted() as count, suppress(NoEffectError):
        next(prepared.build_objectives(run, settings))
    return Evaluations.of_setup([count])


def _count_perturbations(objective: Objective, settings: Settings) -> int:
    """Return under how many perturbations of a run, and unseen ones, an answer is asked for."""
    left_out = objective.ways.left_out[0] if objective.ways.left_out else ()
    used = [name for name in split_ways(settings.perturbation) if name not in left_out]
    return len(used) + len(unseen_perturbations(objective.perturbation, settings.seed))


__all__ = ["BundlePlan", "plan_contrast", "plan_sets", "plan_tokens"]
