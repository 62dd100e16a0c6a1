"""Networks in the format of Hugging Face, from local folders or the hub: nothing is unpickled or run from them."""

import re
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError, Notice
from extremal.file_checks import describe_error, expand_user, find_kind, quote
from extremal.networks.network import Network
from extremal.networks.text_encoder import TextEncoder
from extremal.networks.vision_language import wrap_vision_language
from extremal.networks.zoo.hub import HubName, fetch
from extremal.networks.zoo.huggingface_adapter import ForwardFn, TransformersAdapter
from extremal.networks.zoo.huggingface_detectors import find_objects, is_object_finder, load_phrase_tokenizer
from extremal.networks.zoo.huggingface_files import (
    TOKENIZER_FILES,
    find_weights,
    load_tokenizer,
    offline_and_quiet,
    read_config,
    read_json_object,
)
from extremal.networks.zoo.huggingface_preprocessing import find_preprocessing
from extremal.networks.zoo.huggingface_sizes import (
    check_model,
    check_numbers,
    check_processor,
    read_shapes,
)
from extremal.networks.zoo.huggingface_vlm import (
    choose_dtype,
    is_vision_language,
    load_processor,
)
from extremal.networks.zoo.weights import Weights, build_with_weights, check_weights_file, is_random


def load(path: str, weights: Weights) -> Network:
    """Load a network from a folder with config.json, preprocessor_config.json and weights in safetensors.

    The folder is a local one, or else a repository of the hub, which is downloaded to the hub's cache. The network's
    output depends on the name in `architectures` of config.json:

    - an image classifier: the scores (B, classes), named by `id2label`;
    - a semantic segmenter: the scores of each place (B, classes, H, W), also named by `id2label`;
    - a pair of encoders of images and text, such as CLIP and SigLIP, or an image encoder with a projection: the
      embedding of the image (B, D);
    - a model of images and text that writes text (LLaVA, Qwen-VL, SmolVLM, PaliGemma, InternVL, Gemma 3 and others of
      transformers' list): the logits of tokens, to be asked with `scores.Answer`;
    - a plain image encoder: its pooled features (B, D): those of its pooler if the weights include one, else the first
      token, or the mean over places if there are no tokens;
    - a detector, a segmenter of instances, or SAM: the parts of its output that `scores.Box` and `scores.Instance`
      read, by name; `with_phrases` gives a Grounding DINO its text, `Network.inputs` other prompts.

    Without preprocessor_config.json, images are cropped and resized to the image size in config.json (224 px if it
    specifies none) and scaled to −1 .. 1, with a warning.

    Args:
        path: the folder, or OWNER/NAME[@REVISION].
        weights: None for the folder's; `random`; or a file to use instead.

    Raises:
        ExtremalValueError: there is no such folder or repository, no weights in safetensors or another architecture, or
            transformers is missing.
    """
    folder, hub_name = expand_user(path, "an hf: network"), HubName.parse(path)
    if hub_name is None:
        return _load_folder(folder, path, weights)
    if find_kind(folder, "an hf: network"):
        warnings.warn(f"hf:{path} is read from the local folder {quote(folder.absolute())}", Notice, stacklevel=5)
        return _load_folder(folder, path, weights)
    snapshot = fetch(f"hf:{path}", hub_name, lambda folder: _find_kind(folder, path), with_weights=weights is None)
    return replace(_load_folder(snapshot.folder, path, weights), source=snapshot.source)


def _load_folder(folder: Path, path: str, weights: Weights) -> Network:
    """Load a network from a local folder; `path` is its name in messages."""
    config = read_config(folder, path)
    shapes = read_shapes(find_weights(folder, path), path) if weights is None else {}
    transformers, architecture, forward = _find_kind(folder, path, config)
    model, missing, processor = _load_model(transformers, architecture, folder, path, weights, shapes)
    pooler = {key for key in missing if "pooler" in key.split(".")}
    if forward is _pooler_output and pooler:  # the pooler would be random
        forward, missing = _pool_tokens, missing - pooler
    if missing:
        raise ExtremalValueError(
            f"weights must be complete, got {quote(path)} without {len(missing)} tensors of "
            f"{architecture}, e.g. {min(missing)!r}; check the folder"
        )
    if is_vision_language(transformers, architecture):
        return wrap_vision_language(model, processor, f"hf:{path}")
    preprocess, mean, std = find_preprocessing(processor, model.config, path)
    labels = (
        [str(label) for _, label in sorted(model.config.id2label.items())] if forward in (_logits, find_objects) else []
    )
    mirror = "ForImageClassification" in architecture
    texts = None
    if forward is _image_features and any((folder / name).is_file() for name in TOKENIZER_FILES):
        remedy = "save it again with save_pretrained, or remove it for pictures alone"
        found = load_tokenizer(transformers, folder, path, "an hf: network must have a tokenizer that loads", remedy)
        texts = TextEncoder(model, found, f"hf:{path}")
    tokenizer = load_phrase_tokenizer(transformers, model, folder, path)
    adapter = TransformersAdapter(model, forward, texts, tokenizer).eval()
    return Network(adapter, preprocess, tuple(labels), f"hf:{path}", mean, std, mirror=mirror)


def _find_kind(folder: Path, path: str, config: dict[str, Any] | None = None) -> tuple[Any, str, ForwardFn]:
    """Return transformers, the architecture of a folder, and how a model of it is evaluated.

    Args:
        folder: with config.json.
        path: the folder as the user gave it.
        config: its config.json; None: it is read.

    Raises:
        ExtremalValueError: the settings are broken, the architecture is another, or transformers is missing.
    """
    config = read_config(folder, path) if config is None else config
    check_numbers(config, path)
    try:
        import transformers
    except ImportError:
        raise ExtremalValueError(
            f"an hf: network needs transformers, which is not installed, got {quote(path)}; "
            "install it: pip install 'extremal[hf]'"
        ) from None
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else "no architecture"
    forward = _find_forward(transformers, architecture)
    if forward is None and "auto_map" in config:
        raise ExtremalValueError(
            f"an hf: network must be of transformers itself, got {quote(path)} with {quote(architecture)[1:-1]}, which "
            "needs code of its own (auto_map in config.json), and that is not run; load it with MODULE:CALLABLE"
        )
    if forward is None and isinstance(config.get("architecture"), str):
        raise ExtremalValueError(
            f"an hf: network must be of transformers, got {quote(path)}, a network of timm; if it is on the hub, pass "
            f"timm:hf-hub:{quote(path)[1:-1]}"
        )
    if forward is None:
        raise ExtremalValueError(
            "an hf: network must be an image classifier, a segmenter, a detector, an encoder of images or a model of "
            f"images and text in transformers, got {quote(path)} with {quote(architecture)[1:-1]}; load others with "
            "MODULE:CALLABLE"
        )
    return transformers, architecture, forward


def _logits(model: Any, pixels: Tensor) -> Tensor:
    scores: Tensor = model(pixel_values=pixels, return_dict=True).logits
    return scores


def _image_features(model: Any, pixels: Tensor) -> Tensor:
    output = model.get_image_features(pixel_values=pixels)
    embedding: Tensor = output if isinstance(output, Tensor) else output.pooler_output  # a tensor before transformers 5
    return embedding


def _image_embeds(model: Any, pixels: Tensor) -> Tensor:
    embedding: Tensor = model(pixel_values=pixels, return_dict=True).image_embeds
    return embedding


def _pooler_output(model: Any, pixels: Tensor) -> Tensor:
    pooled = getattr(model(pixel_values=pixels, return_dict=True), "pooler_output", None)
    return _pool_tokens(model, pixels) if pooled is None else pooled.flatten(1)


def _pool_tokens(model: Any, pixels: Tensor) -> Tensor:
    states: Tensor = model(pixel_values=pixels, return_dict=True).last_hidden_state
    return states[:, 0] if states.ndim == 3 else states.flatten(2).mean(2)


def _find_forward(transformers: Any, architecture: str) -> ForwardFn | None:  # noqa: PLR0911
    """Return how a model of this class is evaluated; None if its kind is not supported."""
    kind = None
    with suppress(Exception):  # it may need a library that is not installed
        kind = getattr(transformers, architecture, None)
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        return None
    if hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features"):
        return _image_features
    has_logits = "ForImageClassification" in architecture or architecture.endswith("ForSemanticSegmentation")
    takes_pixels = getattr(kind, "main_input_name", "") == "pixel_values"
    if takes_pixels and is_object_finder(architecture):
        return find_objects
    if (takes_pixels and has_logits) or is_vision_language(transformers, architecture):
        return _logits
    if not takes_pixels:
        return None
    if architecture.endswith("VisionModelWithProjection"):
        return _image_embeds
    # a model without a head is an encoder if transformers has the same one with a classifier; others detect objects
    is_encoder = hasattr(transformers, architecture.removesuffix("Model") + "ForImageClassification")
    is_encoder = is_encoder or architecture.endswith("VisionModel") or architecture.startswith("DINOv3")
    return _pooler_output if is_encoder and architecture.endswith("Model") else None


def _load_model(
    transformers: Any,
    architecture: str,
    folder: Path,
    path: str,
    weights: Weights,
    shapes: dict[str, tuple[int, ...]],
) -> tuple[Any, set[str], Any | None]:
    """Return the model, the names of tensors missing from its weights, and the image processor if there is one."""
    kind = getattr(transformers, architecture)
    processor, missing = None, set[str]()
    file_size = None if weights is None or is_random(weights) else check_weights_file(weights)
    with offline_and_quiet(transformers):
        try:
            configuration = kind.config_class.from_pretrained(folder, local_files_only=True)
            with torch.device("meta"):
                empty = kind(configuration)
            check_model(empty, shapes, path, file_size)
            dtype = choose_dtype(empty, path) if is_vision_language(transformers, architecture) else torch.float32
            if weights is None:
                model, info = kind.from_pretrained(
                    folder,
                    local_files_only=True,
                    use_safetensors=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                    dtype=dtype,
                )
                missing = set(info["missing_keys"])
                _check_unused(model, info["unexpected_keys"], path)
            else:
                model = kind(kind.config_class.from_pretrained(folder, local_files_only=True))
            files = [folder / f"{prefix}processor_config.json" for prefix in ("pre", "")]
            present = [read_json_object(file, path) for file in files if file.is_file()]
            if is_vision_language(transformers, architecture):
                processor = load_processor(transformers, folder, path)
                check_processor(getattr(processor, "image_processor", None), path)
            elif present:
                processor = transformers.AutoImageProcessor.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
                check_processor(processor, path)
        except ExtremalValueError:
            raise
        except Exception as error:
            raise ExtremalValueError(
                f"an hf: network must load as it is, got {quote(path)}: {describe_error(error)}; "
                "check the folder, or save it again with save_pretrained"
            ) from None

        original = model

        def build(count: int) -> Any:
            if count == original.config.num_labels:
                return original
            return kind(kind.config_class.from_pretrained(folder, local_files_only=True, num_labels=count))

        model, _ = build_with_weights(build, original.config.num_labels, weights)
    return model.to(dtype), missing, processor  # half precision is too coarse for the gradient of a mask


def _check_unused(model: nn.Module, names: Iterable[str], path: str) -> None:
    """Check the tensors of the weights that the model does not use.

    Raises:
        ExtremalValueError: they are of layers that the model would have by another config.json.
    """
    modules = dict(model.named_modules())
    for name in sorted(names):
        layers = re.match(r"(.+?)\.\d+\.", name)
        if layers and isinstance(modules.get(layers[1]), nn.ModuleList):
            raise ExtremalValueError(
                f"weights must fit config.json, got {quote(path)} with {quote(name)}, a layer that config.json leaves "
                "out; correct it"
            )
