"""What `torch.export.save` wrote, read without running any of it: the graph as plain values, tensors from plain bytes.

`torch.export.load` itself is not used. It unpickles sample inputs and some kinds of weights, evaluates expressions as
Python, and calls whatever attribute of `torch` a graph names: a file made for the purpose runs any code.
"""

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MAJOR = 8  # of the format's version: others mean something else by the same words

# in the order in which this format counts them, from 1
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


class Refused(Exception):
    """An archive that breaks a rule.

    Args:
        rule: what an exported network must do.
        found: what this one does instead.
        remedy: what helps.
    """

    def __init__(self, rule: str, found: str, remedy: str) -> None:
        super().__init__(rule)
        self.rule, self.found, self.remedy = rule, found, remedy


@dataclass(frozen=True)
class Stored:
    """A tensor of the archive."""

    value: Tensor
    parameter: bool  # or a buffer


@dataclass(frozen=True)
class Archive:
    """An exported program as plain values."""

    program: dict[str, Any]  # graph_module, range_constraints and more, as the format has them
    weights: dict[str, Stored]  # parameters and buffers by their names in the module
    constants: dict[str, Stored]  # tensors that the graph was exported with


def read(path: Path) -> Archive:
    """The one program of an archive.

    Raises:
        Refused: it is none of `torch.export.save`, or has parts that would have to be unpickled.
        KeyError, TypeError, ValueError and others: it is broken.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        programs = [name for name in names if name.partition("/")[2].startswith("models/") and name.endswith(".json")]
        if len(programs) != 1:
            raise Refused(
                "be one program of torch.export.save (torch 2.9 or later)",
                f"which holds {len(programs)}",
                "save it with torch.export.save(torch.export.export(model.eval(), (x,)), PATH)",
            )
        root, _, rest = programs[0].partition("/")
        model = rest.removeprefix("models/").removesuffix(".json")
        program = json.loads(archive.read(programs[0]))
        major = program["schema_version"]["major"]
        if major != MAJOR:
            raise Refused(
                f"have version {MAJOR} of the format", f"which has version {major}", "save it by another torch"
            )
        weights, constants = (
            _tensors(archive, f"{root}/data/{part}/", model, part) for part in ("weights", "constants")
        )
        return Archive(program, weights, constants)


def _tensors(archive: zipfile.ZipFile, folder: str, model: str, part: str) -> dict[str, Stored]:
    """The tensors of a folder of the archive; those that share their bytes share them again."""
    config = f"{folder}{model}_{part}_config.json"
    if config not in archive.namelist():
        raise Refused("be saved by torch 2.9 or later", f"which has its {part} in another form", "save it again")
    found: dict[str, Stored] = {}
    flat: dict[tuple[str, int], Tensor] = {}
    for name, entry in json.loads(archive.read(config))["config"].items():
        meta = entry["tensor_meta"]
        if entry["use_pickle"] or meta is None:
            raise Refused(
                "hold plain tensors only",
                f"whose {name!r} would have to be unpickled, which may run any code",
                "export it without tensor subclasses and objects of other kinds",
            )
        if meta["dtype"] not in DTYPES:
            raise Refused(
                "hold tensors of usual types", f"whose {name!r} is not of these", "convert it before the export"
            )
        sizes, strides = (tuple(size["as_int"] for size in meta[which]) for which in ("sizes", "strides"))
        key = entry["path_name"], meta["dtype"]
        if key not in flat:
            values, dtype = archive.read(folder + key[0]), DTYPES[key[1]]
            flat[key] = torch.frombuffer(bytearray(values), dtype=dtype) if values else torch.empty(0, dtype=dtype)
        if not len(flat[key]) and math.prod(sizes):
            raise Refused("hold its weights", f"which has no values of {name!r}", "export it with real tensors")
        value = flat[key].as_strided(sizes, strides, meta["storage_offset"]["as_int"])
        found[name] = Stored(value, bool(entry["is_param"]))
    return found
