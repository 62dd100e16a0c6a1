"""Tiny detectors and segmenters of transformers with random weights, saved to folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SIDE = 64
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
STAGES = {"embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4, "layer_type": "basic"}
LAYERS = {
    **{f"{part}_{size}": value for part in ("encoder", "decoder") for size, value in (("layers", 1), ("ffn_dim", 16))},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
}
CLASSES = {"id2label": {0: "cat", 1: "dog", 2: "car"}, "label2id": {"cat": 0, "dog": 1, "car": 2}}
SWIN = {"image_size": SIDE, "patch_size": 4, "embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 2}


def resnet() -> Any:
    return transformers.ResNetConfig(**STAGES, out_features=["stage4"])


def swin(*stages: int) -> Any:
    return transformers.SwinConfig(**SWIN, out_features=[f"stage{stage}" for stage in stages])


def detr(kind: str, **options: Any) -> Callable[[], Any]:
    config = getattr(transformers, f"{kind}Config")
    shared = {"use_timm_backbone": False, "d_model": 32, **LAYERS, "num_queries": 5, **CLASSES, **options}
    return lambda: config(backbone_config=resnet(), **shared)


def rt_detr() -> Any:
    backbone = transformers.RTDetrResNetConfig(**STAGES, out_features=["stage2", "stage3", "stage4"])
    sizes = {"encoder_hidden_dim": 16, "encoder_in_channels": [8] * 3, "decoder_in_channels": [16] * 3}
    return transformers.RTDetrConfig(
        backbone_config=backbone, d_model=16, **sizes, **LAYERS, decoder_n_points=2, num_queries=6, **CLASSES
    )


def yolos() -> Any:
    return transformers.YolosConfig(
        **TINY, image_size=[SIDE, SIDE], patch_size=16, num_detection_tokens=6, initializer_range=1.0, **CLASSES
    )


def mask_former() -> Any:
    decoder = transformers.DetrConfig(
        use_timm_backbone=False, backbone_config=resnet(), d_model=16, **LAYERS, num_queries=5
    )
    return transformers.MaskFormerConfig(
        backbone_config=swin(1, 2, 3, 4), fpn_feature_size=32, mask_feature_size=32, decoder_config=decoder, **CLASSES
    )


def mask2former() -> Any:
    sizes = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_attention_heads": 2}
    layers = {"encoder_feedforward_dim": 16, "encoder_layers": 1, "decoder_layers": 2, "dim_feedforward": 16}
    return transformers.Mask2FormerConfig(backbone_config=swin(1, 2, 3, 4), **sizes, **layers, num_queries=5, **CLASSES)


def sam() -> Any:
    vision = {**TINY, "image_size": SIDE, "patch_size": 8, "output_channels": 16, "mlp_dim": 16, "num_pos_feats": 8}
    vision |= {"global_attn_indexes": [0], "window_size": 4}
    return transformers.SamConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 16, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )


CONFIGS: dict[str, Callable[[], Any]] = {
    "DetrForObjectDetection": detr("Detr"),
    "ConditionalDetrForObjectDetection": detr("ConditionalDetr"),
    "DeformableDetrForObjectDetection": detr("DeformableDetr", num_feature_levels=1, decoder_layers=2),
    "RTDetrForObjectDetection": rt_detr,
    "YolosForObjectDetection": yolos,
    "MaskFormerForInstanceSegmentation": mask_former,
    "Mask2FormerForUniversalSegmentation": mask2former,
    "SamModel": sam,
}


def save_model(kind: str, folder: Path) -> nn.Module:
    torch.manual_seed(2)
    model: Any = getattr(transformers, kind)(CONFIGS[kind]()).eval()
    for name, parameter in model.named_parameters():
        if "class" in name:  # the heads, so that classes are not equally likely
            parameter.data.normal_()
        elif kind == "SamModel" and parameter.ndim > 1:
            parameter.data.normal_(std=0.2)
        elif "iou_prediction_head" in name:
            parameter.data.fill_(0.3)
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    checked: nn.Module = model
    return checked
