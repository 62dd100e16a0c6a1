"""Masks of channels: one value per channel."""

from torch import Tensor

from extremal.masking.area import cut, level
from extremal.masking.scaling import standardise


class ChannelMask:
    """Masks with one value per channel, not smoothed, as channels have no neighbours (paper, section 3.4).

    A mask is the parameters themselves, or their level set of exactly a given fraction of the channels.

    >>> import torch
    >>> family = ChannelMask((64,))
    >>> mask = family(torch.randn(1, 1, 64), torch.tensor([3 / 64]), temperature=0.1)
    >>> mask.shape, round(float(mask.sum()), 4)
    (torch.Size([1, 1, 64]), 3.0)

    Args:
        shape: (K,), the number of channels.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = self.parameter_shape = shape

    def smooth_parameters(self, parameters: Tensor, width: float) -> Tensor:
        """Return the parameters unchanged."""
        return parameters

    def fit(self, mask: Tensor) -> Tensor:
        """Return the mask itself, which is its own parameters."""
        return mask

    def to_places(self, parameters: Tensor) -> Tensor:
        """Return the parameters unchanged: they are values over the channels."""
        return parameters

    def evaluate_with_margin(self, parameters: Tensor) -> Tensor:
        """Return the parameters (B, 1, K) as a mask; a clamp would stop the gradient at 0 and 1."""
        return parameters

    def crop(self, padded: Tensor) -> Tensor:
        """Return the mask unchanged: there is no margin."""
        return padded

    def cut(self, masks: Tensor, areas: tuple[float, ...]) -> Tensor:
        """Cut masks (N, A, 1, K) to exactly these fractions of ones (`area.cut`)."""
        return cut(masks, areas)

    def __call__(self, parameters: Tensor, area: Tensor, temperature: float) -> Tensor:
        """Evaluate masks of exactly these means: (B, 1, K), (B,) -> (B, 1, K) in [0, 1]."""
        return level(standardise(parameters), area, temperature)
