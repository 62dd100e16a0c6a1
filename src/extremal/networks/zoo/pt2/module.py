"""Networks from archives of `torch.export.save`, read and run without unpickling or running any code of theirs."""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.networks.network import Network
from extremal.networks.zoo.preprocessing import Fitted
from extremal.networks.zoo.pt2.archive import Archive, Refused, Stored, read
from extremal.networks.zoo.pt2.graph import Device, Name, Structure, planned
from extremal.networks.zoo.weights import Weights, first_line, nearest, refuse_weights

SUFFIX = ".pt2"


def load(path: str, weights: Weights) -> Network:
    """The network of an archive that `torch.export.save` of torch 2.9 or later wrote.

    Nothing in the archive is unpickled or run as code: its tensors are read from plain bytes, its sample inputs not at
    all, and its graph may only call torch's own tensor operators. Archives with pickled weights are refused.

    An archive tells nothing of preprocessing: a picture is cropped in its middle and resized to the size that was
    exported (left at its own where that may vary), and handed in as values in [0, 1]; there are no class names. Where
    this is not right, wrap the model: `Network(load(PATH).model, preprocess, labels)`. Numbers that the exported module
    returned in classes of its own come as dicts and tuples. A batch may have any number of rows, whatever was exported.

    Args:
        path: the file.
        weights: None, the archive has them.

    Raises:
        ExtremalValueError: no such file, another kind of file, or an archive that breaks a rule.
    """
    name, file = f"file:{path}", Path(path).expanduser()
    refuse_weights(name, weights)
    if file.suffix != SUFFIX:
        raise ExtremalValueError(
            f"an exported network must be a {SUFFIX} file of torch.export.save, got {path!r}; "
            "save it with torch.export.save(torch.export.export(model.eval(), (x,)), PATH)"
        )
    if not file.is_file():
        near = nearest(file.name, [other.name for other in file.parent.glob(f"*{SUFFIX}")])
        raise ExtremalValueError(f"an exported network must be an existing file, got {path!r}; check the path{near}")
    try:
        model = Exported(read(file), name)
    except Refused as refused:
        raise ExtremalValueError(
            f"an exported network must {refused.rule}, got {path!r}, {refused.found}; {refused.remedy}"
        ) from None
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise ExtremalValueError(
            f"an exported network must be a whole archive of torch.export.save, got {path!r}: {type(error).__name__}, "
            f"{first_line(error)}; save or copy it again"
        ) from None
    shape = model.plan.sizes[1:]
    return Network(model.eval(), Fitted(*shape) if len(shape) == 3 else None, (), name, (0.0,), (1.0,))


class Exported(nn.Module):
    """A network that follows the plan of its export, for as many inputs at once as the caller likes.

    Args:
        archive: what was exported.
        name: told in errors.
    """

    def __init__(self, archive: Archive, name: str) -> None:
        super().__init__()
        self.weights, self.constants = _tree(archive.weights), _tree(archive.constants)
        self.plan, self._name = planned(archive), name
        if not self.plan.floating:
            raise Refused(
                "take floating inputs", "which takes whole numbers", "leave its preprocessing out of the export"
            )

    def forward(self, x: Tensor) -> object:
        """(B, ...) -> what the exported module returned; more rows than it takes at once are taken in turn."""
        sizes = self.plan.sizes
        if x.ndim != len(sizes) or any(w not in (None, g) for w, g in zip(sizes[1:], x.shape[1:], strict=True)):
            takes = ", ".join("any" if size is None else str(size) for size in sizes[1:])
            raise ExtremalValueError(
                f"{self._name} takes inputs (N, {takes}), got {tuple(x.shape)}; resize the input, or export the "
                "network with dynamic shapes"
            )
        parts = [self._outputs(part) for part in torch.split(x, self.plan.most or max(1, len(x)))]
        if len(parts) == 1 and sizes[0] in (None, len(x)):
            return _structured(self.plan.structure, iter(parts[0]))
        joined = [_joined(several, len(x)) for several in zip(*parts, strict=True)]
        return _structured(self.plan.structure, iter(joined))

    def _outputs(self, x: Tensor) -> list[Any]:
        """The outputs for rows that the graph takes at once."""
        plan = self.plan
        missing = (plan.sizes[0] or 0) - len(x)
        if missing > 0:  # the last row once more for each
            x = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])])
        known: dict[str, Any] = {plan.input: x}
        for names, module in ((plan.weights, self.weights), (plan.constants, self.constants)):
            tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            known |= {name: tensors[own] for name, own in names.items()}
        for call in plan.calls:
            options = {name: _filled(value, known, x.device) for name, value in call.options.items()}
            made = call.function(*(_filled(value, known, x.device) for value in call.args), **options)
            pairs = [(call.outputs[0], made)] if len(call.outputs) == 1 else zip(call.outputs, made or (), strict=True)
            for output, value in pairs:
                known |= _kept(output, value)
            for name in call.spent:
                del known[name]
        return [_filled(output, known, x.device) for output in plan.outputs]


def _filled(value: Any, known: dict[str, Any], device: torch.device) -> Any:
    """An argument with its placeholders filled."""
    if isinstance(value, Name):
        return known[value.key]
    if isinstance(value, list):
        return [_filled(one, known, device) for one in value]
    return device if isinstance(value, Device) else value


def _kept(output: Name | list[Name] | None, value: Any) -> dict[str, Any]:
    """What a call returned, by the names that the graph has for it."""
    if isinstance(output, list):
        return {name.key: one for name, one in zip(output, value, strict=True)}
    return {} if output is None else {output.key: value}


def _joined(parts: Sequence[Any], rows: int) -> Any:
    """One output of several runs as one, without the rows that filled up the last."""
    several = isinstance(parts[0], Tensor) and parts[0].ndim > 0
    return torch.cat(list(parts))[:rows] if several else parts[0]


def _structured(structure: Structure, leaves: Iterator[Any]) -> Any:
    """The outputs as the module returned them."""
    if structure is None:
        return next(leaves)
    keys, parts = structure
    children = [_structured(part, leaves) for part in parts]
    return tuple(children) if keys is None else dict(zip(keys, children, strict=True))


def _tree(tensors: dict[str, Stored]) -> nn.Module:
    """A module that has these tensors under their dotted names."""
    root = nn.Module()
    for name, stored in tensors.items():
        *path, last = name.split(".")
        owner = root
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        if stored.parameter:
            owner.register_parameter(last, nn.Parameter(stored.value, stored.value.is_floating_point()))
        else:
            owner.register_buffer(last, stored.value)
    return root
