"""Detectors and segmenters of objects from folders in the format of Hugging Face."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.network import Network
from extremal.networks.zoo.huggingface_files import load_tokenizer

_DETECTORS = (
    *("Detr", "ConditionalDetr", "DeformableDetr", "DabDetr", "TableTransformer", "Yolos", "RTDetr", "RTDetrV2"),
    *("DFine", "LwDetr", "RfDetr", "GroundingDino", "MMGroundingDino"),
)
_MASK_FORMERS = (
    *("MaskFormerForInstanceSegmentation", "Mask2FormerForUniversalSegmentation"),
    *("EomtForUniversalSegmentation", "EomtDinov3ForUniversalSegmentation"),
)
_OUTPUT_KEYS = {
    **{f"{family}ForObjectDetection": ("logits", "pred_boxes") for family in _DETECTORS},
    **dict.fromkeys(_MASK_FORMERS, ("class_queries_logits", "masks_queries_logits")),
    "DetrForSegmentation": ("logits", "pred_boxes", "pred_masks"),
    **dict.fromkeys(("SamModel", "Sam2Model"), ("iou_scores", "pred_masks")),
}


def is_object_finder(architecture: str) -> bool:
    """Return whether models of this class find objects: boxes, masks, or masks for a prompt."""
    return architecture in _OUTPUT_KEYS


def find_objects(model: Any, pixels: Tensor, **prompt: Tensor) -> dict[str, Tensor]:
    """Return the parts of the output that `scores.Box` and `scores.Instance` read.

    Args:
        model: of transformers.
        pixels: (B, C, H, W).
        prompt: further inputs, e.g. input_points of SAM.
    """
    output = model(pixel_values=pixels, **prompt, return_dict=True)
    return {key: output[key] for key in _OUTPUT_KEYS[type(model).__name__]}


def load_phrase_tokenizer(transformers: Any, model: nn.Module, folder: Any, path: str) -> Any | None:
    """Return the tokenizer of a detector that is asked by text; None for others.

    Raises:
        ExtremalValueError: the folder has none that works.
    """
    if "GroundingDino" not in type(model).__name__:
        return None
    rule = "a Grounding DINO must have a tokenizer in its folder"
    return load_tokenizer(transformers, folder, path, rule, "write it with the tokenizer's save_pretrained")


def with_phrases(network: Network, phrases: Sequence[str]) -> Network:
    """Return a Grounding DINO that looks for some phrases, each of which is a class.

    A query's logit of a phrase is the largest one of its tokens.

    Args:
        network: loaded by `zoo.load("hf:...")`; its weights are shared, and it is not changed.
        phrases: what to look for, e.g. ("a cat", "remote control").

    Raises:
        ExtremalTypeError, ExtremalValueError: the network is another one, or there are no phrases, or too many.
    """
    tokenizer = getattr(network.model, "tokenizer", None)
    if tokenizer is None:
        raise ExtremalTypeError(
            f"phrases must be given to a Grounding DINO from an hf: folder, got {network.name}; load one by zoo.load"
        )
    if isinstance(phrases, str) or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
        raise ExtremalTypeError(f"phrases must be a list of texts, got {phrases!r}; e.g. ['a cat']")
    labels = tuple(phrase.strip().rstrip(".").lower() for phrase in phrases)
    if not labels:
        raise ExtremalValueError("phrases must hold at least one text, got none; e.g. ['a cat']")
    detector = PhraseDetector(network.model.model, tokenizer, labels)  # type: ignore[arg-type]
    return replace(network, model=detector.train(network.model.training), labels=labels)


class PhraseDetector(nn.Module):
    """A Grounding DINO with a fixed text: (B, 3, H, W) -> logits (B, Q, phrases) and pred_boxes (B, Q, 4).

    Args:
        model: the detector.
        tokenizer: its tokenizer.
        phrases: the classes.
    """

    ids: Tensor

    def __init__(self, model: nn.Module, tokenizer: Any, phrases: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        ids, self.spans = [tokenizer.cls_token_id], []
        for phrase in phrases:
            tokens = tokenizer(phrase, add_special_tokens=False)["input_ids"]
            self.spans.append((len(ids), len(ids) + len(tokens)))
            ids += [*tokens, tokenizer.convert_tokens_to_ids(".")]
        ids.append(tokenizer.sep_token_id)
        longest = int(model.config.max_text_len)  # type: ignore[union-attr, arg-type]
        if len(ids) > longest:
            raise ExtremalValueError(
                f"phrases must have at most {longest} tokens together, got {len(ids)}; ask for fewer"
            )
        device = next(model.parameters()).device
        self.register_buffer("ids", torch.tensor([ids], device=device), persistent=False)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> logits (B, Q, phrases) and pred_boxes (B, Q, 4)."""
        ids = self.ids.expand(len(pixel_values), -1)
        output = find_objects(self.model, pixel_values, input_ids=ids, attention_mask=torch.ones_like(ids))
        scores = [output["logits"][..., first:last].amax(2) for first, last in self.spans]
        return {"logits": torch.stack(scores, 2), "pred_boxes": output["pred_boxes"]}
