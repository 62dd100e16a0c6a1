"""Masks of channels: one value per channel."""

from torch import Tensor

from extremal.masking.area import cut, level
from extremal.masking.level_set import standardise


class ChannelMask:
    """One value a channel, and no smoothing across channels, which have no neighbours (paper, section 3.4).

    A mask is the parameters themselves, or their level set of exactly a given share of the channels.

    >>> mask = ChannelMask((64,))
    >>> m = mask(torch.randn(1, 1, 64), torch.tensor([3 / 64]), temperature=0.1)
    >>> m.shape, round(float(m.sum()), 4)
    (torch.Size([1, 1, 64]), 3.0)

    Args:
        shape: (K,), the number of channels.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = self.parameter_shape = shape

    def smooth_parameters(self, field: Tensor, width: float) -> Tensor:  # as `LevelSet` has it
        """The field itself."""
        return field

    def fit(self, mask: Tensor) -> Tensor:
        """The mask itself."""
        return mask

    def to_places(self, parameters: Tensor) -> Tensor:
        """The parameters themselves."""
        return parameters

    def evaluate_padded(self, parameters: Tensor) -> Tensor:
        """The parameters as a mask: (B, 1, K) in [0, 1] -> (B, 1, K); a clamp would stop the gradient at its ends."""
        return parameters

    def crop(self, whole: Tensor) -> Tensor:
        """All of it: a mask of channels has no margin."""
        return whole

    def cut(self, masks: Tensor, areas: tuple[float, ...]) -> Tensor:
        """Masks (N, A, 1, K) cut to exactly these shares of ones."""
        return cut(masks, areas)

    def __call__(self, parameters: Tensor, area: Tensor, temperature: float) -> Tensor:
        """(B, 1, K), (B,) -> (B, 1, K) in [0, 1] with exactly these means."""
        return level(standardise(parameters), area, temperature)
