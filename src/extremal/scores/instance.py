"""Query about an instance: the score of the mask of one object."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.networks.network import Network
from extremal.networks.run import Evaluator
from extremal.scores.box import MIN_MATCH_IOU, reporting_low_scores
from extremal.scores.detections import list_classes
from extremal.scores.instances import MASK_LEVEL, Instances, read_instances
from extremal.scores.query import BoundQuery, class_index, class_label, input_shape, make_zeros
from extremal.scores.segment import check_region, check_region_shape


@dataclass(frozen=True, eq=False)
class Instance:
    """The score of an object's mask, matched softly: the maximum of IoU(region, m)·score(m) over the masks m.

    Masks m are probabilities of places, IoU = Σ min(region, m) / Σ max(region, m). For Mask R-CNN of torchvision,
    MaskFormer, Mask2Former, EoMT and DETR of transformers, and SAM with a fixed prompt, whose masks have the class 0.

    >>> from extremal import Network
    >>> class Finder(torch.nn.Module):  # finds one object, with the mean of the input as its score
    ...     def forward(self, x):
    ...         mask = torch.zeros(1, 1, 8, 8)
    ...         mask[..., 2:6, 2:6] = 1.0
    ...         return [{"masks": mask, "labels": torch.tensor([1]), "scores": image.mean()[None]} for image in x]
    >>> x = torch.full((1, 3, 8, 8), 0.5)
    >>> with Network(Finder()).frozen() as run:
    ...     Instance(label=1).bind(run, x)(x, torch.tensor([0]))
    tensor([0.5000])

    Args:
        region: (H, W) bool, the object's places on the input; None: for each input the instance with the highest score
            on the unperturbed input.
        label: the class, by index or name; None: the most probable one of the matched instance.
    """

    region: Tensor | None = None
    label: int | str | None = None

    layer, depends_on_position = "", True

    def __post_init__(self) -> None:
        if self.region is not None:
            object.__setattr__(self, "region", check_region(self.region))

    @property
    def name(self) -> str:
        """Class and region."""
        noun = "instance" if self.label is None else f"instance of {class_label(self.label)}"
        return f"best {noun}" if self.region is None else f"{noun} over the region"

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind the score to a network and inputs; costs one evaluation of each input, to find its instance."""
        net = run.network
        label = None if self.label is None else class_index(net, self.label, len(net.labels) or None)
        if self.region is not None:
            check_region_shape(self.region, input_shape(run, x)[1:])
        with torch.no_grad():
            per_input = read_instances(run.evaluate(x, torch.arange(len(x), device=x.device)), x, net)
        targets = [self._choose(instances.find(), label, n, net) for n, instances in enumerate(per_input)]

        def score_inputs(inputs: Tensor, input_index: Tensor) -> Tensor:
            with reporting_low_scores(net.model, with_masks=True):
                output = run.evaluate(inputs, input_index)
            per_row = read_instances(output, inputs, net)
            return torch.stack(
                [
                    zero + instances.match(*targets[n])
                    for instances, n, zero in zip(per_row, input_index.tolist(), make_zeros(inputs), strict=True)
                ]
            )

        return score_inputs

    def _choose(self, found: Instances, label: int | None, n: int, net: Network) -> tuple[Tensor, int]:
        """Return the region (h, w) to explain on input n, at the places of the masks, and its label."""
        if not len(found.masks):
            raise ExtremalValueError(
                f"a network must find an instance on the unperturbed input, {net.name} finds none on input {n}; "
                "choose another input"
            )
        tops = found.probabilities.argmax(1)
        summary, of = list_classes(tops, net), "" if label is None else f" of {net.label(label)}"
        fits = torch.ones_like(found.is_found) if label is None else tops == label
        if not fits.any():
            raise ExtremalValueError(
                f"a network must find an instance{of} on the unperturbed input, {net.name} finds none on input {n} but "
                f"{summary}; choose one of these"
            )
        scores = found.probabilities.amax(1).masked_fill(~fits, -torch.inf)
        if self.region is None:
            best = int(scores.argmax())
            return (found.masks[best] > MASK_LEVEL).to(found.masks), int(tops[best])
        region = self.region.to(device=found.masks.device, dtype=found.masks.dtype)
        region = F.interpolate(region[None, None], found.masks.shape[1:], mode="area")[0, 0]
        overlaps = found.overlaps(region).masked_fill(~fits, 0.0)
        if float(overlaps.max()) < MIN_MATCH_IOU:
            raise ExtremalValueError(
                "a network must find the instance on the unperturbed input with an IoU of at least "
                f"{MIN_MATCH_IOU:g}, the best{of} that {net.name} finds on input {n} has {float(overlaps.max()):.2f}, "
                f"of {summary}; region=None selects the best"
            )
        best = int(scores.masked_fill(overlaps < MIN_MATCH_IOU, -torch.inf).argmax())
        return region, int(tops[best])
