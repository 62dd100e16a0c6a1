"""Query about an embedding: its similarity to a reference."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.run import Evaluator
from extremal.number_checks import format_value, is_whole
from extremal.scores.embedding import POOLS, Pool, read_embedding, read_part, whole_output
from extremal.scores.layer_reader import read_layer
from extremal.scores.query import BoundQuery, as_split, input_shape


@dataclass(frozen=True, eq=False)
class Similarity:
    """Cosine similarity of an input's embedding to a reference, or the mean over several references.

    cos(e, r) = e·r / (|e|·|r|); e is the network's output, flattened, or the mean over places of a layer's output. Of
    encoders of transformers it is `image_embeds`, else `pooler_output`, else the first token of `last_hidden_state`.
    With others o, the score is the margin cos(e, r) − max cos(e, o): why the reference is nearer than all of them.

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
        key: of the part of the network's output that is the embedding, e.g. `last_hidden_state`, flattened; empty: as
            above.
        pool: pooling of the tokens of that part, by default `last_hidden_state`: "cls" for the first token, "mean" over
            the patches, or the row and column of one patch; None: the whole part.
        others: embeddings or prepared inputs, as `reference`, whose largest similarity is subtracted.
    """

    reference: Tensor
    layer: str = ""
    axis: int | None = None
    key: str = ""
    pool: Pool | None = None
    others: Tensor | None = None

    def __post_init__(self) -> None:
        _check_pool(self.pool)
        if self.layer and (self.key or self.pool is not None):
            raise ExtremalValueError(
                f"an embedding must be read from a layer or from the output, got the layer {self.layer!r} and "
                f"{'the key ' + repr(self.key) if self.key else 'pool'}; leave one of them out"
            )
        for field in ("reference", "others"):
            value = getattr(self, field)
            if value is not None or field == "reference":
                # a clone, because the caller may change theirs
                object.__setattr__(self, field, _check_reference(value).detach().clone())

    @property
    def depends_on_position(self) -> bool:
        """Whether the query is about a single patch."""
        return isinstance(self.pool, tuple)

    @property
    def name(self) -> str:
        """Reference, layer or part, and others."""
        place = self.layer or self.key
        pooled = "" if self.pool is None else f" of {_describe_pool(self.pool)}"
        against = "" if self.others is None else " against others"
        return "similarity to the reference" + (f" at {place}" if place else "") + pooled + against

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind the similarity to a network and inputs; references that are inputs are embedded once."""
        embed = self._build_embedding(run, x)
        references = _normalise(self._embed_references(self.reference, run, x))  # (M, D)
        direction, others = references.mean(0), None
        if self.others is not None:
            others = _normalise(self._embed_references(self.others, run, x))  # (M, D)

        def score_inputs(inputs: Tensor, input_index: Tensor) -> Tensor:
            embedding = embed(inputs, input_index)
            for size in {len(direction), len(direction) if others is None else others.shape[1]}:
                if embedding.shape[1] != size:
                    raise ExtremalValueError(
                        f"a reference must have the size of the embedding, {embedding.shape[1]}, got {size}"
                    )
            unit = _normalise(embedding)
            score = unit @ direction.to(embedding)
            return score if others is None else score - (unit @ others.T.to(embedding)).amax(1)

        return score_inputs

    def _embed_references(self, reference: Tensor, run: Evaluator, x: Tensor) -> Tensor:
        """Return the embeddings of references (M, D)."""
        reference = reference.to(device=x.device, dtype=x.dtype)
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
        zero = (embeddings == 0).all(1).nonzero()[:, 0].tolist()
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

        network, shape = run.network, input_shape(run, x)
        if not self.key and self.pool is None:
            return lambda inputs, input_index: read_embedding(run.evaluate(inputs, input_index), network)

        def embed_part(inputs: Tensor, input_index: Tensor) -> Tensor:
            with whole_output(network):
                output = run.evaluate(inputs, input_index)
            return read_part(output, self.key, self.pool, network, shape)

        return embed_part


def _check_pool(pool: object) -> None:
    is_patch = isinstance(pool, tuple) and len(pool) == 2 and all(map(is_whole, pool))
    if not (pool is None or is_patch or (isinstance(pool, str) and pool in POOLS)):
        raise ExtremalValueError(
            f"pool must be cls, mean, or row and column of a patch, got {format_value(pool)}; e.g. (3, 5)"
        )


def _describe_pool(pool: Pool) -> str:
    """Return what is pooled, in words."""
    if isinstance(pool, str):
        return "the CLS token" if pool == "cls" else "the mean patch"
    return f"the patch at row {pool[0]}, column {pool[1]}"


def _check_reference(reference: object) -> Tensor:
    """Return a reference after checking that it is an embedding, several, or prepared inputs."""
    if not isinstance(reference, Tensor) or not reference.is_floating_point():
        kind = reference.dtype if isinstance(reference, Tensor) else type(reference).__name__
        raise ExtremalTypeError(
            f"a reference must be a floating tensor, an embedding (D,) or prepared inputs (M, C, *S), got {kind}"
        )
    if reference.ndim == 0 or 0 in reference.shape:
        raise ExtremalValueError(
            "a reference must be an embedding (D,) or (M, D), or prepared inputs (M, C, *S), got shape "
            f"{tuple(reference.shape)}"
        )
    _check_finite("a reference", reference)
    return reference


def _normalise(embeddings: Tensor) -> Tensor:
    """Divide embeddings (B, D) by their norms, first by their largest numbers, whose squares may be out of range."""
    largest = embeddings.detach().abs().amax(1, keepdim=True)
    scaled = embeddings / torch.where(largest > 0, largest, torch.ones_like(largest))
    return F.normalize(scaled, dim=1)


def _mean_over_places(output: Tensor) -> Tensor:
    """Return the mean over places: (B, K, *places) -> (B, K)."""
    return output.reshape(*output.shape[:2], -1).mean(2)


def _check_finite(noun: str, tensor: Tensor) -> None:
    count = int((~torch.isfinite(tensor)).sum())
    if count:
        raise ExtremalValueError(f"{noun} must be finite, got {count} NaN or infinite numbers; clean it")
