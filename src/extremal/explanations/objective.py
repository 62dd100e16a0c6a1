"""The objective: Φ over masks for a batch of inputs."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.settings import Settings
from extremal.masking.domain import Domain
from extremal.masking.games import Evaluate, Game
from extremal.masking.perturbations import Perturb, Perturbation, prepare_perturbation, with_spacing
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
    perturbation: Perturbation
    perturb: Perturb
    domain: Domain  # of the masks
    game: Game
    class_indices: tuple[ResolvedClass | None, ...]  # (N,); of a group several; None if the query is not about a class
    names: tuple[str, ...]  # (N,)
    score_input: Tensor  # (N,)
    score_destroyed: Tensor  # (N,)

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """S, the shape of a mask."""
        return self.domain.shape

    def evaluator(self, perturb: Perturb, mirrored: bool = False) -> Evaluate:
        """Return Φ(mask ⊗ x) under a perturbation as a function (N, K, 1, *S) -> (N, K)."""

        def evaluate(mask: Tensor) -> Tensor:
            inputs = perturb(mask)
            if mirrored:
                inputs = inputs.flip(-1)
            index = self.input_index.repeat_interleave(mask.shape[1])
            return self.ask(inputs.flatten(0, 1), index).view(mask.shape[:2])

        return evaluate

    def evaluate(self, mask: Tensor) -> Tensor:
        """Return Φ(mask ⊗ x) under the perturbation of the run."""
        return self.evaluator(self.perturb)(mask)

    def reward(self, mask: Tensor, mirrored: bool) -> Tensor:
        """Return the game's rewards of masks: (N, K, 1, *S) -> (N, K)."""
        rewards = self.game.reward(self.evaluator(self.perturb, mirrored), mask)
        if rewards.shape != mask.shape[:2]:
            raise ExtremalValueError(
                f"a game must return one reward per mask, (N, K) = {tuple(mask.shape[:2])}, got {tuple(rewards.shape)}"
            )
        return rewards

    def check_gradient(self, name: str) -> None:
        """Raise if the reward has no gradient with respect to a mask; costs one forward-backward pass.

        Args:
            name: of the network.
        """
        first = self.subset(0, 1)
        mask = first.x.new_full((1, 1, 1, *self.mask_shape), 0.5).requires_grad_()
        gradient: Tensor | None = None
        try:
            reward = first.reward(mask, False)
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
            perturb=prepare_perturbation(self.perturbation, self.x[inputs]),
            class_indices=self.class_indices[inputs],
            names=self.names[inputs],
            score_input=self.score_input[inputs],
            score_destroyed=self.score_destroyed[inputs],
        )

    def destroyed_inputs(self) -> Tensor:
        """Return the inputs destroyed completely: (N, C, *S)."""
        return self.perturb(self.x.new_zeros(len(self.x), 1, 1, *self.mask_shape)).flatten(0, 1)


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


def build_objective(run: Run | Split, x: Tensor, query: Query, settings: Settings) -> Objective:
    """Build the objective of prepared inputs (N, C, *S): bind the query, and score the inputs whole and destroyed.

    After a split, the inputs are the activations (N, K, ...) at its layer.

    Raises:
        ExtremalValueError, ExtremalTypeError: query, output or scores break a rule, or nothing depends on the input.
    """
    net = run.network
    perturbation = with_spacing(settings.perturbation, net.spacing)
    perturb, domain = prepare_perturbation(perturbation, x), settings.domain(net, x)
    index = torch.arange(len(x), device=x.device)
    with torch.no_grad():
        target = bind_target(run, x, query)
        score_input = target.score_input
        destroyed = perturb(x.new_zeros(len(x), 1, 1, *domain.shape)).flatten(0, 1)
        score_destroyed = target.ask(destroyed, index)
        first = torch.cat([x[:1], destroyed[:1]])
        _check_rows_independent(target.ask, first, torch.stack([score_input[0], score_destroyed[0]]), net.name)
    _check_finite(score_input, "the whole input", net)
    _check_finite(score_destroyed, "the destroyed input", net)
    for n, (high, low) in enumerate(zip(score_input.tolist(), score_destroyed.tolist(), strict=True)):
        if abs(high - low) <= 1e-6 * max(1.0, abs(high)):
            raise ExtremalValueError(
                f"a score must change when the input is destroyed, input {n} scores {high:.6g} whole and {low:.6g} "
                "destroyed; the network does not depend on the input, or the perturbation does not change it: "
                "try another perturbation, score or target"
            )
    return Objective(
        x=x,
        input_index=index,
        ask=target.ask,
        perturbation=perturbation,
        perturb=perturb,
        domain=domain,
        game=settings.game,
        class_indices=target.class_indices,
        names=target.names,
        score_input=score_input,
        score_destroyed=score_destroyed,
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
