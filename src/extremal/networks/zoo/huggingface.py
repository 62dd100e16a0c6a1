"""Networks from local folders in the format of Hugging Face: nothing is downloaded, unpickled or run from them."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.networks.network import Network
from extremal.networks.zoo.huggingface_files import by_itself, check_weights, config_of
from extremal.networks.zoo.preprocessing import Fitted
from extremal.networks.zoo.weights import Weights, first_line, load_file

SIDE = 224  # px, where the folder tells no size

Read = Callable[[Any, Tensor], Tensor]  # model, pixels (B, C, H, W) -> what it says of them
Preprocessing = tuple[Callable[[Image.Image], Tensor], tuple[float, ...], tuple[float, ...]]  # it, its mean, its std


def load(path: str, weights: Weights) -> Network:
    """The network of a local folder with config.json, preprocessor_config.json and weights in safetensors.

    What it returns goes by the name in config.json's `architectures`:

    - an image classifier: the scores (B, classes), named by `id2label`;
    - a semantic segmenter: the scores of each place (B, classes, H, W), named likewise;
    - a pair of encoders, of images and of text, as CLIP and SigLIP are, or an image encoder with a projection: the
      image's embedding (B, D);
    - a plain image encoder: its pooled features (B, D), which are its pooler's where the weights have one, else the
      first token, or the mean over places where there are no tokens.

    Without preprocessor_config.json a picture is cropped and resized to the image size in config.json (224 px where it
    tells none) and brought to −1 .. 1; a warning says so.

    Args:
        path: the folder.
        weights: None for the folder's; `random`; or a file in their place.

    Raises:
        ExtremalValueError: no such folder, no weights in safetensors, another architecture, or transformers is missing.
    """
    name, folder = f"hf:{path}", Path(path).expanduser()
    config = config_of(folder, path)
    if weights is None:
        check_weights(folder, path)
    try:
        import transformers
    except ImportError:
        raise ExtremalValueError(
            f"an hf: network needs transformers, which is not installed, got {path!r}; "
            "install it: pip install 'extremal[hf]'"
        ) from None
    architecture = str((config.get("architectures") or ["no architecture"])[0])
    read = _reading(transformers, architecture)
    if read is None:
        raise ExtremalValueError(
            "an hf: network must be an image classifier, a semantic segmenter or an encoder of images in transformers, "
            f"got {path!r} with {architecture}; load others with MODULE:CALLABLE"
        )
    model, missing, processor = _loaded(transformers, architecture, folder, path, weights)
    pooler = {key for key in missing if "pooler" in key.split(".")}
    if read is _pooled and pooler:  # it would be random
        read, missing = _unpooled, missing - pooler
    if missing:
        raise ExtremalValueError(
            f"weights must be those of the whole network, got {path!r} without {len(missing)} tensors of "
            f"{architecture}, e.g. {min(missing)!r}; check the folder"
        )
    preprocess, mean, std = _preprocessing(processor, model.config, path)
    labels = [str(label) for _, label in sorted(model.config.id2label.items())] if read is _logits else []
    mirror = "ForImageClassification" in architecture
    return Network(Reading(model, read).eval(), preprocess, tuple(labels), name, mean, std, mirror=mirror)


class Reading(nn.Module):
    """A model of transformers that takes pixels and returns one tensor.

    Args:
        model: the model.
        read: what it is asked of pixels.
    """

    def __init__(self, model: nn.Module, read: Read) -> None:
        super().__init__()
        self.model, self._read = model, read

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K) or (B, K, H, W)."""
        return self._read(self.model, pixel_values)


def _logits(model: Any, pixels: Tensor) -> Tensor:
    scores: Tensor = model(pixel_values=pixels, return_dict=True).logits
    return scores


def _paired(model: Any, pixels: Tensor) -> Tensor:
    found = model.get_image_features(pixel_values=pixels)
    embedding: Tensor = found if isinstance(found, Tensor) else found.pooler_output  # before transformers 5 it is that
    return embedding


def _projected(model: Any, pixels: Tensor) -> Tensor:
    embedding: Tensor = model(pixel_values=pixels, return_dict=True).image_embeds
    return embedding


def _pooled(model: Any, pixels: Tensor) -> Tensor:
    pooled = getattr(model(pixel_values=pixels, return_dict=True), "pooler_output", None)
    return _unpooled(model, pixels) if pooled is None else pooled.flatten(1)


def _unpooled(model: Any, pixels: Tensor) -> Tensor:
    states: Tensor = model(pixel_values=pixels, return_dict=True).last_hidden_state
    return states[:, 0] if states.ndim == 3 else states.flatten(2).mean(2)


def _reading(transformers: Any, architecture: str) -> Read | None:
    """How a model of this class is asked; None where it is of no kind that can be."""
    kind = getattr(transformers, architecture, None)
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        return None
    if hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features"):
        return _paired
    if getattr(kind, "main_input_name", "") != "pixel_values":
        return None
    if "ForImageClassification" in architecture or architecture.endswith("ForSemanticSegmentation"):
        return _logits
    if architecture.endswith("VisionModelWithProjection"):
        return _projected
    # a model without a head is an encoder where there is the same with the head of a classifier; others find objects
    encodes = hasattr(transformers, architecture.removesuffix("Model") + "ForImageClassification")
    encodes = encodes or architecture.endswith("VisionModel") or architecture.startswith("DINOv3")
    return _pooled if encodes and architecture.endswith("Model") else None


def _loaded(
    transformers: Any, architecture: str, folder: Path, path: str, weights: Weights
) -> tuple[Any, set[str], Any | None]:
    """The model, the names of tensors that its weights lack, and the image processor where the folder has one."""
    kind = getattr(transformers, architecture)
    processor, missing = None, set[str]()
    with by_itself(transformers):
        try:
            if weights is None:
                model, told = kind.from_pretrained(
                    folder,
                    local_files_only=True,
                    use_safetensors=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
                missing = set(told["missing_keys"])
            else:
                model = kind(kind.config_class.from_pretrained(folder, local_files_only=True))
            if any((folder / f"{kind}processor_config.json").is_file() for kind in ("pre", "")):
                processor = transformers.AutoImageProcessor.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
        except Exception as error:
            raise ExtremalValueError(
                f"an hf: network must load as it is, got {path!r}: {first_line(error)}; "
                "check the folder, or save it again with save_pretrained"
            ) from None
    load_file(model, weights)
    return model.float(), missing, processor  # halves are too coarse for the gradient of a mask


def _preprocessing(processor: Any | None, config: Any, path: str) -> Preprocessing:
    if processor is not None:
        if not getattr(processor, "do_normalize", False):
            return Processed(processor), (0.0,), (1.0,)
        return Processed(processor), tuple(processor.image_mean), tuple(processor.image_std)
    size = getattr(config, "image_size", None) or getattr(getattr(config, "vision_config", None), "image_size", None)
    height, width = size if isinstance(size, list | tuple) else (size or SIDE,) * 2
    warnings.warn(
        f"{path!r} has no preprocessor_config.json: pictures are cropped and resized to {height}×{width} px and "
        "brought to −1 .. 1, which may not be what the network was trained with",
        UserWarning,
        stacklevel=5,  # who called `zoo.load`
    )
    return Fitted(3, height, width, mean=0.5, std=0.5), (0.5,), (0.5,)


class Processed:
    """A picture as an image processor of transformers prepares it -> (C, H, W).

    Args:
        processor: the image processor.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, picture: Image.Image) -> Tensor:
        pixels: Tensor = self.processor(images=picture, return_tensors="pt")["pixel_values"][0]
        return pixels
