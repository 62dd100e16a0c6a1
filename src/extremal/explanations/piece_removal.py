"""Delta debugging of a region: take out pieces as long as the rest stays sufficient (Zeller and Hildebrandt 2002)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from extremal.explanations.verdict import compute_effects, is_supported
from extremal.masking.games import Evaluate, Game

OnEvaluations = Callable[[int, int], None]  # evaluations done, and the most there may be
Refine = Callable[[list[Tensor]], list[Tensor]]  # pieces to smaller pieces; the same number if there are none


@dataclass(frozen=True, eq=False)
class Way:
    """One way of destroying an input: a perturbation, with the score that it leaves."""

    name: str
    evaluate: Evaluate  # masks (1, K, 1, *S) -> scores (1, K)
    score_destroyed: Tensor  # () of the input destroyed completely


@dataclass(frozen=True)
class Judgement:
    """Effects of one region, as shares of the whole effect."""

    effects: tuple[float, ...]  # (W,) under the ways that the run used
    unseen: float | None  # median under the other ways; None if not evaluated, as the first are already too low

    @property
    def effect(self) -> float:
        """The lowest effect under the ways that the run used."""
        return min(self.effects)


class SufficiencyTest:
    """The test whether regions of one input are sufficient under all ways of destroying it, within a budget.

    A region is sufficient if its effect is at least the share under each way that the run used and, in the median, at
    least half of the share under the others (`is_supported`, the rule of the verdict). The others are evaluated
    only for regions that pass the first.

    Args:
        used: ways that the run used, at least one.
        unseen: ways that it did not use.
        game: decides which part of a mask is kept.
        score_input: () of the whole input.
        shape: S, of the regions.
        share: required share of the whole effect.
        max_rows: of the network at once.
        budget: largest number of evaluations.
        on_evaluations: called after each call of the network.
    """

    def __init__(
        self,
        used: Sequence[Way],
        unseen: Sequence[Way],
        game: Game,
        score_input: Tensor,
        shape: tuple[int, ...],
        share: float,
        max_rows: int,
        budget: int,
        on_evaluations: OnEvaluations | None = None,
    ) -> None:
        self.used, self.unseen, self.game, self.score_input = used, unseen, game, score_input
        self.shape, self.share, self.max_rows, self.budget = shape, share, max_rows, budget
        self.evaluations, self.on_evaluations = 0, on_evaluations

    def can_judge(self, count: int) -> bool:
        """Return whether the budget suffices to judge this many regions under the ways that the run used."""
        return self.evaluations + count * len(self.used) <= self.budget

    def judge(self, regions: Sequence[Tensor]) -> list[Judgement] | None:
        """Judge regions, each the indices (n,) of its places; return None if the budget does not suffice."""
        if not regions:
            return []
        if not self.can_judge(len(regions)):
            return None
        effects = self._evaluate(self.used, regions)
        passed = [index for index, row in enumerate(effects) if min(row) >= self.share]
        medians: dict[int, float] = {}
        if self.unseen and passed:
            if self.evaluations + len(passed) * len(self.unseen) > self.budget:
                return None
            others = torch.tensor(
                self._evaluate(self.unseen, [regions[index] for index in passed]), dtype=torch.float32
            )
            medians = dict(zip(passed, others.median(1).values.tolist(), strict=True))
        return [Judgement(row, medians.get(index)) for index, row in enumerate(effects)]

    def is_sufficient(self, judgement: Judgement) -> bool:
        """Return whether the effects of a region meet the rule."""
        if judgement.effect < self.share:
            return False
        return judgement.unseen is None or is_supported(judgement.unseen, self.share)

    @torch.no_grad()
    def _evaluate(self, ways: Sequence[Way], regions: Sequence[Tensor]) -> list[tuple[float, ...]]:
        """Return the effects of regions under ways: one row for each region; −inf if a score is not finite."""
        chunks = []
        for first in range(0, len(regions), self.max_rows):
            masks = self._masks(regions[first : first + self.max_rows])
            kept = self.game.kept_part(masks.view(1, len(masks), 1, *self.shape))
            effects = []
            for way in ways:
                scores = way.evaluate(kept)[0]
                effects.append(compute_effects(scores, way.score_destroyed, self.score_input, self.game.keeps))
                self.evaluations += len(masks)
                if self.on_evaluations is not None:
                    self.on_evaluations(self.evaluations, self.budget)
            values = torch.stack(effects, 1)  # (K, W)
            chunks.append(values.masked_fill(~values.isfinite(), -torch.inf).cpu())
        return [tuple(row) for row in torch.cat(chunks).tolist()]

    def _masks(self, regions: Sequence[Tensor]) -> Tensor:
        """Return masks (K, |Ω|) of zeros and ones."""
        masks = torch.zeros(len(regions), *self.shape, dtype=self.score_input.dtype).flatten(1)
        for mask, places in zip(masks, regions, strict=True):
            mask[places] = 1
        return masks.to(self.score_input.device)


@dataclass(frozen=True, eq=False)
class Reduced:
    """A region from which pieces were taken out."""

    pieces: tuple[Tensor, ...]  # (k,) each the indices (n,) of its places
    judgement: Judgement  # of the region
    without: tuple[Judgement | None, ...]  # (k,) of the region without each piece; None if not tried
    is_minimal: bool  # taking out any single piece was tried and is not sufficient
    is_finest: bool  # there are no smaller pieces


class PieceRemoval:
    """Delta debugging: removal of pieces until no single one can go, then of smaller pieces.

    Each round judges the region without each piece, takes out the one whose removal keeps most, and with it the next
    ones in this order as long as doubling their number stays sufficient. Pieces that could not go are tried again only
    when no other can.

    Args:
        test: of regions.
        pieces: of a sufficient region.
        judgement: of this region.
    """

    def __init__(self, test: SufficiencyTest, pieces: Sequence[Tensor], judgement: Judgement) -> None:
        self.test, self.pieces, self.judgement = test, list(pieces), judgement
        self._without: dict[int, Judgement] = {}  # of the present region, by the index of the piece

    def run(self, refine: Refine) -> Reduced:
        """Remove pieces, and smaller and smaller ones, until none can go or the budget is spent."""
        is_minimal = self._remove_pieces()
        while is_minimal:
            minimal = self._result(is_minimal=True, is_finest=True)
            smaller = refine(self.pieces)
            if len(smaller) == len(self.pieces):
                return minimal
            if not self.test.can_judge(len(smaller)):
                return replace(minimal, is_finest=False)
            self.pieces, self._without = smaller, {}
            is_minimal = self._remove_pieces()
            if not is_minimal and self.judgement is minimal.judgement:  # no smaller piece could go
                return replace(minimal, is_finest=False)
        return self._result(is_minimal=False, is_finest=False)

    def _remove_pieces(self) -> bool:
        """Take out pieces until no single one can go; return False if the budget does not suffice."""
        candidates = list(range(len(self.pieces)))
        while candidates:
            judged = self.test.judge([self._rest([index]) for index in candidates])
            if judged is None:
                return False
            self._without |= dict(zip(candidates, judged, strict=True))
            removable = [index for index in candidates if self.test.is_sufficient(self._without[index])]
            removable.sort(key=lambda index: (-self._without[index].effect, index))
            if removable:
                candidates = self._take_out(removable)
            if not removable or not candidates:
                candidates = [index for index in range(len(self.pieces)) if index not in self._without]
        return True

    def _take_out(self, removable: Sequence[int]) -> list[int]:
        """Take out the first pieces, as many as may go together; return the new indices of the others."""
        counts = [count for power in range(1, 32) if (count := min(2**power, len(removable))) > 2 ** (power - 1)]
        judged = self.test.judge([self._rest(removable[:count]) for count in counts]) or []
        taken, self.judgement = 1, self._without[removable[0]]
        for count, judgement in zip(counts, judged, strict=False):
            if self.test.is_sufficient(judgement):
                taken, self.judgement = count, judgement
        removed, others = set(removable[:taken]), removable[taken:]
        kept = [index for index in range(len(self.pieces)) if index not in removed]
        self.pieces, self._without = [self.pieces[index] for index in kept], {}
        return sorted(kept.index(index) for index in others)

    def _rest(self, without: Sequence[int]) -> Tensor:
        """Return the places of the region without some pieces."""
        kept = [piece for index, piece in enumerate(self.pieces) if index not in without]
        return torch.cat(kept) if kept else torch.zeros(0, dtype=torch.int64)

    def _result(self, *, is_minimal: bool, is_finest: bool) -> Reduced:
        """Return the present region, the piece without which it keeps least first."""

        def necessity(index: int) -> tuple[float, int]:
            judgement = self._without.get(index)
            return (torch.inf if judgement is None else judgement.effect, index)

        order = sorted(range(len(self.pieces)), key=necessity)
        return Reduced(
            tuple(self.pieces[index] for index in order),
            self.judgement,
            tuple(self._without.get(index) for index in order),
            is_minimal,
            is_finest,
        )
