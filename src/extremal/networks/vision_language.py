"""Models of images and text: a prompt and an answer as further inputs besides the picture that masks act on."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import describe_error, quote
from extremal.networks.class_scores import TOKEN_LOGITS
from extremal.networks.network import Network
from extremal.networks.picture_steps import PIXELS, PictureSteps

PROBE_SIDE = 64  # px, of the picture with which a processor is tried
UNUSED_INPUTS = ("labels",)  # of a processor, which the model must not get
UNCAUSAL_PREFIX_KINDS = ("paligemma",)  # models in which tokens of type 0 see each other, and the answer has type 1


@dataclass(frozen=True)
class AskedText:
    """A prompt, and the tokens of the answer to it."""

    prompt: str = ""
    answer: tuple[int, ...] = ()


@dataclass(frozen=True)
class EncodedPrompt:
    """The inputs of a model for a prompt about a picture of one size, apart from the picture itself."""

    inputs: dict[str, Tensor]  # each (1, ...), on the CPU
    ids: Tensor  # (1, P) int64

    def extend(self, answer: tuple[int, ...], kind: str) -> dict[str, Tensor]:
        """Return the inputs with the tokens of an answer after the prompt; `kind` is the type of the model."""
        added = torch.tensor([answer], dtype=torch.int64, device="cpu").view(1, -1)
        extended = {}
        for name, value in self.inputs.items():
            if value.shape != self.ids.shape:
                extended[name] = value
                continue
            number = 1 if name == "attention_mask" else 0
            if name == "token_type_ids" and kind in UNCAUSAL_PREFIX_KINDS:
                number = 1
            more = added if name == "input_ids" else torch.full_like(added, number)
            extended[name] = torch.cat([value, more.to(value.dtype)], 1)
        return extended


class PromptedModel(nn.Module):
    """A model of transformers for images and text; its output is a dict with the logits of tokens (B, T, tokens).

    Args:
        model: takes input_ids, pixel_values and what else its processor makes, and returns logits.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        parameters = inspect.signature(model.forward).parameters
        self._options = {"use_cache": False, "return_dict": True}
        if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            self._options = {name: value for name, value in self._options.items() if name in parameters}
        self._keeps_logits = "logits_to_keep" in parameters

    def forward(self, *, kept: int, **inputs: Tensor) -> dict[str, Tensor]:
        """Return the logits of the last `kept` places of the text at least, each for the token after it."""
        options = {**self._options, **({"logits_to_keep": kept} if self._keeps_logits else {})}
        return {TOKEN_LOGITS: self.model(**inputs, **options).logits}


class PromptedInputs:
    """The inputs of a model of images and text, made from pictures x (B, 3, H, W), a prompt and an answer.

    Args:
        processor: of transformers, for text and images; it must be this object's own.
        config: of the model.
        name: of the network, for messages.

    Raises:
        ExtremalValueError: the processor takes no text or no images, or fails.
    """

    def __init__(self, processor: Any, config: Any, name: str) -> None:
        self.tokenizer: Any = getattr(processor, "tokenizer", None)
        if self.tokenizer is None or getattr(processor, "image_processor", None) is None:
            raise ExtremalValueError(
                f"a model of images and text must have a processor with a tokenizer and an image processor, that of "
                f"{name} is a {type(processor).__name__}; save one into its folder with save_pretrained"
            )
        self._processor, self._config, self._name = processor, config, name
        self.current = AskedText()
        self._encoded: dict[tuple[str, int, int], EncodedPrompt] = {}
        self.steps = PictureSteps(processor.image_processor, self._find_image_options(), name)

    @property
    def needs_prompt(self) -> bool:
        """Whether the model was trained to be asked: its processor has a template of a conversation."""
        return bool(getattr(self._processor, "chat_template", None))

    @property
    def end_ids(self) -> set[int]:
        """The tokens that end an answer."""
        found = {self.tokenizer.eos_token_id}
        for config in (self._config, getattr(self._config, "text_config", None)):
            ids = getattr(config, "eos_token_id", None)
            found |= set(ids) if isinstance(ids, list | tuple) else {ids}
        return found - {None}

    @contextmanager
    def asked(self, text: AskedText) -> Iterator[None]:
        """Ask about this prompt and answer inside the `with`."""
        before, self.current = self.current, text
        try:
            yield
        finally:
            self.current = before

    def __call__(self, x: Tensor) -> dict[str, Any]:
        """Return the arguments of the model: pictures with a gradient, and everything else repeated for each row."""
        self.steps.check_shape(x)
        encoded = self.encode(self.current.prompt, (x.shape[2], x.shape[3]))
        kind = getattr(self._config, "model_type", "")
        fixed = {
            name: value.repeat(len(x), *[1] * (value.ndim - 1)).to(x.device)
            for name, value in encoded.extend(self.current.answer, kind).items()
        }
        return {**fixed, **self.steps(x), "kept": len(self.current.answer) + 1}

    def encode(self, prompt: str, size: tuple[int, int] = (PROBE_SIDE, PROBE_SIDE)) -> EncodedPrompt:
        """Return the inputs for a prompt about a picture of height and width; they depend on its size only.

        Raises:
            ExtremalValueError: the processor fails, or leaves out the picture.
        """
        key = (prompt, *size)
        if key not in self._encoded:
            made = self._process(prompt, Image.new("RGB", (size[1], size[0]), "grey"))
            fixed = {
                name: torch.as_tensor(value)
                for name, value in made.items()
                if name not in UNUSED_INPUTS and not (isinstance(value, Tensor) and value.is_floating_point())
            }
            self._encoded[key] = EncodedPrompt(fixed, fixed["input_ids"])
        return self._encoded[key]

    def find_answer(self, prompt: str, text: str) -> tuple[int, ...]:
        """Return the tokens of an answer's text as they follow the prompt; a space separates them from a word.

        Raises:
            ExtremalValueError: there are none, or the tokenizer does not know some.
        """
        last = self.encode(prompt).ids[0, -1:].tolist()
        before = self.tokenizer.decode(last, skip_special_tokens=False)
        is_special = set(last) <= {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        answer = text.strip() if is_special or before[-1:].isspace() or not before else f" {text.strip()}"
        start, both = self._tokenise(before), self._tokenise(before + answer)
        ids = both[len(start) :] if both[: len(start)] == start else self._tokenise(answer)
        if not ids:
            raise ExtremalValueError(
                f"an answer must have tokens, {self._name} reads {quote(text)} as none; leave the text out for the "
                "model's own answer"
            )
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids:
            raise ExtremalValueError(
                f"an answer must consist of tokens that the model knows, {self._name} reads {quote(text)} as "
                f"{' | '.join(self.list_tokens(tuple(ids)))}; write it in other words"
            )
        return tuple(ids)

    def list_tokens(self, ids: tuple[int, ...]) -> list[str]:
        """Return the text of each token."""
        return [self.tokenizer.decode([index], skip_special_tokens=False).strip() or "␣" for index in ids]

    def describe(self, x: Tensor) -> str:
        """Return what the network is asked about pictures x (N, 3, H, W), in words."""
        size = (x.shape[2], x.shape[3])
        tokens = self.list_tokens(self.current.answer)
        answer = f"{len(tokens)} tokens of the answer ({' | '.join(tokens)})" if tokens else "no answer"
        return (
            f"log-probabilities: {answer} after {self.encode(self.current.prompt, size).ids.shape[1]} of the prompt "
            f"{quote(self.current.prompt)} and the picture of {size[0]} × {size[1]} px"
        )

    def _tokenise(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _write_prompt(self, prompt: str) -> str:
        """Return the text for the processor: the conversation by its template, with the place of the picture."""
        place = getattr(self._processor, "boi_token", None) or getattr(self._processor, "image_token", None)
        if place and place in prompt:
            return prompt
        if self.needs_prompt:
            content = [{"type": "image"}, *([{"type": "text", "text": prompt}] if prompt else [])]
            text: str = self._processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            return text
        return f"{place or ''}{prompt}"

    def _process(self, prompt: str, image: Image.Image) -> Mapping[str, Any]:
        try:
            made: Mapping[str, Any] = self._processor(
                text=self._write_prompt(prompt), images=image, return_tensors="pt"
            )
        except Exception as error:
            raise ExtremalValueError(
                f"a prompt must be one that the processor takes with a picture, that of {self._name} raised "
                f"{describe_error(error)} for {quote(prompt)}; leave out its special tokens, or correct the folder"
            ) from error
        ids, config = made.get("input_ids"), self._config
        places = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
        place = next((place for place in places if place is not None), None)
        if PIXELS not in made or ids is None or (place is not None and not bool((ids == place).any())):
            raise ExtremalValueError(
                f"a prompt must have a place for the picture, {self._name} makes text only of {quote(prompt)}; correct "
                "its chat template, or write the image token into the prompt"
            )
        return made

    def _find_image_options(self) -> dict[str, Any]:
        """Return the options that the processor passes to its image processor."""
        own, options = vars(self._processor.image_processor), dict[str, Any]()
        preprocess = self._processor.image_processor.preprocess

        def record(images: Any, *args: Any, **given: Any) -> Any:
            options.update(given)
            return preprocess(images, *args, **given)

        own["preprocess"] = record
        try:
            self._process("", Image.new("RGB", (PROBE_SIDE, PROBE_SIDE), "grey"))
        finally:
            del own["preprocess"]
        return options


def wrap_vision_language(model: nn.Module, processor: Any, name: str = "", source: str = "") -> Network:
    """Wrap a model of images and text of transformers as a network, to be asked for answers (`scores.Answer`).

    Inputs are pictures (N, 3, H, W) of any size, normalised as by the processor; masks act on them before the
    processor's steps. The model and the processor are used as they are, and must not be changed meanwhile.

    Args:
        model: of `AutoModelForImageTextToText`.
        processor: of `AutoProcessor`.
        name: of the network; empty: the class of the model.
        source: of the weights, in words.

    Raises:
        ExtremalValueError, ExtremalTypeError: the model is not an `nn.Module` that predicts the next token, or the
            processor does not fit.
    """
    name = name or type(model).__name__
    config = getattr(model, "config", None)
    if not isinstance(model, nn.Module) or config is None:
        raise ExtremalTypeError(
            f"a model of images and text must be a module with a config, got {type(model).__name__}; load it with "
            "transformers.AutoModelForImageTextToText"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ExtremalValueError(
            f"a model of images and text must read picture, prompt and answer as one text, {name} has an encoder and a "
            "decoder; wrap it, and pass a callable on its output as target"
        )
    inputs = PromptedInputs(processor, config, name)
    return Network(
        PromptedModel(model),
        inputs.steps.prepare,
        name=name,
        mean=inputs.steps.mean,
        std=inputs.steps.std,
        inputs=inputs,
        source=source,
    )
