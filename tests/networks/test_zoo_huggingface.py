"""Networks from folders in the format of Hugging Face: each kind proven against the model that was saved."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from extremal import zoo
from support.encoder_toys import VISION, build_model, save_model
from support.families import assert_explains_and_restores, load_error, noise_image

transformers = pytest.importorskip("transformers")


def embedded_by(model: Any, x: Tensor) -> Tensor:
    """Return the output of the model for pixels, computed by hand."""
    kind = type(model).__name__
    if kind in ("CLIPModel", "SiglipModel"):
        pooled = model.vision_model(pixel_values=x).pooler_output
        return model.visual_projection(pooled) if kind == "CLIPModel" else pooled
    output = model(x)
    for name in ("logits", "image_embeds", "pooler_output"):
        if name in output:
            return output[name].flatten(1) if name == "pooler_output" else output[name]
    raise AssertionError(kind)


pytestmark = pytest.mark.usefixtures("one_thread")


class TestHuggingFace:
    @pytest.mark.parametrize(
        ("kind", "shape"),
        [
            ("ViTForImageClassification", (3,)),
            ("ViTModel", (16,)),
            ("Dinov2Model", (16,)),
            ("DINOv3ViTModel", (16,)),
            ("DINOv3ConvNextModel", (8,)),
            ("ResNetModel", (8,)),
            ("CLIPModel", (6,)),
            ("SiglipModel", (16,)),
            ("CLIPVisionModelWithProjection", (6,)),
            ("SegformerForSemanticSegmentation", (3, 8, 8)),
        ],
    )
    def test_it_returns_the_output_of_the_model(self, kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
        model = save_model(kind, tmp_path)
        net = zoo.load(f"hf:{tmp_path}")
        x = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            said = net.model(x)
            assert said.shape == (2, *shape)
            assert torch.equal(said, embedded_by(model, x))
        assert (net.name, net.mirror) == (f"hf:{tmp_path}", "Classification" in kind)
        asked = 0 if len(shape) > 1 or "Classification" in kind else lambda output: output[:, 0]
        assert_explains_and_restores(net, x[:1], asked)

    def test_class_names_and_preprocessing_come_from_the_folder(self, tmp_path: Path) -> None:
        save_model("ViTForImageClassification", tmp_path)
        net = zoo.load(f"hf:{tmp_path}")
        assert tuple(net.labels) == ("cat", "dog", "car")
        picture = noise_image(32)
        x = net.prepare(picture)
        pixels = torch.from_numpy(np.array(picture)).movedim(-1, 0) / 255
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
        torch.testing.assert_close(x[0], (pixels - mean) / std, atol=1e-5, rtol=0)
        assert np.array_equal(net.to_images_or_empty(x)[0], np.array(picture))
        assert net.prepare(Image.new("RGB", (90, 50))).shape == (1, 3, 32, 32)

    def test_without_preprocessing_a_warning_names_the_assumption(self, tmp_path: Path) -> None:
        save_model("CLIPModel", tmp_path, processor=False)
        with pytest.warns(UserWarning, match="has no") as told:
            net = zoo.load(f"hf:{tmp_path}")
        assert [str(one.message) for one in told] == [
            f"{str(tmp_path)!r} has no preprocessor_config.json: images are cropped and resized to 32×32 px and "
            "scaled to −1 .. 1, which may differ from the preprocessing in training"
        ]
        assert told[0].filename == __file__
        picture = Image.new("RGB", (64, 32), (255, 0, 0))
        picture.paste((0, 255, 0), (16, 0, 48, 32))  # the middle square
        x = net.prepare(picture)
        assert torch.equal(x, torch.tensor([-1.0, 1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 32, 32))
        assert net.to_images_or_empty(x)[0, 0, 0].tolist() == [0, 255, 0]

    def test_a_pooler_that_was_not_saved_is_not_used(self, tmp_path: Path) -> None:
        torch.manual_seed(1)
        model = transformers.ViTModel(transformers.ViTConfig(**VISION), add_pooling_layer=False).eval()
        model.save_pretrained(tmp_path)
        transformers.ViTImageProcessor().save_pretrained(tmp_path)
        x = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(zoo.load(f"hf:{tmp_path}").model(x), model(x).last_hidden_state[:, 0])

    def test_incomplete_weights_raise_an_error(self, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        save_model("ViTForImageClassification", tmp_path)
        state = load_file(tmp_path / "model.safetensors")
        del state["classifier.bias"], state["classifier.weight"]
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        assert load_error(f"hf:{tmp_path}") == (
            f"weights must be complete, got {str(tmp_path)!r} without 2 tensors of "
            "ViTForImageClassification, e.g. 'classifier.bias'; check the folder"
        )

    def test_half_precision_becomes_single_precision(self, tmp_path: Path) -> None:
        build_model("ViTForImageClassification").half().save_pretrained(tmp_path)  # type: ignore[operator]
        transformers.ViTImageProcessor().save_pretrained(tmp_path)
        assert zoo.load(f"hf:{tmp_path}").anchor.dtype == torch.float32

    def test_random_and_other_weights(self, tmp_path: Path) -> None:
        model = save_model("ViTForImageClassification", tmp_path)
        first = zoo.load(f"hf:{tmp_path}", "random")
        torch.manual_seed(8)
        assert zoo.load(f"hf:{tmp_path}", "random").weight_hash() == first.weight_hash()
        assert first.weight_hash() != zoo.load(f"hf:{tmp_path}").weight_hash()
        state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
        torch.save(state, tmp_path / "other.pt")
        loaded = zoo.load(f"hf:{tmp_path}", tmp_path / "other.pt").model.model.state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())

    def test_the_library_is_restored(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants

        logging = transformers.utils.logging
        save_model("ViTForImageClassification", tmp_path)
        recorded = []
        kind = transformers.ViTForImageClassification
        load = kind.from_pretrained.__func__

        def watched(cls: Any, *args: Any, **options: Any) -> Any:
            recorded.append((constants.HF_HUB_OFFLINE, options["trust_remote_code"], options["use_safetensors"]))
            return load(cls, *args, **options)

        monkeypatch.setattr(kind, "from_pretrained", classmethod(watched))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        logging.set_verbosity_warning()
        logging.enable_progress_bar()
        try:
            zoo.load(f"hf:{tmp_path}")
            assert recorded == [(True, False, True)]
            assert logging.get_verbosity() == logging.WARNING
            assert logging.is_progress_bar_enabled()
            assert not constants.HF_HUB_OFFLINE
        finally:
            logging.set_verbosity_error()
            logging.disable_progress_bar()


class TestHuggingFaceRefusals:
    def test_not_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "vit-tiny").mkdir()
        path = tmp_path / "vit-tin"
        assert load_error(f"hf:{path}") == (
            f"an hf: network must be a local folder, or OWNER/NAME[@REVISION] on the hub, got {str(path)!r}; check the "
            "path; nearest: vit-tiny"
        )

    def test_no_configuration(self, tmp_path: Path) -> None:
        assert load_error(f"hf:{tmp_path}") == (
            f"an hf: network must have a config.json, got {str(tmp_path)!r} without one; write it with save_pretrained"
        )

    def test_a_broken_configuration(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{")
        assert load_error(f"hf:{tmp_path}") == (
            f"an hf: network must have a config.json in JSON, got {str(tmp_path)!r}: Expecting property name enclosed "
            "in double quotes: line 1 column 2 (char 1); copy it again"
        )
        (tmp_path / "config.json").write_text("[]")
        assert load_error(f"hf:{tmp_path}") == (
            f"an hf: network must have a config.json that is an object, got {str(tmp_path)!r} with a list; copy it "
            "again"
        )

    @pytest.mark.parametrize("sharded", [False, True])
    def test_pickled_weights(self, tmp_path: Path, sharded: bool) -> None:
        model = save_model("ViTForImageClassification", tmp_path)
        (tmp_path / "model.safetensors").unlink()
        assert load_error(f"hf:{tmp_path}") == (
            f"weights must be in safetensors, got {str(tmp_path)!r} without model.safetensors; copy it there, or pass "
            "--weights FILE"
        )
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        if sharded:
            index = {"weight_map": dict.fromkeys(model.state_dict(), "pytorch_model.bin")}
            (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        assert load_error(f"hf:{tmp_path}") == (
            f"weights must be in safetensors, got {str(tmp_path)!r} with 'pytorch_model.bin', which may run any code "
            "when it is unpickled; convert it on a machine where it is trusted: load it and call save_pretrained"
        )

    def test_broken_weights(self, tmp_path: Path) -> None:
        save_model("ViTForImageClassification", tmp_path)
        (tmp_path / "model.safetensors").write_bytes(b"GIF89a" * 20)
        message = load_error(f"hf:{tmp_path}")
        assert message.startswith(f"an hf: network must load as it is, got {str(tmp_path)!r}: ")
        assert message.endswith("; check the folder, or save it again with save_pretrained")

    @pytest.mark.parametrize("kind", ["BertModel", "DetrModel"])
    def test_other_architectures(self, kind: str, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps({"architectures": [kind], "model_type": "bert"}))
        assert load_error(f"hf:{tmp_path}", "random") == (
            "an hf: network must be an image classifier, a segmenter, a detector, an encoder of images or a model of "
            f"images and text in transformers, got {str(tmp_path)!r} with {kind}; load others with MODULE:CALLABLE"
        )

    @pytest.mark.parametrize("config", [{}, {"architectures": None}, {"architectures": []}])
    def test_no_architecture(self, config: dict[str, Any], tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert f"got {str(tmp_path)!r} with no architecture; " in load_error(f"hf:{tmp_path}", "random")

    def test_code_in_the_folder_is_not_run(self, tmp_path: Path) -> None:
        save_model("ViTForImageClassification", tmp_path)
        trap = tmp_path / "sprung"
        (tmp_path / "mine.py").write_text(f"open({str(trap)!r}, 'w')\n")
        for name in ("config.json", "preprocessor_config.json"):
            config = json.loads((tmp_path / name).read_text())
            config["auto_map"] = {
                "AutoConfig": "mine.Config",
                "AutoModelForImageClassification": "mine.Model",
                "AutoImageProcessor": "mine.Processor",
            }
            (tmp_path / name).write_text(json.dumps(config))
        zoo.load(f"hf:{tmp_path}")
        config["image_processor_type"] = "Mine"
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
        assert "contains custom code" in load_error(f"hf:{tmp_path}")
        config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["Mine"], "model_type": "mine"}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert f"got {str(tmp_path)!r} with Mine, which needs code of its own " in load_error(f"hf:{tmp_path}")
        assert not trap.exists()

    @pytest.mark.parametrize("inside", [False, True])
    def test_remote_attention_is_not_downloaded(self, inside: bool, tmp_path: Path) -> None:
        entry = {"_attn_implementation": "someone/kernel"}
        (tmp_path / "config.json").write_text(json.dumps({"vision_config": entry} if inside else entry))
        assert load_error(f"hf:{tmp_path}") == (
            f"an hf: network must not load code, got {str(tmp_path)!r}, whose config.json names 'someone/kernel' "
            "as its attention; remove that entry"
        )

    def test_transformers_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_model("ViTForImageClassification", tmp_path)
        monkeypatch.setitem(sys.modules, "transformers", None)
        assert load_error(f"hf:{tmp_path}") == (
            f"an hf: network needs transformers, which is not installed, got {str(tmp_path)!r}; "
            "install it: pip install 'extremal[hf]'"
        )
