"""The masks of objects that a network finds, read from its output."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalTypeError
from extremal.networks.class_scores import get_part
from extremal.networks.network import Network
from extremal.scores.detections import (
    MIN_SCORE,
    decode_queries,
    describe_form,
    has_no_object,
    is_list_of_mappings,
)

MASK_LEVEL = 0.5  # probability from which on a place belongs to an instance


@dataclass(frozen=True, eq=False)
class Instances:
    """Instances on one input, each with a mask and a probability of each class."""

    masks: Tensor  # (M, h, w) probability of each place
    probabilities: Tensor  # (M, classes)
    is_found: Tensor  # (M,) bool: whether an instance counts as found on the unperturbed input

    def find(self) -> "Instances":
        """Return those that count as found and have a place."""
        kept = self.is_found & (self.masks > MASK_LEVEL).flatten(1).any(1)
        return Instances(self.masks[kept], self.probabilities[kept], self.is_found[kept])

    def overlaps(self, region: Tensor) -> Tensor:
        """Return the soft intersection over union of each mask with a region (h, w) in [0, 1]: (M,)."""
        intersection = torch.minimum(self.masks, region).flatten(1).sum(1)
        return intersection / torch.maximum(self.masks, region).flatten(1).sum(1).clamp_min(1e-6)

    def match(self, region: Tensor, label: int) -> Tensor:
        """Return the maximum of IoU·probability over the instances, in [0, 1]; 0 if there are none."""
        if not len(self.masks):
            return self.probabilities.new_zeros(())
        return (self.overlaps(region) * self.probabilities[:, label]).amax()


def read_instances(output: object, inputs: Tensor, net: Network) -> list[Instances]:
    """Return the instances on each input.

    Args:
        output: of the network: of each input a mapping with masks (M, 1, H, W), labels and scores, as torchvision's
            Mask R-CNN; class_queries_logits and masks_queries_logits, as MaskFormer and Mask2Former; logits and
            pred_masks, as DETR; or iou_scores and pred_masks, as SAM, whose instances have the one class 0.
        inputs: (B, C, H, W).
        net: the network.

    Raises:
        ExtremalTypeError: the output has another form.
    """
    if is_list_of_mappings(output, len(inputs)):
        found = [_read_mapping(entry, net) for entry in output]
        if all(found):
            return [instances for instances in found if instances]
    queries = _find_queries(output, len(inputs), net)
    if queries is None:
        raise ExtremalTypeError(
            "a network must return masks of instances, as Mask R-CNN, MaskFormer, DETR or SAM do, "
            f"{net.name} returned {describe_form(output)}; ask for scores.Box or scores.Segment, or wrap the network"
        )
    masks, probabilities, is_found = queries
    return [Instances(*row) for row in zip(masks.sigmoid(), probabilities, is_found, strict=True)]


def _read_mapping(entry: Mapping[str, object], net: Network) -> Instances | None:
    """Return the instances of one input; None if it has none of this form."""
    masks, labels, scores = (entry.get(key) for key in ("masks", "labels", "scores"))
    if not (isinstance(masks, Tensor) and isinstance(labels, Tensor) and isinstance(scores, Tensor)):
        return None
    if masks.ndim != 4 or masks.shape[1] != 1 or not labels.shape == scores.shape == masks.shape[:1]:
        return None
    count = max([len(net.labels), *(int(label) + 1 for label in labels)])
    probabilities = scores[:, None] * F.one_hot(labels, count)
    return Instances(masks[:, 0], probabilities, scores >= MIN_SCORE)


def _find_queries(output: object, count: int, net: Network) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return logits of masks (B, Q, h, w), probabilities (B, Q, classes), and which queries are found (B, Q)."""
    masks, scores = get_part(output, "masks_queries_logits"), get_part(output, "class_queries_logits")
    if masks is None:
        masks, scores = get_part(output, "pred_masks"), get_part(output, "logits")
    quality = get_part(output, "iou_scores")
    if isinstance(masks, Tensor) and isinstance(quality, Tensor) and masks.ndim == 5:  # (B, prompts, 3, h, w) of SAM
        masks, scores = masks.flatten(1, 2), quality.flatten(1)[..., None]
        if len(masks) == count and masks.shape[:2] == scores.shape[:2]:
            return masks, scores.clamp(0, 1), torch.ones_like(scores[..., 0], dtype=torch.bool)
        return None
    if not (isinstance(masks, Tensor) and isinstance(scores, Tensor) and masks.ndim == 4 and scores.ndim == 3):
        return None
    if len(masks) != count or masks.shape[:2] != scores.shape[:2]:
        return None
    has_none = get_part(output, "class_queries_logits") is not None or has_no_object(net, scores.shape[2])
    probabilities, is_object = decode_queries(scores, has_no_object=has_none)
    return masks, probabilities, is_object & (probabilities.amax(2) >= MIN_SCORE)
