"""Evaluate many masks a few rows at a time, within a memory budget."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from extremal.explanations.evaluations import Evaluations
from extremal.explanations.objective import Objective, find_gradients
from extremal.masking.solvers.problem import Attribution, Orientation, WayIndex
from extremal.networks.memory import is_out_of_memory, row_error

T = TypeVar("T")
_EvaluateChunk = Callable[[Objective, Tensor, Orientation, WayIndex], tuple[Tensor, ...]]  # each (n, k, ...)


class ChunkedReward:
    """The rewards of masks, (N, K, 1, *S) -> (N, K), evaluated a few rows of the network at a time.

    A differentiable function of the masks. The gradient of a chunk is computed together with its reward, so that only
    one chunk's graph is in memory at any time. If memory runs out, chunks are halved. The mean over ways is
    one batch of all ways, of more than `max_rows` if fewer than one mask would fit.

    Args:
        objective: of N inputs.
        max_rows: rows of the network evaluated at once, at least 1.
        check_gradient: called once if the first gradients are zero everywhere, or cannot be computed.
    """

    def __init__(self, objective: Objective, max_rows: int, check_gradient: Callable[[], None] | None = None) -> None:
        self.objective, self.max_rows, self._check_gradient = objective, max_rows, check_gradient
        self._subsets: dict[tuple[int, int], Objective] = {(0, len(objective.x)): objective}

    def __call__(self, masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        """Return the rewards (N, K), with a gradient if the masks require one."""
        if masks.requires_grad and torch.is_grad_enabled():
            rewards: Tensor = _ChunkedRewardFunction.apply(masks, self, mirrored, way)
            return rewards

        def evaluate_chunk(part: Objective, chunk: Tensor, mirrored: Orientation, way: WayIndex) -> tuple[Tensor]:
            return (part.reward(chunk, mirrored, way),)

        return self._in_chunks(masks, mirrored, way, evaluate_chunk)[0]

    def with_gradients(self, masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> tuple[Tensor, Tensor]:
        """Return the rewards (N, K), and their gradients with respect to the masks (N, K, 1, *S).

        The gradient of a reward without one is zero.
        """

        def evaluate_chunk(
            part: Objective, chunk: Tensor, mirrored: Orientation, way: WayIndex
        ) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                chunk = chunk.detach().requires_grad_()
                rewards = part.reward(chunk, mirrored, way)
                (gradients,) = find_gradients(rewards, [chunk])
            return rewards.detach(), torch.zeros_like(chunk) if gradients is None else gradients

        rewards, gradients = self._in_checked_chunks(masks, mirrored, way, evaluate_chunk)
        return rewards, gradients

    def attribute(self, masks: Tensor, mirrored: Orientation, way: int | Sequence[int]) -> Attribution:
        """Return the rewards of masks (N, K, 1, *S), their gradients, and maps of the objective's layers."""

        def evaluate_chunk(part: Objective, chunk: Tensor, mirrored: Orientation, way: WayIndex) -> tuple[Tensor, ...]:
            assert way is not None
            found = part.attribute(chunk, mirrored, way)
            return found.rewards, found.gradients, *found.maps

        rewards, gradients, *maps = self._in_checked_chunks(masks, mirrored, way, evaluate_chunk)
        return Attribution(rewards, gradients, tuple(maps))

    def at_scale(self, scale: float) -> "ChunkedReward | None":
        """Return the rewards of the same masks on inputs enlarged or reduced by a scale; None if there are none."""
        rows = int(self.max_rows / max(1.0, scale**2))
        objective = self.objective.at_scale(scale) if rows else None
        return None if objective is None else ChunkedReward(objective, rows)

    def at_input(self, n: int) -> "ChunkedReward":
        """Return the rewards of one of the inputs, of masks (1, K, 1, *S)."""
        return ChunkedReward(self._subset(n, n + 1), self.max_rows)

    def _in_checked_chunks(
        self, masks: Tensor, mirrored: Orientation, way: WayIndex, evaluate_chunk: _EvaluateChunk
    ) -> list[Tensor]:
        """Evaluate all chunks to rewards, gradients and others; check the first gradients of this reward."""
        check, self._check_gradient = self._check_gradient, None
        try:
            values = self._in_chunks(masks, mirrored, way, evaluate_chunk)
        except RuntimeError:
            if check is not None:
                check()
            raise
        if check is not None and not values[1].any():
            check()
        return values

    def _in_chunks(
        self, masks: Tensor, mirrored: Orientation, way: WayIndex, evaluate_chunk: _EvaluateChunk
    ) -> list[Tensor]:
        """Evaluate all chunks; retry with half the rows if memory runs out."""
        while True:
            try:
                return self._fill_chunks(masks, mirrored, way, evaluate_chunk)
            except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
                if not is_out_of_memory(error):
                    raise
                if self.max_rows == 1:
                    raise row_error(tuple(self.objective.x.shape[1:])) from None
            self.max_rows //= 2  # only here: the exception, gone by now, held the chunk's tensors

    def _fill_chunks(
        self, masks: Tensor, mirrored: Orientation, way: WayIndex, evaluate_chunk: _EvaluateChunk
    ) -> list[Tensor]:
        rows_per_mask = len(self.objective.ways) if way is None else 1
        max_masks = max(1, self.max_rows // rows_per_mask)
        n_inputs = min(len(masks), max_masks)
        n_masks = max_masks // n_inputs
        results: list[Tensor] = []
        for first in range(0, len(masks), n_inputs):
            part = self._subset(first, min(first + n_inputs, len(masks)))
            for column in range(0, masks.shape[1], n_masks):
                columns = slice(column, column + n_masks)
                here = slice(first, first + n_inputs), columns
                values = evaluate_chunk(
                    part,
                    masks[here],
                    mirrored if isinstance(mirrored, bool) else mirrored[columns],
                    way if way is None or isinstance(way, int) else way[columns],
                )
                results = results or [value.new_empty(*masks.shape[:2], *value.shape[2:]) for value in values]
                for result, value in zip(results, values, strict=True):
                    result[here] = value
        return results

    def _subset(self, first: int, last: int) -> Objective:
        if (first, last) not in self._subsets:
            self._subsets[first, last] = self.objective.subset(first, last)
        return self._subsets[first, last]


class _ChunkedRewardFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, masks: Tensor, chunked: ChunkedReward, mirrored: Orientation, way: WayIndex) -> Tensor:
        rewards, gradients = chunked.with_gradients(masks, mirrored, way)
        ctx.save_for_backward(gradients)
        return rewards

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (gradients,) = ctx.saved_tensors
        return gradients * grads[0].view(*grads[0].shape, *[1] * (gradients.ndim - 2)), None, None, None


def halve_if_needed(build: Callable[[Objective, Evaluations], T], objective: Objective, cost: Evaluations) -> list[T]:
    """Return what is built of an objective; if memory runs out, of its halves.

    Args:
        build: of an objective, and the evaluations so far.
        objective: of N inputs.
        cost: evaluations so far; they belong to the first part.
    """
    count = len(objective.x)
    try:
        return [build(objective, cost)]
    except (RuntimeError, MemoryError) as error:
        if count == 1 or not is_out_of_memory(error):
            raise
    half = -(-count // 2)  # outside of the handler, which keeps the tensors of the failed attempt
    parts = (objective.subset(0, half), cost), (objective.subset(half, count), Evaluations())
    return [result for part, spent in parts for result in halve_if_needed(build, part, spent)]
