"""Networks of torchvision by name: classifiers, segmenters and detectors."""

from types import ModuleType
from typing import Any

from torch import Tensor, nn

from extremal.networks.network import Network
from extremal.networks.zoo.preprocessing import Bounded
from extremal.networks.zoo.weights import Weights, check_name, load_file, no_weights


def names() -> list[str]:
    """Every name that `load` takes."""
    import torchvision.models as tv

    return [name for module in (tv, tv.segmentation, tv.detection) for name in _in(module)]


def load(name: str, weights: Weights) -> Network:
    """A network of torchvision with the transforms that go with its weights.

    A classifier returns (B, classes). A segmenter returns the scores of each place, (B, classes, H, W), and its
    auxiliary head is left out. A detector returns what torchvision's does: for each input a dict of boxes, labels and
    scores, with masks or keypoints where it finds these; it takes pixels in [0, 1], and resizes and normalises itself.

    Raises:
        ExtremalValueError: an unknown name, or weights that are missing or do not fit.
    """
    import torchvision.models as tv

    check_name(name, names(), "a classifier, segmenter or detector of torchvision")
    best: Any = tv.get_model_weights(name).DEFAULT
    dense = name in _in(tv.segmentation) or name in _in(tv.detection)
    # with weights=None these would still download those of their backbone
    bare = {"weights_backbone": None} if dense and weights is not None else {}
    try:
        model = tv.get_model(name, weights=best if weights is None else None, **bare)
    except Exception as error:
        raise no_weights(f"torchvision:{name}", error) if weights is None else error from None
    load_file(model, weights, unused="aux_classifier." if name in _in(tv.segmentation) else "")
    labels = tuple(best.meta["categories"])
    if name in _in(tv.detection):
        pixels = Bounded(max(model.transform.fixed_size or model.transform.min_size))  # it would see no more
        return Network(model.eval(), pixels, labels, f"torchvision:{name}", (0.0,) * 3, (1.0,) * 3)
    transform = best.transforms()
    whole = name not in _in(tv.segmentation)  # mirrored, a place is another
    model = model if whole else Places(model)
    mean, std = tuple(transform.mean), tuple(transform.std)
    return Network(model.eval(), transform, labels, f"torchvision:{name}", mean, std, mirror=whole)


class Places(nn.Module):
    """A segmenter of torchvision whose output is the scores of each place.

    Args:
        model: returns a mapping that has them as `out`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, classes, H, W)."""
        scores: Tensor = self.model(x)["out"]
        return scores


def _in(module: ModuleType) -> list[str]:
    """The names of one of torchvision's packages; those of other tasks stand in packages of their own."""
    from torchvision.models import list_models

    return [name for name in list_models() if hasattr(module, name)]
