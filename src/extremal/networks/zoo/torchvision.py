"""Networks of torchvision by name: classifiers of pictures and of clips, segmenters and detectors."""

from types import ModuleType
from typing import Any

from torch import Tensor, nn

from extremal.networks.network import Network
from extremal.networks.stacks.readers import ClipReader
from extremal.networks.zoo.connections import connection_error, is_downloaded, is_reachable
from extremal.networks.zoo.preprocessing import ShrinkShortSide
from extremal.networks.zoo.weights import Weights, build_with_weights, check_name, download_error

# number of frames, and frames per second, with which torchvision measured the weights; its own text states them
CLIP_FRAMES = {
    **dict.fromkeys(("r3d_18", "mc3_18", "r2plus1d_18"), (16, 15.0)),
    **dict.fromkeys(("mvit_v1_b", "mvit_v2_s"), (16, 7.5)),
    **dict.fromkeys(("swin3d_t", "swin3d_s", "swin3d_b"), (32, 15.0)),
    "s3d": (128, 15.0),
}


def names() -> list[str]:
    """List the names that `load` takes."""
    import torchvision.models as tv

    return [name for module in (tv, tv.segmentation, tv.detection, tv.video) for name in _list_models(module)]


def load(name: str, weights: Weights) -> Network:
    """Load a network of torchvision with the transforms that belong to its weights.

    A classifier returns (B, classes). A segmenter returns the scores of each place, (B, classes, H, W), without its
    auxiliary head. A detector returns a dict of boxes, labels and scores for each input, with masks or keypoints if it
    has these, as in torchvision; it takes values in [0, 1], and resizes and normalises them itself. A classifier of
    clips has a `ClipReader` of the frames that its weights were measured with.

    Raises:
        ExtremalValueError: the name is unknown, or weights are missing or do not fit.
    """
    import torchvision.models as tv

    check_name(name, names(), "a classifier, segmenter or detector of torchvision")
    best: Any = tv.get_model_weights(name).DEFAULT
    is_dense = name in _list_models(tv.segmentation) or name in _list_models(tv.detection)
    # even with weights=None these would download weights of their backbone
    no_backbone = {"weights_backbone": None} if is_dense and weights is not None else {}
    try:
        if weights is None and not is_downloaded(best.url) and not is_reachable(best.url):
            raise connection_error(best.url)
        model = tv.get_model(name, weights=best if weights is None else None, **no_backbone)
    except Exception as error:
        raise download_error(f"torchvision:{name}", error) if weights is None else error from None
    labels = tuple(best.meta["categories"])

    original: nn.Module = model

    def build(count: int) -> nn.Module:
        if count == len(best.meta["categories"]):
            return original
        resized: nn.Module = tv.get_model(name, weights=None, num_classes=count, **no_backbone)
        return resized

    is_segmenter = name in _list_models(tv.segmentation)
    model, classes = build_with_weights(build, len(labels), weights, unused="aux_classifier." if is_segmenter else "")
    labels = labels if classes == len(labels) else ()  # the names of other classes are not in the file
    if name in _list_models(tv.detection):
        preprocess = ShrinkShortSide(
            max(model.transform.fixed_size or model.transform.min_size)
        )  # it would shrink larger ones to this
        return Network(model.eval(), preprocess, labels, f"torchvision:{name}", (0.0,) * 3, (1.0,) * 3)
    transform = best.transforms()
    if name in CLIP_FRAMES:
        frames, rate = CLIP_FRAMES[name]
        reader, mean, std = ClipReader(frames, rate, transform), tuple(transform.mean), tuple(transform.std)
        return Network(model.eval(), None, labels, f"torchvision:{name}", mean, std, reader=reader)
    is_classifier = name not in _list_models(tv.segmentation)  # mirroring moves the places of a segmentation
    model = model if is_classifier else DenseSegmenter(model)
    mean, std = tuple(transform.mean), tuple(transform.std)
    return Network(model.eval(), transform, labels, f"torchvision:{name}", mean, std, mirror=is_classifier)


class DenseSegmenter(nn.Module):
    """A segmenter of torchvision that returns the scores of each place.

    Args:
        model: returns a mapping that has the scores as `out`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, classes, H, W)."""
        scores: Tensor = self.model(x)["out"]
        return scores


def _list_models(module: ModuleType) -> list[str]:
    """List the names of one of torchvision's packages; each task has its own package."""
    from torchvision.models import list_models

    return [name for name in list_models() if hasattr(module, name)]
