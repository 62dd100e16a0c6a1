"""Checks of what is asked of a network about an input."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from extremal.explanations.preflight.findings import Finding, Level, one_line
from extremal.explanations.preflight.network_checks import ROUNDING
from extremal.masking.perturbations import Noise, Perturbation, mask_shape, prepare_perturbation
from extremal.networks.network import Run
from extremal.scores import Score, log_probability, margin, probability

SCORE_TOLERANCE = 1e-6  # of a score, to which it is the same; `explain` refuses such questions
SATURATION = 1e-4  # to probability 1, from which on a probability is saturated
MIN_CHANGE = 0.05  # of the largest change by any perturbation, from which on a change tells something
CLEAR_RATIO = 2.0  # times the second class's probability, from which on the top class is clear
CONSTANT_MASKS = (
    0.125,
    0.375,
    0.625,
    0.875,
)  # of the constant masks at which the gradient is taken: `path` starts from them


@dataclass(frozen=True, eq=False)
class Case:
    """One input and what is asked about it."""

    run: Run
    x: Tensor  # (1, C, *S)
    ask: Callable[[Tensor], Tensor]  # inputs (B, C, *S) -> scores (B,)
    class_index: int | None  # None if the target is not a class
    name: str
    score: Score
    perturbations: dict[str, Perturbation]  # the one that is asked with comes first
    chosen: bool  # whether the target was named

    def output(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, classes), or the scores (B, 1) where no class is asked about."""
        return self.ask(x)[:, None] if self.class_index is None else self.run(x.clone())

    def shares(self) -> Tensor:
        """The probabilities of the classes: (classes,)."""
        return self.output(self.x).softmax(1)[0]

    def blank(self, perturbation: Perturbation) -> Tensor:
        """The input destroyed: (1, C, *S)."""
        nothing = self.x.new_zeros(1, 1, 1, *mask_shape(perturbation, self.x))
        return prepare_perturbation(perturbation, self.x)(nothing).flatten(0, 1)


def finite_outputs(case: Case) -> Finding:
    """Outputs are finite, of the whole input and of the destroyed one."""
    inputs = {"the whole input": case.x}
    inputs |= {f"the input destroyed by {name}": case.blank(one) for name, one in case.perturbations.items()}
    broken = {name: int((~torch.isfinite(case.output(x))).sum()) for name, x in inputs.items()}
    broken = {name: count for name, count in broken.items() if count}
    if not broken:
        return Finding("finite outputs", Level.OK, "outputs are finite, of the input whole and destroyed")
    asked = [*inputs][:2]
    level = Level.PROBLEM if any(name in broken for name in asked) else Level.WARNING
    told = ", ".join(f"{count} for {name}" for name, count in broken.items())
    remedy = (
        "check the weights and the range of the input"
        if asked[0] in broken
        else "keep roots, logarithms and divisions in the network away from zero"
    )
    return Finding("finite outputs", level, f"outputs are NaN or infinite: {told}", remedy)


def deterministic(case: Case) -> Finding:
    """The same input gives the same output."""
    outputs = torch.cat([case.output(case.x) for _ in range(3)])
    gap, largest = float((outputs - outputs[:1]).abs().max()), float(outputs.abs().max())
    if gap <= ROUNDING * largest:
        return Finding("repeatable", Level.OK, "the same input gives the same output")
    told = f"outputs of the same input differ by {gap:.3g}, the largest is {largest:.3g}"
    remedy = "look for dropout that does not heed eval(), e.g. F.dropout without training=self.training, and for noise"
    return Finding("repeatable", Level.PROBLEM, told, remedy)


def rows_independent(case: Case) -> Finding:
    """An input gives the same output alone and next to others."""
    name, remedy = "rows by themselves", "look for statistics over the batch axis, e.g. batch norm without running ones"
    noise = case.blank(Noise())
    alone = case.output(case.x)
    try:
        beside = case.output(torch.cat([case.x, noise, -2 * case.x]))[:1]
    except Exception as error:  # e.g. a batch size that is fixed
        return Finding(name, Level.PROBLEM, f"a batch of 3 fails: {one_line(error)}", "let it take batches of any size")
    gap = float((beside - alone).abs().max())
    if gap <= ROUNDING * float(alone.abs().max()):
        return Finding(name, Level.OK, "an input gives the same output alone and next to others")
    return Finding(name, Level.PROBLEM, f"the output of an input differs by {gap:.3g} with others beside it", remedy)


def depends_on_the_input(case: Case) -> Finding:
    """Other inputs score differently."""
    name, full = "depends on the input", float(case.ask(case.x))
    others = [case.blank(Noise()), torch.zeros_like(case.x), torch.ones_like(case.x)]
    gap = max(abs(float(case.ask(other)) - full) for other in others)
    if not gap <= SCORE_TOLERANCE * max(1.0, abs(full)):
        return Finding(name, Level.OK, f"scores differ by {gap:.3g} between the input, noise, zeros and ones")
    told = f"the input, noise, zeros and ones all score {full:.4g}"
    return Finding(name, Level.PROBLEM, told, "look for weights of zero or an output that is a constant")


def raw_outputs(case: Case) -> Finding:
    """The network returns logits, not probabilities."""
    name, output = "raw outputs", case.output(case.x)[0]
    if case.class_index is None or len(output) < 2:
        return Finding(name, Level.OK, "there are no classes to compare")
    total = float(output.sum())
    if bool((output < 0).any()) or abs(total - 1) > ROUNDING:
        return Finding(name, Level.OK, "outputs are no probabilities")
    told = f"outputs are probabilities: none is negative, and they sum to {total:.4g}"
    return Finding(name, Level.WARNING, told, "take the softmax off the end of the network: scores are made of logits")


def gradient(case: Case) -> Finding:
    """The score has a finite gradient with respect to masks that is not zero."""
    name, perturbation = "gradient", next(iter(case.perturbations.values()))
    perturb, slopes = prepare_perturbation(perturbation, case.x), list[Tensor]()
    for level in CONSTANT_MASKS:
        mask = case.x.new_full((1, 1, 1, *mask_shape(perturbation, case.x)), level).requires_grad_()
        try:
            with torch.enable_grad():
                score = case.ask(perturb(mask).flatten(0, 1))
                if not score.requires_grad:
                    remedy = "look for no_grad, detach, rounding or argmax inside the network"
                    return Finding(name, Level.PROBLEM, "the score has no gradient with respect to the input", remedy)
                slopes.append(torch.autograd.grad(score.sum(), mask)[0])
        except RuntimeError as error:
            remedy = "look for operations that change tensors in place, like x += 1 or relu(inplace=True)"
            return Finding(name, Level.PROBLEM, f"the gradient cannot be taken: {one_line(error)}", remedy)
    found = torch.stack(slopes)
    broken = int((~torch.isfinite(found)).sum())
    if broken:
        told = f"{broken} of {found.numel()} slopes at constant masks are NaN or infinite"
        return Finding(name, Level.PROBLEM, told, "look for roots, norms or logarithms of zero inside the network")
    largest = float(found.flatten(1).abs().sum(1).max())
    if largest <= SCORE_TOLERANCE:
        remedy = "look for steps or saturated functions inside the network, or ask with another score"
        return Finding(name, Level.PROBLEM, f"slopes at constant masks sum to at most {largest:.2g}", remedy)
    return Finding(name, Level.OK, f"slopes at constant masks are finite and sum to at most {largest:.3g}")


def destruction_lowers_score(case: Case) -> Finding:
    """Destroying the input takes the answer away."""
    full = float(case.ask(case.x))
    blanks = {name: float(case.ask(case.blank(one))) + 0.0 for name, one in case.perturbations.items()}  # no −0
    told = f"the whole scores {full:.4g}; destroyed by " + ", ".join(f"{k} {v:.4g}" for k, v in blanks.items())
    spans = {name: full - blank for name, blank in blanks.items() if math.isfinite(blank)}
    asked, best = next(iter(spans)), max(spans, key=lambda name: spans[name])
    least = max(SCORE_TOLERANCE * max(1.0, abs(full)), MIN_CHANGE * max(map(abs, spans.values())))
    if spans[asked] > least:
        return Finding("destroyed", Level.OK, told)
    remedy = (
        f"ask with the perturbation {best}, which takes {spans[best]:.3g} away"
        if spans[best] > least
        else "none takes the answer away: ask about a class that the network sees, or with another score"
    )
    return Finding("destroyed", Level.PROBLEM, told, remedy)


def saturation(case: Case) -> Finding:
    """Where a probability is asked, it is not at its end, where it has no slope."""
    asked = getattr(case.score, "__name__", type(case.score).__name__)
    if case.class_index is None or case.score not in (probability, log_probability):
        what = "no class is asked about" if case.class_index is None else f"asked with {asked}, not with a probability"
        return Finding("saturation", Level.OK, what)
    sure = float(case.shares()[case.class_index])
    told = f"the probability of {case.name} is {sure:.7g}"
    if 1 - sure > SATURATION:
        return Finding("saturation", Level.OK, told)
    x, index = case.x.clone().requires_grad_(), torch.tensor([case.class_index], device=case.x.device)
    with torch.enable_grad():
        output = case.run(x * 1)
        slopes = [
            torch.autograd.grad(one(output, index).sum(), x, retain_graph=True)[0] for one in (case.score, margin)
        ]
    ratio = float(slopes[0].abs().sum() / slopes[1].abs().sum().clamp_min(1e-30))
    told = f"{told}, where {asked} has {ratio:.1e} of the margin's slope"
    return Finding("saturation", Level.PROBLEM, told, "ask with the score margin or logit")


def clear_class(case: Case) -> Finding:
    """Where no class is named, the top class is clear."""
    name = "clear class"
    if case.class_index is None or len(shares := case.shares()) < 2:
        return Finding(name, Level.OK, f"asked about {case.name}")
    first, second = shares.topk(2).indices.tolist()
    if case.chosen:
        return Finding(name, Level.OK, f"{case.name} has {_percent(shares[case.class_index])}")
    told = (
        f"{case.name} has {_percent(shares[first])}, then {case.run.network.label(second)} {_percent(shares[second])}"
    )
    if float(shares[first]) >= CLEAR_RATIO * float(shares[second]):
        return Finding(name, Level.OK, told)
    return Finding(name, Level.WARNING, told, "name the class that is meant, or explain one after the other")


def _percent(share: Tensor) -> str:
    return f"{100 * float(share):.1f} %"
