"""Embed texts by the text part of a model such as CLIP and SigLIP, to compare them with embeddings of pictures."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.file_checks import describe_error, quote


class TextEncoder:
    """The text part of a model of transformers for images and text in one space.

    A text fits a picture by the logit z = s·cos(picture, text) + b, with the model's scale s and bias b. Models with a
    bias (SigLIP) are trained with the sigmoid of each logit, others (CLIP) with the softmax over texts.

    Args:
        model: has `get_text_features`.
        tokenizer: of the model.
        name: of the network, for messages.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self._model, self._tokenizer, self._name = model, tokenizer, name

    @property
    def is_sigmoid(self) -> bool:
        """Whether each text has a probability of its own."""
        return isinstance(getattr(self._model, "logit_bias", None), Tensor)

    @property
    def scale(self) -> float:
        """The factor s of cosines."""
        if isinstance(getattr(self._model, "logit_scale", None), Tensor):
            return float(self._model.logit_scale.detach().exp())
        temperature = getattr(self._model, "temperature", None)
        return 1 / float(temperature.detach()) if isinstance(temperature, Tensor) else 1.0

    @property
    def bias(self) -> float:
        """The bias b."""
        return float(self._model.logit_bias.detach()) if self.is_sigmoid else 0.0

    @torch.no_grad()
    def embed(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """Return the embeddings of texts, of length 1: (M, D).

        Raises:
            ExtremalValueError: a text has more tokens than the model takes, or the tokenizer does not fit the model.
        """
        config = getattr(self._model.config, "text_config", self._model.config)
        limit = getattr(config, "max_position_embeddings", None) or self._tokenizer.model_max_length
        for text in texts:
            count = len(self._tokenizer(text)["input_ids"])
            if count > limit:
                raise ExtremalValueError(
                    f"a text must have at most {limit} tokens for {self._name}, got {quote(text)} of {count}; "
                    "shorten it"
                )
        # models with a sigmoid are trained on texts of full length, and read their last place
        padding = {"padding": "max_length", "max_length": limit} if self.is_sigmoid else {"padding": True}
        try:
            made = self._tokenizer(list(texts), return_tensors="pt", **padding)
            names = ("input_ids", "attention_mask")
            output = self._model.get_text_features(**{key: made[key].to(device) for key in names if key in made})
        except Exception as error:
            raise ExtremalValueError(
                f"a text must be one that the model takes, {self._name} raised {describe_error(error)} for "
                f"{quote(texts[0])}; check the tokenizer in its folder"
            ) from error
        features = output if isinstance(output, Tensor) else output.pooler_output  # a tensor before transformers 5
        return F.normalize(features.float(), dim=1)

    def logits(self, embeddings: Tensor, texts: Tensor) -> Tensor:
        """Return how well texts (M, D) of length 1 fit embeddings of pictures (B, D): (B, M)."""
        return self.scale * F.normalize(embeddings, dim=1) @ texts.T.to(embeddings) + self.bias
