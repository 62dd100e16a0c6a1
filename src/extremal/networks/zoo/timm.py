"""Networks of timm by name."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn

from extremal.networks.imagenet import find_imagenet_labels
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


def _network(model: nn.Module, name: str) -> Network:
    from timm.data import create_transform, resolve_data_config

    config: dict[str, Any] = resolve_data_config({}, model=model)
    transform: Any = create_transform(**config, is_training=False)
    classes = int(getattr(model, "num_classes", 0))
    return Network(
        model.eval(), transform, find_imagenet_labels(classes), name, config["mean"], config["std"], mirror=True
    )
