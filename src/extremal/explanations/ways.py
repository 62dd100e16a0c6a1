"""Ways of destroying a batch of inputs, whose scores are put on one scale."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from extremal.masking.device_tensors import select_columns
from extremal.masking.perturbations import Perturb
from extremal.masking.scaling import LARGE

MIN_WAY_SPAN = 0.2  # of the largest effect of any way on an input, below which a way is left out for it


@dataclass(frozen=True, eq=False)
class Ways:
    """W ways of destroying N inputs: one perturbation, or those of a mix.

    The effect of a score Φ under way w is (Φ − Φ_blank,w) / (Φ_full − Φ_blank,w). Scores of a mix are reported as
    Φ_blank + (Φ_full − Φ_blank)·effect, with Φ_blank the mean of the ways that count for the input, so that one unit
    is as much effect for each way. Ways whose effect on an input is too small to divide by, or of the other sign, do
    not count: they are left out of its reported scores. If a search does not ask about them either, their turns go to
    the next way that counts; if it does, they keep their own scores (`choose_turns`).
    """

    names: tuple[str, ...]  # (W,)
    perturbs: tuple[Perturb, ...]  # (W,) of the N inputs
    destroyed: Tensor  # (N, W) Φ_blank,w
    full: Tensor  # (N,) Φ_full
    counts: Tensor  # (N, W) bool: whether the way counts for the input
    has_turns: Tensor  # (N, W) bool: whether a search asks about the way

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def blank(self) -> Tensor:
        """The score of the destroyed inputs (N,): the mean of the ways that count."""
        return self.destroyed[:, 0] if len(self) == 1 else self._mean(self.destroyed.unsqueeze(2))[:, 0]

    @property
    def left_out(self) -> tuple[tuple[str, ...], ...]:
        """The names of the ways that do not count, for each input: N tuples."""
        return tuple(
            tuple(name for name, counts in zip(self.names, row, strict=True) if not counts)
            for row in self.counts.tolist()
        )

    @cached_property
    def _rows_of_turns(self) -> list[list[int]]:
        """For each input the way that has each way's turn: itself, or the next one that has turns."""
        return [
            [next(i % len(row) for i in range(way, way + len(row)) if row[i % len(row)]) for way in range(len(row))]
            for row in self.has_turns.tolist()
        ]

    @cached_property
    def _turns(self) -> Tensor:
        """The way that has each way's turn, (N, W) int64."""
        return torch.tensor(self._rows_of_turns, device=self.has_turns.device)

    @cached_property
    def _choices(self) -> tuple[tuple[tuple[int, Tensor], ...], ...]:
        """For each way the ways that have its turn for some inputs, with these inputs (N,) bool."""
        used = [sorted(set(column)) for column in zip(*self._rows_of_turns, strict=True)]
        return tuple(
            tuple((way, column == way) for way in ways)
            for ways, column in zip(used, self._turns.unbind(1), strict=True)
        )

    @cached_property
    def _turn_blanks(self) -> Tensor:
        """The score (N, W) of the inputs destroyed by the way that has each way's turn."""
        return self.destroyed.gather(1, self._turns)

    @cached_property
    def _turn_spans(self) -> tuple[Tensor, Tensor]:
        """Φ_full − Φ_blank on the scale of all, and of the way of each turn: (N, W), 1 where it does not count."""
        counts, full = self.counts.gather(1, self._turns), self.full.unsqueeze(1)
        common, own = (full - self.blank.unsqueeze(1)).expand(counts.shape), full - self._turn_blanks
        return torch.where(counts, common, 1.0), torch.where(counts, own, 1.0)

    def perturb(self, mask: Tensor, way: int) -> Tensor:
        """Return inputs (N, K, C, *S) under masks (N, K, 1, *S) by a way, or by those that have its turn."""
        (first, _), *others = self._choices[way]
        inputs = self.perturbs[first](mask)
        for other, is_other in others:
            rows = is_other.view(-1, *[1] * (inputs.ndim - 1))
            inputs = torch.where(rows, self.perturbs[other](mask), inputs)
        return inputs

    def own_blank(self, way: int) -> Tensor:
        """Return the score (N,) of the inputs destroyed by a way, or by those that have its turn."""
        return self._turn_blanks[:, way]

    @cached_property
    def counting(self) -> "Ways":
        """The same ways, in which those that count have all turns."""
        if self.has_turns is self.counts:
            return self
        ways = replace(self, has_turns=self.counts)
        _ = ways._choices  # computed now, so that no later evaluation waits for the device
        return ways

    def rescale(self, scores: Tensor, ways: list[int]) -> Tensor:
        """Return scores (N, K), each by one of the ways, on the scale of all; what does not count keeps its own."""
        if len(self) == 1:
            return scores
        blanks, common, own = (select_columns(values, ways) for values in (self._turn_blanks, *self._turn_spans))
        changes = scores - blanks
        scaled = torch.where(common.abs() > LARGE, changes / own * common, common * changes / own)
        return self.blank.unsqueeze(1) + scaled

    def average(self, scores: Tensor) -> Tensor:
        """Return the mean (N, K) of rescaled scores (N, W, K) over the ways that count."""
        return scores[:, 0] if len(self) == 1 else self._mean(scores)

    def _mean(self, values: Tensor) -> Tensor:
        counts = self.counts.unsqueeze(2)
        return torch.where(counts, values, torch.zeros_like(values)).sum(1) / counts.sum(1)

    def subset(self, inputs: slice, perturbs: tuple[Perturb, ...]) -> "Ways":
        """Return the ways of some of the inputs, with the perturbations prepared for these."""
        parts = {name: getattr(self, name)[inputs] for name in ("destroyed", "full", "counts")}
        has_turns = parts["counts"] if self.has_turns is self.counts else self.has_turns[inputs]
        return replace(self, perturbs=perturbs, has_turns=has_turns, **parts)


def choose_ways(full: Tensor, destroyed: Tensor) -> Tensor:
    """Return which ways count for each input: (N, W) bool.

    Those whose effect Φ_full − Φ_blank,w has the sign of the others' and at least `MIN_WAY_SPAN` of the largest. The
    sign is positive, unless every way that lowers the score does so by less than that share of the largest change.

    >>> choose_ways(torch.tensor([10.0]), torch.tensor([[0.0, 9.0, 12.0]]))
    tensor([[ True, False, False]])

    Args:
        full: (N,) scores of the inputs.
        destroyed: (N, W) scores of the inputs destroyed by each way; one that is not finite does not count.
    """
    if destroyed.shape[1] == 1:
        return torch.ones_like(destroyed, dtype=torch.bool)
    spans = full.unsqueeze(1) - destroyed
    spans = spans.where(spans.isfinite(), 0.0)
    is_lowered = spans.amax(1, keepdim=True) >= MIN_WAY_SPAN * spans.abs().amax(1, keepdim=True)
    spans = torch.where(is_lowered, spans, -spans)
    largest = spans.amax(1, keepdim=True)
    return (spans >= MIN_WAY_SPAN * largest) & ((spans > 0) | (largest <= 0))


def choose_turns(counts: Tensor, destroyed: Tensor, is_answer: Tensor) -> Tensor:
    """Return which ways a search asks about for each input: (N, W) bool.

    Those that count. If the network's answer for the input is another class, the effect of destroying it says nothing
    about a way, since what is destroyed is mostly the evidence for that class: then the search asks about all.

    Args:
        counts: (N, W) bool, of `choose_ways`.
        destroyed: (N, W) scores of the inputs destroyed by each way; ways of scores that are not finite have no turns.
        is_answer: (N,) bool, whether the class in question is the network's answer.
    """
    return counts | (~is_answer.unsqueeze(1) & destroyed.isfinite())
