"""A question about an embedding: how alike it is to a reference."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.network import Evaluates
from extremal.scores.layer_reader import reader
from extremal.scores.query import BoundQuery, as_split, input_shape


@dataclass(frozen=True, eq=False)
class Similarity:
    """Cosine similarity of the network's embedding of an input to a reference; to several, the mean of theirs.

    cos(e, r) = e·r / (|e|·|r|), e the network's output, flattened, or the mean over places of a layer's output.

    >>> from extremal import Network
    >>> x = torch.tensor([[[3.0, 4.0]]])
    >>> with Network(torch.nn.Flatten()).frozen() as run:
    ...     Similarity(torch.tensor([1.0, 0.0])).bind(run, x)(x, torch.tensor([0]))
    tensor([0.6000])

    Args:
        reference: an embedding (D,), or M of them (M, D); or prepared inputs (M, C, *S) of the same shape as those that
            are asked about, which the network itself embeds. For another reference for each input ask a list of these.
        layer: whose output is the embedding; empty: the network's own.
        axis: of the layer's output, along which the channels lie: None is 1, but 2 of (B, tokens, channels).
    """

    reference: Tensor
    layer: str = ""
    axis: int | None = None

    depends_on_position = False

    def __post_init__(self) -> None:
        if not isinstance(self.reference, Tensor) or not self.reference.is_floating_point():
            kind = self.reference.dtype if isinstance(self.reference, Tensor) else type(self.reference).__name__
            raise ExtremalTypeError(
                f"a reference must be a floating tensor, an embedding (D,) or prepared inputs (M, C, *S), got {kind}"
            )
        if self.reference.ndim == 0 or 0 in self.reference.shape:
            raise ExtremalValueError(
                "a reference must be an embedding (D,) or (M, D), or prepared inputs (M, C, *S), got shape "
                f"{tuple(self.reference.shape)}"
            )
        _check_finite("a reference", self.reference)
        object.__setattr__(self, "reference", self.reference.detach().clone())  # the caller's may change

    @property
    def name(self) -> str:
        """To what and where, in words."""
        return "similarity to the reference" + (f" at {self.layer}" if self.layer else "")

    def bind(self, run: Evaluates, x: Tensor) -> BoundQuery:
        """The similarity; a reference that is an input is embedded now."""
        embed = self._embedding(run, x)
        goals = F.normalize(self._directions(run, x), dim=1, eps=0)  # (M, D)
        goal = goals.mean(0)

        def ask(inputs: Tensor, images: Tensor) -> Tensor:
            embedded = embed(inputs, images)
            if embedded.shape[1] != len(goal):
                raise ExtremalValueError(
                    f"a reference must have as many numbers as the embedding, {embedded.shape[1]}, got {len(goal)}"
                )
            return F.normalize(embedded, dim=1) @ goal.to(embedded)

        return ask

    def _directions(self, run: Evaluates, x: Tensor) -> Tensor:
        """The references' embeddings (M, D)."""
        given = self.reference.to(device=x.device, dtype=x.dtype)
        if given.ndim <= 2:
            found = given.view(-1, given.shape[-1])
        else:
            made, wanted = as_split(run), input_shape(run, x)
            if tuple(given.shape[1:]) != wanted:
                raise ExtremalValueError(
                    f"a reference input must have the shape (M, C, *S) of the inputs, {('M', *wanted)}, got "
                    f"{tuple(given.shape)}; prepare it as they are".replace("'", "")
                )
            embed = self._embedding(run if made is None else made.run, given)
            with torch.no_grad():
                found = embed(given, torch.zeros(len(given), dtype=torch.int64, device=x.device))
            _check_finite("the embedding of a reference", found)
        silent = (found.norm(dim=1) == 0).nonzero()[:, 0].tolist()
        if silent:
            raise ExtremalValueError(f"a reference must have a direction, number {silent[0]} is embedded as zeros only")
        return found

    def _embedding(self, run: Evaluates, x: Tensor) -> BoundQuery:
        """Inputs -> (B, D)."""
        if self.layer:
            found = reader(run, self.layer, self.axis, x)
            return lambda inputs, images: _pooled(found.read(inputs, images))

        def embed(inputs: Tensor, images: Tensor) -> Tensor:
            output = run.raw(inputs, images)
            if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim < 2:
                kind = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
                raise ExtremalTypeError(
                    f"an embedding must be one floating tensor (B, ...), {run.network.name} returned {kind}; "
                    "name a layer, or wrap the network"
                )
            return output.flatten(1)

        return embed


def _pooled(output: Tensor) -> Tensor:
    """The mean over places: (B, K, *places) -> (B, K)."""
    return output.reshape(*output.shape[:2], -1).mean(2)


def _check_finite(what: str, tensor: Tensor) -> None:
    broken = int((~torch.isfinite(tensor)).sum())
    if broken:
        raise ExtremalValueError(f"{what} must be finite, got {broken} NaN or infinite numbers; clean it")
