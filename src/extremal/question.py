"""The question: what is asked of a network about a batch of inputs, as functions of masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.games import Evaluate, Game
from extremal.network import Network, Run
from extremal.perturbations import Perturb, Perturbation, places_of, prepared
from extremal.split import Split
from extremal.terms import Terms

Ask = Callable[[Any], Tensor]  # output of the network -> (B,)
Target = int | str | Sequence[int | str] | Tensor | Ask | None


@dataclass(frozen=True, eq=False)
class Question:
    """Φ over masks for a batch of inputs."""

    x: Tensor  # (N, C, *S)
    images: Tensor  # (N,) int64: which of the inputs that were posed these are
    ask: Callable[[Tensor, Tensor], Tensor]  # inputs (R, C, *S), of which image each is (R,) -> (R,)
    perturbation: Perturbation
    perturb: Perturb
    game: Game
    target: tuple[int, ...]
    names: tuple[str, ...]
    full: Tensor  # (N,)
    blank: Tensor  # (N,)

    @property
    def places(self) -> tuple[int, ...]:
        """S, the shape of a mask."""
        return places_of(self.perturbation, self.x)

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

    def has_gradient(self) -> bool:
        """Whether the reward has a gradient with respect to a mask at all; costs one forward pass."""
        first = self.part(0, 1)
        mask = first.x.new_full((1, 1, 1, *self.places), 0.5).requires_grad_()
        return first.reward(mask, False).requires_grad

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
    perturb = prepared(terms.perturbation, x)
    images = torch.arange(len(x), device=x.device)
    with torch.no_grad():
        if callable(target) and not isinstance(target, Tensor):
            indices, ask = (-1,) * len(x), _asked(run, target)
            names = (getattr(target, "__name__", type(target).__name__),) * len(x)
            full = ask(x, images)
        else:
            output = run(x, images)
            _check_finite(output, "the whole input", net.name)
            indices = resolve_targets(net, output, target)
            classes = torch.tensor(indices, device=x.device)
            names = tuple(net.label(index) for index in indices)

            def ask(inputs: Tensor, of: Tensor) -> Tensor:
                return _per_row(terms.score(run(inputs, of), classes[of]), len(inputs), "score")

            full = _per_row(terms.score(output, classes), len(x), "score")
        nothing = x.new_zeros(len(x), 1, 1, *places_of(terms.perturbation, x))
        blank = ask(perturb(nothing).flatten(0, 1), images)
    _check_finite(full, "the whole input", net.name)
    _check_finite(blank, "the destroyed input", net.name)
    for n, (high, low) in enumerate(zip(full.tolist(), blank.tolist(), strict=True)):
        if abs(high - low) <= 1e-6 * max(1.0, abs(high)):
            raise ExtremalValueError(
                f"a score must change when the input is destroyed, input {n} scores {high:.6g} whole and {low:.6g} "
                "destroyed; the network does not depend on the input, or the perturbation does not change it: "
                "try another perturbation, score or target"
            )
    return Question(x, images, ask, terms.perturbation, perturb, terms.game, indices, names, full, blank)


def _asked(run: Run | Split, target: Ask) -> Callable[[Tensor, Tensor], Tensor]:
    def ask(inputs: Tensor, of: Tensor) -> Tensor:
        return _per_row(target(run.raw(inputs, of)), len(inputs), "target")

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
    each = listed(target, count)
    if each is None:
        each = [target.item() if isinstance(target, Tensor) else target] * count
    return tuple(_class_index(net, entry, classes) for entry in each)


def listed(target: Target, count: int) -> list[Any] | None:
    """The targets of `count` inputs where there is one for each; None where there is one for all.

    Raises:
        ExtremalValueError: there are more or fewer.
    """
    if isinstance(target, Tensor):
        target = target.tolist()
    if not isinstance(target, list | tuple | range):
        return None
    if len(target) != count:
        raise ExtremalValueError(f"target must be one class, or one for each of {count} inputs, got {len(target)}")
    return list(target)


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
