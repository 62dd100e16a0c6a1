"""Query about a text that fits a picture, for models of images and text in one space."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import shorten
from extremal.networks.network import Network
from extremal.networks.run import Evaluator
from extremal.networks.text_encoder import TextEncoder
from extremal.scores.embedding import read_embedding
from extremal.scores.query import BoundQuery

MAX_NAME_TEXT = 60  # characters of a text in a name


@dataclass(frozen=True, eq=False)
class Text:
    """The fit of a text to the picture, against other texts: the log-odds of the probability that the model gives it.

    For CLIP, SigLIP and their kin from `hf:` folders with a tokenizer. With logits z of the texts, the probability is
    that of a softmax over them (CLIP), or that of the sigmoids that the text fits and no other does (SigLIP). Without
    others, the score is the logit of the text: of CLIP its scaled cosine, of SigLIP its log-odds.

    >>> Text("a cat", others=["a dog"]).name
    'text "a cat" against "a dog"'

    Args:
        text: of the kind that the model was trained on, e.g. "a photo of a cat".
        others: texts to compare with.
    """

    text: str
    others: Sequence[str] = ()

    layer, depends_on_position = "", False

    def __post_init__(self) -> None:
        if isinstance(self.others, str) or not isinstance(self.others, Sequence):
            raise ExtremalTypeError(f"others must be a list of texts, got {self.others!r}; e.g. ['a photo of a dog']")
        for text in (self.text, *self.others):
            if not isinstance(text, str):
                raise ExtremalTypeError(f"a text must be a str, got {type(text).__name__}; e.g. 'a photo of a cat'")
            if not text.strip():
                raise ExtremalValueError("a text must not be empty, got one that is; e.g. 'a photo of a cat'")
        if self.text in self.others:
            raise ExtremalValueError(f"others must be other texts, got {self.text!r} among them; leave it out")
        object.__setattr__(self, "others", tuple(self.others))

    @property
    def name(self) -> str:
        """The texts."""
        quoted = [f'"{shorten(text, MAX_NAME_TEXT)}"' for text in (self.text, *self.others)]
        return f"text {quoted[0]}" + (f" against {', '.join(quoted[1:])}" if self.others else "")

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind the texts to a network, which embeds them once."""
        encoder = _find_encoder(run.network)
        texts = encoder.embed([self.text, *self.others], x.device)

        def score_inputs(inputs: Tensor, input_index: Tensor) -> Tensor:
            embedding = read_embedding(run.evaluate(inputs, input_index), run.network)
            return log_odds(encoder.logits(embedding, texts), is_sigmoid=encoder.is_sigmoid)

        return score_inputs


def log_odds(logits: Tensor, *, is_sigmoid: bool) -> Tensor:
    """Return the log-odds of the first of M texts, given their logits (B, M): (B,).

    >>> log_odds(torch.tensor([[2.0, 0.5]]), is_sigmoid=False)
    tensor([1.5000])

    Args:
        logits: of the texts.
        is_sigmoid: whether the probability is that of sigmoids: σ(z_0)·Π σ(−z_m); else that of the softmax.
    """
    own, others = logits[:, 0], logits[:, 1:]
    if others.shape[1] == 0:
        return own
    if not is_sigmoid:
        return own - torch.logsumexp(others, 1)
    # p = 1/u with u = (1 + e^−z_0)·Π(1 + e^z_m), so that log(p/(1 − p)) = −log(u − 1)
    log_u = F.softplus(-own) + F.softplus(others).sum(1)
    return -(log_u + torch.log(-torch.expm1(-log_u)))


def _find_encoder(network: Network) -> TextEncoder:
    """Return the text part of a network."""
    encoder = getattr(network.model, "texts", None)
    if not isinstance(encoder, TextEncoder):
        raise ExtremalTypeError(
            f"a text must be compared by a model of images and text in one space, {network.name} embeds no texts; load "
            "one such as CLIP or SigLIP with hf:FOLDER, which must have its tokenizer"
        )
    return encoder
