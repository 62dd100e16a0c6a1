"""The stages of a network: the few layers among all of them that are worth a look first."""

from collections.abc import Sequence

from extremal.networks.layers import Layer

MAX_STAGES = 18  # containers are opened as long as there are at most so many


def is_identity(layer: Layer) -> bool:
    """Return whether a layer passes its input on unchanged."""
    return layer.kind == "Identity"


def find_stages(layers: Sequence[Layer]) -> list[Layer]:
    """Return the stages among the layers of a network, at which it can be split cleanly, in their order.

    The outermost modules are opened, level by level, as long as there are at most `MAX_STAGES`. Of a module with too
    many parts, those remain after which the shape of the output changes.

    >>> names = ("stem", "blocks.0.conv", "blocks.0", "blocks.1", "blocks", "head")
    >>> [layer.name for layer in find_stages([Layer(name, "Module", (8, 4, 4)) for name in names])]
    ['stem', 'blocks.0', 'blocks.1', 'head']
    """
    clean = [layer for layer in layers if layer.can_split_cleanly and not is_identity(layer)]
    stages = _children("", clean)
    while True:
        opened = [part for stage in stages for part in _open(stage, clean)]
        if len(opened) > MAX_STAGES:
            opened = [part for stage in stages for part in _last_of_each_shape(_open(stage, clean)) or [stage]]
        if opened == stages or len(opened) > MAX_STAGES:
            return stages
        stages = opened


def _open(stage: Layer, layers: Sequence[Layer]) -> list[Layer]:
    """Return the parts of a module; itself if there are fewer than two."""
    parts = _children(f"{stage.name}.", layers)
    return parts if len(parts) > 1 else [stage]


def _last_of_each_shape(parts: Sequence[Layer]) -> list[Layer]:
    """Return the parts whose successor has another output shape; none if that is the last alone."""
    following = [*parts[1:], None]
    kept = [part for part, after in zip(parts, following, strict=True) if after is None or after.shape != part.shape]
    return kept if len(kept) > 1 else []


def _children(prefix: str, layers: Sequence[Layer]) -> list[Layer]:
    """Return the outermost of the layers whose names start with this prefix."""
    inside = [layer for layer in layers if layer.name.startswith(prefix)]
    names = {layer.name for layer in inside}

    def has_parent(name: str) -> bool:
        parts = name.split(".")
        return any(".".join(parts[:length]) in names for length in range(1, len(parts)))

    return [layer for layer in inside if not has_parent(layer.name)]
