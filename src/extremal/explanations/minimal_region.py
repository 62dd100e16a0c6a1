"""`MinimalRegion`: a sufficient region that cannot lose a piece."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class MinimalRegion:
    """A sufficient region of one input, or a sufficient set of channels, reduced piece by piece."""

    mask: Tensor  # (1, *S) of zeros and ones; (1, K) of channels
    area: float  # share of places, or of channels
    effects: dict[str, float]  # of the mask, under each perturbation that the run used
    unseen_effect: float | None  # median under the other perturbations; None if there are none
    pieces: Tensor  # (*S) int64: 1..k, the most necessary piece first; 0 outside
    without: tuple[float, ...]  # (k,) effect without each piece, the lowest over the used perturbations; NaN: not tried
    unseen_without: tuple[float, ...]  # (k,) median under the others; NaN if not evaluated because `without` is too low
    is_minimal: bool  # removing any single piece was tried and leaves too little; False if the budget ended the search
    is_finest: bool  # no piece can be halved further; False if the budget ended the search
    evaluations: int  # of the network
    budget: int  # largest number of evaluations
    start_area: float  # of the region that was reduced
    share: float  # required share of the whole effect

    @property
    def count(self) -> int:
        """Number of pieces, k."""
        return len(self.without)

    @property
    def effect(self) -> float:
        """The lowest effect over the perturbations that the run used."""
        return min(self.effects.values())

    @property
    def reason(self) -> str:
        """The result in one sentence, without a full stop."""
        count = f"{self.count} piece{'' if self.count == 1 else 's'}"
        if not self.is_minimal:
            return f"not shown to be 1-minimal: the budget of {self.budget:,} evaluations ended with {count} left"
        result = "its only piece cannot go" if self.count == 1 else f"none of its {count} can go"
        unfinished = "" if self.is_finest else f"; the budget of {self.budget:,} ended before smaller pieces were tried"
        return f"1-minimal: {result} ({self.evaluations:,} evaluations{unfinished})"
