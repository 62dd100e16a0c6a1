"""Scales: other sizes of the inputs at which a network answers the same question.

At a larger size, gradients and maps of layers show finer and steadier places; at a smaller one, a pass costs less.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from extremal.masking.grid import apply_along_axes, gaussian_blur, resampling_matrix, resize
from extremal.networks.run import Run
from extremal.networks.split import Split
from extremal.scores.class_query import ClassQuery
from extremal.scores.query import BoundQuery, Query

STRIDE = 32  # places: sides are whole multiples of it, as networks halve them five times
NEGLIGIBLE_BLUR = 0.25  # places, of a Gaussian so narrow that neighbours have less than a thousandth of its weight
MIN_SIDE = 160  # places, of inputs that are resized: smaller ones are cheap, and lose what there is to see


def scale_shape(shape: Sequence[int], scale: float) -> tuple[int, ...]:
    """Return the sides of an input enlarged or reduced by a scale, as whole multiples of 32.

    >>> scale_shape((224, 300), 1.25), scale_shape((224, 300), 0.7)
    ((288, 384), (160, 224))
    """
    return tuple(max(1, round(side * scale / STRIDE)) * STRIDE for side in shape)


class Resizing:
    """Resize images like x (N, C, H, W) to other sides linearly; those that are reduced much are blurred before.

    On a CPU by interpolation, which reads few places for each; elsewhere by a matrix for each dimension, because the
    gradient of an interpolation there adds up in any order.

    Args:
        x: the inputs.
        shape: new sides.
    """

    def __init__(self, x: Tensor, shape: tuple[int, ...]) -> None:
        self.shape = shape
        sides = list(zip(x.shape[2:], shape, strict=True))
        blurs = [max(0.0, (side / new_side - 1) / 2) for side, new_side in sides]
        self._blurs = [sigma if sigma > NEGLIGIBLE_BLUR else 0.0 for sigma in blurs]
        self._matrices: list[Tensor] = []
        if x.device.type != "cpu":
            pairs = zip(sides, self._blurs, strict=True)
            self._matrices = [resampling_matrix(*pair, sigma, like=x) for pair, sigma in pairs]

    def __call__(self, rows: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W')."""
        if self._matrices:
            return apply_along_axes(rows, self._matrices)
        return resize(gaussian_blur(rows, self._blurs), self.shape)


def find_scales(
    x: Tensor, ask: BoundQuery, run: Run | Split, query: Query, scales: Sequence[float]
) -> tuple[float, ...]:
    """Return at which of the scales a network takes inputs x (N, C, *S); costs one evaluation of the first for each.

    Only questions about classes of colour images: boxes and pixels have coordinates, and the sides of a spectrogram
    have units. A network that raises an error at another size, such as one with a fixed number of tokens, takes none.
    """
    is_image = x.ndim == 4 and x.shape[1] == 3 and min(x.shape[2:]) >= MIN_SIDE
    if not is_image or not isinstance(query, ClassQuery) or not isinstance(run, Run):
        return ()
    return tuple(scale for scale in scales if _takes(x[:1], ask, scale))


def _takes(first: Tensor, ask: BoundQuery, scale: float) -> bool:
    rows = Resizing(first, scale_shape(first.shape[2:], scale))(first)
    try:
        return bool(ask(rows, torch.zeros(1, dtype=torch.int64, device=rows.device)).isfinite().all())
    except Exception:  # of any kind: the network decides what it raises for another size
        return False
