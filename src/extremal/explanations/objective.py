"""The objective: Φ over masks for a batch of inputs."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.layer_maps import compute_layer_map, recorded_outputs
from extremal.explanations.scales import Resizing, scale_shape
from extremal.explanations.verdict import compute_effects
from extremal.explanations.ways import Ways
from extremal.masking.device_tensors import copy_to, select_columns
from extremal.masking.domain import Domain
from extremal.masking.games import Evaluate, Game
from extremal.masking.perturbations import (
    Mix,
    Perturb,
    Perturbation,
    mask_shape,
    prepare_perturbation,
    split_ways,
)
from extremal.masking.solvers.problem import Attribution, Orientation, WayIndex
from extremal.networks.acceleration.rectifiers import overwrite_gradients
from extremal.networks.attribution_layers import AttributionLayer
from extremal.networks.layers import has_quantised_layers
from extremal.networks.memory import RowLimit
from extremal.networks.network import Network
from extremal.scores.class_group import ResolvedClass
from extremal.scores.query import BoundQuery

T = TypeVar("T", bool, int)
MAX_JOINT_ROWS = 24  # of several ways in one batch; more at once save no time
CHECKED_MASKS = (0.5, 1.0, 0.0)  # constant masks at which a gradient is looked for: detectors find nothing at some


@dataclass(frozen=True, eq=False)
class BoundTarget:
    """A query bound to a frozen network and a batch of inputs."""

    ask: BoundQuery  # inputs (R, C, *S), the index of each one's original (R,) -> scores (R,)
    class_indices: tuple[ResolvedClass | None, ...]  # (N,); of a group several; None if the query is not about a class
    names: tuple[str, ...]  # (N,)
    score_input: Tensor  # (N,) scores of the inputs
    is_answer: Tensor  # (N,) bool: whether the class is the network's answer; True if the query is about anything else


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
    limit: RowLimit = field(default_factory=RowLimit)  # of rows without gradient
    scales: tuple[float, ...] = ()  # by which the network takes the inputs enlarged or reduced
    resizing: Resizing | None = None  # of perturbed inputs; None: they keep their size

    @property
    def score_destroyed(self) -> Tensor:
        """The scores of the destroyed inputs (N,), of a mix the mean over the ways that count."""
        return self.ways.blank

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """S, the shape of a mask."""
        return self.domain.shape

    def compute_effects(self, scores: Tensor) -> Tensor:
        """Return scores (N, ...) as shares of the whole effect (`verdict.compute_effects`)."""
        return compute_effects(scores, self.score_destroyed, self.score_input, self.game.keeps)

    def evaluator(self, perturb: Perturb, mirrored: bool = False) -> Evaluate:
        """Return Φ(mask ⊗ x) under a perturbation as a function (N, K, 1, *S) -> (N, K)."""

        def evaluate(mask: Tensor) -> Tensor:
            inputs = perturb(mask)
            return self._ask(inputs.flip(-1) if mirrored else inputs)

        return evaluate

    def evaluate(self, mask: Tensor) -> Tensor:
        """Return Φ(mask ⊗ x) under the perturbation of the run: of a mix the mean over its ways.

        Ways are evaluated in one batch if that is small, else one at a time.
        """
        if mask.shape[:2].numel() * len(self.ways) <= MAX_JOINT_ROWS:
            return self.evaluate_way(mask, None)
        scores = [self.evaluate_way(mask, way) for way in range(len(self.ways))]
        return scores[0] if len(scores) == 1 else self.ways.average(torch.stack(scores, 1))

    def evaluate_under(self, mask: Tensor, perturbs: Sequence[Perturb]) -> Tensor:
        """Return Φ(mask ⊗ x) under each of P perturbations, of masks (N, K, 1, *S): (N, K, P).

        Perturbations are evaluated in one batch if that is small, else one at a time.
        """
        count = mask.shape[1]
        if len(mask) * count * len(perturbs) > MAX_JOINT_ROWS:
            return torch.stack([self._ask(perturb(mask)) for perturb in perturbs], 2)
        scores = self._ask(torch.cat([perturb(mask) for perturb in perturbs], 1))
        return scores.view(len(mask), len(perturbs), count).transpose(1, 2)

    def evaluate_way(
        self, mask: Tensor, way: WayIndex, mirrored: Orientation = False, wanted: Tensor | None = None
    ) -> Tensor:
        """Return Φ(mask ⊗ x) by a way, or by one for each mask, on the scale of all ways: (N, K, 1, *S) -> (N, K).

        All masks go through the network in one batch, in their own orientations.

        Args:
            mask: (N, K, 1, *S).
            way: 0 .. W − 1, one for all masks or one for each; fewer than K are repeated, larger ones counted round.
                None: the mean over all ways.
            mirrored: whether the input is mirrored, for all masks or for each.
            wanted: (N, K) bool on the CPU, which masks to evaluate if each has one way; the others get NaN. None: all.
        """
        columns, n_ways = range(mask.shape[1]), len(self.ways)
        mirrors = _repeat(mirrored, mask.shape[1])
        if way is None:
            scores = self._evaluate_each(mask, [(k, w, mirrors[k]) for w in range(n_ways) for k in columns])
            return self.ways.average(scores.view(len(scores), n_ways, -1))
        ways = [index % n_ways for index in _repeat(way, mask.shape[1])]
        return self._evaluate_each(mask, zip(columns, ways, mirrors, strict=True), wanted)

    def _evaluate_each(
        self, mask: Tensor, evaluations: Iterable[tuple[int, int, bool]], wanted: Tensor | None = None
    ) -> Tensor:
        """Return the scores (N, R) of R evaluations in one batch, each a column of the mask, a way, an orientation."""
        evaluations = list(evaluations)
        groups: dict[tuple[int, bool], list[int]] = {}
        for index, (_, way, is_mirrored) in enumerate(evaluations):
            groups.setdefault((way, is_mirrored), []).append(index)
        parts = []
        for (way, is_mirrored), members in groups.items():
            columns = [evaluations[index][0] for index in members]
            inputs = self.ways.perturb(select_columns(mask, columns), way)
            parts.append(inputs.flip(-1) if is_mirrored else inputs)
        order = [index for members in groups.values() for index in members]
        asked = None if wanted is None else wanted[:, [evaluations[index][0] for index in order]]
        scores = self._ask(parts[0] if len(parts) == 1 else torch.cat(parts, 1), asked)
        scores = select_columns(scores, sorted(range(len(order)), key=order.__getitem__))
        return self.ways.rescale(scores, [way for _, way, _ in evaluations])

    def _ask(self, inputs: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Return Φ of perturbed inputs, NaN where it is not wanted: (N, K, C, *S) -> (N, K)."""
        index, rows = self.input_index.repeat_interleave(inputs.shape[1]), inputs.flatten(0, 1)
        if wanted is None or bool(wanted.all()):
            return self._ask_rows(rows, index).view(inputs.shape[:2])
        chosen = copy_to(wanted.flatten().nonzero()[:, 0], self.input_index)
        scores = self._ask_rows(rows.index_select(0, chosen), index.index_select(0, chosen))
        return scores.new_full((len(rows),), torch.nan).index_copy(0, chosen, scores).view(inputs.shape[:2])

    def _ask_rows(self, rows: Tensor, index: Tensor) -> Tensor:
        """Return Φ of perturbed inputs (R, C, *S): (R,)."""
        if self.resizing:
            rows = self.resizing(rows)
        if rows.requires_grad:  # callers that need a gradient divide the rows
            return self.ask(rows, index)
        return self.limit.evaluate(lambda part: self.ask(rows[part], index[part]), len(rows))

    def reward(self, mask: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        """Return the game's rewards of masks: (N, K, 1, *S) -> (N, K), with ways as `evaluate_way` takes them."""
        rewards = self.game.reward(lambda rows: self.evaluate_way(rows, way, mirrored), mask)
        if rewards.shape != mask.shape[:2]:
            raise ExtremalValueError(
                f"a game must return one reward per mask, (N, K) = {tuple(mask.shape[:2])}, got {tuple(rewards.shape)}"
            )
        return rewards

    def attribute(self, mask: Tensor, mirrored: Orientation, way: int | Sequence[int]) -> Attribution:
        """Return the rewards of masks (N, K, 1, *S), their gradients, and maps of the layers (`layer_maps`).

        A map is positive where the activations raise the reward; if masks delete, where they would lower it. All masks
        go through the network in one batch, in their own orientations, as for `evaluate_way`.
        """
        columns = range(mask.shape[1])
        ways, mirrors = _repeat(way, mask.shape[1]), _repeat(mirrored, mask.shape[1])
        order = sorted(columns, key=lambda column: (ways[column], mirrors[column]))  # of the network's rows
        found = self._attribute_in_order(
            select_columns(mask, order), [mirrors[column] for column in order], [ways[column] for column in order]
        )
        positions = sorted(columns, key=order.__getitem__)
        rewards, gradients, *maps = (
            select_columns(values, positions) for values in (found.rewards, found.gradients, *found.maps)
        )
        return Attribution(rewards, gradients, tuple(maps))

    def _attribute_in_order(self, mask: Tensor, mirrored: Sequence[bool], ways: Sequence[int]) -> Attribution:
        """Return the attribution of masks (N, K, 1, *S); equal ways and orientations must follow one another."""
        mask, count = mask.detach().requires_grad_(), mask.shape[:2]
        scores = list[Tensor]()

        def evaluate(rows: Tensor) -> Tensor:
            scores.append(self.evaluate_way(rows, ways, mirrored))
            return scores[-1]

        with torch.enable_grad(), recorded_outputs(self.layers) as calls:
            rewards = self.game.reward(evaluate, mask)
            is_complete = [[len(output) for output in outputs] == [count.numel()] * len(scores) for outputs in calls]
            outputs = [
                output for complete, recorded in zip(is_complete, calls, strict=True) if complete for output in recorded
            ]
            gradients = find_gradients(rewards, [mask, *scores, *outputs])
        gradient, by_score, rest = gradients[0], gradients[1 : 1 + len(scores)], iter(gradients[1 + len(scores) :])
        signs = [
            values.new_ones(count) if slope is None else slope.sign()
            for slope, values in zip(by_score, scores, strict=True)
        ]
        maps = []
        for layer, recorded, complete in zip(self.layers, calls, is_complete, strict=True):
            parts = []
            for output, sign in zip(recorded, signs, strict=True) if complete else ():
                slope = next(rest)
                if slope is not None:
                    signed = slope * sign.reshape(-1, *[1] * (slope.ndim - 1))
                    parts.append(compute_layer_map(layer, output.detach(), signed, layer is self.layers[-1]))
            total = torch.stack(parts).sum(0) if parts else mask.new_zeros(count.numel(), 1, *layer.lattice)
            by_mask = torch.split(total.view(*count, *total.shape[1:]), 1, 1)
            turned = [part.flip(-1) if turn else part for part, turn in zip(by_mask, mirrored, strict=True)]
            maps.append(torch.cat(turned, 1))
        gradient = torch.zeros_like(mask) if gradient is None else gradient.nan_to_num(0.0, 0.0, 0.0)
        return Attribution(rewards.detach(), gradient, tuple(maps))

    def at_scale(self, scale: float) -> "Objective | None":
        """Return the objective of the perturbed inputs enlarged or reduced, with the same masks; None if it has none.

        Args:
            scale: of the sides, which are whole multiples of 32 afterwards.
        """
        if scale not in self.scales:
            return None
        return replace(self, resizing=Resizing(self.x, scale_shape(self.x.shape[2:], scale)), limit=RowLimit())

    @torch.enable_grad()
    def check_gradient(self, net: Network) -> None:
        """Raise if the reward of every input has no gradient with respect to a mask, or one that is zero everywhere.

        Costs one forward-backward pass, and one more for each constant mask of each input at which there is none.

        Args:
            net: the network.
        """
        is_zero = False
        try:
            for n, level in itertools.product(range(len(self.x)), CHECKED_MASKS):
                mask = self.x.new_full((1, 1, 1, *self.mask_shape), level).requires_grad_()
                (gradient,) = find_gradients(self.subset(n, n + 1).reward(mask, False, 0), [mask])
                if gradient is not None and gradient.any():
                    return
                is_zero |= gradient is not None
        except RuntimeError as error:
            if "inplace operation" not in str(error) and "in-place operation" not in str(error):
                raise
            raise ExtremalValueError(
                f"a network must not change in place what its gradient needs, {net.name} does; "
                f"replace operations like x += 1 or relu(inplace=True) inside it ({str(error).splitlines()[0][:120]})"
            ) from None
        remedy = "look for no_grad, detach, rounding or argmax inside it"
        if has_quantised_layers(net.model):
            remedy = "explain the network as it was before its layers were quantised"
        found = "'s has one that is zero everywhere" if is_zero else "'s does not"
        raise ExtremalValueError(
            f"a network's score must depend on its input with a gradient, {net.name}{found}; {remedy}, or pass "
            "solver='search' (--solver search), which needs none"
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
            ways=self.ways.subset(inputs, prepare_ways(self.perturbation, self.x[inputs])),
            class_indices=self.class_indices[inputs],
            names=self.names[inputs],
            score_input=self.score_input[inputs],
        )

    def destroyed_inputs(self) -> Tensor:
        """Return the inputs destroyed completely: (N, C, *S); by a mix, by its first way that counts."""
        zeros = self.x.new_zeros(len(self.x), 1, 1, *self.mask_shape)
        return self.ways.counting.perturb(zeros, 0).flatten(0, 1)


def find_gradients(rewards: Tensor, values: Sequence[Tensor]) -> list[Tensor | None]:
    """Return d Σ rewards / d value of each value; None if no reward depends on it with a gradient.

    Networks may answer without a gradient for some inputs, e.g. detectors that find nothing in them.
    """
    wanted = [value for value in values if value.requires_grad and rewards.requires_grad]
    if not wanted:
        return [None] * len(values)
    total = rewards.sum()
    overwrite_gradients(total, wanted)
    found = iter(torch.autograd.grad(total, wanted, allow_unused=True))
    return [next(found) if value.requires_grad else None for value in values]


def _repeat(values: T | Sequence[T], count: int) -> list[T]:
    """Return one value for each of `count` masks; fewer values are repeated."""
    given = list(values) if isinstance(values, Sequence) else [values]
    return [given[k % len(given)] for k in range(count)]


def prepare_ways(perturbation: Perturbation | Mix, x: Tensor) -> tuple[Perturb, ...]:
    """Prepare the ways of a perturbation for inputs x, whose masks must have one shape."""
    mask_shape(perturbation, x)
    return tuple(prepare_perturbation(way, x) for way in split_ways(perturbation).values())
