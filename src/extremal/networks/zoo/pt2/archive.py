"""Read archives of `torch.export.save` without running anything in them: the graph as JSON, tensors from plain bytes.

`torch.export.load` is not used. It unpickles sample inputs and some kinds of weights, evaluates expressions as Python,
and calls any attribute of `torch` that a graph names: a malicious file could run any code.
"""

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from extremal.file_checks import check_entries, quote
from extremal.json_files import parse_json

FORMAT_MAJOR = 8  # the major version of the format; others give the same keys another meaning
MAX_PROBLEM = 500  # characters of a part of the file in a message
MAX_DIMENSIONS = 16  # of a stored tensor
MAX_EXPANDED_VALUES = 2**24  # of tensors that repeat their values by a stride of 0, beyond those in the file

# in the order of the format, which counts from 1
DTYPES = dict(
    enumerate(
        (
            *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
            *(torch.float16, torch.float32, torch.float64),
            *(torch.complex32, torch.complex64, torch.complex128, torch.bool, torch.bfloat16),
        ),
        start=1,
    )
)


class UnsupportedArchive(Exception):
    """An archive that breaks a rule.

    Args:
        rule: what an exported network must do.
        problem: what this one does instead.
        remedy: how to solve it.
    """

    def __init__(self, rule: str, problem: str, remedy: str) -> None:
        super().__init__(rule)
        self.rule, self.remedy = rule, remedy
        self.problem = problem if len(problem) <= MAX_PROBLEM else f"{problem[:MAX_PROBLEM]}…"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the archive."""

    value: Tensor
    is_parameter: bool  # or a buffer


@dataclass(frozen=True)
class Archive:
    """An exported program as plain values."""

    program: dict[str, Any]  # graph_module, range_constraints and more, in the form of the file
    weights: dict[str, StoredTensor]  # parameters and buffers by their names in the module
    constants: dict[str, StoredTensor]  # other tensors of the graph


def read_archive(path: Path) -> Archive:
    """Read the one program of an archive; sizes are compared with those in the file before anything is read.

    Raises:
        UnsupportedArchive: it was not written by `torch.export.save`, or has parts that would have to be unpickled.
        Exception: it is broken, or would take more memory than it has bytes.
    """
    with zipfile.ZipFile(path) as archive:
        check_entries(archive.infolist(), path.stat().st_size)
        names = archive.namelist()
        programs = [name for name in names if name.partition("/")[2].startswith("models/") and name.endswith(".json")]
        if len(programs) != 1:
            raise UnsupportedArchive(
                "be one program of torch.export.save (torch 2.9 or later)",
                f"which holds {len(programs)}",
                "save it with torch.export.save(torch.export.export(model.eval(), (x,)), PATH)",
            )
        root, _, rest = programs[0].partition("/")
        model = rest.removeprefix("models/").removesuffix(".json")
        program = parse_json(archive.read(programs[0]))
        major = program["schema_version"]["major"]
        if major != FORMAT_MAJOR:
            raise UnsupportedArchive(
                f"have version {FORMAT_MAJOR} of the format", f"which has version {major}", "save it by another torch"
            )
        weights, constants = (
            _read_tensors(archive, f"{root}/data/{part}/", model, part) for part in ("weights", "constants")
        )
        return Archive(program, weights, constants)


def _read_tensors(archive: zipfile.ZipFile, folder: str, model: str, part: str) -> dict[str, StoredTensor]:
    """Read the tensors of a folder of the archive; those that share bytes in the file share memory."""
    config = f"{folder}{model}_{part}_config.json"
    if config not in archive.namelist():
        raise UnsupportedArchive(
            "be saved by torch 2.9 or later", f"which has its {part} in another form", "save it again"
        )
    tensors: dict[str, StoredTensor] = {}
    buffers: dict[str, bytearray] = {}
    storages: dict[tuple[str, int], Tensor] = {}
    n_expanded = 0
    for name, entry in parse_json(archive.read(config))["config"].items():
        meta = entry["tensor_meta"]
        if entry["use_pickle"] or meta is None:
            raise UnsupportedArchive(
                "hold plain tensors only",
                f"whose {quote(name)} would have to be unpickled, which may run any code",
                "export it without tensor subclasses and objects of other kinds",
            )
        if meta["dtype"] not in DTYPES:
            raise UnsupportedArchive(
                "hold tensors of usual types", f"whose {quote(name)} is not of these", "convert it before the export"
            )
        sizes, strides = (tuple(size["as_int"] for size in meta[which]) for which in ("sizes", "strides"))
        n_values = count_values(sizes)
        key = entry["path_name"], meta["dtype"]
        if key not in storages:
            values = buffers.get(key[0]) or buffers.setdefault(key[0], bytearray(archive.read(folder + key[0])))
            dtype = DTYPES[key[1]]
            storages[key] = torch.frombuffer(values, dtype=dtype) if values else torch.empty(0, dtype=dtype)
        if not len(storages[key]) and n_values:
            raise UnsupportedArchive(
                "hold its weights", f"which has no values of {quote(name)}", "export it with real tensors"
            )
        n_expanded += max(0, n_values - len(storages[key]))
        if n_expanded > MAX_EXPANDED_VALUES:
            raise ValueError(f"{name} has {n_values} values, but the file has {len(storages[key])} for it")
        value = storages[key].as_strided(sizes, strides, meta["storage_offset"]["as_int"])
        tensors[name] = StoredTensor(value, bool(entry["is_param"]))
    return tensors


def count_values(sizes: Sequence[Any]) -> int:
    """Return the number of values of a tensor.

    Raises:
        ValueError: a size is no whole number, or out of range.
    """
    in_range = len(sizes) <= MAX_DIMENSIONS and all(type(size) is int and 0 <= size < 2**63 for size in sizes)
    if not in_range:
        raise ValueError("sizes of a tensor must be whole numbers from 0")
    return math.prod(sizes)
