"""Black boxes: callables on pictures, such as an endpoint or an ONNX session, as networks without a gradient."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError, NetworkError
from extremal.file_checks import name_error
from extremal.networks.image_bounds import check_aspect
from extremal.networks.memory import is_out_of_memory
from extremal.networks.network import Network
from extremal.networks.pixels import normalise_pixels, to_pixels
from extremal.number_checks import validate_whole

Pictures = np.ndarray[Any, Any]  # (B, H, W, 3) uint8
Predict = Callable[[Pictures], object]  # pictures -> scores (B, C): an array, a tensor, or nested lists
Outputs = Literal["auto", "logits", "probabilities"]
OUTPUTS: tuple[Outputs, ...] = get_args(Outputs)

MAX_ROWS = 32  # pictures in one call
MAX_SIDE = 10_000  # px
MIN_PROBABILITY = 1e-7  # smaller ones count as this; also distance from 1 of the log-odds of a single label
SUM_TOLERANCE = 1e-2  # of the sum of the first row of probabilities from 1; printed ones are rounded
MAX_DEVIATION = 5e-2  # of that sum from 1 in later rows
MEAN, STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # of ImageNet, so that masks fade to grey as for other networks


class Pixels:
    """Prepare an image: crop it at its centre, resize and normalise it: image -> (3, H, W)."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Tensor:
        """Image -> (3, H, W)."""
        if self.size is not None:
            check_aspect(image)
            image = ImageOps.fit(image, self.size[::-1], Image.Resampling.BICUBIC)
        return normalise_pixels(to_pixels(image.convert("RGB")), MEAN, STD)


class PictureModule(nn.Module):
    """A callable on pictures as a module: normalised inputs (B, 3, H, W) -> scores (B, C).

    Inputs are rounded to pictures, and probabilities replaced by their logarithms.
    """

    def __init__(self, predict: Predict, name: str, outputs: Outputs, max_rows: int) -> None:
        super().__init__()
        self._predict, self._name, self._outputs, self._max_rows = predict, name, outputs, max_rows
        self._n_scores = 0  # C, once it has answered
        self._sums_to_one: bool | None = None  # whether probabilities do; None: not known yet
        self.eval()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of inputs (B, 3, H, W), called with at most `max_rows` pictures at a time."""
        if x.ndim != 4 or x.shape[1] != len(MEAN):
            raise ExtremalValueError(
                f"a black box must be asked about pictures, inputs (N, 3, H, W), got {tuple(x.shape)}; pass an image, "
                "or a Network with gradient=False for inputs of another kind"
            )
        pixels = (x * _as_column(STD, x) + _as_column(MEAN, x)).clamp(0, 1) * 255
        pictures = pixels.round().byte().movedim(1, -1).contiguous().cpu().numpy()
        parts = [self._call(pictures[first : first + self._max_rows]) for first in range(0, len(x), self._max_rows)]
        return self._to_logits(torch.cat(parts).to(x.device))

    def _call(self, pictures: Pictures) -> Tensor:
        try:
            output = self._predict(pictures)
        except ExtremalError:
            raise
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            message = f"{self._name} raised {name_error(error)} for pictures {pictures.shape}"
            if self._n_scores:
                raise NetworkError(f"a black box must answer without an error, {message}; try again") from error
            raise ExtremalValueError(
                f"a black box must take pictures (B, H, W, 3), uint8 arrays, {message}; give their size with "
                "BlackBox(predict, size=(H, W)), and max_rows=1 if it takes one at a time"
            ) from error
        scores = _to_scores(output, self._name)
        if scores.ndim < 2 or scores.shape[0] != len(pictures):
            raise ExtremalValueError(
                f"a black box must return a row of scores for each picture, (B, C), {self._name} returned "
                f"{tuple(scores.shape)} for {len(pictures)} picture{'s' if len(pictures) > 1 else ''}; return an array "
                "with the pictures on axis 0 and the classes on axis 1"
            )
        if scores.ndim > 2:
            raise ExtremalValueError(
                f"a black box must return scores (B, C), {self._name} returned {tuple(scores.shape)}; average or "
                "select the other axes"
            )
        if self._n_scores not in (0, scores.shape[1]):
            raise ExtremalValueError(
                f"a black box must return the same number of scores for every picture, {self._name} returned "
                f"{self._n_scores} and then {scores.shape[1]}; return a row of scores of all classes"
            )
        self._n_scores = scores.shape[1]
        return scores

    def _to_logits(self, scores: Tensor) -> Tensor:
        """Return logits (B, C): logarithms of probabilities that sum to one, log-odds of others.

        The first answer decides which they are. A single output is the probability of a label.
        """
        if self._outputs == "logits":
            return scores
        are_probabilities = bool(((scores >= 0) & (scores <= 1)).all())
        deviation = float((scores.sum(1) - 1).abs().max())
        sums_to_one = are_probabilities and scores.shape[1] > 1 and deviation <= SUM_TOLERANCE
        if self._outputs == "auto":
            self._outputs = "probabilities" if sums_to_one else "logits"
            if self._outputs == "logits":
                return scores
            warnings.warn(
                f"the scores of {self._name} sum to one: they are taken as probabilities, and their logarithms are "
                "explained; BlackBox(..., outputs='probabilities') or 'logits' says which they are",
                UserWarning,
                stacklevel=2,
            )
        if not are_probabilities and bool(scores.isfinite().all()):
            raise ExtremalValueError(
                f"probabilities must lie in [0, 1], {self._name} returned {float(scores.min()):.4g} to "
                f"{float(scores.max()):.4g}; pass outputs='logits'"
            )
        if self._sums_to_one is None:
            self._sums_to_one = sums_to_one
        if self._sums_to_one and deviation > MAX_DEVIATION:
            raise ExtremalValueError(
                f"probabilities must sum to one for every picture or for none, those of {self._name} did at first, and "
                f"differ by {deviation:.2g} from it now; pass outputs='logits' and return log-odds, or normalise them"
            )
        logs = scores.clamp_min(MIN_PROBABILITY).log()
        return logs if self._sums_to_one else logs - (1 - scores).clamp_min(MIN_PROBABILITY).log()


class BlackBox(Network):
    """A callable on pictures as a network without a gradient, for `explain(..., solver="search")`.

    >>> def predict(pictures):  # (B, H, W, 3) uint8; it could as well ask an endpoint, or an ONNX session
    ...     return pictures.mean((1, 2))
    >>> box = BlackBox(predict, size=(32, 32), labels=("red", "green", "blue"))
    >>> with box.frozen() as run:
    ...     run(box.prepare(Image.new("RGB", (64, 48), "red"))).argmax(1)
    tensor([0])

    Args:
        predict: pictures (B, H, W, 3), uint8 -> scores (B, C) as an array, a tensor or nested lists.
        size: (height, width) in px to which images are cropped at their centre and resized; None: that of the image.
        labels: names of the C classes, in order; may be empty.
        name: for messages and results; empty: that of the callable.
        outputs: logits (any scores, higher for more), probabilities, or auto: probabilities if the first scores sum to
            one. For probabilities that sum to one, their logarithms are explained; for others, their log-odds.
        max_rows: maximum number of pictures in one call.
        mirror: whether a mirrored picture means the same; if so, half of the pictures are mirrored.
        groups: names of groups of classes: their indices.

    Raises:
        ExtremalValueError, ExtremalTypeError: an option breaks a rule.
    """

    def __init__(
        self,
        predict: Predict,
        size: tuple[int, int] | None = None,
        *,
        labels: Sequence[str] = (),
        name: str = "",
        outputs: Outputs = "auto",
        max_rows: int = MAX_ROWS,
        mirror: bool = False,
        groups: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        if isinstance(predict, nn.Module | Network | type) or not callable(predict):
            kind = f"the class {predict.__name__}" if isinstance(predict, type) else type(predict).__name__
            raise ExtremalTypeError(
                f"a black box must be a function of pictures (B, H, W, 3), got {kind}; for a module use "
                "Network(module, gradient=False)"
            )
        if outputs not in OUTPUTS:
            raise ExtremalValueError(f"outputs must be one of {', '.join(OUTPUTS)}, got {outputs!r}")
        validate_whole(max_rows, "max_rows", 1, 1_000_000)
        name = name or _name_callable(predict)
        super().__init__(
            PictureModule(predict, name, outputs, max_rows),
            preprocess=Pixels(_validate_size(size)),
            labels=labels,
            name=name,
            mean=MEAN,
            std=STD,
            mirror=mirror,
            accelerate="off",
            groups=groups or {},
            gradient=False,
        )


def is_plain_function(network: object) -> bool:
    """Return whether a user passes a callable that is neither a network nor a module.

    >>> is_plain_function(lambda pictures: pictures), is_plain_function(nn.Linear(1, 1)), is_plain_function("embedded")
    (True, False, False)
    """
    return callable(network) and not isinstance(network, nn.Module | Network | type)


def _validate_size(size: object) -> tuple[int, int] | None:
    if size is None:
        return None
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise ExtremalTypeError(f"size must be (height, width) in px, got {size!r}; e.g. (224, 224)")
    for value, side in zip(size, ("height", "width"), strict=True):
        validate_whole(value, side, 4, MAX_SIDE)
    return int(size[0]), int(size[1])


def _name_callable(predict: Predict) -> str:
    inner = predict.func if isinstance(predict, partial) else predict
    name = getattr(inner, "__name__", type(inner).__name__)
    return "black box" if name == "<lambda>" and inspect.isfunction(inner) else str(name)


def _to_scores(output: object, name: str) -> Tensor:
    """Return a callable's scores as a floating tensor on the CPU."""
    if isinstance(output, list | tuple) and len(output) == 1 and getattr(output[0], "ndim", 0) >= 2:
        output = output[0]  # the outputs of an ONNX session
    if isinstance(output, Tensor):
        values = output.detach().cpu()
    else:
        try:
            values = torch.from_numpy(np.array(output, dtype=np.float32))
        except (TypeError, ValueError, OverflowError):
            raise ExtremalTypeError(
                f"a black box must return scores (B, C) as an array, a tensor or nested lists of numbers, {name} "
                f"returned a {type(output).__name__}; return one row of numbers for each picture"
            ) from None
    if values.is_complex():
        raise ExtremalTypeError(f"a black box must return real scores, {name} returned {values.dtype}")
    return values.to(torch.float32)


def _as_column(values: Sequence[float], like: Tensor) -> Tensor:
    return like.new_tensor(values).view(-1, 1, 1)
