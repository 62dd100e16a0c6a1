"""Interface of solvers: the problem (a function), progress, trace and solution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from extremal.masking.domain import Domain

Orientation = bool | Sequence[bool]  # whether the input is mirrored, for all K masks or for each
WayIndex = int | Sequence[int] | None  # of destroying, for all K masks or for each; None: the mean over all


class RewardMasks(Protocol):
    """The reward of masks in an orientation of the input, by a way of destroying it."""

    def __call__(self, masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        """Return the rewards (N, K) of masks (N, K, 1, *S), on one scale for all ways.

        The mean over W ways costs W evaluations of each mask. Masks of different ways and orientations are evaluated
        in one batch.
        """
        ...


@dataclass(frozen=True)
class Attribution:
    """Rewards of K masks of N inputs, and maps of the places that raise them."""

    rewards: Tensor  # (N, K)
    gradients: Tensor  # (N, K, 1, *S) of the rewards with respect to the masks
    maps: tuple[Tensor, ...] = ()  # each (N, K, 1, *lattice): of hidden layers, positive where they raise the reward


class AttributeMasks(Protocol):
    """The reward of masks, each in an orientation of the input and by a way of destroying it, attributed to places."""

    def __call__(self, masks: Tensor, mirrored: Orientation, way: int | Sequence[int]) -> Attribution:
        """Return the rewards of masks (N, K, 1, *S) with maps; costs a forward-backward pass of each."""
        ...


MAX_COUNT = 1_000_000  # of steps and other numbers of a solver


@dataclass(frozen=True)
class Problem:
    """N inputs to find masks for. The reward is a function; inputs and areas are batch axes."""

    reward: RewardMasks
    count: int  # N
    domain: Domain
    mirror_invariant: bool  # whether the mirrored input may be rewarded as well
    dtype: torch.dtype
    device: torch.device
    seed: int = 0  # of the random numbers of a solver
    initial_candidates: Tensor | None = None  # (N, M, 1, *lattice) parameters to consider; high values are kept first
    ways: int = 1  # W, number of ways of destroying the input
    attribute: AttributeMasks | None = None  # None: the reward's gradient is the only map
    differences: Tensor | None = None  # (N, 1, *S) ≥ 0: how much destroying changes each place of the input
    spans: Tensor | None = None  # (N,) > 0, the change of the reward that counts as the whole effect; None: unknown
    whole_rewards: Tensor | None = None  # (N,) of masks that hold all places; None: unknown
    reward_at_scale: Callable[[float], RewardMasks | None] | None = None  # of resized inputs; None: not possible
    reward_at_input: Callable[[int], RewardMasks | None] | None = None  # of one of the inputs; None: not possible
    rewards_whole_masks: bool = True  # False: the reward depends on a part of each mask

    @property
    def shape(self) -> tuple[int, ...]:
        """S."""
        return self.domain.shape

    @property
    def has_neighbours(self) -> bool:
        """Whether places have neighbours."""
        return self.domain.has_neighbours

    @property
    def like(self) -> Tensor:
        """An empty tensor of the dtype and on the device of the masks."""
        return torch.empty(0, dtype=self.dtype, device=self.device)

    def at_scale(self, scale: float) -> "Problem | None":
        """Return the problem whose inputs are enlarged or reduced by a scale, its masks unchanged; None: impossible."""
        reward = self.reward_at_scale(scale) if self.reward_at_scale else None
        if reward is None:
            return None
        return replace(
            self,
            reward=reward,
            attribute=getattr(reward, "attribute", None),
            reward_at_scale=None,
            reward_at_input=None,
        )

    def at_input(self, n: int) -> "Problem | None":
        """Return the problem of one of the inputs, its masks (1, K, 1, *S); None: impossible."""
        if self.count == 1:
            return self
        reward, row = self.reward_at_input(n) if self.reward_at_input else None, slice(n, n + 1)
        if reward is None:
            return None
        candidates, differences, spans, whole_rewards = (
            None if values is None else values[row]
            for values in (self.initial_candidates, self.differences, self.spans, self.whole_rewards)
        )
        return replace(
            self,
            reward=reward,
            count=1,
            initial_candidates=candidates,
            attribute=getattr(reward, "attribute", None),
            differences=differences,
            spans=spans,
            whole_rewards=whole_rewards,
            reward_at_scale=getattr(reward, "at_scale", None),
            reward_at_input=None,
        )

    def orientations(self) -> tuple[bool, ...]:
        """Return the orientations in which the input may be rewarded: whether it is mirrored."""
        return (False, True) if self.mirror_invariant else (False,)

    def turn(self, step: int, first_step: int = 0) -> tuple[bool, int]:
        """Return the orientation and the way of a step: orientations take turns, and ways after all orientations.

        Args:
            step: number of the step.
            first_step: number by which the turns of the ways are shifted, of steps before this count began.
        """
        orientations = self.orientations()
        return orientations[step % len(orientations)], (step + first_step) // len(orientations) % self.ways


@dataclass(frozen=True)
class Step:
    """Progress, passed to `on_step` after each step."""

    index: int  # 0 .. total − 1
    total: int
    stage: str  # of the solver, e.g. start, sweep, polish, descent, repair
    masks: Tensor  # (N, K, 1, *S), detached; (1, K, 1, *S) of one input in a repair
    rewards: Tensor  # (N, K), detached; (1, K) in a repair


OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Trace:
    """One row for each soft mask that was evaluated during the run, in order: T rows."""

    step: Tensor  # (T,) int64, the step in which the mask was evaluated
    area: Tensor  # (N, T) mean of the mask on the input
    reward: Tensor  # (N, T) of the game
    grey: Tensor  # (N, T) mean of 4·m·(1 − m): 0 for black and white, 1 for 0.5 everywhere


@dataclass(frozen=True)
class Solution:
    """Masks, and how they were found."""

    masks: Tensor  # (N, A, 1, *S) in [0, 1], in the order of the areas
    finite: Tensor  # (N,) bool; False: the run met a score that is not finite, and its masks are zero
    trace: Trace
    fields: Tensor | None = None  # (N, A, 1, *lattice) parameters of the masks, zero if these are; None: no family
    support: Tensor | None = None  # (N, 1, *S) ≥ 0: how strongly each place supports the answer; None: unknown
    cut_rewards: Tensor | None = None  # (N, A) of the cut masks, the mean over all ways; None: unknown


class Solver(Protocol):
    """Immutable settings with one operation, `solve`."""

    @property
    def name(self) -> str:
        """The short name that `explain` accepts."""
        ...

    def solve(self, problem: Problem, areas: tuple[float, ...], on_step: OnStep | None) -> Solution:
        """Find one mask for each input and area (ascending)."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return everything needed to repeat the run, as plain values."""
        ...


CHECK_INTERVAL = 8  # steps after which a GPU must say whether scores are finite, for which the program waits


class Recorder:
    """Collects the trace, watches for scores that are not finite, and reports progress."""

    def __init__(self, problem: Problem, total: int, on_step: OnStep | None) -> None:
        self.total = total
        self.finite = torch.ones(problem.count, dtype=torch.bool, device=problem.device)
        self.any_finite = True  # whether any input was still finite at the last check
        self._interval = 1 if problem.device.type == "cpu" else CHECK_INTERVAL
        self._on_step = on_step
        self._index = 0
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []
        self._steps: list[int] = []

    def record(self, stage: str, masks: Tensor, rewards: Tensor) -> bool:
        """Record a step: masks (N, K, 1, *S), rewards (N, K). Return `any_finite`."""
        masks, rewards = masks.detach(), rewards.detach()
        flat = masks.flatten(2)
        self._rows.append((flat.mean(2), rewards, 4 * (flat * (1 - flat)).mean(2)))
        self._steps += [self._index] * masks.shape[1]
        self.finite &= torch.isfinite(rewards).all(1)
        if self._on_step is not None:
            self._on_step(Step(self._index, self.total, stage, masks, rewards))
        self._index += 1
        if self._index % self._interval == 0:
            self.any_finite = bool(self.finite.any())
        return self.any_finite

    def report(self, stage: str, masks: Tensor, rewards: Tensor) -> None:
        """Report a step that is in neither the trace nor the total: the last index is repeated."""
        if self._on_step is not None:
            self._on_step(Step(max(0, self._index - 1), self.total, stage, masks.detach(), rewards.detach()))

    def build_solution(
        self, masks: Tensor, parameters: Tensor, support: Tensor | None = None, cut_rewards: Tensor | None = None
    ) -> Solution:
        """Build the solution of masks (N, A, 1, *S) and their parameters; both are zeroed where not finite.

        There the rewards of cut masks are NaN.
        """
        finite = self.finite & torch.isfinite(masks.flatten(1)).all(1)
        masks, parameters = (
            torch.where(finite.view(-1, *[1] * (values.ndim - 1)), values, torch.zeros_like(values))
            for values in (masks, parameters.detach())
        )
        area, reward, grey = (torch.cat(column, 1) for column in zip(*self._rows, strict=True))
        trace = Trace(torch.tensor(self._steps), area, reward, grey)
        if cut_rewards is not None:
            cut_rewards = cut_rewards.masked_fill(~finite.unsqueeze(1), torch.nan)
        return Solution(masks, finite, trace, parameters, support, cut_rewards)


def gradient(rewards: Tensor, parameters: Tensor) -> Tensor:
    """Return d Σ rewards / d parameters, zero where it is not finite."""
    (grad,) = torch.autograd.grad(rewards.sum(), parameters)
    return grad.nan_to_num(0.0, 0.0, 0.0)
