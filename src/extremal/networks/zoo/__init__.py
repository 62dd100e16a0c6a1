"""Names to networks: each family with its own weights, transforms and class names."""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from extremal.errors import ExtremalValueError
from extremal.networks.network import Network
from extremal.networks.zoo import huggingface, paper, timm, torchvision, user_module
from extremal.networks.zoo.pt2 import module
from extremal.networks.zoo.timm import EMBEDDED
from extremal.networks.zoo.weights import Weights, fill, nearest, read_state

FAMILIES = ("torchvision", "timm", *paper.SETS, "hf", "file")  # before a colon these are no modules of the caller's
RULE = (
    "a network must be 'embedded', 'torchvision:NAME', 'timm:NAME', 'voc:NAME', 'coco:NAME', 'hf:FOLDER', "
    "'file:PATH.pt2' or 'MODULE:CALLABLE'"
)


def names(pattern: str = "") -> list[str]:
    """Every name that stands for a network by itself and contains the pattern.

    Besides these `load` takes folders (`hf:`), files (`file:`) and the caller's own modules.
    """
    families = [EMBEDDED, *(f"torchvision:{name}" for name in torchvision.names())]
    families += [*(f"timm:{name}" for name in timm.names()), *paper.names()]
    return [name for name in families if pattern.lower() in name.lower()]


def load(name: str, weights: Weights = None) -> Network:
    """A network by name.

    Args:
        name: `embedded` (EfficientNet-Lite0, its ImageNet weights come with this package's dependencies);
            `torchvision:NAME`, a classifier, segmenter or detector; `timm:NAME`; `voc:NAME` or `coco:NAME`
            (`tuned.names`) with weights from a file; `hf:FOLDER`, a local folder in the format of Hugging Face;
            `file:PATH.pt2`, an archive of `torch.export.save`; or `MODULE:CALLABLE`, which is imported and called.
        weights: a local file (.safetensors, or a torch state dict, never unpickled); `random` for none at all;
            None for the network's own, which torchvision and timm download once.

    Raises:
        ExtremalValueError: an unknown name, or weights that are missing or do not fit.
        ExtremalTypeError: the caller's module has something else under that name.
    """
    family, _, rest = name.partition(":")
    with _seeded():
        if name == EMBEDDED:
            return timm.embedded(weights)
        if rest and family in FAMILIES:
            return _of_family(family, rest, weights)
        if not rest or not re.fullmatch(r"\w+(\.\w+)*", family) or not re.fullmatch(r"\w+(\.\w+)*", rest):
            raise ExtremalValueError(f"{RULE}, got {name!r}; `extremal networks` lists the names{_near(name)}")
        try:
            return user_module.load(family, rest, weights)
        except user_module.NoModule as missing:
            raise ExtremalValueError(
                f"{RULE}, got {name!r} and there is no module {str(missing)!r}; `extremal networks` lists the names, "
                f"modules are looked for on PYTHONPATH{_near(name)}"
            ) from None


def _of_family(family: str, rest: str, weights: Weights) -> Network:
    match family:
        case "torchvision":
            return torchvision.load(rest, weights)
        case "timm":
            return timm.load(rest, weights)
        case "hf":
            return huggingface.load(rest, weights)
        case "file":
            return module.load(rest, weights)
    return paper.load(family, rest, weights)


def _near(name: str) -> str:
    """Known names that are like this one, or the same with a family before them."""
    wanted = name.lower().strip(":")
    known = names()
    same = [full for full in known if (full.partition(":")[2] or full) == wanted]
    return f"; nearest: {', '.join(same[:3])}" if same else nearest(wanted, known)


@contextmanager
def _seeded() -> Iterator[None]:
    """Random weights are the same at every load, and the caller's random state stays."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


__all__ = ["EMBEDDED", "FAMILIES", "Network", "fill", "load", "names", "read_state"]
