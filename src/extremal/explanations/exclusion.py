"""Several answers: after each the next is looked for elsewhere, where the regions found so far are worth nothing."""

from collections.abc import Callable

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations.explanation import Explanation

MOST = 16  # alternatives


class Elsewhere:
    """A reward for what masks hold outside of regions that are taken: (N, K, 1, *S) -> (N, K).

    Args:
        reward: of masks.
        taken: (N, 1, 1, *S) of zeros and ones.
    """

    def __init__(self, reward: Callable[[Tensor, bool], Tensor], taken: Tensor) -> None:
        self.reward, self.free = reward, 1 - taken

    def __call__(self, masks: Tensor, mirrored: bool) -> Tensor:
        return self.reward(masks * self.free, mirrored)


def taken_by(answer: Explanation) -> Tensor:
    """The smallest sufficient region of each input; where none is, that of the smallest area: (N, 1, 1, *S)."""
    regions = []
    for image in range(len(answer.masks)):
        enough = answer.smallest(image=image)
        regions.append(enough.mask if enough else answer.binary(answer.areas[0])[image])
    return torch.stack(regions).unsqueeze(1)


def checked_alternatives(alternatives: int) -> int:
    """A number of answers that may be asked for.

    >>> checked_alternatives(3)
    3
    """
    if isinstance(alternatives, bool) or not hasattr(alternatives, "__index__"):
        raise ExtremalTypeError(f"alternatives must be a whole number, got {alternatives!r}; e.g. 3")
    if not 1 <= alternatives.__index__() <= MOST:
        raise ExtremalValueError(
            f"alternatives must lie in 1..{MOST}, got {alternatives}; each costs as much as a run of its own"
        )
    return alternatives.__index__()
