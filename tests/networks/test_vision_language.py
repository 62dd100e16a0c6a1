"""Models of images and text from folders: every family, its pixels behind the mask, its prompt, and what is refused."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor, nn

from extremal import Network, explain, zoo
from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.networks.inputs import prepare
from extremal.networks.replicas import find_shared_devices, replicate
from extremal.networks.vision_language import PromptedInputs
from extremal.networks.zoo import huggingface_vlm
from extremal.scores import Answer
from support.families import QUICK, assert_explains_and_restores, load_error
from support.vlm_toys import ANSWER, FAMILIES, PROMPT, Planted, build_family, save_family, t

PHOTOGRAPH = Image.fromarray(skimage.data.chelsea()).resize((150, 100))

pytestmark = pytest.mark.usefixtures("one_thread")


def load_family(family: str, folder: Path) -> Network:
    save_family(family, folder)
    return zoo.load(f"hf:{folder}")


def inputs_of(net: Network) -> PromptedInputs:
    assert isinstance(net.inputs, PromptedInputs)
    return net.inputs


def forced_log_probability(model: Any, processor: Any, ids: tuple[int, ...]) -> float:
    """The mean log-probability of tokens while `generate` writes them, for the processor's pixels of the photograph."""
    content = [{"type": "image"}, {"type": "text", "text": PROMPT}]
    text = f"<image>{PROMPT}"
    if processor.chat_template:
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    made = processor(text=text, images=PHOTOGRAPH, return_tensors="pt")
    made.pop("labels", None)
    chances: list[float] = []

    class Force(t.LogitsProcessor):  # type: ignore[misc, name-defined]
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            wanted = ids[len(chances)]
            chances.append(float(scores.log_softmax(1)[0, wanted]))
            return torch.full_like(scores, -1e9).index_fill(1, torch.tensor([wanted]), 0.0)

    options = {"max_new_tokens": len(ids), "do_sample": False, "eos_token_id": None}
    model.generate(**made, **options, logits_processor=t.LogitsProcessorList([Force()]))
    return sum(chances) / len(chances)


@pytest.mark.parametrize("family", FAMILIES)
class TestFamilies:
    def test_the_score_is_that_of_the_model_while_it_writes_the_answer(self, family: str, tmp_path: Path) -> None:
        model, processor = save_family(family, tmp_path)
        net = zoo.load(f"hf:{tmp_path}")
        ids = inputs_of(net).find_answer(PROMPT, ANSWER)
        assert inputs_of(net).list_tokens(ids) == ["a", "red", "bus"]
        x = prepare(net, PHOTOGRAPH)
        with net.frozen() as run, torch.no_grad():
            score = Answer(ANSWER, PROMPT).bind(run, x)(x, torch.tensor([0]))
        # pictures that are cut into tiles may be resized once more than by the processor
        assert float(score) == pytest.approx(forced_log_probability(model, processor, ids), abs=0.02)

    @pytest.mark.slow
    def test_explain_runs_unchanged(self, family: str, tmp_path: Path) -> None:
        net = load_family(family, tmp_path)
        assert net.name == f"hf:{tmp_path}"
        assert_explains_and_restores(net, np.array(PHOTOGRAPH), Answer(ANSWER, PROMPT))

    def test_rows_have_their_own_pictures_and_a_gradient(self, family: str) -> None:
        net = zoo.wrap_vision_language(*build_family(family))
        x = prepare(net, [PHOTOGRAPH, PHOTOGRAPH.transpose(Image.Transpose.FLIP_TOP_BOTTOM)])
        with net.frozen() as run:
            ask = Answer(ANSWER, PROMPT).bind(run, x)
            leaf = x.clone().requires_grad_()
            together = ask(leaf, torch.arange(2))
            alone = torch.cat([ask(x[n : n + 1], torch.tensor([n])) for n in range(2)])
            torch.testing.assert_close(together.detach(), alone, atol=1e-4, rtol=0)
            assert abs(float(alone[0] - alone[1])) > 1e-4
            (slope,) = torch.autograd.grad(together[0], leaf)
            assert float(slope[0].abs().max()) > 0 == float(slope[1].abs().max())


class TestPicture:
    @pytest.mark.parametrize(
        ("family", "shape"),
        [
            ("LLaVA", (56, 56)),  # after the crop: nothing that the model does not see
            ("Qwen2.5-VL", (84, 112)),  # multiples of two patches
            ("SmolVLM", (74, 112)),  # before it is cut into tiles
            ("InternVL", (112, 112)),  # of 2 × 2 tiles, whose shape need not be that of the image
        ],
    )
    def test_masks_act_on_the_picture_before_tiles_and_patches(self, family: str, shape: tuple[int, int]) -> None:
        net = zoo.wrap_vision_language(*build_family(family))
        assert tuple(prepare(net, PHOTOGRAPH).shape) == (1, 3, *shape)

    def test_it_looks_like_the_image(self) -> None:
        net = zoo.wrap_vision_language(*build_family("Qwen2.5-VL"))
        x = prepare(net, PHOTOGRAPH)
        shown = net.to_images_or_empty(x)[0].numpy().astype(int)
        expected = np.array(PHOTOGRAPH.resize((112, 84), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(shown - expected).mean() < 1

    def test_a_processor_whose_steps_differ_on_masked_pictures_is_refused(self) -> None:
        model, processor = build_family("LLaVA")
        original = type(processor.image_processor)._preprocess

        class Odd(type(processor.image_processor)):  # type: ignore[misc]
            def _preprocess(self, images: Any, **options: Any) -> Any:
                images = [255 - image if image.is_floating_point() else image for image in images]
                return original(self, images, **options)

        processor.image_processor.__class__ = Odd
        net = zoo.wrap_vision_language(model, processor, "odd")
        with pytest.raises(ExtremalValueError) as error:
            net.prepare(PHOTOGRAPH)
        assert str(error.value).startswith(
            "an image processor must resize so that a mask can follow, the pixels of odd differ by 0."
        )
        with net.frozen() as run, pytest.raises(ExtremalValueError, match="must resize so that a mask can follow"):
            Answer(ANSWER, PROMPT).bind(run, torch.rand(1, 3, 56, 56))

    def test_a_processor_without_a_gradient_is_refused(self) -> None:
        model, processor = build_family("LLaVA")
        original = type(processor.image_processor)._preprocess

        class Detached(type(processor.image_processor)):  # type: ignore[misc]
            def _preprocess(self, images: Any, **options: Any) -> Any:
                return original(self, [image.detach() for image in images], **options)

        processor.image_processor.__class__ = Detached
        net = zoo.wrap_vision_language(model, processor, "detached")
        with pytest.raises(ExtremalValueError, match="behind the image processor's steps, those of detached pass no"):
            explain(net, PHOTOGRAPH, Answer(ANSWER, PROMPT), areas=(0.2,))

    @pytest.mark.parametrize("family", ["SmolVLM", "LLaVA-NeXT"])
    def test_a_picture_of_zeros_keeps_its_tiles(self, family: str) -> None:
        net = zoo.wrap_vision_language(*build_family(family))
        x = torch.cat([prepare(net, PHOTOGRAPH), torch.zeros_like(prepare(net, PHOTOGRAPH))])
        with net.frozen() as run, torch.no_grad():
            ask = Answer(ANSWER, PROMPT).bind(run, x)
            dark = ask(x + 1e-5, torch.arange(2))
            torch.testing.assert_close(ask(x, torch.arange(2)), dark, atol=1e-3, rtol=0)

    def test_tensors_of_another_shape_are_refused(self) -> None:
        net = zoo.wrap_vision_language(Planted(), build_family("LLaVA")[1], "planted")
        with pytest.raises(ExtremalValueError) as error:
            explain(net, torch.rand(1, 3, 56), Answer(ANSWER, PROMPT), areas=(0.2,))
        assert str(error.value) == (
            "a model of images and text must get pictures (N, 3, H, W), planted got (1, 3, 56); pass an image, or "
            "prepare it with network.prepare(image)"
        )


def wrap_error(model: Any, processor: Any, kind: type[ExtremalError] = ExtremalValueError) -> str:
    with pytest.raises(kind) as error:
        zoo.wrap_vision_language(model, processor, "toy")
    return str(error.value)


class TestRefused:
    def test_copies_for_several_devices(self) -> None:
        net = zoo.wrap_vision_language(Planted(), build_family("LLaVA")[1], "planted")
        assert find_shared_devices(net, "auto") == ["cpu"]
        with pytest.raises(ExtremalValueError, match="planted is a model of images and text; leave them out"):
            replicate(net, ["meta"])

    def test_a_class_as_target(self) -> None:
        net = zoo.wrap_vision_language(*build_family("LLaVA"), "toy")
        with pytest.raises(ExtremalTypeError) as error:
            explain(net, PHOTOGRAPH, 0, areas=(0.2,))
        assert str(error.value) == (
            "a model of images and text must be asked for an answer, toy returns logits of tokens and no classes; pass "
            "scores.Answer(prompt=...) as target, or --ask answer with --prompt"
        )

    def test_a_model_that_is_none(self) -> None:
        processor = build_family("LLaVA")[1]
        assert "must be a module with a config, got Linear" in wrap_error(nn.Linear(2, 2), processor, ExtremalTypeError)
        encoder_decoder = Planted()
        encoder_decoder.config.is_encoder_decoder = True
        assert "toy has an encoder and a decoder" in wrap_error(encoder_decoder, processor)

    def test_a_processor_of_text_or_images_only(self) -> None:
        processor = build_family("LLaVA")[1]
        for part in (processor.tokenizer, processor.image_processor):
            assert "must have a processor with a tokenizer and an image processor, that of toy" in wrap_error(
                Planted(), part
            )

    def test_a_template_without_a_place_for_the_picture(self) -> None:
        model, processor = build_family("LLaVA")
        processor.chat_template = processor.chat_template.replace("<image>", "")
        message = wrap_error(model, processor)
        assert message.startswith("a prompt must")
        assert "picture" in message

    def test_a_folder_without_a_processor(self, tmp_path: Path) -> None:
        build_family("LLaVA")[0].save_pretrained(tmp_path)
        assert load_error(f"hf:{tmp_path}").startswith(
            f"a model of images and text must have its processor in its folder, got {str(tmp_path)!r}: "
        )

    def test_a_model_that_does_not_fit_into_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model, _ = save_family("LLaVA", tmp_path)
        n_bytes = 4 * sum(value.numel() for value in (*model.parameters(), *model.buffers()))
        monkeypatch.setattr(huggingface_vlm, "find_memory", lambda: n_bytes // 4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_error(f"hf:{tmp_path}") == (
                f"a model must fit into memory, got {str(tmp_path)!r} of 0.0 GiB in bfloat16, and this machine has "
                "0.0 GiB; choose a smaller model, or a machine with more memory"
            )
        monkeypatch.setattr(huggingface_vlm, "find_memory", lambda: n_bytes)
        with pytest.warns(UserWarning, match="is loaded in bfloat16"):
            net = zoo.load(f"hf:{tmp_path}")
        assert net.dtype == torch.bfloat16
        result = explain(net, PHOTOGRAPH, Answer(ANSWER, PROMPT), areas=(0.2,), solver=QUICK)
        assert result.masks.dtype == torch.float32

    def test_settings_that_are_damaged(self, tmp_path: Path) -> None:
        save_family("LLaVA", tmp_path)
        settings = json.loads((tmp_path / "processor_config.json").read_text())
        settings["image_processor"]["size"] = {"shortest_edge": 100_000}
        (tmp_path / "processor_config.json").write_text(json.dumps(settings))
        assert "must take images of 1..4096 px" in load_error(f"hf:{tmp_path}")
