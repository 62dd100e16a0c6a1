"""`plan`: what a run would be asked and what it would cost, before it is run."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from extremal.explanations.batches import plan_batches
from extremal.explanations.evaluations import Evaluations
from extremal.explanations.objective import Objective, build_objective
from extremal.explanations.preflight.cost import Cost, Timing, Work
from extremal.explanations.preparation import prepare_run
from extremal.explanations.settings import Settings, SettingsOptions, merge_settings
from extremal.networks.inputs import ImagesLike
from extremal.networks.network import Network, Run
from extremal.scores.target import Target, find_required_layers, select_inputs

MAX_TOP_CLASSES = 5  # classes told


@dataclass(frozen=True)
class TopClass:
    """One of the classes that the network holds most probable."""

    index: int
    name: str
    score: float  # what would be asked of it
    probability: float | None  # None where the network has one output only


@dataclass(frozen=True)
class PlannedInput:
    """What would be asked about one input."""

    target: int | None  # class index; None if the target is not a class
    name: str
    full: float  # score of the whole
    blank: float  # score of the destroyed
    probability: float | None = None  # of the class, whole; None where there is none
    probability_blank: float | None = None  # of the class, destroyed
    top: tuple[TopClass, ...] = ()  # the five most probable; empty where no class is asked about

    @property
    def span(self) -> float:
        """What destroying the input takes away: effects are told as shares of this."""
        return self.full - self.blank

    @property
    def remaining(self) -> float | None:
        """The share of the class's probability that is left where the input is destroyed."""
        if not self.probability or self.probability_blank is None:
            return None
        return self.probability_blank / self.probability


@dataclass(frozen=True)
class Plan:
    """A run of `explain`, before it is run."""

    shape: tuple[int, ...]  # (C, *S) of an input as the network takes it
    inputs: tuple[PlannedInput, ...]  # (N,)
    areas: tuple[float, ...]
    settings: dict[str, Any]  # those of the explanation that would come of it
    rows: int  # of the network that fit into its memory at once
    row_bytes: int  # that the network holds for the gradient of a row
    rows_at_once: int  # that the run would evaluate at once, at most
    memory: int  # bytes of the weights, and of what is held for the gradients of these rows
    answers: tuple[Evaluations, ...]  # for each answer that is looked for; empty where the solver's cost is not known
    refining: Evaluations | None  # at most, for the smallest sufficient area; None where it is not asked for
    pace: Timing
    seconds: float | None  # of all answers, without drawing and writing; None where it is not known
    seconds_refining: float | None  # at most

    @property
    def evaluations(self) -> Evaluations | None:
        """Of all answers together; None where it is not known."""
        return _sum(self.answers) if self.answers else None

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, with what follows from them."""
        inputs = [{**asdict(one), "span": one.span, "left": one.remaining} for one in self.inputs]
        total = self.evaluations
        return {**asdict(self), "inputs": inputs, "evaluations": total and asdict(total)}


def plan(
    network: Network | nn.Module | str,
    image: ImagesLike,
    target: Target = None,
    *,
    refine: bool = False,
    settings: Settings | None = None,
    **options: Unpack[SettingsOptions],
) -> Plan:
    """What `explain` would ask, and what it would cost; the network is evaluated a few times, and no solver runs.

    >>> _ = torch.manual_seed(0)
    >>> toy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> found = plan(toy, torch.rand(1, 3, 32, 32), areas=(0.1, 0.3))
    >>> found.shape, found.evaluations.gradients
    ((3, 32, 32), 68)

    Args:
        network, image, target, settings, options: as for `explain`.
        refine: whether `smallest_area` is to follow.

    Raises:
        ExtremalValueError, ExtremalTypeError: as `explain` raises them before its solver runs.
    """
    settings = merge_settings(settings, options)
    prepared = prepare_run(network, image, target, settings)
    net, x, query = prepared.net, prepared.x, prepared.query
    inputs, costs = list[PlannedInput](), list[Cost]()
    with net.frozen(settings.seed) as run:
        x = x.clone()  # a clone made here may be saved for backward whatever the caller's mode
        with run.counted() as accelerating:
            batches = plan_batches(run, x, find_required_layers(net, query))
        for batch in batches:
            with run.counted() as setup:
                objective = build_objective(run, x[batch.inputs], select_inputs(query, batch.inputs), settings)
                objective.check_gradient(net.name)
            spent = Evaluations.of_setup([setup, accelerating] if batch.index == 0 else [setup])
            costs.append(Cost(run, objective, settings, spent, mirror=prepared.mirror, rows=batch.max_rows))
            inputs += _plan_inputs(run, objective, settings)
        one = costs[0]  # all batches but the last are like it
        pace, row_bytes, memory = one.measure_timing(), one.measure_row_bytes(), one.measure_memory()
    known = range(settings.alternatives if one.work else 0)
    answers = tuple(_sum(cost.one_answer(first=k == 0) for cost in costs) for k in known)
    refining = _sum(cost.refinement() for cost in costs) if refine else None
    work = one.work or Work(1, 0, 0, 1)
    return Plan(
        shape=tuple(x.shape[1:]),
        inputs=tuple(inputs),
        areas=settings.areas,
        settings=prepared.provenance,
        rows=batches[0].max_rows,
        row_bytes=row_bytes,
        rows_at_once=one.rows_at_once,
        memory=memory,
        answers=answers,
        refining=refining,
        pace=pace,
        seconds=sum(pace.seconds(answer, work) for answer in answers) if answers else None,
        seconds_refining=pace.seconds(refining, Work(1, 0, 0, 1)) if refining else None,  # its masks come one by one
    )


def _plan_inputs(run: Run, objective: Objective, settings: Settings) -> list[PlannedInput]:
    """Return what would be asked about each input."""
    scores = objective.score_input.tolist(), objective.score_destroyed.tolist()
    inputs = [PlannedInput(*values) for values in zip(objective.class_indices, objective.names, *scores, strict=True)]
    if None in objective.class_indices:
        return inputs
    with torch.no_grad():
        outputs = run(objective.x), run(objective.destroyed_inputs())
    return [_with_classes(run.network, settings, *values) for values in zip(inputs, *outputs, strict=True)]


def _with_classes(
    net: Network, settings: Settings, planned: PlannedInput, whole: Tensor, blank: Tensor
) -> PlannedInput:
    """With the classes of the outputs (classes,) for the input whole and destroyed."""
    several = len(whole) > 1
    indices = whole.topk(min(MAX_TOP_CLASSES, len(whole))).indices
    scores = settings.score(whole.expand(len(indices), -1), indices).tolist()
    shares, left = whole.softmax(0).tolist(), blank.softmax(0).tolist()
    top = tuple(
        TopClass(index, net.label(index), score, shares[index] if several else None)
        for index, score in zip(indices.tolist(), scores, strict=True)
    )
    if not several or planned.target is None:
        return replace(planned, top=top)
    return replace(planned, probability=shares[planned.target], probability_blank=left[planned.target], top=top)


def _sum(parts: Iterable[Evaluations | None]) -> Evaluations:
    return sum((part for part in parts if part is not None), Evaluations())


__all__ = ["Plan", "PlannedInput", "TopClass", "plan"]
