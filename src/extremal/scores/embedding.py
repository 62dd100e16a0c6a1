"""Read an embedding from the output of an encoder: a vector, a part by its key, or tokens that are pooled."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.class_scores import get_part
from extremal.networks.configs import find_configs
from extremal.networks.network import Network

Pool = str | tuple[int, int]  # cls, mean, or row and column of a patch
POOLS = ("cls", "mean")
TOKENS = "last_hidden_state"


def read_embedding(output: object, network: Network) -> Tensor:
    """Return the embedding in the output of an encoder, flattened: (B, D).

    Of encoders of transformers it is the first there is of `image_embeds`, `pooler_output`, and the first token or the
    mean over places of `last_hidden_state`; any other output itself.
    """
    return _flatten(_find_embedding(output), network)


def read_part(output: object, key: str, pool: Pool | None, network: Network, shape: tuple[int, ...]) -> Tensor:
    """Return a part of an output as an embedding: (B, D).

    Args:
        output: of the network.
        key: of the part; empty: `last_hidden_state`, or the output itself.
        pool: of tokens (B, T, D) or maps (B, D, h, w); None: the whole part, flattened.
        network: whose configuration may give the size of its patches.
        shape: (C, H, W) of the inputs.

    Raises:
        ExtremalValueError, ExtremalTypeError: there is no such part, or it has no tokens to pool.
    """
    part = get_part(output, key or TOKENS)
    if part is None and not key:
        part = output
    if part is None:
        keys = [name for name in getattr(output, "keys", list)() if get_part(output, name) is not None]
        known = f"; it has {', '.join(map(str, keys))}" if keys else "; leave out the key"
        raise ExtremalValueError(f"a key must exist in the output of {network.name}, got {key!r}{known}")
    if pool is None:
        return _flatten(part, network)
    if not isinstance(part, Tensor) or part.ndim not in (3, 4):
        raise ExtremalValueError(
            f"tokens must be pooled from a part (B, T, D) or (B, D, h, w), {network.name} returned "
            f"{tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__}; leave out pool, or name a key"
        )
    if part.ndim == 4:
        return _pool_places(part.flatten(2).transpose(1, 2), pool, (part.shape[2], part.shape[3]), 0, network)
    if pool == "cls":
        return part[:, 0]
    grid = _find_grid(network, shape)
    return _pool_places(part, pool, grid, part.shape[1] - grid[0] * grid[1], network)


def _pool_places(tokens: Tensor, pool: Pool, grid: tuple[int, int], first: int, network: Network) -> Tensor:
    """Pool tokens (B, T, D); those from `first` on are the patches of a grid."""
    if first < 0:
        raise ExtremalValueError(
            f"a token for each patch must be there to be pooled, {network.name} has {tokens.shape[1]} tokens for "
            f"{grid[0]} × {grid[1]} patches; choose pool='cls', or another key"
        )
    if pool == "cls":
        raise ExtremalValueError(f"a CLS token must be there to be pooled, {network.name} has maps; use pool='mean'")
    if pool == "mean":
        return tokens[:, first:].mean(1)
    assert not isinstance(pool, str)
    row, column = pool
    if not (0 <= int(row) < grid[0] and 0 <= int(column) < grid[1]):
        raise ExtremalValueError(
            f"a patch must lie in the grid of {grid[0]} × {grid[1]} patches of {network.name}, got {tuple(pool)}"
        )
    return tokens[:, first + int(row) * grid[1] + int(column)]


def _find_grid(network: Network, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and columns of the patches of inputs (C, H, W)."""
    for config in find_configs(network.model):
        size = getattr(getattr(config, "vision_config", config), "patch_size", None)
        if isinstance(size, int) and len(shape) == 3:
            return shape[1] // size, shape[2] // size
        if isinstance(size, list | tuple) and len(size) == 2 and len(shape) == 3:
            return shape[1] // int(size[0]), shape[2] // int(size[1])
    raise ExtremalValueError(
        f"patches must have a known size to be pooled, {network.name} has no config with patch_size; choose pool='cls'"
    )


@contextmanager
def whole_output(network: Network) -> Iterator[None]:
    """Make an encoder of transformers return all of its output inside the `with`; other networks always do."""
    context: Any = getattr(network.model, "whole_output", nullcontext)
    with context():
        yield


def _find_embedding(output: object) -> object:
    for key in ("image_embeds", "pooler_output"):
        part = get_part(output, key)
        if isinstance(part, Tensor):
            return part
    states = get_part(output, TOKENS)
    if not isinstance(states, Tensor) or states.ndim < 3:
        return output
    return states[:, 0] if states.ndim == 3 else states.flatten(2).mean(2)


def _flatten(embedding: object, network: Network) -> Tensor:
    if not isinstance(embedding, Tensor) or not embedding.is_floating_point() or embedding.ndim < 2:
        is_tensor = isinstance(embedding, Tensor)
        kind = f"{embedding.dtype} {tuple(embedding.shape)}" if is_tensor else type(embedding).__name__  # type: ignore[attr-defined]
        raise ExtremalTypeError(
            f"an embedding must be one floating tensor (B, ...), {network.name} returned {kind}; name a layer, or wrap "
            "the network"
        )
    return embedding.flatten(1)
