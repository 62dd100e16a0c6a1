"""Checks of a network's scores for a target and an input."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from extremal.explanations.answer_probability import MIN_PROBABILITY
from extremal.explanations.objective import find_gradients
from extremal.explanations.percentages import format_percent
from extremal.explanations.preflight.findings import Finding, Level, one_line
from extremal.explanations.preflight.network_checks import ROUNDING, max_difference, max_magnitude
from extremal.masking.perturbations import Noise, Perturbation, destroy, mask_shape, prepare_perturbation
from extremal.networks.reading import Head, Reading, describe_reading, guess_head, is_multi_label, read_probabilities
from extremal.networks.run import Run
from extremal.scores import Score, log_probability, logit, margin, negative, probability, sigmoid
from extremal.scores.class_group import ResolvedClass, encode_classes

SCORE_TOLERANCE = 1e-6  # relative; scores this close are equal, and `explain` rejects such targets
SATURATION = 1e-4  # distance from probability 1 below which a probability is saturated
MIN_CHANGE = 0.05  # of the largest change by any perturbation; a smaller change is uninformative
CLEAR_RATIO = 2.0  # times the second class's probability, from which on the top class is clear
CONSTANT_MASKS = (0.125, 0.375, 0.625, 0.875)  # levels at which the gradient is taken: `path` starts from them


@dataclass(frozen=True, eq=False)
class CheckedObjective:
    """One input and its target, bound without the checks of `build_objective`."""

    run: Run
    x: Tensor  # (1, C, *S)
    ask: Callable[[Tensor], Tensor]  # inputs (B, C, *S) -> scores (B,)
    class_index: ResolvedClass | None  # of a group several; None if the target is not a class
    name: str
    score: Score
    perturbations: dict[str, Perturbation]  # the requested one comes first, or the ways of a mix
    requested: int  # number of these
    target_named: bool  # False: the target is the top class

    def output(self, x: Tensor) -> Tensor:
        """Return outputs (B, classes) for inputs (B, C, *S), or scores (B, 1) if the target is not a class."""
        return self.ask(x)[:, None] if self.class_index is None else self.run(x.clone())

    def probabilities(self) -> Tensor:
        """Return the probabilities of the classes, as the output states them: (classes,)."""
        output = self.output(self.x)
        return read_probabilities(output, self.guess_head(output))[0]

    def target_probability(self) -> Tensor:
        """Return the probability of the class or the group: ()."""
        return self.probabilities()[self.members].sum().clamp(max=1)

    @property
    def members(self) -> list[int]:
        """The indices of the class, or of those in the group."""
        assert self.class_index is not None
        return [self.class_index] if isinstance(self.class_index, int) else list(self.class_index)

    def guess_head(self, output: Tensor) -> Head:
        """Guess what kind of output (B, classes) the network has."""
        return guess_head(output, self.empty, is_multi_label(self.run.network))

    def encode_target(self, output: Tensor) -> Tensor:
        """Return the class or the group as scores of an output (B, classes) take it."""
        assert self.class_index is not None
        return encode_classes((self.class_index,), output)

    def count_nonfinite(self, x: Tensor) -> int:
        """Count the outputs for inputs (B, C, *S) that make scores meaningless: NaN, or infinite for the target."""
        output = self.output(x)
        if bool(self.ask(x).isfinite().all()):
            return int(output.isnan().sum())
        return int((~output.isfinite()).sum())

    @cached_property
    def empty(self) -> Tensor | None:
        """Outputs (3, classes) for noise, zeros and ones; None if the target is not a class."""
        if self.class_index is None:
            return None
        inputs = (self.destroy(Noise()), torch.zeros_like(self.x), torch.ones_like(self.x))
        return torch.cat([self.output(x) for x in inputs])

    def describe_reading(self) -> Reading:
        """Return how the input and the network's output for it are understood."""
        output = self.run.evaluate(self.x.clone())
        is_class = self.class_index is not None
        return describe_reading(self.run.network, self.x, output, self.empty, is_class=is_class)

    def destroy(self, perturbation: Perturbation) -> Tensor:
        """Return the input destroyed completely: (1, C, *S)."""
        return destroy(self.x, perturbation)


def check_finite_outputs(objective: CheckedObjective) -> Finding:
    """Check that outputs are finite, for the input whole and destroyed."""
    inputs = {"the whole input": objective.x}
    for name, perturbation in objective.perturbations.items():
        inputs[f"the input destroyed by {name}"] = objective.destroy(perturbation)
    broken = {name: objective.count_nonfinite(x) for name, x in inputs.items()}
    broken = {name: count for name, count in broken.items() if count}
    if not broken:
        return Finding("finite outputs", Level.OK, "outputs are finite, for the input whole and destroyed")
    whole, *destroyed = inputs
    are_broken = all(name in broken for name in destroyed[: objective.requested])
    level = Level.PROBLEM if whole in broken or are_broken else Level.WARNING
    counts = ", ".join(f"{count} for {name}" for name, count in broken.items())
    remedy = (
        "check the weights and the range of the input"
        if whole in broken
        else "keep roots, logarithms and divisions in the network away from zero"
    )
    return Finding("finite outputs", level, f"outputs are NaN or infinite: {counts}", remedy)


def check_determinism(objective: CheckedObjective) -> Finding:
    """Check that the same input gives the same output."""
    outputs = torch.cat([objective.output(objective.x) for _ in range(3)])
    difference, largest = max_difference(outputs, outputs[:1]), max_magnitude(outputs)
    if difference <= ROUNDING * largest:
        return Finding("deterministic", Level.OK, "the same input gives the same output")
    measured = f"outputs of the same input differ by {difference:.3g}, the largest is {largest:.3g}"
    remedy = "look for noise, and for dropout that ignores eval(), e.g. F.dropout without training=self.training"
    return Finding("deterministic", Level.PROBLEM, measured, remedy)


def check_rows(objective: CheckedObjective) -> Finding:
    """Check that an input gives the same output alone and in a batch with others."""
    name, remedy = "rows independent", "look for statistics over the batch axis, e.g. batch norm without running ones"
    noise = objective.destroy(Noise())
    alone = objective.output(objective.x)
    try:
        batched = objective.output(torch.cat([objective.x, noise, -2 * objective.x]))[:1]
    except Exception as error:  # e.g. a fixed batch size
        measured = f"a batch of 3 fails: {one_line(error)}"
        return Finding(name, Level.PROBLEM, measured, "let it accept batches of any size")
    if objective.run.row_error is not None:
        measured = f"a batch of 3 fails: {one_line(objective.run.row_error)}; rows are evaluated one at a time"
        return Finding(name, Level.WARNING, measured, "let it accept batches of any size, which is faster")
    difference = max_difference(batched, alone)
    if difference <= ROUNDING * max_magnitude(alone):
        return Finding(name, Level.OK, "an input gives the same output alone and in a batch with others")
    measured = f"the output of an input differs by {difference:.3g} in a batch with others"
    return Finding(name, Level.PROBLEM, measured, remedy)


def check_dependence(objective: CheckedObjective) -> Finding:
    """Check that other inputs score differently."""
    name, x, full = "depends on the input", objective.x, float(objective.ask(objective.x))
    others = [objective.destroy(Noise()), torch.zeros_like(x), torch.ones_like(x)]
    difference = max(abs(float(objective.ask(other)) - full) for other in others)
    if not difference <= SCORE_TOLERANCE * max(1.0, abs(full)):
        return Finding(name, Level.OK, f"scores differ by {difference:.3g} between the input, noise, zeros and ones")
    measured = f"the input, noise, zeros and ones all score {full:.4g}"
    return Finding(name, Level.PROBLEM, measured, "look for weights of zero or a constant output")


def check_outputs(objective: CheckedObjective) -> Finding:
    """Check that the network returns logits, and that the score suits them: labels may exclude each other or not."""
    name, output = "raw outputs", objective.output(objective.x)
    if objective.class_index is None:
        return Finding(name, Level.OK, "there are no classes to compare")
    head = objective.guess_head(output)
    if head is Head.SINGLE:
        return _single_output(objective, float(output[0, 0]))
    if head is Head.PROBABILITIES:
        measured = f"outputs are probabilities: none is negative, and they sum to {float(output.sum()):.4g}"
        remedy = "remove the softmax at the end of the network: scores are computed from logits"
        return Finding(name, Level.WARNING, measured, remedy)
    if head is Head.LABEL_PROBABILITIES:
        measured = f"outputs look like {head}: all lie in 0..1, and they sum to {float(output.sum()):.4g}"
        remedy = "remove the sigmoid at the end of the network, and choose the score sigmoid"
        return Finding(name, Level.WARNING, measured, remedy)
    if head is Head.LABELS and objective.score not in (sigmoid, logit):
        measured = f"outputs look like {head}, which the score compares with each other"
        return Finding(name, Level.WARNING, measured, "choose the score sigmoid: the log-odds of one label alone")
    return Finding(name, Level.OK, f"outputs look like {head}")


def _single_output(objective: CheckedObjective, value: float) -> Finding:
    """Say how one output is read, and what is explained if it is negative."""
    name, chance = "raw outputs", 100 * float(torch.tensor(value).sigmoid())
    measured = f"one output, {value:.3g}, which is read as {Head.SINGLE}: {chance:.2g} %"
    if value >= 0 or objective.score is negative:
        return Finding(name, Level.OK, measured)
    measured = f"{measured}, so the network says no, and masks keep what speaks for yes"
    return Finding(name, Level.WARNING, measured, "choose the score negative to explain the no")


def check_gradient(objective: CheckedObjective) -> Finding:
    """Check that the score has a finite, non-zero gradient with respect to masks."""
    if not objective.run.network.gradient:
        return Finding("gradient", Level.OK, "no gradient: black box, to be explained with the solver search")
    name, perturbation = "gradient", next(iter(objective.perturbations.values()))
    perturb, parts = prepare_perturbation(perturbation, objective.x), list[Tensor]()
    for level in CONSTANT_MASKS:
        mask = objective.x.new_full((1, 1, 1, *mask_shape(perturbation, objective.x)), level).requires_grad_()
        try:
            with torch.enable_grad():
                score = objective.ask(perturb(mask).flatten(0, 1))
                parts += [part for part in find_gradients(score, [mask]) if part is not None]
        except RuntimeError as error:
            remedy = "look for operations that change tensors in place, like x += 1 or relu(inplace=True)"
            return Finding(name, Level.PROBLEM, f"the gradient cannot be computed: {one_line(error)}", remedy)
    if not parts:
        remedy = "look for no_grad, detach, rounding or argmax inside the network"
        return Finding(name, Level.PROBLEM, "the score has no gradient with respect to the input", remedy)
    gradients = torch.stack(parts)
    n_broken = int((~torch.isfinite(gradients)).sum())
    if n_broken:
        measured = f"{n_broken} of {gradients.numel()} gradients at constant masks are NaN or infinite"
        return Finding(name, Level.PROBLEM, measured, "look for roots, norms or logarithms of zero inside the network")
    largest = float(gradients.flatten(1).abs().sum(1).max())
    if largest <= SCORE_TOLERANCE:
        remedy = "look for steps or saturated functions inside the network, or choose another score"
        return Finding(name, Level.PROBLEM, f"gradients at constant masks sum to at most {largest:.2g}", remedy)
    return Finding(name, Level.OK, f"gradients at constant masks are finite and sum to at most {largest:.3g}")


def check_destruction(objective: CheckedObjective) -> Finding:
    """Check that destroying the input lowers the score."""
    name, full = "destruction lowers score", float(objective.ask(objective.x))
    destroyed = {
        key: float(objective.ask(objective.destroy(perturbation))) + 0.0  # no −0
        for key, perturbation in objective.perturbations.items()
    }
    scores = ", ".join(f"{key} {score:.4g}" for key, score in destroyed.items())
    measured = f"the whole input scores {full:.4g}; destroyed by {scores}"
    spans = {key: full - score for key, score in destroyed.items() if math.isfinite(score)}
    requested, best = list(destroyed)[: objective.requested], max(spans, key=lambda key: spans[key])
    min_span = max(SCORE_TOLERANCE * max(1.0, abs(full)), MIN_CHANGE * max(map(abs, spans.values())))
    if any(spans.get(key, 0.0) > min_span for key in requested):
        return Finding(name, Level.OK, measured)
    remedy = (
        f"choose the perturbation {best}, which lowers it by {spans[best]:.3g}"
        if spans[best] > min_span
        else "no perturbation lowers it: choose a class that the network sees, or another score"
    )
    return Finding(name, Level.PROBLEM, measured, remedy)


def check_saturation(objective: CheckedObjective) -> Finding:
    """Check that a score that is a probability is not saturated, so that it has a gradient."""
    score_name = getattr(objective.score, "__name__", type(objective.score).__name__)
    if objective.class_index is None or objective.score not in (probability, log_probability):
        no_class = objective.class_index is None
        measured = "the target is not a class" if no_class else f"the score is {score_name}, not a probability"
        return Finding("saturation", Level.OK, measured)
    output = objective.output(objective.x)
    value = float(probability(output, objective.encode_target(output)))  # of a softmax, as this score has it
    measured = f"the probability of {objective.name} is {value:.7g}"
    if 1 - value > SATURATION or not objective.run.network.gradient:
        return Finding("saturation", Level.OK, measured)
    x = objective.x.clone().requires_grad_()
    with torch.enable_grad():
        output = objective.run(x * 1)
        gradients = [
            torch.autograd.grad(score(output, objective.encode_target(output)).sum(), x, retain_graph=True)[0]
            for score in (objective.score, margin)
        ]
    ratio = float(gradients[0].abs().sum() / gradients[1].abs().sum().clamp_min(1e-30))
    measured = f"{measured}, at which {score_name} has {ratio:.1e} of the margin's gradient"
    return Finding("saturation", Level.PROBLEM, measured, "choose the score margin or logit")


def check_clear_class(objective: CheckedObjective) -> Finding:
    """Check that the top class is clear, unless a class is named."""
    name = "clear class"
    if objective.class_index is None or len(probabilities := objective.probabilities()) < 2:
        return Finding(name, Level.OK, f"the target is {objective.name}")
    first, second = probabilities.topk(2).indices.tolist()
    if objective.target_named:
        measured = f"{objective.name} has {_percent(objective.target_probability())}"
        return Finding(name, Level.OK, measured)
    runner_up = objective.run.network.label(second)
    measured = (
        f"{objective.name} has {_percent(probabilities[first])}, then {runner_up} {_percent(probabilities[second])}"
    )
    if float(probabilities[first]) >= CLEAR_RATIO * float(probabilities[second]):
        return Finding(name, Level.OK, measured)
    remedy = "name the class that is meant, or a group of them such as 'tabby|tiger cat', or explain each of them"
    return Finding(name, Level.WARNING, measured, remedy)


def check_answer(objective: CheckedObjective) -> Finding:
    """Check that the network gives the answer that is asked about, unless the score is the evidence against it."""
    name = "answer given"
    if objective.class_index is None or objective.score is negative:
        return Finding(name, Level.OK, "the target is no class that the network would name")
    chances = objective.probabilities()
    if len(chances) == 1:
        return Finding(name, Level.OK, "there is one output")
    top, chance = int(chances.argmax()), objective.target_probability()
    measured = f"{objective.name} has {_percent(chance)}"
    if top in objective.members or not float(chance) < MIN_PROBABILITY:
        return Finding(name, Level.OK, measured)
    measured = f"{measured}, {objective.run.network.label(top)} {_percent(chances[top])}"
    remedy = "name a class that the network sees: the region of this one shows what speaks for it, not the answer"
    return Finding(name, Level.WARNING, measured, remedy)


def _percent(probability: Tensor) -> str:
    return format_percent(float(probability), digits=1)
