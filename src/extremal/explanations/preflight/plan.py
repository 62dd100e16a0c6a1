"""`plan`: what a run would be asked and what it would cost, before it is run."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from extremal.explanations.exclusion import checked_alternatives
from extremal.explanations.objective import Question, pose
from extremal.explanations.preflight.cost import Cost, Evaluations, Pace, Work
from extremal.explanations.settings import AREAS, Places, Terms, checked_domain, terms_named, validate_areas
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import Perturbation
from extremal.masking.solvers import Solver, get_solver
from extremal.networks.inputs import Input, prepare
from extremal.networks.network import Network, Run
from extremal.networks.resolve import as_network
from extremal.scores import Score
from extremal.scores.target import Target, listed, looked_at, mirrored, spread

TOP = 5  # classes told


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

    target: int  # −1 where it is no class
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
    def left(self) -> float | None:
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
    pace: Pace
    seconds: float | None  # of all answers, without drawing and writing; None where it is not known
    seconds_refining: float | None  # at most

    @property
    def evaluations(self) -> Evaluations | None:
        """Of all answers together; None where it is not known."""
        return _summed(self.answers) if self.answers else None

    def plain(self) -> dict[str, Any]:
        """All of it as plain values, with what follows from them."""
        inputs = [{**asdict(one), "span": one.span, "left": one.left} for one in self.inputs]
        total = self.evaluations
        return {**asdict(self), "inputs": inputs, "evaluations": total and asdict(total)}


def plan(
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
    refine: bool = False,
) -> Plan:
    """What `explain` would ask, and what it would cost; the network is evaluated a few times, and no solver runs.

    >>> _ = torch.manual_seed(0)
    >>> toy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> found = plan(toy, torch.rand(1, 3, 32, 32), areas=(0.1, 0.3))
    >>> found.shape, found.evaluations.gradients
    ((3, 32, 32), 68)

    Args:
        network, image, target, areas, game, perturbation, solver, score, within, units, seed, alternatives: as
            `explain` takes them.
        refine: whether `smallest_area` is to follow.

    Raises:
        ExtremalValueError, ExtremalTypeError: as `explain` raises them before its solver runs.
    """
    wanted = validate_areas(areas)
    chosen, copies = get_solver(solver), checked_alternatives(alternatives)
    terms = terms_named(game, perturbation, score, seed, within=within, units=units)
    net = as_network(network)
    x = spread(prepare(net, image), target)
    checked_domain(terms, net, tuple(x.shape[2:]), wanted)
    mirror = mirrored(net, x, target)
    settings = {**terms.settings(net), "solver": chosen.settings(), "mirror": mirror}
    each, whole = listed(target, len(x)), looked_at(net, target)
    with net.frozen(terms.seed) as run:
        x = x.clone()  # as in `in_blocks`: made here, it may be saved for backward
        rows = run.settle(x, *whole)
        size = min(rows, len(x))
        inputs, costs = list[PlannedInput](), list[Cost]()
        for first in range(0, len(x), size):
            here = slice(first, first + size)
            question = pose(net, run, x[here], target if each is None else each[here], terms)
            question.check_gradient(net.name)
            costs.append(Cost(run, question, chosen, terms, wanted, mirror=mirror, rows=rows))
            inputs += _planned(net, run, question, terms)
            run.gradients, run.forwards = 0, 0
        one = costs[0]  # all blocks but the last are like it
        pace, row_bytes, memory = one.pace(), one.row_bytes(), one.memory()
    known = range(copies if one.work else 0)
    answers = tuple(_summed(cost.answer(first=k == 0) for cost in costs) for k in known)
    refining = _summed(cost.refining() for cost in costs) if refine else None
    work = one.work or Work(1, 0, 0, 1)
    return Plan(
        shape=tuple(x.shape[1:]),
        inputs=tuple(inputs),
        areas=wanted,
        settings=settings,
        rows=rows,
        row_bytes=row_bytes,
        rows_at_once=one.rows_at_once,
        memory=memory,
        answers=answers,
        refining=refining,
        pace=pace,
        seconds=sum(pace.seconds(answer, work) for answer in answers) if answers else None,
        seconds_refining=pace.seconds(refining, Work(1, 0, 0, 1)) if refining else None,  # its masks come one by one
    )


def _planned(net: Network, run: Run, question: Question, terms: Terms) -> list[PlannedInput]:
    """What would be asked about each input."""
    scores = zip(question.target, question.names, question.full.tolist(), question.blank.tolist(), strict=True)
    told = [PlannedInput(*one) for one in scores]
    if question.target[0] < 0:
        return told
    with torch.no_grad():
        whole, blank = run(question.x), run(question.blanks())
    return [_with_classes(net, terms, *one) for one in zip(told, whole, blank, strict=True)]


def _with_classes(net: Network, terms: Terms, told: PlannedInput, whole: Tensor, blank: Tensor) -> PlannedInput:
    """With the classes of the outputs (classes,) for the input whole and destroyed."""
    several = len(whole) > 1
    indices = whole.topk(min(TOP, len(whole))).indices
    scores = terms.score(whole.expand(len(indices), -1), indices).tolist()
    shares, left = whole.softmax(0).tolist(), blank.softmax(0).tolist()
    top = tuple(
        TopClass(index, net.label(index), score, shares[index] if several else None)
        for index, score in zip(indices.tolist(), scores, strict=True)
    )
    if not several:
        return replace(told, top=top)
    return replace(told, probability=shares[told.target], probability_blank=left[told.target], top=top)


def _summed(parts: Iterable[Evaluations | None]) -> Evaluations:
    return sum((part for part in parts if part is not None), Evaluations())


__all__ = ["Plan", "PlannedInput", "TopClass", "plan"]
