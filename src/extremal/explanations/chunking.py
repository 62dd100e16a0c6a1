"""Evaluate many masks a few rows of the network at a time, within a budget of memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.explanations.objective import Question


class ChunkedReward:
    """What the game pays for masks (N, K, 1, *S) -> (N, K), a few rows of the network at a time.

    A differentiable function of the masks. The gradient of a chunk is taken together with its reward, so that the
    network's graph of one chunk is all that is ever held. Where memory runs out, chunks are halved.

    Args:
        question: about N inputs.
        rows: inputs of the network evaluated at once, at least 1.
    """

    def __init__(self, question: Question, rows: int) -> None:
        self.question, self.rows = question, rows
        self._parts: dict[tuple[int, int], Question] = {(0, len(question.x)): question}

    def __call__(self, masks: Tensor, mirrored: bool) -> Tensor:
        if masks.requires_grad and torch.is_grad_enabled():
            rewards: Tensor = _Reward.apply(masks, self, mirrored)
            return rewards
        return self.paid(masks, lambda part, chunk: (part.reward(chunk, mirrored), None))[0]

    def with_slopes(self, masks: Tensor, mirrored: bool) -> tuple[Tensor, Tensor]:
        """The rewards (N, K), and their derivatives with respect to the masks (N, K, 1, *S)."""

        def pay(part: Question, chunk: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                chunk = chunk.detach().requires_grad_()
                rewards = part.reward(chunk, mirrored)
                (slopes,) = torch.autograd.grad(rewards.sum(), chunk)
            return rewards.detach(), slopes

        rewards, slopes = self.paid(masks, pay)
        assert slopes is not None
        return rewards, slopes

    def paid(
        self, masks: Tensor, pay: Callable[[Question, Tensor], tuple[Tensor, Tensor | None]]
    ) -> tuple[Tensor, Tensor | None]:
        """Pay every chunk, with fewer rows at once as long as memory does not suffice."""
        while True:
            try:
                return self._chunks(masks, pay)
            except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
                if not _out_of_memory(error):
                    raise
                if self.rows == 1:
                    shape = tuple(self.question.x.shape[1:])
                    raise ExtremalValueError(
                        f"one evaluation of the network must fit in memory, an input of shape {shape} does not; "
                        "use a smaller input or a device with more memory"
                    ) from None
            self.rows //= 2  # only here: the exception, gone by now, held the chunk's tensors

    def _chunks(
        self, masks: Tensor, pay: Callable[[Question, Tensor], tuple[Tensor, Tensor | None]]
    ) -> tuple[Tensor, Tensor | None]:
        images = min(len(masks), self.rows)
        columns = self.rows // images
        rewards = masks.new_empty(masks.shape[:2])
        slopes = None
        for first in range(0, len(masks), images):
            part = self._part(first, min(first + images, len(masks)))
            for left in range(0, masks.shape[1], columns):
                here = slice(first, first + images), slice(left, left + columns)
                rewards[here], slope = pay(part, masks[here])
                if slope is not None:
                    slopes = torch.empty_like(masks) if slopes is None else slopes
                    slopes[here] = slope
        return rewards, slopes

    def _part(self, first: int, last: int) -> Question:
        if (first, last) not in self._parts:
            self._parts[first, last] = self.question.part(first, last)
        return self._parts[first, last]


class _Reward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, masks: Tensor, chunked: ChunkedReward, mirrored: bool) -> Tensor:
        rewards, slopes = chunked.with_slopes(masks, mirrored)
        ctx.save_for_backward(slopes)
        return rewards

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * grads[0].view(*grads[0].shape, *[1] * (slopes.ndim - 2)), None, None


def _out_of_memory(error: BaseException) -> bool:
    """Whether an exception tells that memory did not suffice; CPU allocators tell it as a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
