"""Query about an embedding: its similarity to a reference."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.class_scores import get_part
from extremal.networks.run import Evaluator
from extremal.scores.layer_reader import read_layer
from extremal.scores.query import BoundQuery, as_split, input_shape


@dataclass(frozen=True, eq=False)
class Similarity:
    """Cosine similarity of an input's embedding to a reference, or the mean over several references.

    cos(e, r) = e·r / (|e|·|r|); e is the network's output, flattened, or the mean over places of a layer's output. Of
    encoders of transformers it is `image_embeds`, else `pooler_output`, else the first token of `last_hidden_state`.

    >>> from extremal import Network
    >>> x = torch.tensor([[[3.0, 4.0]]])
    >>> with Network(torch.nn.Flatten()).frozen() as run:
    ...     Similarity(torch.tensor([1.0, 0.0])).bind(run, x)(x, torch.tensor([0]))
    tensor([0.6000])

    Args:
        reference: an embedding (D,), or M of them (M, D); or prepared inputs (M, C, *S), of the same shape as the
            explained ones, which the network embeds. For a different reference per input pass a list of queries.
        layer: its output is the embedding; empty: the network's output.
        axis: of the layer's output, along which the channels lie: None is 1, but 2 for (B, tokens, channels).
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
        object.__setattr__(self, "reference", self.reference.detach().clone())  # the caller may change theirs

    @property
    def name(self) -> str:
        """Reference and layer."""
        return "similarity to the reference" + (f" at {self.layer}" if self.layer else "")

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind the similarity to a network and inputs; references that are inputs are embedded once."""
        embed = self._build_embedding(run, x)
        references = F.normalize(self._embed_references(run, x), dim=1, eps=0)  # (M, D)
        direction = references.mean(0)

        def score_inputs(inputs: Tensor, input_index: Tensor) -> Tensor:
            embedding = embed(inputs, input_index)
            if embedding.shape[1] != len(direction):
                raise ExtremalValueError(
                    f"a reference must have the size of the embedding, {embedding.shape[1]}, got {len(direction)}"
                )
            return F.normalize(embedding, dim=1) @ direction.to(embedding)

        return score_inputs

    def _embed_references(self, run: Evaluator, x: Tensor) -> Tensor:
        """Return the embeddings of the references (M, D)."""
        reference = self.reference.to(device=x.device, dtype=x.dtype)
        if reference.ndim <= 2:
            embeddings = reference.view(-1, reference.shape[-1])
        else:
            split, expected_shape = as_split(run), input_shape(run, x)
            if tuple(reference.shape[1:]) != expected_shape:
                raise ExtremalValueError(
                    f"a reference input must have the shape (M, C, *S) of the inputs, {('M', *expected_shape)}, got "
                    f"{tuple(reference.shape)}; prepare it in the same way".replace("'", "")
                )
            embed = self._build_embedding(run if split is None else split.run, reference)
            with torch.no_grad():
                embeddings = embed(reference, torch.zeros(len(reference), dtype=torch.int64, device=x.device))
            _check_finite("the embedding of a reference", embeddings)
        zero = (embeddings.norm(dim=1) == 0).nonzero()[:, 0].tolist()
        if zero:
            raise ExtremalValueError(
                f"the embedding of a reference must not be zero, that of reference {zero[0]} is; use another reference"
            )
        return embeddings

    def _build_embedding(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Return the function from inputs to their embeddings (B, D)."""
        if self.layer:
            reader = read_layer(run, self.layer, self.axis, x)
            return lambda inputs, input_index: _mean_over_places(reader.read(inputs, input_index))

        def embed(inputs: Tensor, input_index: Tensor) -> Tensor:
            output = _find_embedding(run.evaluate(inputs, input_index))
            if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim < 2:
                kind = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
                raise ExtremalTypeError(
                    f"an embedding must be one floating tensor (B, ...), {run.network.name} returned {kind}; "
                    "name a layer, or wrap the network"
                )
            return output.flatten(1)

        return embed


def _find_embedding(output: object) -> object:
    """Return the embedding in the output of an encoder of transformers; any other output itself.

    The first there is of `image_embeds`, `pooler_output`, and the first token or the mean over places of
    `last_hidden_state`.
    """
    for key in ("image_embeds", "pooler_output"):
        part = get_part(output, key)
        if isinstance(part, Tensor):
            return part
    states = get_part(output, "last_hidden_state")
    if not isinstance(states, Tensor) or states.ndim < 3:
        return output
    return states[:, 0] if states.ndim == 3 else states.flatten(2).mean(2)


def _mean_over_places(output: Tensor) -> Tensor:
    """Return the mean over places: (B, K, *places) -> (B, K)."""
    return output.reshape(*output.shape[:2], -1).mean(2)


def _check_finite(noun: str, tensor: Tensor) -> None:
    count = int((~torch.isfinite(tensor)).sum())
    if count:
        raise ExtremalValueError(f"{noun} must be finite, got {count} NaN or infinite numbers; clean it")
