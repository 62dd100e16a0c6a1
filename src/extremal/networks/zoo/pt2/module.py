"""Networks from archives of `torch.export.save`, read without unpickling and run without executing code from them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from extremal.errors import ExtremalValueError
from extremal.file_checks import quote
from extremal.networks.names import check_no_weights
from extremal.networks.network import Network
from extremal.networks.network_files import check_exported_file
from extremal.networks.zoo.exported_sizes import check_exported_sizes
from extremal.networks.zoo.preprocessing import CenterCropResize
from extremal.networks.zoo.pt2.archive import Archive, StoredTensor, UnsupportedArchive, read_archive
from extremal.networks.zoo.pt2.graph import Structure, build_graph
from extremal.networks.zoo.pt2.trial import try_forward
from extremal.networks.zoo.weights import Weights, first_line


def load(path: str, weights: Weights) -> Network:
    """Load a network from an archive that `torch.export.save` of torch 2.9 or later wrote.

    Nothing in the archive is unpickled or run as code: its tensors are read from plain bytes, its sample inputs are not
    read, and its graph may only call torch's own tensor operators. Archives with pickled weights are rejected. The
    graph is run once on zeros; the size of each result is known before it is computed, so that no file takes more
    memory than its weights and one result of 512 MB.

    An archive does not describe preprocessing: an image is cropped at its centre, resized to the exported size (not
    resized if that is variable), and scaled to [0, 1]; there are no class names. If this is wrong, wrap the model:
    `Network(load(PATH).model, preprocess, labels)`. Containers of the exported module's own classes are returned as
    dicts and tuples. Batches may have any size, also another than the exported one.

    Args:
        path: the file.
        weights: None, the archive has them.

    Raises:
        ExtremalValueError: the file does not exist, is of another kind, or breaks a rule.
    """
    name, noun = f"file:{path}", "an exported network"
    check_no_weights(name, weights)
    file = check_exported_file(path)
    try:
        model = ExportedModule(read_archive(file), name)
        model.try_forward()
    except UnsupportedArchive as error:
        raise ExtremalValueError(
            f"{noun} must {error.rule}, got {quote(path)}, {error.problem}; {error.remedy}"
        ) from None
    except Exception as error:  # a damaged file can fail in any way
        raise ExtremalValueError(
            f"{noun} must be a complete archive of torch.export.save, got {quote(path)}: "
            f"{type(error).__name__}, {first_line(error)}; save or copy it again"
        ) from None
    shape = model.exported.sizes[1:]
    return Network(model.eval(), CenterCropResize(*shape) if len(shape) == 3 else None, (), name, (0.0,), (1.0,))


class ExportedModule(nn.Module):
    """Runs the graph of an export for batches of any size.

    Args:
        archive: what was exported.
        name: of the network, for error messages.
    """

    def __init__(self, archive: Archive, name: str) -> None:
        super().__init__()
        self.weights, self.constants = _build_tree(archive.weights), _build_tree(archive.constants)
        self.exported, self._name = build_graph(archive), name
        if not self.exported.dtype.is_floating_point:
            raise UnsupportedArchive(
                "take floating inputs", "which takes whole numbers", "leave its preprocessing out of the export"
            )

    def try_forward(self) -> None:
        """Run the graph on zeros.

        Raises:
            Exception: the graph is broken, needs too much memory or changes its weights.
        """
        outputs = try_forward(self, self.exported.graph, self.exported.example, self.exported.dtype)
        if outputs is not None:
            _unflatten(self.exported.structure, iter(outputs))

    def forward(self, x: Tensor) -> object:
        """(B, ...) -> the output of the exported module; batches larger than the graph allows are divided."""
        exported, sizes = self.exported, self.exported.sizes
        check_exported_sizes(x, sizes, self._name, "export the network with dynamic shapes")
        chunks = [self._run_graph(chunk) for chunk in torch.split(x, exported.max_batch or max(1, len(x)))]
        if len(chunks) == 1 and sizes[0] in (None, len(x)):
            return _unflatten(exported.structure, iter(chunks[0]))
        outputs = [_concatenate(parts, len(x)) for parts in zip(*chunks, strict=True)]
        return _unflatten(exported.structure, iter(outputs))

    def _run_graph(self, x: Tensor) -> list[Any]:
        """Return the outputs for rows that the graph takes at once."""
        n_missing = (self.exported.sizes[0] or 0) - len(x)
        if n_missing > 0:  # fill up with copies of the last row
            x = torch.cat([x, x[-1:].expand(n_missing, *x.shape[1:])])
        interpreter = fx.Interpreter(self, garbage_collect_values=True, graph=self.exported.graph)
        interpreter.extra_traceback = False  # errors of the operators as they are
        outputs: list[Any] = interpreter.run(x, x.device)
        return outputs


def _concatenate(parts: Sequence[Any], rows: int) -> Any:
    """Return one output of several runs as one, without the rows that filled up the last."""
    is_batch = isinstance(parts[0], Tensor) and parts[0].ndim > 0
    return torch.cat(list(parts))[:rows] if is_batch else parts[0]


def _unflatten(structure: Structure, leaves: Iterator[Any]) -> Any:
    """Return the outputs in the structure in which the module returned them."""
    if structure is None:
        return next(leaves)
    keys, parts = structure
    children = [_unflatten(part, leaves) for part in parts]
    return tuple(children) if keys is None else dict(zip(keys, children, strict=True))


def _build_tree(tensors: dict[str, StoredTensor]) -> nn.Module:
    """Return a module that has these tensors under their dotted names."""
    root = nn.Module()
    for name, stored in tensors.items():
        *path, last = name.split(".")
        owner = root
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        if stored.is_parameter:
            owner.register_parameter(last, nn.Parameter(stored.value, stored.value.is_floating_point()))
        else:
            owner.register_buffer(last, stored.value)
    return root
