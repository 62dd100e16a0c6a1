"""Networks of timm from the Hugging Face hub, built by timm and loaded from safetensors only."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from extremal.errors import ExtremalValueError
from extremal.file_checks import describe_error, quote
from extremal.networks.imagenet import find_imagenet_labels
from extremal.networks.network import Network
from extremal.networks.zoo.hub import HubName, fetch
from extremal.networks.zoo.huggingface_files import find_weights, read_config
from extremal.networks.zoo.huggingface_sizes import check_model, check_numbers, check_side, read_shapes
from extremal.networks.zoo.weights import Weights, build_with_weights, check_name, is_random, load_state, read_state

HUB_PREFIX = "hf-hub:"
_SIZE_KEYS = ("input_size", "test_input_size")


def load(name: str, weights: Weights) -> Network:
    """Load a network that timm has saved to the hub, from its settings in config.json and its weights in safetensors.

    Args:
        name: hf-hub:OWNER/NAME[@REVISION].
        weights: None for those of the repository; `random`; or a file to use instead.

    Raises:
        ExtremalValueError: there is no such repository, it is not of timm, or its weights do not fit.
    """
    path = name.removeprefix(HUB_PREFIX)
    hub_name = HubName.parse(path)
    if hub_name is None:
        raise ExtremalValueError(
            f"a network of timm on the hub must be timm:hf-hub:OWNER/NAME[@REVISION], got {quote(f'timm:{name}')}; "
            "check the name"
        )
    snapshot = fetch(f"timm:{name}", hub_name, lambda folder: read_settings(folder, path), with_weights=weights is None)
    settings = read_settings(snapshot.folder, path)
    files = find_weights(snapshot.folder, path) if weights is None else []
    if len(files) > 1:
        raise ExtremalValueError(
            f"weights of a network of timm must be in one file, got {quote(path)} with {len(files)}; join them"
        )
    shapes = read_shapes(files, path)
    try:
        with torch.device("meta"):
            check_model(_build(settings), shapes, path, None)
        model = _build(settings)
    except ExtremalValueError:
        raise
    except Exception as error:
        raise ExtremalValueError(
            f"a network of timm on the hub must have settings that timm can build, got {quote(path)}: "
            f"{describe_error(error)}; correct its config.json"
        ) from None
    if files:
        load_state(model, read_state(files[0]), path)
    elif not is_random(weights):
        model, _ = build_with_weights(lambda count: _build(settings, count), int(settings["num_classes"]), weights)
    return _wrap(model, settings, f"timm:{name}", snapshot.source)


def read_settings(folder: Path, path: str) -> dict[str, Any]:
    """Read the settings of a network of timm from config.json.

    Args:
        folder: with config.json.
        path: the repository as the user gave it.

    Raises:
        ExtremalValueError: they are not of timm, of a network that it does not have, or have values out of range.
    """
    import timm

    settings = read_config(folder, path)
    check_numbers(settings, path)
    architecture, pretrained = settings.get("architecture"), settings.get("pretrained_cfg", {})
    if not isinstance(architecture, str) or not isinstance(pretrained, dict):
        raise ExtremalValueError(
            f"a network of timm on the hub must name its architecture in config.json, got {quote(path)}, which does "
            f"not; if it is of transformers, pass hf:{quote(path)[1:-1]}"
        )
    check_name(architecture, timm.list_models(), "one that timm can build")
    settings = {**settings, "num_classes": settings.get("num_classes", pretrained.get("num_classes", 1000))}
    arguments = settings.get("model_args") or {}
    if not isinstance(settings["num_classes"], int) or settings["num_classes"] < 0 or not isinstance(arguments, dict):
        raise ExtremalValueError(
            f"a network of timm on the hub must have a whole num_classes and an object model_args, got {quote(path)} "
            f"with {quote(settings['num_classes'])} and {quote(arguments)}; correct its config.json"
        )
    for key in _SIZE_KEYS:
        size = pretrained.get(key)
        for side in size[1:] if isinstance(size, list) else ():
            check_side(side, path)
    return settings


def _build(settings: dict[str, Any], classes: int | None = None) -> nn.Module:
    import timm

    pretrained = {key: value for key, value in settings.get("pretrained_cfg", {}).items() if key not in _LOCATIONS}
    classes = settings["num_classes"] if classes is None else classes
    arguments = {key: value for key, value in (settings.get("model_args") or {}).items() if key not in _ARGUMENTS}
    model: nn.Module = timm.create_model(
        settings["architecture"],
        pretrained=False,
        pretrained_cfg={**pretrained, "num_classes": classes},
        num_classes=classes,
        **arguments,
    )
    return model


_LOCATIONS = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load")
_ARGUMENTS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "num_classes", "cache_dir")


def _wrap(model: nn.Module, settings: dict[str, Any], name: str, source: str) -> Network:
    from timm.data import create_transform, resolve_data_config

    classes = int(getattr(model, "num_classes", 0))
    try:
        config: dict[str, Any] = resolve_data_config({}, model=model)
        transform: Any = create_transform(**config, is_training=False)
    except Exception as error:
        raise ExtremalValueError(
            f"a network of timm on the hub must have preprocessing that timm can build, got {quote(name)}: "
            f"{describe_error(error)}; correct its config.json"
        ) from None
    labels = _find_labels(settings, classes)
    return Network(model.eval(), transform, labels, name, config["mean"], config["std"], mirror=True, source=source)


def _find_labels(settings: dict[str, Any], classes: int) -> tuple[str, ...]:
    """Return the class names of settings; of 1000 classes without names, those of ImageNet."""
    pretrained = settings.get("pretrained_cfg", {})
    names = settings.get("label_names", pretrained.get("label_names"))
    if not isinstance(names, list) or len(names) != classes:
        return find_imagenet_labels(classes)
    described = settings.get("label_descriptions", pretrained.get("label_descriptions"))
    described = described if isinstance(described, dict) else {}
    return tuple(str(described.get(str(label), label)) for label in names)
