"""Tiny models of images and text: six families of transformers and more with random weights, and one planted."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from extremal import Network, zoo
from support.toys import Box, box_mask, texture

t = pytest.importorskip("transformers")
t.utils.logging.set_verbosity_error()
t.utils.logging.disable_progress_bar()

PROMPT, ANSWER = "what is in the picture ?", "a red bus"
WORDS = [
    "<unk>",
    "<pad>",
    "<s>",
    "</s>",
    "<image>",
    "<start>",
    "<end>",
    "<video>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    "<begin>",
    "user",
    "assistant",
    ":",
    "what",
    "is",
    "in",
    "the",
    "picture",
    "?",
    "a",
    "red",
    "bus",
    "blue",
    "cat",
    "dog",
]
TEMPLATE = (
    "{% for m in messages %}{{m['role']}} : {% for c in m['content'] %}{% if c['type'] == 'image' %}PLACE"
    "{% else %} {{c['text']}}{% endif %}{% endfor %} {% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
)
NAMED_TOKENS = {
    "image_token": "<image>",
    "video_token": "<video>",
    "vision_bos_token": "<start>",
    "vision_eos_token": "<end>",
    "boi_token": "<begin>",
    "eoi_token": "<end>",
    "start_image_token": "<start>",
    "end_image_token": "<end>",
    "context_image_token": "<image>",
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 80,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
LLAMA = {**TEXT, "num_key_value_heads": 2}
GEMMA = {**TEXT, "num_key_value_heads": 1, "head_dim": 16}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
QWEN = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "out_hidden_size": 32,
    "intermediate_size": 64,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
TILES = [[56, 112], [112, 56], [112, 112]]
ID = {word: index for index, word in enumerate(WORDS)}


def build_tokenizer(*names: str) -> Any:
    """A tokenizer of words, with named special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [*WORDS, *(f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)), "\n"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    splits = [("\n", "isolated"), (" ", "removed"), ("?", "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(*split) for split in splits])
    return t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=[word for word in words[4:] if word.startswith("<")],
        **({"extra_special_tokens": {name: NAMED_TOKENS[name] for name in names}} if names else {}),
    )


def template(place: str) -> str:
    """Return the template of a conversation with this text in place of a picture."""
    return TEMPLATE.replace("PLACE", place)


def build_llava() -> tuple[Any, Any]:
    """Return the configuration and the processor of LLaVA."""
    clip = t.CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    options = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return (
        t.LlavaConfig(
            vision_config=t.CLIPVisionConfig(**VISION), text_config=t.LlamaConfig(**LLAMA), image_token_index=4
        ),
        t.LlavaProcessor(clip, build_tokenizer(), **options, chat_template=template("<image>")),
    )


def build_llava_next() -> tuple[Any, Any]:
    """Return the configuration and the processor of LLaVA-NeXT."""
    tiles = t.LlavaNextImageProcessor(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=TILES
    )
    options = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return (
        t.LlavaNextConfig(
            vision_config=t.CLIPVisionConfig(**VISION),
            text_config=t.LlamaConfig(**LLAMA),
            image_token_index=4,
            image_grid_pinpoints=TILES,
        ),
        t.LlavaNextProcessor(tiles, build_tokenizer(), **options, chat_template=template("<image>")),
    )


def build_qwen(kind: str) -> tuple[Any, Any]:
    """Return the configuration and the processor of Qwen2.5-VL or Qwen3-VL."""
    ids = {"image_token_id": 4, "vision_start_token_id": 5, "vision_end_token_id": 6, "video_token_id": 7}
    names = ("image_token", "video_token", "vision_bos_token", "vision_eos_token")
    patches = t.Qwen2VLImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112})
    text: dict[str, Any] = {**LLAMA, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    if kind == "Qwen2_5_VL":
        vision, video = {**QWEN, "window_size": 56, "fullatt_block_indexes": [1]}, t.Qwen2VLVideoProcessor()
    else:
        rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
        text = {**LLAMA, "head_dim": 16, "rope_parameters": rope}
        vision = {**QWEN, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
        video = t.Qwen3VLVideoProcessor()
    return (
        getattr(t, f"{kind}Config")(text_config=text, vision_config=vision, **ids),
        getattr(t, f"{kind}Processor")(
            patches, build_tokenizer(*names), video, chat_template=template("<start><image><end>")
        ),
    )


def build_smolvlm() -> tuple[Any, Any]:
    """Return the configuration and the processor of SmolVLM."""
    tiles = t.Idefics3ImageProcessor(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    return (
        t.Idefics3Config(
            vision_config=VISION,
            text_config={**LLAMA, "model_type": "llama"},
            image_token_id=4,
            scale_factor=2,
            pad_token_id=1,
        ),
        t.Idefics3Processor(tiles, build_tokenizer(), image_seq_len=4, chat_template=template("<image>")),
    )


def build_paligemma() -> tuple[Any, Any]:
    """Return the configuration and the processor of PaliGemma."""
    squares = t.SiglipImageProcessor(size={"height": 56, "width": 56})
    squares.image_seq_length = 16
    processor = t.PaliGemmaProcessor(squares, build_tokenizer("image_token"))
    vision = {**VISION, "model_type": "siglip_vision_model", "projection_dim": 32}
    text = {**GEMMA, "model_type": "gemma", "vocab_size": len(processor.tokenizer)}
    config = t.PaliGemmaConfig(
        vision_config=vision, text_config=text, image_token_id=4, projection_dim=32, hidden_size=32
    )
    return config, processor


def build_gemma3() -> tuple[Any, Any]:
    """Return the configuration and the processor of Gemma 3."""
    squares = t.Gemma3ImageProcessor(size={"height": 56, "width": 56})
    names = ("image_token", "boi_token", "eoi_token")
    return (
        t.Gemma3Config(
            vision_config={**VISION, "model_type": "siglip_vision_model"},
            text_config={**GEMMA, "model_type": "gemma3_text", "sliding_window": 16},
            image_token_index=4,
            boi_token_index=ID["<begin>"],
            eoi_token_index=ID["<end>"],
            mm_tokens_per_image=4,
        ),
        t.Gemma3Processor(squares, build_tokenizer(*names), image_seq_length=4, chat_template=template("<begin>")),
    )


def build_internvl() -> tuple[Any, Any]:
    """Return the configuration and the processor of InternVL."""
    names = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    tiles = t.GotOcr2ImageProcessor(size={"height": 56, "width": 56}, max_patches=4)
    vision = {**VISION, "image_size": [56, 56], "patch_size": [14, 14]}
    return (
        t.InternVLConfig(
            vision_config=vision,
            text_config={**LLAMA, "model_type": "qwen2"},
            image_token_id=4,
            image_seq_length=4,
        ),
        t.InternVLProcessor(
            *(tiles, build_tokenizer(*names), t.InternVLVideoProcessor()),
            image_seq_length=4,
            chat_template=template("<image>"),
        ),
    )


def build_family(family: str) -> tuple[Any, Any]:
    """A tiny model of a family with random weights, seeded, and its processor."""
    config, processor = BUILDERS[family]()
    torch.manual_seed(0)
    model = t.AutoModelForImageTextToText.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)  # by default the picture hardly matters, or not at all
    return model, processor


BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "LLaVA": build_llava,
    "LLaVA-NeXT": build_llava_next,
    "Qwen2.5-VL": lambda: build_qwen("Qwen2_5_VL"),
    "Qwen3-VL": lambda: build_qwen("Qwen3VL"),
    "SmolVLM": build_smolvlm,
    "PaliGemma": build_paligemma,
    "Gemma 3": build_gemma3,
    "InternVL": build_internvl,
}
FAMILIES = tuple(BUILDERS)


def save_family(family: str, folder: Path) -> tuple[Any, Any]:
    """Save a tiny model with its processor to a folder, as users have them."""
    model, processor = build_family(family)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


BUS_AT: Box = (slice(6, 26), slice(6, 26))
CAT_AT: Box = (slice(30, 50), slice(28, 48))
SIGNS = texture(1, 3, 56, 56)


class Planted(nn.Module):
    """A model whose words depend on places of the picture: "red bus" on one, "blue cat" on another, others on none.

    After "red" the logit of "bus" is 8·tanh of the mean of the pixels' product with a texture over `BUS_AT`; after
    "blue" that of "cat" the same over `CAT_AT`. Of "a", "red" and the end they depend on the text only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("signs", SIGNS.clone())
        self.config = SimpleNamespace(model_type="planted", image_token_id=4, eos_token_id=3)

    def forward(self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None) -> Any:
        """Return an object with logits (B, T, tokens)."""
        correlation = pixel_values * self.signs
        logits = pixel_values.new_zeros(*input_ids.shape, TEXT["vocab_size"])
        for before, word, place in (("red", "bus", BUS_AT), ("blue", "cat", CAT_AT)):
            seen = torch.tanh(correlation[(..., *place)].flatten(1).mean(1))
            logits[..., ID[word]] = logits[..., ID[word]] + 8 * seen[:, None] * (input_ids == ID[before])
        for before, word in ((":", "a"), ("a", "red"), ("bus", "</s>")):
            logits[..., ID[word]] = logits[..., ID[word]] + 9 * (input_ids == ID[before])
        return SimpleNamespace(logits=logits)


def planted_network() -> Network:
    """The planted model with LLaVA's processor."""
    return zoo.wrap_vision_language(Planted(), build_family("LLaVA")[1], "planted")


def planted_picture() -> Image.Image:
    """A grey picture of 56 × 56 px with the texture everywhere."""
    pixels = (127.5 + 60 * SIGNS[0]).clamp(0, 255).byte().movedim(0, -1)
    return Image.fromarray(np.ascontiguousarray(pixels.numpy()))


def place_mask(*places: Box) -> Tensor:
    """The mask (56, 56) of places."""
    return sum(box_mask(place, (56, 56)) for place in places)  # type: ignore[return-value]
