"""A question about a segmentation: the score of a class over a region."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.network import Evaluator, Network
from extremal.scores.classes import Score, get_score
from extremal.scores.query import BoundQuery, class_index, class_label, input_shape, per_row

TOLD = 5  # classes that an error lists at most


@dataclass(frozen=True, eq=False)
class Segment:
    """The mean over a region of what a segmentation network says of a class there.

    The network returns (B, classes, *places), or a mapping that has it under "out" or "logits"; a region is resized to
    its places by area, so that each counts by how much of it lies in the region.

    >>> from extremal import Network
    >>> x = torch.tensor([[[[2.0, 0.0]], [[0.0, 5.0]]]])  # two classes at two places
    >>> with Network(torch.nn.ReLU(), labels=("cat", "dog")).frozen() as run:
    ...     Segment("dog").bind(run, x)(x, torch.tensor([0]))  # where it is predicted: at the second
    tensor([5.])

    Args:
        label: the class, by index or name.
        region: (*S) bool, true in the region of the input; None: where the whole input predicts the class, for each
            input by itself.
        score: of each place: margin, logit, or another that `explain` takes.
    """

    label: int | str
    region: Tensor | None = None
    score: str | Score = "margin"

    layer, depends_on_position = "", True

    def __post_init__(self) -> None:
        get_score(self.score)
        region = self.region
        if region is None:
            return
        if not isinstance(region, Tensor) or region.dtype != torch.bool:
            kind = region.dtype if isinstance(region, Tensor) else type(region).__name__
            raise ExtremalTypeError(f"a region must be a bool tensor (*S), got {kind}; e.g. mask > 0.5")
        if not region.any():
            raise ExtremalValueError("a region must hold at least one place, got none; leave it out to find one")
        object.__setattr__(self, "region", region.detach().clone())  # the caller's may change

    @property
    def name(self) -> str:
        """What and where, in words."""
        return f"{class_label(self.label)} {'where it is predicted' if self.region is None else 'over the region'}"

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """The score; costs one evaluation of each input, to find the region or the places that it covers."""
        score, net = get_score(self.score), run.network
        with torch.no_grad():
            whole = _maps(run.evaluate(x, torch.arange(len(x), device=x.device)), net)
        label = class_index(net, self.label, whole.shape[1])
        weights = self._predicted(whole, label, net) if self.region is None else self._covered(whole, run, x)
        weights = weights / weights.sum(1, keepdim=True)  # (N, P)

        def ask(inputs: Tensor, images: Tensor) -> Tensor:
            places = _maps(run.evaluate(inputs, images), net).flatten(2).movedim(1, 2).flatten(0, 1)  # (B·P, classes)
            classes = torch.full((len(places),), label, device=places.device)
            scores = per_row(score(places, classes), len(places), "score").view(len(inputs), -1)
            return (scores * weights[images]).sum(1)

        return ask

    def _predicted(self, whole: Tensor, label: int, net: Network) -> Tensor:
        """Where the class is the network's answer: (N, P) of zeros and ones."""
        maps = whole.flatten(2)  # (N, classes, P)
        found = maps.argmax(1) == label if maps.shape[1] > 1 else maps[:, 0] > 0  # one class stands against nothing
        for n in (~found.any(1)).nonzero()[:, 0].tolist():
            most = [index for index, _ in Counter(maps[n].argmax(0).tolist()).most_common(TOLD) if index != label]
            others = f"; it predicts {', '.join(map(net.label, most))}: ask for one of these, or" if most else ";"
            raise ExtremalValueError(
                f"a segmentation must predict the class somewhere, {net.name} predicts {net.label(label)} nowhere on "
                f"input {n}{others} give a region"
            )
        return found.to(whole.dtype)

    def _covered(self, whole: Tensor, run: Evaluator, x: Tensor) -> Tensor:
        """How much of each place of the output the region covers: (N, P)."""
        assert self.region is not None
        wanted = input_shape(run, x)[1:]
        if tuple(self.region.shape) != wanted:
            raise ExtremalValueError(
                f"a region must have the shape {wanted} of the input, got {tuple(self.region.shape)}"
            )
        region = self.region.to(device=whole.device, dtype=whole.dtype)[None, None]
        return F.interpolate(region, whole.shape[2:], mode="area").flatten(1).expand(len(whole), -1)


def _maps(output: object, net: Network) -> Tensor:
    """The scores (B, classes, *places) in a segmentation network's output."""
    if isinstance(output, Mapping):
        output = output.get("out", output.get("logits", output))
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim < 3:
        kind = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ExtremalTypeError(
            "a segmentation network must return floating scores (B, classes, *places), or a mapping with these under "
            f"'out' or 'logits', {net.name} returned {kind}; wrap the network"
        )
    return output
