"""The certificate of a smallest sufficient area: what was found there, and just below."""

import math
from dataclasses import dataclass

from torch import Tensor

from extremal.explanations.verdict import Verdict, reach_verdict


@dataclass(frozen=True, eq=False)
class Certificate:
    """The smallest area found sufficient for one input, and the largest area below it found insufficient.

    Sufficient masks have the share of the effect, and half of it in the median under unseen perturbations.
    """

    area: float  # share of places
    mask: Tensor  # (1, *S) of zeros and ones, exactly this area
    effect: float  # of this mask, at least the share
    below_area: float  # tried and insufficient; 0 if everything that was tried is sufficient
    below_effect: float  # of the best mask found there; NaN if there is none
    share: float  # required share of the whole effect
    unseen_effect: float = math.nan  # of this mask, median under unseen perturbations; NaN: they are uninformative
    below_unseen_effect: float = math.nan  # of the best mask below; also NaN if it has less than the share
    control_effect: float = math.nan  # of the best random region of this area; NaN: none was scored

    @property
    def verdict(self) -> Verdict:
        """The verdict on the mask: sufficient, or `chance is enough` if a random region has the share, too."""
        control = [] if math.isnan(self.control_effect) else [self.control_effect]
        return reach_verdict(self.effect, self.effect, [self.unseen_effect], control, self.share)
