"""The objective: Φ over masks for a batch of inputs."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.layer_maps import compute_layer_map, recorded_outputs
from extremal.explanations.settings import Settings
from extremal.explanations.ways import Ways, choose_ways
from extremal.masking.domain import Domain
from extremal.masking.games import Evaluate, Game
from extremal.masking.perturbations import (
    Mix,
    Perturb,
    Perturbation,
    mask_shape,
    prepare_perturbation,
    split_ways,
    with_spacing,
)
from extremal.masking.solvers.problem import Attribution, Orientation, Problem, RewardMasks, WayIndex
from extremal.networks.attribution_layers import AttributionLayer
from extremal.networks.network import Network, Run
from extremal.networks.split import Split
from extremal.scores.class_group import ResolvedClass, encode_classes
from extremal.scores.class_query import ClassQuery
from extremal.scores.query import BoundQuery, PerInput, Query, per_row

MAX_BATCH_EFFECT = 0.05  # of the scores: largest change due to other inputs in the batch; rounding is far below


@dataclass(frozen=True, eq=False)
class BoundTarget:
    """A query bound to a frozen network and a batch of inputs."""

    ask: BoundQuery  # inputs (R, C, *S), the index of each one's original (R,) -> scores (R,)
    class_indices: tuple[ResolvedClass | None, ...]  # (N,); of a group several; None if the query is not about a class
    names: tuple[str, ...]  # (N,)
    score_input: Tensor  # (N,) scores of the inputs


@dataclass(frozen=True, eq=False)
class Objective:
    """Φ over masks for a batch of inputs."""

    x: Tensor  # (N, C, *S)
    input_index: Tensor  # (N,) int64: which of the inputs that the query was bound to these are
    ask: BoundQuery  # inputs (R, C, *S), the index of each one's original (R,) -> scores (R,)
    perturbation: Perturbation | Mix
    ways: Ways  # of destroying the inputs, prepared
    domain: Domain  # of the masks
    game: Game
    class_indices: tuple[ResolvedClass | None, ...]  # (N,); of a group several; None if the query is not about a class
    names: tuple[str, ...]  # (N,)
    score_input: Tensor  # (N,)
    layers: tuple[AttributionLayer, ...] = ()  # whose maps `attribute` returns

    @property
    def score_destroyed(self) -> Tensor:
        """The scores of the destroyed inputs (N,), of a mix the mean over the ways that count."""
        return self.ways.blank

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """S, the shape of a mask."""
        return self.domain.shape

    def evaluator(self, perturb: Perturb, mirrored: bool = False) -> Evaluate:
        """Return Φ(mask ⊗ x) under a perturbation as a function (N, K, 1, *S) -> (N, K)."""

        def evaluate(mask: Tensor) -> Tensor:
            inputs = perturb(mask)
            return self._ask(inputs.flip(-1) if mirrored else inputs)

        return evaluate

    def evaluate(self, mask: Tensor) -> Tensor:
        """Return Φ(mask ⊗ x) under the perturbation of the run: of a mix the mean over its ways, one at a time."""
        scores = [self.evaluate_way(mask, way) for way in range(len(self.ways))]
        return scores[0] if len(scores) == 1 else self.ways.average(torch.stack(scores, 1))

    def evaluate_way(self, mask: Tensor, way: WayIndex, mirrored: Orientation = False) -> Tensor:
        """Return Φ(mask ⊗ x) by a way, or by one for each mask, on the scale of all ways: (N, K, 1, *S) -> (N, K).

        All masks go through the network in one batch, in their own orientations.

        Args:
            mask: (N, K, 1, *S).
            way: 0 .. W − 1, one for all masks or one for each; fewer than K are repeated. None: the mean over all ways.
            mirrored: whether the input is mirrored, for all masks or for each.
        """
        columns, n_ways = range(mask.shape[1]), len(self.ways)
        mirrors = [mirrored if isinstance(mirrored, bool) else mirrored[k % len(mirrored)] for k in columns]
        if way is None:
            scores = self._evaluate_each(mask, [(k, w, mirrors[k]) for w in range(n_ways) for k in columns])
            return self.ways.average(scores.view(len(scores), n_ways, -1))
        ways = [way if isinstance(way, int) else way[k % len(way)] for k in columns]
        return self._evaluate_each(mask, zip(columns, ways, mirrors, strict=True))

    def _evaluate_each(self, mask: Tensor, evaluations: Iterable[tuple[int, int, bool]]) -> Tensor:
        """Return the scores (N, R) of R evaluations in one batch, each a column of the mask, a way, an orientation."""
        evaluations = list(evaluations)
        groups: dict[tuple[int, bool], list[int]] = {}
        for index, (_, way, is_mirrored) in enumerate(evaluations):
            groups.setdefault((way, is_mirrored), []).append(index)
        parts = []
        for (way, is_mirrored), members in groups.items():
            columns = [evaluations[index][0] for index in members]
            inputs = self.ways.perturb(mask if columns == list(range(mask.shape[1])) else mask[:, columns], way)
            parts.append(inputs.flip(-1) if is_mirrored else inputs)
        scores = self._ask(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
        order = [index for members in groups.values() for index in members]
        if order != sorted(order):
            scores = scores[:, torch.tensor(order).argsort()]
        return self.ways.rescale(scores, [way for _, way, _ in evaluations])

    def _ask(self, inputs: Tensor) -> Tensor:
        """Return Φ of perturbed inputs: (N, K, C, *S) -> (N, K)."""
        index = self.input_index.repeat_interleave(inputs.shape[1])
        return self.ask(inputs.flatten(0, 1), index).view(inputs.shape[:2])

    def reward(self, mask: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        """Return the game's rewards of masks: (N, K, 1, *S) -> (N, K), with ways as `evaluate_way` takes them."""
        rewards = self.game.reward(lambda rows: self.evaluate_way(rows, way, mirrored), mask)
        if rewards.shape != mask.shape[:2]:
            raise ExtremalValueError(
                f"a game must return one reward per mask, (N, K) = {tuple(mask.shape[:2])}, got {tuple(rewards.shape)}"
            )
        return rewards

    def attribute(self, mask: Tensor, mirrored: bool, way: int) -> Attribution:
        """Return the rewards of masks (N, K, 1, *S), their gradients, and maps of the layers (`layer_maps`).

        A map is positive where the activations raise the reward; if masks delete, where they would lower it.
        """
        mask, count = mask.detach().requires_grad_(), mask.shape[:2]
        scores = list[Tensor]()

        def evaluate(rows: Tensor) -> Tensor:
            scores.append(self.evaluate_way(rows, way, mirrored))
            return scores[-1]

        with torch.enable_grad(), recorded_outputs(self.layers) as calls:
            rewards = self.game.reward(evaluate, mask)
            is_complete = [[len(output) for output in outputs] == [count.numel()] * len(scores) for outputs in calls]
            outputs = [
                output for complete, recorded in zip(is_complete, calls, strict=True) if complete for output in recorded
            ]
            gradients = torch.autograd.grad(rewards.sum(), [mask, *scores, *outputs], allow_unused=True)
        gradient, by_score, rest = gradients[0], gradients[1 : 1 + len(scores)], iter(gradients[1 + len(scores) :])
        signs = [
            values.new_ones(count) if slope is None else slope.sign()
            for slope, values in zip(by_score, scores, strict=True)
        ]
        maps = []
        for layer, recorded, complete in zip(self.layers, calls, is_complete, strict=True):
            total = mask.new_zeros(count.numel(), 1, *layer.lattice)
            for output, sign in zip(recorded, signs, strict=True) if complete else ():
                slope = next(rest)
                if slope is not None:
                    signed = slope * sign.reshape(-1, *[1] * (slope.ndim - 1))
                    total += compute_layer_map(layer, output.detach(), signed, layer is self.layers[-1])
            maps.append((total.flip(-1) if mirrored else total).view(*count, *total.shape[1:]))
        gradient = torch.zeros_like(mask) if gradient is None else gradient.nan_to_num(0.0, 0.0, 0.0)
        return Attribution(rewards.detach(), gradient, tuple(maps))

    def check_gradient(self, name: str) -> None:
        """Raise if the reward has no gradient with respect to a mask; costs one forward-backward pass.

        Args:
            name: of the network.
        """
        first = self.subset(0, 1)
        mask = first.x.new_full((1, 1, 1, *self.mask_shape), 0.5).requires_grad_()
        gradient: Tensor | None = None
        try:
            reward = first.reward(mask, False, 0)
            if reward.requires_grad:
                (gradient,) = torch.autograd.grad(reward.sum(), mask, allow_unused=True)
        except RuntimeError as error:
            if "inplace operation" not in str(error) and "in-place operation" not in str(error):
                raise
            raise ExtremalValueError(
                f"a network must not change in place what its gradient needs, {name} does; "
                f"replace operations like x += 1 or relu(inplace=True) inside it ({str(error).splitlines()[0][:120]})"
            ) from None
        if gradient is None:
            raise ExtremalValueError(
                f"a network's score must depend on its input with a gradient, {name}'s does not; "
                "look for no_grad, detach, rounding or argmax inside it"
            )

    def subset(self, first: int, last: int) -> "Objective":
        """Return the objective of inputs first .. last − 1."""
        if (first, last) == (0, len(self.x)):
            return self
        inputs = slice(first, last)
        return replace(
            self,
            x=self.x[inputs],
            input_index=self.input_index[inputs],
            ways=self.ways.subset(inputs, _prepare_ways(self.perturbation, self.x[inputs])),
            class_indices=self.class_indices[inputs],
            names=self.names[inputs],
            score_input=self.score_input[inputs],
        )

    def destroyed_inputs(self) -> Tensor:
        """Return the inputs destroyed completely: (N, C, *S); by a mix, by its first way that counts."""
        return self.ways.perturb(self.x.new_zeros(len(self.x), 1, 1, *self.mask_shape), 0).flatten(0, 1)


def _prepare_ways(perturbation: Perturbation | Mix, x: Tensor) -> tuple[Perturb, ...]:
    """Prepare the ways of a perturbation for inputs x, whose masks must have one shape."""
    mask_shape(perturbation, x)
    return tuple(prepare_perturbation(way, x) for way in split_ways(perturbation).values())


def bind_target(run: Run | Split, x: Tensor, query: Query) -> BoundTarget:
    """Bind a query to a frozen network and inputs x (N, C, *S), and score these; costs one evaluation of each.

    Raises:
        ExtremalValueError, ExtremalTypeError: the query does not fit the network, or its output is not finite.
    """
    net = run.network
    index = torch.arange(len(x), device=x.device)
    if not isinstance(query, ClassQuery):
        bound = query.bind(run, x)
        names = query.names if isinstance(query, PerInput) else (query.name,) * len(x)
        return BoundTarget(bound, (None,) * len(x), names, bound(x, index))
    output = run(x, index)
    _check_finite(output, "the whole input", net)
    indices = query.resolve(net, output)
    classes = encode_classes(indices, output)
    scores = per_row(query.score(output, classes), len(x), "score")
    return BoundTarget(query.bind_classes(run, classes), indices, tuple(map(net.label, indices)), scores)


def build_objective(
    run: Run | Split, x: Tensor, query: Query, settings: Settings, layers: tuple[AttributionLayer, ...] = ()
) -> Objective:
    """Build the objective of prepared inputs (N, C, *S): bind the query, and score the inputs whole and destroyed.

    After a split, the inputs are the activations (N, K, ...) at its layer.

    Args:
        run: the frozen network, or a split.
        x: the inputs.
        query: about each.
        settings: of the run.
        layers: whose maps a solver starts from.

    Raises:
        ExtremalValueError, ExtremalTypeError: query, output or scores break a rule, or nothing depends on the input.
    """
    net = run.network
    perturbation = with_spacing(settings.perturbation, net.spacing)
    perturbs, domain = _prepare_ways(perturbation, x), settings.domain(net, x)
    index = torch.arange(len(x), device=x.device)
    with torch.no_grad():
        target = bind_target(run, x, query)
        score_input = target.score_input
        zeros = x.new_zeros(len(x), 1, 1, *domain.shape)
        destroyed = torch.stack([target.ask(perturb(zeros).flatten(0, 1), index) for perturb in perturbs], 1)
        way_names, counts = tuple(split_ways(settings.perturbation)), choose_ways(score_input, destroyed)
        ways = Ways(way_names, perturbs, destroyed, score_input, counts)
        _check_finite(score_input, "the whole input", net)
        _check_finite(destroyed[destroyed.isfinite().sum(1) == 0], "the destroyed input", net)
        first = torch.cat([x[:1], ways.perturb(zeros, 0).flatten(0, 1)[:1]])
        scores = torch.stack([score_input[0], ways.own_blank(0)[0]])
        _check_rows_independent(target.ask, first, scores, net.name)
    _check_spans(score_input, destroyed)
    return Objective(
        x=x,
        input_index=index,
        ask=target.ask,
        perturbation=perturbation,
        ways=ways,
        domain=domain,
        game=settings.game,
        class_indices=target.class_indices,
        names=target.names,
        score_input=score_input,
        layers=layers,
    )


def build_problem(reward: RewardMasks, objective: Objective, mirror: bool, seed: int) -> Problem:
    """Build the problem of an objective for a solver.

    Args:
        reward: of masks; one that can `attribute` gives the solver maps to start from.
        objective: of N inputs.
        mirror: whether the mirrored inputs ask the same question.
        seed: of the solver's random numbers.
    """
    x, domain = objective.x, objective.domain
    differences = None
    if domain.has_neighbours:
        with torch.no_grad():
            differences = (x - objective.destroyed_inputs()).square().mean(1, keepdim=True)
    return Problem(
        reward=reward,
        count=len(x),
        domain=domain,
        mirror_invariant=mirror,
        dtype=x.dtype,
        device=x.device,
        seed=seed,
        ways=len(objective.ways),
        attribute=getattr(reward, "attribute", None),
        differences=differences,
        spans=(objective.score_input - objective.score_destroyed).abs(),
    )


def _check_spans(score_input: Tensor, destroyed: Tensor) -> None:
    """Raise if no way of destroying changes the score of an input."""
    spans = (score_input.unsqueeze(1) - destroyed).abs().nan_to_num(0.0, 0.0)
    largest = spans.argmax(1, keepdim=True)
    lows = destroyed.gather(1, largest)[:, 0].tolist()
    for n, (high, low) in enumerate(zip(score_input.tolist(), lows, strict=True)):
        if abs(high - low) <= 1e-6 * max(1.0, abs(high)):
            raise ExtremalValueError(
                f"a score must change when the input is destroyed, input {n} scores {high:.6g} whole and {low:.6g} "
                "destroyed; the network does not depend on the input, or the perturbation does not change it: "
                "try another perturbation, score or target"
            )


def _check_rows_independent(ask: BoundQuery, rows: Tensor, scores: Tensor, name: str) -> None:
    """Raise if the scores of two inputs change when they are evaluated in one batch; costs two evaluations."""
    together = ask(rows, rows.new_zeros(2, dtype=torch.int64))
    allowed = MAX_BATCH_EFFECT * max(float(scores.abs().max()), float((scores[0] - scores[1]).abs()), 1e-6)
    change = float((together - scores).abs().max())
    if change > allowed:  # the batch size may change the rounding, which decides what a detector drops
        twice = ask(rows[:1].expand_as(rows), rows.new_zeros(2, dtype=torch.int64))
        change = float((together[0] - twice[0]).abs())
    if change > allowed:
        raise ExtremalValueError(
            f"a network must score each input independently, {name}'s score changed by {change:.3g} when another "
            "input was added to the batch; look for statistics over the batch axis, or noise, inside it"
        )


def _check_finite(scores: Tensor, subject: str, net: Network) -> None:
    n_broken = int((~torch.isfinite(scores)).sum())
    if not n_broken:
        return
    message = f"a network must return finite scores, {net.name} returned {n_broken} NaN or infinite ones for {subject}"
    weights = net.count_nonfinite_weights()
    if weights:
        name, count = next(iter(weights.items()))
        raise ExtremalValueError(f"{message}, {count} of its weights {name!r} are not finite; load it again")
    raise ExtremalValueError(f"{message}; check its weights and the range of the input")
