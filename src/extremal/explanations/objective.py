"""The question: what is asked of a network about a batch of inputs, as functions of masks."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.settings import Terms
from extremal.masking.domain import Domain
from extremal.masking.games import Evaluate, Game
from extremal.masking.perturbations import Perturb, Perturbation, prepared, spaced
from extremal.networks.network import Network, Run
from extremal.networks.split import Split
from extremal.scores import BoundQuery, PerInput, Score
from extremal.scores.query import per_row
from extremal.scores.target import Target, queried, resolve_targets

MIXED = 0.05  # of the scores, by which they may change with what else is in the batch; rounding is far below


@dataclass(frozen=True, eq=False)
class Question:
    """Φ over masks for a batch of inputs."""

    x: Tensor  # (N, C, *S)
    images: Tensor  # (N,) int64: which of the inputs that were posed these are
    ask: BoundQuery  # inputs (R, C, *S), of which image each is (R,) -> (R,)
    perturbation: Perturbation
    perturb: Perturb
    domain: Domain  # of the masks
    game: Game
    target: tuple[int, ...]
    names: tuple[str, ...]
    full: Tensor  # (N,)
    blank: Tensor  # (N,)

    @property
    def places(self) -> tuple[int, ...]:
        """S, the shape of a mask."""
        return self.domain.shape

    def evaluator(self, perturb: Perturb, mirrored: bool = False) -> Evaluate:
        """Φ(mask ⊗ x) under a perturbation: (N, K, 1, *S) -> (N, K)."""

        def evaluate(mask: Tensor) -> Tensor:
            inputs = perturb(mask)
            if mirrored:
                inputs = inputs.flip(-1)
            images = self.images.repeat_interleave(mask.shape[1])
            return self.ask(inputs.flatten(0, 1), images).view(mask.shape[:2])

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

    def check_gradient(self, name: str) -> None:
        """Raise where the reward has no gradient with respect to a mask; costs one forward-backward pass.

        Args:
            name: of the network.
        """
        first = self.part(0, 1)
        mask = first.x.new_full((1, 1, 1, *self.places), 0.5).requires_grad_()
        slope: Tensor | None = None
        try:
            reward = first.reward(mask, False)
            if reward.requires_grad:
                (slope,) = torch.autograd.grad(reward.sum(), mask, allow_unused=True)
        except RuntimeError as error:
            if "inplace operation" not in str(error) and "in-place operation" not in str(error):
                raise
            raise ExtremalValueError(
                f"a network must not change in place what its gradient needs, {name} does; "
                f"replace operations like x += 1 or relu(inplace=True) inside it ({str(error).splitlines()[0][:120]})"
            ) from None
        if slope is None:
            raise ExtremalValueError(
                f"a network's score must depend on its input with a gradient, {name}'s does not; "
                "look for no_grad, detach, rounding or argmax inside it"
            )

    def part(self, first: int, last: int) -> "Question":
        """The same question about inputs first .. last − 1."""
        if (first, last) == (0, len(self.x)):
            return self
        here = slice(first, last)
        return replace(
            self,
            x=self.x[here],
            images=self.images[here],
            perturb=prepared(self.perturbation, self.x[here]),
            target=self.target[here],
            names=self.names[here],
            full=self.full[here],
            blank=self.blank[here],
        )

    def blanks(self) -> Tensor:
        """The inputs destroyed: (N, C, *S)."""
        return self.perturb(self.x.new_zeros(len(self.x), 1, 1, *self.places)).flatten(0, 1)


def pose(net: Network, run: Run | Split, x: Tensor, target: Target, terms: Terms) -> Question:
    """The question about prepared inputs (N, C, *S): its target, and the scores of the whole and the destroyed.

    After a split, the inputs are the activations (N, K, ...) at its layer.

    Raises:
        ExtremalValueError, ExtremalTypeError: target, output or scores break a rule, or nothing depends on the input.
    """
    perturbation = spaced(terms.perturbation, net.spacing)
    perturb, domain = prepared(perturbation, x), terms.domain(net, x)
    images = torch.arange(len(x), device=x.device)
    query = queried(target)
    with torch.no_grad():
        if query is not None:
            indices, asked = (-1,) * len(x), query.bind(run, x)
            names = query.names if isinstance(query, PerInput) else (query.name,) * len(x)
            full = asked(x, images)
        else:
            output = run(x, images)
            _check_finite(output, "the whole input", net)
            indices = resolve_targets(net, output, target)
            names = tuple(net.label(index) for index in indices)
            classes = torch.tensor(indices, device=x.device)
            asked = _class_scores(run, terms.score, classes)
            full = per_row(terms.score(output, classes), len(x), "score")
        nothing = x.new_zeros(len(x), 1, 1, *domain.shape)
        destroyed = perturb(nothing).flatten(0, 1)
        blank = asked(destroyed, images)
        _check_rows(asked, torch.cat([x[:1], destroyed[:1]]), torch.stack([full[0], blank[0]]), net.name)
    _check_finite(full, "the whole input", net)
    _check_finite(blank, "the destroyed input", net)
    for n, (high, low) in enumerate(zip(full.tolist(), blank.tolist(), strict=True)):
        if abs(high - low) <= 1e-6 * max(1.0, abs(high)):
            raise ExtremalValueError(
                f"a score must change when the input is destroyed, input {n} scores {high:.6g} whole and {low:.6g} "
                "destroyed; the network does not depend on the input, or the perturbation does not change it: "
                "try another perturbation, score or target"
            )
    return Question(x, images, asked, perturbation, perturb, domain, terms.game, indices, names, full, blank)


def _class_scores(run: Run | Split, score: Score, classes: Tensor) -> BoundQuery:
    def ask(inputs: Tensor, images: Tensor) -> Tensor:
        return per_row(score(run(inputs, images), classes[images]), len(inputs), "score")

    return ask


def _check_rows(asked: BoundQuery, rows: Tensor, scores: Tensor, name: str) -> None:
    """Raise where two inputs score otherwise side by side than in their own batches; costs two evaluations."""
    beside = asked(rows, rows.new_zeros(2, dtype=torch.int64))
    least = MIXED * max(float(scores.abs().max()), float((scores[0] - scores[1]).abs()), 1e-6)
    gap = float((beside - scores).abs().max())
    if gap > least:  # the number of rows may round otherwise, and decide what a detector leaves out
        twice = asked(rows[:1].expand_as(rows), rows.new_zeros(2, dtype=torch.int64))
        gap = float((beside[0] - twice[0]).abs())
    if gap > least:
        raise ExtremalValueError(
            f"a network must score each input of a batch by itself, {name}'s scores differ by {gap:.3g} with another "
            "input beside; look for statistics over the batch axis, or noise, inside it"
        )


def _check_finite(scores: Tensor, what: str, net: Network) -> None:
    broken = int((~torch.isfinite(scores)).sum())
    if not broken:
        return
    told = f"a network must return finite scores, {net.name} returned {broken} NaN or infinite ones for {what}"
    weights = net.broken_weights()
    if weights:
        name, bad = next(iter(weights.items()))
        raise ExtremalValueError(f"{told}, {bad} of its weights {name!r} are not finite; load it again")
    raise ExtremalValueError(f"{told}; check its weights and the range of the input")
