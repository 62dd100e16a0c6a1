"""Networks by name, and weights from files."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from extremal import Network, zoo
from support.families import load_error

SMALL = "timm:test_vit"


@pytest.fixture(scope="module")
def small() -> Network:
    return zoo.load(SMALL, "random")


class TestNames:
    def test_listing(self) -> None:
        names = zoo.names()
        assert names[0] == "embedded"
        assert {"torchvision:resnet50", "timm:resnet50", SMALL} <= set(names)
        assert not any("raft" in name for name in names if name.startswith("torchvision:"))

    def test_pattern_in_any_case(self) -> None:
        result = zoo.names("EfficientNet_B0")
        assert {"torchvision:efficientnet_b0", "timm:efficientnet_b0"} <= set(result)
        assert all("efficientnet_b0" in name for name in result)
        assert zoo.names("no such network") == []

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("resnet50", "; nearest: torchvision:resnet50, timm:resnet50, voc:resnet50"),
            ("Embedded", "; nearest: embedded"),
            ("deeplabv3_resnet50", "; nearest: torchvision:deeplabv3_resnet50"),
            ("timm", ""),
            ("timm:", ""),
            ("hf:", ""),
            ("a network:make", ""),
            ("mynets:", ""),
            ("", ""),
        ],
    )
    def test_unknown_family(self, name: str, hint: str) -> None:
        assert load_error(name) == (
            "a network must be 'embedded', 'torchvision:NAME', 'timm:NAME', 'voc:NAME', 'coco:NAME', 'hf:FOLDER', "
            f"'hf:OWNER/NAME', 'onnx:FILE.onnx', 'file:PATH.pt2' or 'MODULE:CALLABLE', got {name!r}; "
            f"`extremal networks` lists the names{hint}"
        )

    def test_unknown_name_with_the_nearest(self) -> None:
        message = load_error("torchvision:resnet5")
        assert message.startswith(
            "a network must be a classifier, segmenter or detector of torchvision, got 'resnet5'; nearest: resnet"
        )
        assert "resnet50" in load_error("timm:resnt50").split("nearest: ")[1].split(", ")
        assert "fcn_resnet50" in load_error("torchvision:fcn_resnet5").split("nearest: ")[1].split(", ")

    def test_unknown_name_without_a_similar_one(self) -> None:
        assert load_error("timm:§§§") == "a network must be a classifier of timm, got '§§§'"


class TestEmbedded:
    def test_it_has_class_names(self) -> None:
        net = zoo.load("embedded")
        assert net.name == "embedded"
        assert len(net.labels) == 1000
        assert [net.index(name) for name in ("golden retriever", "Great White Shark")] == [207, 2]
        assert net.label(207) == "golden retriever"
        assert net.mirror
        assert not net.model.training
        assert net.weight_hash() == zoo.load("embedded").weight_hash()

    def test_other_weights(self) -> None:
        assert load_error("embedded", "mine.pt") == (
            "the embedded network includes its weights, got --weights 'mine.pt'; "
            "to use others: timm:tf_efficientnet_lite0"
        )


class TestRandomWeights:
    @pytest.mark.parametrize("name", [SMALL, "torchvision:squeezenet1_1"])
    def test_the_same_at_every_load(self, name: str) -> None:
        torch.manual_seed(5)
        first = zoo.load(name, "random").weight_hash()
        torch.manual_seed(6)
        assert zoo.load(name, "random").weight_hash() == first

    @pytest.mark.parametrize("name", [SMALL, "torchvision:squeezenet1_1", "embedded"])
    def test_the_random_state_is_unchanged(self, name: str) -> None:
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        zoo.load(name, None if name == "embedded" else "random")
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


class TestWeightsFromAFile:
    @pytest.mark.parametrize("suffix", ["safetensors", "pt", "nested.pt"])
    def test_loaded(self, small: Network, tmp_path: Path, suffix: str) -> None:
        state = {name: tensor + 1 for name, tensor in small.model.state_dict().items()}
        path = tmp_path / f"weights.{suffix}"
        if suffix == "safetensors":
            save_file(state, path)
        else:
            torch.save({"state_dict": state} if suffix == "nested.pt" else state, path)
        loaded = zoo.load(SMALL, path).model.state_dict()
        assert all(torch.equal(loaded[name], state[name]) for name in state)

    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "no.pt"
        assert load_error(SMALL, path) == (
            f"weights must be an existing file, got {str(path)!r}; check the path, or pass random for random weights"
        )

    def test_a_pickle_with_code_is_rejected_and_not_run(self, tmp_path: Path) -> None:
        trap = tmp_path / "sprung"

        class Trap:
            def __reduce__(self) -> tuple[object, tuple[object, ...]]:
                return Path.touch, (trap,)

        plain, saved = tmp_path / "plain.pt", tmp_path / "saved.pt"
        plain.write_bytes(pickle.dumps({"weight": Trap()}))
        torch.save({"weight": Trap()}, saved)
        for path in (plain, saved):
            start = f"weights must be a safetensors file or a plain state dict, got {str(path)!r}: "
            assert load_error(SMALL, path).startswith(start)
        assert not trap.exists()
        pickle.loads(plain.read_bytes())
        assert trap.exists()  # the trap does work

    @pytest.mark.parametrize("suffix", ["safetensors", "pt"])
    def test_not_weights_at_all(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"photo.{suffix}"
        path.write_bytes(b"GIF89a" * 20)
        message = load_error(SMALL, path)
        assert message.startswith(f"weights must be a safetensors file or a plain state dict, got {str(path)!r}: ")
        assert "\n" not in message

    @pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(2)])
    def test_not_a_state_dict(self, tmp_path: Path, content: object) -> None:
        path = tmp_path / "other.pt"
        torch.save(content, path)
        assert load_error(SMALL, path) == (
            f"weights must be a state dict of tensors, got something else in {str(path)!r}; save them with "
            "torch.save(model.state_dict(), PATH)"
        )

    def test_wrong_shapes(self, small: Network, tmp_path: Path) -> None:
        state = small.model.state_dict()
        name = next(iter(state))
        state[name] = torch.zeros(3, 5)
        path = tmp_path / "wrong.pt"
        torch.save(state, path)
        message = load_error(SMALL, path)
        shape, count = tuple(small.model.state_dict()[name].shape), len(state)
        assert message == (
            f"weights must fit the network, got {str(path)!r}, of its {count} tensors 1 of another shape, e.g. {name} "
            f"with (3, 5) instead of {shape}; check that they are of this network"
        )

    def test_other_names(self, tmp_path: Path) -> None:
        path = tmp_path / "other.pt"
        torch.save({"weight": torch.zeros(2)}, path)
        names = list(zoo.load(SMALL, "random").model.state_dict())
        assert load_error(SMALL, path) == (
            f"weights must fit the network, got {str(path)!r}, of its {len(names)} tensors {len(names)} missing, e.g. "
            f"{names[0]}; 1 unknown, e.g. weight; check that they are of this network"
        )

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model._orig_mod."])
    def test_prefixes_of_wrappers_are_removed(self, small: Network, tmp_path: Path, prefix: str) -> None:
        state = {f"{prefix}{name}": tensor + 1 for name, tensor in small.model.state_dict().items()}
        path = tmp_path / "wrapped.pt"
        torch.save({"model": state, "epoch": 3}, path)
        loaded = zoo.load(SMALL, path).model.state_dict()
        assert all(torch.equal(loaded[name.removeprefix(prefix)], state[name]) for name in state)

    def test_what_is_left_is_told(self, small: Network, tmp_path: Path) -> None:
        state = {f"model.{name}": tensor for name, tensor in small.model.state_dict().items()}
        path = tmp_path / "lightning.pt"
        torch.save({"state_dict": state | {"loss.weight": torch.ones(3)}}, path)
        assert load_error(SMALL, path) == (
            f"weights must fit the network, got {str(path)!r}, of its {len(state)} tensors 1 unknown, e.g. "
            "loss.weight; check that they are of this network"
        )

    @pytest.mark.parametrize("name", [SMALL, "torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small"])
    def test_a_head_with_other_classes(self, tmp_path: Path, name: str) -> None:
        family, _, model_name = name.partition(":")
        if family == "timm":
            tuned = timm.create_model(model_name, num_classes=10)
        else:
            tuned = torchvision.models.get_model(model_name, weights=None, num_classes=10)
        path = tmp_path / "tuned.pt"
        torch.save({f"module.{key}": tensor for key, tensor in tuned.state_dict().items()}, path)
        network = zoo.load(name, path)
        assert not network.labels
        x = torch.rand(1, 3, 64, 64) if family != "timm" else network.example_input()
        with network.frozen() as run:
            output = run(x)
        assert output.shape == (1, 10)
        torch.testing.assert_close(output, tuned.eval()(x))
