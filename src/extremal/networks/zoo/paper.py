"""VGG-16 and ResNet-50 as the paper evaluates them: fully convolutional, tuned to VOC or COCO, from a local file.

Their last layers are convolutions, so that a picture of any shape is seen whole, its short side 224 px; the scores of a
class at several places are averaged (paper, section 4). The file is a state dict of torchvision's VGG-16 or ResNet-50
with 20 or 80 outputs; last layers may be stored as linear layers or as convolutions.
"""

import os
from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.networks.network import Network

SIDE = 224  # px, of the short side
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (123.68, 116.779, 103.939)  # RGB, of 0..255, for weights that were tuned in Caffe
SETS = ("voc", "coco")
ARCHITECTURES = ("vgg16", "resnet50", "vgg16-caffe", "resnet50-caffe")


def names() -> list[str]:
    """Every name that `load` takes."""
    return [f"{data}:{architecture}" for data in SETS for architecture in ARCHITECTURES]


def load(data: str, architecture: str, weights: str | os.PathLike[str] | None) -> Network:
    """A network tuned to a data set.

    Args:
        data: voc (20 classes) or coco (80).
        architecture: vgg16 or resnet50; with -caffe its weights take BGR of 0..255 less a mean, as Caffe has them.
        weights: the local file, or `random`.

    Raises:
        ExtremalValueError: an unknown architecture, no weights, or weights that do not fit.
    """
    if architecture not in ARCHITECTURES:
        raise ExtremalValueError(
            f"a network tuned to {data} must be one of {', '.join(ARCHITECTURES)}, got {architecture!r}"
        )
    if weights is None:
        raise ExtremalValueError(
            f"weights of {data}:{architecture} must be a local file, none was given; pass --weights FILE, or "
            "--weights random"
        )
    labels = classes(data)
    base, _, pixels = architecture.partition("-")
    model = (_vgg16 if base == "vgg16" else _resnet50)(len(labels))
    if str(weights) != "random":
        from extremal.networks.zoo import read_state  # which knows this module

        _fill(model, read_state(weights), str(weights))
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    if pixels == "caffe":
        mean, std = tuple(value / 255 for value in CAFFE_MEAN), (1 / 255,) * 3
        first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        first.weight.data = first.weight.data.flip(1)  # takes red first, as all else here does
    return Network(model.eval(), _Whole(mean, std), labels, f"{data}:{architecture}", mean, std, mirror=True)


def classes(data: str) -> Sequence[str]:
    """The classes of a data set, in the order of its outputs.

    >>> classes("voc")[:2], len(classes("coco"))
    (('aeroplane', 'bicycle'), 80)
    """
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
    from torchvision.models.segmentation import FCN_ResNet50_Weights

    known: dict[str, Any] = {
        "voc": FCN_ResNet50_Weights.DEFAULT.meta["categories"],
        "coco": FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"],
    }
    return tuple(name for name in known[data] if name not in ("__background__", "N/A"))


class _Whole:
    """The whole picture, its short side 224 px, normalised: a picture -> (3, H, W)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = mean, std

    def __call__(self, picture: Image.Image) -> Tensor:
        from torchvision.transforms.functional import normalize, resize, to_tensor

        pixels: Tensor = to_tensor(resize(picture, [SIDE], antialias=True))
        normalised: Tensor = normalize(pixels, self.mean, self.std)
        return normalised


def _vgg16(count: int) -> nn.Module:
    from torchvision.models import vgg16

    model = vgg16(weights=None, num_classes=count)
    model.classifier = nn.Sequential(
        nn.Conv2d(512, 4096, 7),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Conv2d(4096, 4096, 1),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Conv2d(4096, count, 1),
    )
    return nn.Sequential(model.features, model.classifier)


def _resnet50(count: int) -> nn.Module:
    from torchvision.models import resnet50

    model = resnet50(weights=None, num_classes=count)
    parts = {name: module for name, module in model.named_children() if name not in ("avgpool", "fc")}
    body = nn.Sequential()
    for name, module in parts.items():
        body.add_module(name, module)
    body.add_module("avgpool", nn.AvgPool2d(7, stride=1))
    body.add_module("fc", nn.Conv2d(2048, count, 1))
    return body


def _fill(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load a state dict of torchvision's names; last layers take the shape that the convolution has."""
    from extremal.networks.zoo import fill

    wanted = model.state_dict()
    numbers = {"features": "0", "classifier": "1"}  # of VGG's two halves
    given = {}
    for key, value in state.items():
        first, _, rest = key.partition(".")
        own = f"{numbers[first]}.{rest}" if first in numbers and isinstance(model[0], nn.Sequential) else key  # type: ignore[index]
        fits = own in wanted and value.numel() == wanted[own].numel()
        given[own] = value.view(wanted[own].shape) if fits else value
    fill(model, given, name)
