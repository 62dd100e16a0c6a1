"""YOLO detectors of the package ultralytics, which is not a dependency: their module, class names, preprocessing."""

import sys
from collections.abc import Mapping

from PIL import Image
from torch import Tensor, nn

from extremal.networks.network import Network
from extremal.networks.pixels import to_pixels

SIDE = 640  # px, of the padded image
PADDING = 114  # grey level around the image


def find_yolo(model: object) -> Network | None:
    """Return the network inside an object such as `ultralytics.YOLO("yolo11n.pt")`; None for other objects.

    Its module `model` returns predictions (B, 4 + classes, anchors), or a tuple that begins with them; `names` are the
    classes. Nothing is imported, and the object is not changed.
    """
    if type(model).__module__.partition(".")[0] != "ultralytics" or "ultralytics" not in sys.modules:
        return None
    module, names = getattr(model, "model", None), getattr(model, "names", None)
    if not isinstance(module, nn.Module) or not isinstance(names, Mapping):
        return None
    labels = tuple(str(name) for _, name in sorted(names.items()))
    return Network(module, letterbox, labels, type(model).__name__, (0.0,) * 3, (1.0,) * 3)


def letterbox(image: Image.Image) -> Tensor:
    """Fit an RGB image into a square with its aspect, with grey around it: (3, 640, 640) in [0, 1].

    >>> x = letterbox(Image.new("RGB", (320, 160), "white"))
    >>> tuple(x.shape), float(x[0, 320, 0]), round(float(x[0, 0, 0]), 3)
    ((3, 640, 640), 1.0, 0.447)
    """
    scale = SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new("RGB", (SIDE, SIDE), (PADDING,) * 3)
    square.paste(image.resize((width, height), Image.Resampling.BILINEAR), ((SIDE - width) // 2, (SIDE - height) // 2))
    return to_pixels(square)
