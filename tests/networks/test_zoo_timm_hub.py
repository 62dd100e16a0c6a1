"""Networks that timm has saved to the Hugging Face hub, from a local server that answers as it does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from extremal import zoo
from support.families import assert_explains_and_restores, load_error
from support.hub import COMMIT, Hub, serve_hub

pytest.importorskip("huggingface_hub")

NAME = "owner/tiny-resnet"
ARCHITECTURE = "test_resnet.r160_in1k"
SETTINGS: dict[str, Any] = {
    "architecture": "test_resnet",
    "num_classes": 3,
    "model_args": {"global_pool": "max"},
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.4],
        "label_names": ["n1", "n2", "n3"],
        "label_descriptions": {"n1": "cat", "n2": "dog"},
    },
}

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore::extremal.errors.Notice")]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve_hub(monkeypatch, tmp_path / "cache") as served:
        served.repositories[NAME] = tmp_path / "source"
        yield served


def save_model(folder: Path, **changes: Any) -> nn.Module:
    """Save a network as timm does; settings may be changed."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("test_resnet", num_classes=3, global_pool="max").eval()
    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**SETTINGS, **changes}))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return model


class TestTimmHub:
    def test_it_is_the_network_that_was_saved(self, hub: Hub, tmp_path: Path) -> None:
        model = save_model(tmp_path / "source")
        net = zoo.load(f"timm:hf-hub:{NAME}")
        x = torch.rand(2, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(net.model(x), model(x))
        assert net.labels == ("cat", "dog", "n3")
        assert (net.mean, net.std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
        assert net.example_input().shape == (1, 3, 64, 64)
        assert net.source == f"the hub, revision {COMMIT}, licence mit"
        assert_explains_and_restores(net, x[:1])

    def test_weights_of_another_number_of_classes(self, hub: Hub, tmp_path: Path) -> None:
        save_model(tmp_path / "source")
        other = timm.create_model("test_resnet", num_classes=5)
        save_file(other.state_dict(), tmp_path / "five.safetensors")
        net = zoo.load(f"timm:hf-hub:{NAME}", tmp_path / "five.safetensors")
        assert net.model(torch.rand(1, 3, 64, 64)).shape == (1, 5)
        assert (net.labels, hub.downloads) == ((), ["README.md", "config.json"])

    def test_a_pickle_is_refused(self, hub: Hub, tmp_path: Path) -> None:
        save_model(tmp_path / "source")
        (tmp_path / "source" / "model.safetensors").rename(tmp_path / "source" / "pytorch_model.bin")
        assert "with 'pytorch_model.bin', which may run any code" in load_error(f"timm:hf-hub:{NAME}")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"architecture": None}, f"which does not; if it is of transformers, pass hf:{NAME}"),
            ({"architecture": "test_resnt"}, "a network must be one that timm can build, got 'test_resnt'; nearest:"),
            ({"num_classes": "three"}, "must have a whole num_classes and an object model_args"),
            ({"num_classes": 10**9}, "weights must fit config.json"),
            ({"model_args": {"no_such": 1}}, "must have settings that timm can build"),
            ({"model_args": {"layers": [10**6] * 4}}, "must have a 'layers' of at most 1,000"),
            ({"model_args": {"channels": [10**6] * 4}}, "weights must fit config.json"),
            ({"num_classes": 4}, "weights must fit config.json"),
            ({"pretrained_cfg": {"input_size": [3, 10**6, 10**6]}}, "must take images of 1..4096 px"),
            ({"pretrained_cfg": {"interpolation": "?"}}, "must have preprocessing that timm can build"),
        ],
    )
    def test_settings_that_cannot_be_used(
        self, changes: dict[str, Any], message: str, hub: Hub, tmp_path: Path
    ) -> None:
        save_model(tmp_path / "source", **changes)
        assert message in load_error(f"timm:hf-hub:{NAME}")

    def test_a_file_of_these_settings_is_never_read(self, hub: Hub, tmp_path: Path) -> None:
        pickle = tmp_path / "weights.pth"
        pickle.write_bytes(b"not to be read")
        given = {**SETTINGS["pretrained_cfg"], "file": str(pickle), "custom_load": True}
        model = save_model(
            tmp_path / "source", pretrained_cfg=given, model_args={"checkpoint_path": str(pickle), "global_pool": "max"}
        )
        x = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(zoo.load(f"timm:hf-hub:{NAME}").model(x), model(x))

    def test_a_name_of_another_form(self) -> None:
        assert load_error("timm:hf-hub:resnet") == (
            "a network of timm on the hub must be timm:hf-hub:OWNER/NAME[@REVISION], got 'timm:hf-hub:resnet'; check "
            "the name"
        )
