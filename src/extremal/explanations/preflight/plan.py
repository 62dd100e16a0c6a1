"""`plan`: the target and the cost of a run, before it is started."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from extremal.explanations import smallest_area
from extremal.explanations.evaluations import Evaluations
from extremal.explanations.objective import Objective
from extremal.explanations.preflight.cost import Cost, Timing, Work
from extremal.explanations.preparation import prepare_run
from extremal.explanations.settings import Settings, SettingsOptions, merge_settings
from extremal.masking.solvers import uses_gradients
from extremal.networks.inputs import ImagesLike
from extremal.networks.network import Network
from extremal.networks.reading import Head, Reading, describe_reading, guess_head, is_multi_label, read_probabilities
from extremal.networks.run import Run
from extremal.networks.torch_state import in_standard_modes
from extremal.scores.class_group import ResolvedClass
from extremal.scores.target import Target

MAX_TOP_CLASSES = 5


@dataclass(frozen=True)
class TopClass:
    """One of the most probable classes."""

    index: int
    name: str
    score: float  # of the class
    probability: float | None  # None if the network has only one output


@dataclass(frozen=True)
class PlannedInput:
    """The target of one input."""

    target: ResolvedClass | None  # class index, or indices of a group; None if the target is neither
    name: str
    full: float  # score of the whole input
    blank: float  # score of the destroyed input
    probability: float | None = None  # of the class or the group, for the whole input; None if there is none
    probability_blank: float | None = None  # the same for the input destroyed by the first way that counts
    top: tuple[TopClass, ...] = ()  # most probable first; empty if the target is not a class

    @property
    def span(self) -> float:
        """Score difference between the whole and the destroyed input; effects are fractions of it."""
        return self.full - self.blank

    @property
    def remaining(self) -> float | None:
        """Fraction of the class's probability that remains when the input is destroyed."""
        if not self.probability or self.probability_blank is None:
            return None
        return self.probability_blank / self.probability


@dataclass(frozen=True)
class Plan:
    """A run of `explain` before it is started: its targets and its cost."""

    shape: tuple[int, ...]  # (C, *S) of a prepared input
    reading: Reading  # how inputs and outputs are understood, for the first batch
    inputs: tuple[PlannedInput, ...]  # (N,)
    areas: tuple[float, ...]
    settings: dict[str, Any]  # those of the resulting explanation
    rows: int  # rows of the network that fit into memory at once
    row_bytes: int  # memory of the network for the gradient of one row
    rows_at_once: int  # maximum number of rows that the run would evaluate at once
    memory: int  # bytes of the weights and of the gradients of these rows
    answers: tuple[Evaluations, ...]  # one per alternative searched for; empty if the solver's cost is unknown
    refining: Evaluations | None  # upper bound for the smallest sufficient area; None if not requested
    pace: Timing
    seconds: float | None  # of all answers, without figures and files; None if unknown
    seconds_refining: float | None  # upper bound

    @property
    def evaluations(self) -> Evaluations | None:
        """Evaluations of all answers together; None if unknown."""
        return _sum(self.answers) if self.answers else None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, including derived ones."""
        inputs = [{**asdict(item), "span": item.span, "left": item.remaining} for item in self.inputs]
        total = self.evaluations
        return {**asdict(self), "inputs": inputs, "evaluations": total and asdict(total)}


@in_standard_modes
def plan(
    network: Network | nn.Module | str,
    image: ImagesLike,
    target: Target = None,
    *,
    refine: bool = False,
    settings: Settings | None = None,
    **options: Unpack[SettingsOptions],
) -> Plan:
    """Plan a run of `explain`: its targets and its cost, from a few evaluations and without a solver.

    >>> _ = torch.manual_seed(0)
    >>> toy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> planned = plan(toy, torch.rand(1, 3, 32, 32), areas=(0.1, 0.3))
    >>> planned.shape, planned.evaluations.gradients
    ((3, 32, 32), 72)

    Args:
        network, image, target, settings, options: as for `explain`.
        refine: whether `smallest_area` will follow.

    Raises:
        ExtremalValueError, ExtremalTypeError: as `explain` raises them before its solver runs.
    """
    settings = merge_settings(settings, options)
    prepared = prepare_run(network, image, target, settings)
    if refine:
        smallest_area.check_search(prepared.net)
    inputs, costs = list[PlannedInput](), list[Cost]()
    with prepared.net.frozen(settings.seed) as run:
        for batch, objective, setup in prepared.build_objectives(run, settings):
            if uses_gradients(settings.solver):
                objective.check_gradient(prepared.net)
            costs.append(Cost(run, objective, settings, setup, mirror=prepared.mirror, rows=batch.max_rows))
            inputs += _plan_inputs(run, objective, settings)
        first = costs[0]  # representative of all batches but the last
        reading = _describe_reading(run, first.objective)
        timing, row_bytes, memory = first.measure_timing(), first.measure_row_bytes(), first.measure_memory()
    answers = tuple(
        _sum(cost.one_answer(first=k == 0) for cost in costs) for k in range(settings.alternatives if first.work else 0)
    )
    refining = _sum(cost.refinement() for cost in costs) if refine else None
    one_by_one = Work(single=1, batched=0, forwards=0, widest=1)
    return Plan(
        shape=tuple(prepared.x.shape[1:]),
        reading=reading,
        inputs=tuple(inputs),
        areas=settings.areas,
        settings=prepared.provenance,
        rows=first.rows,
        row_bytes=row_bytes,
        rows_at_once=first.rows_at_once,
        memory=memory,
        answers=answers,
        refining=refining,
        pace=timing,
        seconds=sum(timing.seconds(answer, first.work or one_by_one) for answer in answers) if answers else None,
        seconds_refining=timing.seconds(refining, one_by_one) if refining else None,
    )


@torch.no_grad()
def _describe_reading(run: Run, objective: Objective) -> Reading:
    """Return how the inputs of a batch and the network's outputs for them are understood."""
    is_class, x = None not in objective.class_indices, objective.x
    empty = run(objective.destroyed_inputs()) if is_class else None
    return describe_reading(run.network, x, run.evaluate(x), empty, is_class=is_class)


def _plan_inputs(run: Run, objective: Objective, settings: Settings) -> list[PlannedInput]:
    """Return the target of each input."""
    scores = objective.score_input.tolist(), objective.score_destroyed.tolist()
    inputs = [PlannedInput(*values) for values in zip(objective.class_indices, objective.names, *scores, strict=True)]
    if None in objective.class_indices:
        return inputs
    with torch.no_grad():
        outputs = run(objective.x), run(objective.destroyed_inputs())
    head = guess_head(*outputs, is_multi_label(run.network))
    return [_with_classes(run.network, settings, head, *values) for values in zip(inputs, *outputs, strict=True)]


def _with_classes(
    net: Network, settings: Settings, head: Head, planned: PlannedInput, whole: Tensor, blank: Tensor
) -> PlannedInput:
    """Add the classes of the outputs (classes,) for the input whole and destroyed."""
    has_probabilities = len(whole) > 1
    indices = whole.topk(min(MAX_TOP_CLASSES, int(whole.isfinite().sum()))).indices
    scores = settings.score(whole.expand(len(indices), -1), indices).tolist()
    probabilities, blank_probabilities = read_probabilities(torch.stack([whole, blank]), head).tolist()
    top = tuple(
        TopClass(index, net.label(index), score, probabilities[index] if has_probabilities else None)
        for index, score in zip(indices.tolist(), scores, strict=True)
    )
    if not has_probabilities or planned.target is None:
        return replace(planned, top=top)
    members = planned.target if isinstance(planned.target, tuple) else (planned.target,)
    return replace(
        planned,
        probability=min(1.0, sum(probabilities[index] for index in members)),
        probability_blank=min(1.0, sum(blank_probabilities[index] for index in members)),
        top=top,
    )


def _sum(parts: Iterable[Evaluations | None]) -> Evaluations:
    return sum((part for part in parts if part is not None), Evaluations())


__all__ = ["Plan", "PlannedInput", "TopClass", "plan"]
