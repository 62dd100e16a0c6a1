"""Query about a segmentation: the score of a class over a region."""

from collections import Counter
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.class_scores import check_labels, find_scores
from extremal.networks.network import Network
from extremal.networks.run import Evaluator
from extremal.scores.classes import Score, get_score
from extremal.scores.query import BoundQuery, class_index, class_label, input_shape, per_row

MAX_LISTED_CLASSES = 5  # in an error message


@dataclass(frozen=True, eq=False)
class Segment:
    """The mean score of a class over a region of a segmentation network's output.

    The network returns (B, classes, *places), or a mapping with these under "out" or "logits"; a region is resized to
    its places by area, so that each place is weighted by the fraction of it that lies in the region.

    >>> from extremal import Network
    >>> x = torch.tensor([[[[2.0, 0.0]], [[0.0, 5.0]]]])  # two classes at two places
    >>> with Network(torch.nn.ReLU(), labels=("cat", "dog")).frozen() as run:
    ...     Segment("dog").bind(run, x)(x, torch.tensor([0]))  # at the second place, where it is predicted
    tensor([5.])

    Args:
        label: the class, by index or name.
        region: (*S) bool, true in the region of the input; None: for each input the places where the class is predicted
            on the unperturbed input.
        score: of each place: margin, logit, or another that `explain` accepts.
    """

    label: int | str
    region: Tensor | None = None
    score: str | Score = "margin"

    layer, depends_on_position = "", True

    def __post_init__(self) -> None:
        get_score(self.score)
        if self.region is not None:
            object.__setattr__(self, "region", check_region(self.region))

    @property
    def name(self) -> str:
        """Class and region."""
        return f"{class_label(self.label)} {'where it is predicted' if self.region is None else 'over the region'}"

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind the score to a network and inputs; costs one evaluation of each input, to find the region."""
        score, net = get_score(self.score), run.network
        with torch.no_grad():
            maps = _class_maps(run.evaluate(x, torch.arange(len(x), device=x.device)), net)  # (N, classes, *places)
        _check_places(maps, len(input_shape(run, x)) - 1, net)
        label = class_index(net, self.label, maps.shape[1])
        weights = self._find_places(maps, label, net) if self.region is None else self._coverage(maps, run, x)
        weights = weights / weights.sum(1, keepdim=True)  # (N, P)

        def score_inputs(inputs: Tensor, input_index: Tensor) -> Tensor:
            maps = _class_maps(run.evaluate(inputs, input_index), net)
            places = maps.flatten(2).movedim(1, 2).flatten(0, 1)  # (B·P, classes)
            classes = torch.full((len(places),), label, device=places.device)
            scores = per_row(score(places, classes), len(places), "score").view(len(inputs), -1)
            return (scores * weights[input_index]).sum(1)

        return score_inputs

    def _find_places(self, maps: Tensor, label: int, net: Network) -> Tensor:
        """Return the places where the class is predicted: (N, P) of zeros and ones."""
        flat = maps.flatten(2)  # (N, classes, P)
        predicted = flat.argmax(1) == label if flat.shape[1] > 1 else flat[:, 0] > 0  # a single class: score above 0
        for n in (~predicted.any(1)).nonzero()[:, 0].tolist():
            classes = Counter(flat[n].argmax(0).tolist()).most_common(MAX_LISTED_CLASSES)
            others = ", ".join(net.label(index) for index, _ in classes if index != label)
            hint = f"; it predicts {others}: choose one of these, or" if others else ";"
            raise ExtremalValueError(
                f"a segmentation must predict the class somewhere, {net.name} predicts {net.label(label)} nowhere on "
                f"input {n}{hint} pass a region"
            )
        return predicted.to(maps.dtype)

    def _coverage(self, maps: Tensor, run: Evaluator, x: Tensor) -> Tensor:
        """Return the fraction of each place of the output that the region covers: (N, P)."""
        assert self.region is not None
        check_region_shape(self.region, input_shape(run, x)[1:])
        region = self.region.to(device=maps.device, dtype=maps.dtype)[None, None]
        return F.interpolate(region, maps.shape[2:], mode="area").flatten(1).expand(len(maps), -1)


def check_region(region: Tensor) -> Tensor:
    """Return a copy of a region (*S), after checking that it is bool and not empty.

    Raises:
        ExtremalTypeError, ExtremalValueError: it is not.
    """
    if not isinstance(region, Tensor) or region.dtype != torch.bool:
        kind = region.dtype if isinstance(region, Tensor) else type(region).__name__
        raise ExtremalTypeError(f"a region must be a bool tensor (*S), got {kind}; e.g. mask > 0.5")
    if not region.any():
        raise ExtremalValueError("a region must contain a place, got none; omit it to use the predicted region")
    return region.detach().clone()  # the caller may change theirs


def check_region_shape(region: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless a region has the shape (*S) of the input.

    Raises:
        ExtremalValueError: it has another shape.
    """
    if tuple(region.shape) != shape:
        raise ExtremalValueError(f"a region must have the shape {shape} of the input, got {tuple(region.shape)}")


def _check_places(maps: Tensor, n_dimensions: int, net: Network) -> None:
    """Raise unless maps (N, classes, *places) have places in as many dimensions as the inputs."""
    if maps.ndim != 2 + n_dimensions:
        raise ExtremalValueError(
            f"a segmentation must have places in the {n_dimensions} dimensions of its input, {net.name} returned "
            f"{tuple(maps.shape)}; wrap it to return (B, classes, *places), or ask for a class"
        )


def _class_maps(output: object, net: Network) -> Tensor:
    """Return the scores (B, classes, *places) in a segmentation network's output."""
    _, output = find_scores(output)
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim < 3:
        kind = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ExtremalTypeError(
            "a segmentation network must return floating scores (B, classes, *places), or a mapping with these under "
            f"'out' or 'logits', {net.name} returned {kind}; wrap the network"
        )
    check_labels(output.shape[1], net.name, len(net.labels))
    return output
