"""Load networks by name, each family with its own weights, preprocessing and class names."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote
from extremal.networks.devices import AUTO, DeviceLike, check_device_name, find_device
from extremal.networks.names import (
    EMBEDDED_NAME,
    FAMILIES,
    NAME_RULE,
    PACKAGED_NAMES,
    is_module_path,
    names_code,
    suggest_network,
)
from extremal.networks.network import Network
from extremal.networks.vision_language import wrap_vision_language
from extremal.networks.zoo import huggingface, packaged, paper, timm, timm_hub, torchvision, user_module
from extremal.networks.zoo.huggingface_detectors import with_phrases
from extremal.networks.zoo.onnx import module as onnx_file
from extremal.networks.zoo.pt2 import module as exported
from extremal.networks.zoo.weights import Weights, is_random


def names(pattern: str = "") -> list[str]:
    """List the names of networks that contain the pattern.

    `load` also takes folders and repositories of the hub (`hf:`), files (`onnx:`, `file:`) and the user's own modules,
    which are not listed.
    """
    families = [*PACKAGED_NAMES, *(f"torchvision:{name}" for name in torchvision.names())]
    families += [*(f"timm:{name}" for name in timm.names()), *paper.names()]
    return [name for name in families if pattern.lower() in name.lower()]


def load(name: str, weights: Weights = None, device: DeviceLike = AUTO, number: int = 0) -> Network:
    """Load a network by name, onto a device.

    Args:
        name: `embedded` (EfficientNet-Lite0, whose ImageNet weights come with this package's dependencies);
            `efficientnet-lite1` or `efficientnet-lite2`, whose weights are in packages of these names followed by
            `-pytorch-model`; `torchvision:NAME`, a classifier, segmenter or detector; `timm:NAME`; `voc:NAME` or
            `coco:NAME`, a network of the paper with weights from a file; `hf:FOLDER`, a local folder in the format of
            Hugging Face; `hf:OWNER/NAME[@REVISION]`, a repository of the Hugging Face hub, or
            `timm:hf-hub:OWNER/NAME[@REVISION]`, one of timm; `onnx:FILE.onnx`; `file:PATH.pt2`, an archive of
            `torch.export.save`; or `MODULE:CALLABLE`, which is imported and called.
        weights: a local file (.safetensors, or a torch state dict; neither is unpickled); `random` for random weights;
            None for the network's own weights, which are downloaded once.
        device: auto, cpu, cuda, cuda:N, mps or xpu; auto is the fastest that this machine has, but a network that the
            user's own code put on a device other than the CPU stays there.
        number: of a worker; with `auto`, workers are spread over all devices of the fastest kind.

    Raises:
        ExtremalValueError: the name is unknown, weights are missing or do not fit, or there is no such device.
        ExtremalTypeError: the user's module has something else under that name.
    """
    found = find_device(device, number)  # before anything is loaded
    network = _load(name, weights)
    if not names_code(name):  # of the user's own code only the user knows
        network.random_weights = is_random(weights)
    is_placed = network.devices() not in ([], ["cpu"])  # by the code of the user's module
    return network if is_placed and check_device_name(device) == AUTO else network.to(found)


def _load(name: str, weights: Weights) -> Network:
    family, _, rest = name.partition(":")
    with _fixed_seed():
        if name in PACKAGED_NAMES:
            return packaged.load(name, weights)
        if rest and family in FAMILIES:
            return _load_from_family(family, rest, weights)
        if not rest or not is_module_path(name):
            raise ExtremalValueError(
                f"{NAME_RULE}, got {quote(name)}; `extremal networks` lists the names{suggest_network(name, names())}"
            )
        try:
            return user_module.load(family, rest, weights)
        except user_module.ModuleNotFound as missing:
            raise ExtremalValueError(
                f"{NAME_RULE}, got {quote(name)} and there is no module {quote(missing)}; `extremal networks` lists "
                f"the names, modules are searched on PYTHONPATH{suggest_network(name, names())}"
            ) from None


def _load_from_family(family: str, rest: str, weights: Weights) -> Network:
    loaders = {
        "torchvision": torchvision.load,
        "timm": timm_hub.load if rest.startswith(timm_hub.HUB_PREFIX) else timm.load,
        "hf": huggingface.load,
        "onnx": onnx_file.load,
        "file": exported.load,
    }
    if family in loaders:
        return loaders[family](rest, weights)
    return paper.load(family, rest, weights)


@contextmanager
def _fixed_seed() -> Iterator[None]:
    """Make random weights the same at every load, without changing the caller's random state."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


__all__ = ["EMBEDDED_NAME", "FAMILIES", "load", "names", "names_code", "with_phrases", "wrap_vision_language"]
