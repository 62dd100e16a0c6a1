"""The SHA-256 of a module's weights."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from extremal.networks.compiled import strip_compiled


def hash_weights(model: nn.Module) -> str:
    """Return the SHA-256 of the names, shapes and bytes of all parameters and buffers.

    A compiled module has the hash of the module that it was compiled from. Entries of a state dict that are no tensors
    (packed weights of quantised layers, the extra state of a module) count with the tensors and plain values in them.
    """
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        _add_value(digest, strip_compiled(name), value)
    return digest.hexdigest()


def _add_value(digest: "hashlib._Hash", name: str, value: object) -> None:
    if isinstance(value, Tensor):
        _add_tensor(digest, name, value)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _add_value(digest, f"{name}.{key}", part)
    elif isinstance(value, list | tuple):
        for key, part in enumerate(value):
            _add_value(digest, f"{name}.{key}", part)
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype):
        digest.update(f"{name}{value!r}".encode())
    else:  # its text may be an address
        digest.update(f"{name}{type(value).__qualname__}".encode())


def _add_tensor(digest: "hashlib._Hash", name: str, tensor: Tensor) -> None:
    digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
    values = to_plain(tensor).cpu().flatten()
    if values.stride() != (1,):  # of any stride, torch calls one value contiguous; views need 1
        values = values.clone(memory_format=torch.contiguous_format)
    digest.update(values.view(torch.uint8).numpy().data)


def to_plain(tensor: Tensor) -> Tensor:
    """Return the values of a sparse or quantised tensor as a plain one, without a gradient."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return tensor.dequantize() if tensor.is_quantized else tensor
