"""Tiny encoders and classifiers of transformers with random weights, saved to folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VISION = {**TINY, "image_size": 32, "patch_size": 8}
TEXT = {**TINY, "vocab_size": 40, "max_position_embeddings": 8}


def build_model(kind: str) -> nn.Module:
    """A tiny model of transformers of this class, seeded."""
    torch.manual_seed(1)
    t = transformers
    configs: dict[str, Callable[[], Any]] = {
        "ViTForImageClassification": lambda: t.ViTConfig(
            **VISION, num_labels=3, id2label={0: "cat", 1: "dog", 2: "car"}
        ),
        "ViTModel": lambda: t.ViTConfig(**VISION),
        "Dinov2Model": lambda: t.Dinov2Config(**VISION, mlp_ratio=2),
        "DINOv3ViTModel": lambda: t.DINOv3ViTConfig(**VISION, num_register_tokens=2),
        "DINOv3ConvNextModel": lambda: t.DINOv3ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1] * 4),
        "ResNetModel": lambda: t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic"),
        "CLIPModel": lambda: t.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=6),
        "SiglipModel": lambda: t.SiglipConfig(text_config=TEXT, vision_config=VISION),
        "CLIPVisionModelWithProjection": lambda: t.CLIPVisionConfig(**VISION, projection_dim=6),
        "SegformerForSemanticSegmentation": lambda: t.SegformerConfig(
            hidden_sizes=[8, 8, 8, 8], depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8, num_labels=3
        ),
    }
    model: nn.Module = getattr(t, kind)(configs[kind]()).eval()
    return model


def save_model(kind: str, folder: Path, processor: bool = True) -> nn.Module:
    model = build_model(kind)
    model.save_pretrained(folder)  # type: ignore[operator]
    if processor:
        transformers.ViTImageProcessor(
            size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
        ).save_pretrained(folder)
    return model
