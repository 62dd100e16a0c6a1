"""VGG-16 and ResNet-50 as the paper evaluates them: fully convolutional, fine-tuned on VOC or COCO, from a local file.

Their last layers are convolutions, so that images of any shape are seen in full, with a short side of 224 px; the
scores of a class at several places are averaged (paper, section 4). The file is a state dict of torchvision's VGG-16 or
ResNet-50 with 20 or 80 outputs; last layers may be stored as linear layers or as convolutions.
"""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.networks.image_bounds import check_scaled_pixels
from extremal.networks.names import PAPER_FAMILIES
from extremal.networks.network import Network
from extremal.networks.pixels import normalise_pixels, scale_short_side, to_pixels
from extremal.networks.zoo.weights import Weights, is_random, load_state, read_state

SHORT_SIDE = 224  # px
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (123.68, 116.779, 103.939)  # RGB, of 0..255, for weights that were trained in Caffe

ARCHITECTURES = ("vgg16", "resnet50", "vgg16-caffe", "resnet50-caffe")


def names() -> list[str]:
    """List the names of the networks, with the data set."""
    return [f"{data}:{architecture}" for data in PAPER_FAMILIES for architecture in ARCHITECTURES]


def load(data: str, architecture: str, weights: Weights) -> Network:
    """Load a network that was fine-tuned on a data set.

    Args:
        data: voc (20 classes) or coco (80).
        architecture: vgg16 or resnet50; with -caffe its weights take BGR of 0..255 less a mean, as in Caffe.
        weights: the local file, or `random`.

    Raises:
        ExtremalValueError: the architecture is unknown, or weights are missing or do not fit.
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
    labels = class_names(data)
    base, _, pixels = architecture.partition("-")
    model = (_vgg16 if base == "vgg16" else _resnet50)(len(labels))
    if not is_random(weights):
        _load_state(model, read_state(weights), str(weights))
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    if pixels == "caffe":
        mean, std = tuple(value / 255 for value in CAFFE_MEAN), (1 / 255,) * 3
        first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        first.weight.data = first.weight.data.flip(1)  # takes red first, like all networks here
    return Network(model.eval(), _ResizeShortSide(mean, std), labels, f"{data}:{architecture}", mean, std, mirror=True)


def class_names(data: str) -> Sequence[str]:
    """Return the classes of a data set, in the order of the outputs.

    >>> class_names("voc")[:2], len(class_names("coco"))
    (('aeroplane', 'bicycle'), 80)
    """
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
    from torchvision.models.segmentation import FCN_ResNet50_Weights

    categories: dict[str, Any] = {
        "voc": FCN_ResNet50_Weights.DEFAULT.meta["categories"],
        "coco": FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"],
    }
    return tuple(name for name in categories[data] if name not in ("__background__", "N/A"))


class _ResizeShortSide:
    """Resize the short side to 224 px and normalise: image -> (3, H, W)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, image: Image.Image) -> Tensor:
        check_scaled_pixels(image, SHORT_SIDE, enlarge=True)
        scaled = scale_short_side(image, SHORT_SIDE, Image.Resampling.BILINEAR)
        return normalise_pixels(to_pixels(scaled), self.mean, self.std)


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


def _load_state(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load a state dict with torchvision's names; last layers are reshaped to convolutions."""
    expected = model.state_dict()
    indices = {"features": "0", "classifier": "1"}  # of the two halves of VGG-16
    renamed = {}
    for key, value in state.items():
        first, _, rest = key.partition(".")
        own = f"{indices[first]}.{rest}" if first in indices and isinstance(model[0], nn.Sequential) else key  # type: ignore[index]
        fits = own in expected and value.numel() == expected[own].numel()
        renamed[own] = value.reshape(expected[own].shape) if fits else value
    load_state(model, renamed, name)
