"""Files and folders that networks are loaded from: checks before they are opened; nothing here imports torch."""

import re
from pathlib import Path
from zipfile import ZipFile, is_zipfile

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, expand_user, find_kind, is_address, list_names, quote
from extremal.networks.suggestions import suggest

ONNX_SUFFIX, EXPORTED_SUFFIX = ".onnx", ".pt2"
HUB_NAME = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95})(?:@([\w./-]+))?")  # OWNER/NAME[@REVISION]


def check_onnx_file(path: str) -> Path:
    """Return the path of an ONNX file, which exists.

    Raises:
        ExtremalValueError: it does not, or is not named like one.
    """
    noun = "an ONNX network"
    file = expand_user(path, noun)
    if file.suffix != ONNX_SUFFIX:
        raise ExtremalValueError(
            f"{noun} must be a {ONNX_SUFFIX} file, got {quote(path)}; export it with torch.onnx.export"
        )
    _check_sibling(file, path, noun)
    return file


def check_exported_file(path: str) -> Path:
    """Return the path of an archive of `torch.export.save`, which exists.

    Raises:
        ExtremalValueError: it does not, is not named like one, or is an archive of TorchScript.
    """
    noun = "an exported network"
    file = expand_user(path, noun)
    if file.suffix != EXPORTED_SUFFIX and is_torchscript(file):
        raise ExtremalValueError(
            f"{noun} must be a {EXPORTED_SUFFIX} file of torch.export.save, got {quote(path)}, a TorchScript archive, "
            "which is code and is not run; if you trust it, name a function of yours that returns "
            "torch.jit.load(PATH), as MODULE:CALLABLE"
        )
    if file.suffix != EXPORTED_SUFFIX:
        raise ExtremalValueError(
            f"{noun} must be a {EXPORTED_SUFFIX} file of torch.export.save, got {quote(path)}; "
            "save it with torch.export.save(torch.export.export(model.eval(), (x,)), PATH)"
        )
    _check_sibling(file, path, noun)
    return file


def is_hub_name(text: str) -> bool:
    """Return whether a text has the form of a repository on the hub of Hugging Face.

    >>> is_hub_name("microsoft/resnet-50@v1"), is_hub_name("./checkpoints/vit")
    (True, False)
    """
    return HUB_NAME.fullmatch(text) is not None and ".." not in text


def check_huggingface_folder(folder: Path, path: str) -> Path:
    """Return the config.json of a local folder in the format of Hugging Face.

    Args:
        folder: the folder.
        path: the folder as the user gave it.

    Raises:
        ExtremalValueError: there is no such folder or file.
    """
    if find_kind(folder, "an hf: network", quote(path)) != "folder":
        siblings = [name for name in list_names(folder.parent) if (folder.parent / name).is_dir()]
        suggestion = "" if is_address(path) else suggest(folder.name, siblings)
        raise ExtremalValueError(
            f"an hf: network must be a local folder, or OWNER/NAME[@REVISION] on the hub, got {quote(path)}; check the "
            f"path{suggestion}"
        )
    file = folder / "config.json"
    if not find_kind(file, "an hf: network"):
        raise ExtremalValueError(
            f"an hf: network must have a config.json, got {quote(path)} without one; write it with save_pretrained"
        )
    return file


def is_torchscript(file: Path) -> bool:
    """Return whether a file is an archive of TorchScript, which has code; False if it cannot be read."""
    try:
        if not file.is_file() or not is_zipfile(file):
            return False
        with ZipFile(file) as archive:
            return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())
    except Exception:  # damaged
        return False


def _check_sibling(file: Path, path: str, noun: str) -> None:
    """Raise unless a file exists; those of the same kind in its folder are suggested."""
    siblings = [sibling for sibling in list_names(file.parent) if sibling.endswith(file.suffix)]
    check_file(file, noun, name=quote(path), remedy=f"check the path{suggest(file.name, siblings)}")
