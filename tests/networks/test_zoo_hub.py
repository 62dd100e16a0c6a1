"""Networks of the Hugging Face hub, from a local server that answers as it does, and from its cache."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from extremal import zoo
from extremal.errors import Notice
from extremal.explanations.settings import Settings
from support.families import load_error
from support.hub import COMMIT, Hub, serve_hub, use_hub, write_cache

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

NAME = "owner/tiny-vit"
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
CARD = "---\nlicense: apache-2.0\ntags: [vision]\n---\n# A tiny network\nlicense: other\n"

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore::extremal.errors.Notice")]


def save_model(folder: Path, card: str = CARD) -> nn.Module:
    torch.manual_seed(1)
    config = transformers.ViTConfig(**SIZES, num_labels=3, id2label={0: "cat", 1: "dog", 2: "car"})
    model: nn.Module = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(folder)  # type: ignore[operator]
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "README.md").write_text(card)
    return model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    with serve_hub(monkeypatch, cache) as served:
        yield served


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[str]:
    """A host that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        use_hub(monkeypatch, endpoint, cache)
        yield endpoint


def change_config(folder: Path, **entries: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


class TestDownload:
    def test_settings_and_safetensors_are_downloaded_once(self, hub: Hub, source: Path) -> None:
        model = save_model(source)
        (source / "pytorch_model.bin").write_bytes(b"pickle")
        (source / "modeling.py").write_text("raise SystemExit")
        (source / "onnx").mkdir()
        (source / "onnx" / "more.json").write_text("{}")
        hub.repositories[NAME] = source
        with pytest.warns(Notice) as notices:
            net = zoo.load(f"hf:{NAME}")
        x = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(net.model(x), model(x).logits)
        assert (net.name, net.labels) == (f"hf:{NAME}", ("cat", "dog", "car"))
        told = f"the hub, revision {COMMIT}, licence apache-2.0"
        assert [str(one.message) for one in notices] == [f"hf:{NAME} is read from {told}"]
        assert notices[0].filename == __file__
        assert net.source == told
        assert Settings().provenance(net)["source"] == told
        assert hub.downloads == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
        zoo.load(f"hf:{NAME}")
        assert len(hub.downloads) == 4

    def test_a_revision_can_be_named(self, hub: Hub, source: Path) -> None:
        save_model(source)
        hub.repositories[NAME] = source
        assert zoo.load(f"hf:{NAME}@v1").name == f"hf:{NAME}@v1"
        hub.requests.clear()
        zoo.load(f"hf:{NAME}@{COMMIT}")
        assert hub.requests == []  # a commit never changes

    def test_own_weights_need_no_download_of_weights(self, hub: Hub, source: Path) -> None:
        save_model(source)
        hub.repositories[NAME] = source
        zoo.load(f"hf:{NAME}", "random")
        assert "model.safetensors" not in hub.downloads

    @pytest.mark.parametrize(
        ("card", "licence"),
        [
            ("---\nlicense: other\nlicense_name: my-terms\n---\n", "my-terms"),
            ("license: mit", "not stated"),
            ("---\ntags: [a]\n---\nlicense: mit", "not stated"),
            ('---\nlicense: "cc-by-nc-4.0"\n---\n', "cc-by-nc-4.0"),
        ],
    )
    def test_the_licence_is_that_of_the_model_card(self, card: str, licence: str, hub: Hub, source: Path) -> None:
        save_model(source, card)
        hub.repositories[NAME] = source
        assert zoo.load(f"hf:{NAME}").source.endswith(f", licence {licence}")

    def test_a_local_folder_of_this_name_is_read_instead(
        self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_model(tmp_path / NAME)
        monkeypatch.chdir(tmp_path)
        with pytest.warns(Notice) as notices:
            net = zoo.load(f"hf:{NAME}")
        assert str(notices[0].message) == f"hf:{NAME} is read from the local folder {str(tmp_path / NAME)!r}"
        assert notices[0].filename == __file__
        assert (net.source, hub.requests) == ("", [])


class TestRefusals:
    def test_a_name_that_does_not_exist_or_is_private(self, hub: Hub) -> None:
        message = load_error("hf:owner/nothing")
        assert "on 127.0.0.1:" in message
        assert message.endswith(
            "and open to you, got 'hf:owner/nothing', which does not exist there or is private; check the name, or log "
            "in with `hf auth login`"
        )
        hub.status = 401
        assert "which does not exist there or is private" in load_error("hf:owner/nothing")

    def test_a_revision_that_does_not_exist(self, hub: Hub, source: Path) -> None:
        save_model(source)
        hub.repositories[NAME] = source
        assert f"got 'hf:{NAME}@v9', which has no revision 'v9'; name a branch" in load_error(f"hf:{NAME}@v9")

    def test_gated(self, hub: Hub, source: Path) -> None:
        save_model(source)
        hub.repositories[NAME] = source
        hub.gated.add(NAME)
        message = load_error(f"hf:{NAME}")
        assert f"got 'hf:{NAME}', which is gated; accept its conditions on 127.0.0.1:" in message

    def test_pickles_only(self, hub: Hub, source: Path) -> None:
        save_model(source)
        (source / "model.safetensors").rename(source / "pytorch_model.bin")
        hub.repositories[NAME] = source
        assert load_error(f"hf:{NAME}") == (
            f"weights must be in safetensors, got 'hf:{NAME}' with 'pytorch_model.bin', which may run any code when it "
            "is unpickled; choose a repository or revision with model.safetensors, e.g. a pull request of the hub's "
            "converter as @refs/pr/N"
        )
        assert hub.downloads == []

    def test_code_of_its_own(self, hub: Hub, source: Path) -> None:
        save_model(source)
        change_config(source, architectures=["MyModel"], auto_map={"AutoModel": "modeling.MyModel"})
        hub.repositories[NAME] = source
        assert load_error(f"hf:{NAME}") == (
            f"an hf: network must be of transformers itself, got '{NAME}' with MyModel, which needs code of its own "
            "(auto_map in config.json), and that is not run; load it with MODULE:CALLABLE"
        )
        assert hub.downloads == ["config.json"]  # not the weights

    def test_another_kind_of_network(self, hub: Hub, source: Path) -> None:
        save_model(source)
        change_config(source, architectures=["LlamaForCausalLM"])
        hub.repositories[NAME] = source
        assert "an hf: network must be an image classifier" in load_error(f"hf:{NAME}")
        assert hub.downloads == ["config.json"]

    def test_no_settings(self, hub: Hub, source: Path) -> None:
        save_model(source)
        (source / "config.json").unlink()
        hub.repositories[NAME] = source
        assert f"must have a config.json, got 'hf:{NAME}' without one" in load_error(f"hf:{NAME}")


class TestOffline:
    def test_the_cache_is_read(self, silent_hub: str, source: Path, cache: Path) -> None:
        model = save_model(source)
        write_cache(cache, NAME, source)
        start = time.monotonic()
        net = zoo.load(f"hf:{NAME}")
        assert time.monotonic() - start < 5
        assert net.source == f"the cache of the hub, revision {COMMIT}, licence apache-2.0"
        x = torch.rand(1, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(net.model(x), model(x).logits)

    def test_what_transformers_left_in_the_cache_is_enough(
        self, source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from huggingface_hub import constants

        save_model(source)
        (source / "README.md").unlink()
        write_cache(cache, NAME, source)
        use_hub(monkeypatch, "http://127.0.0.1:9", cache)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert zoo.load(f"hf:{NAME}").source.endswith("licence not stated")

    def test_the_cache_is_read_while_the_hub_fails(self, hub: Hub, source: Path, cache: Path) -> None:
        save_model(source)
        hub.status = 503
        assert f"got 'hf:{NAME}', whose download failed: " in load_error(f"hf:{NAME}")
        write_cache(cache, NAME, source)
        assert zoo.load(f"hf:{NAME}").source.startswith("the cache of the hub, ")
        hub.status = 401
        assert "does not exist there or is private" in load_error(f"hf:{NAME}")

    def test_without_a_cache_one_line_within_five_seconds(self, silent_hub: str) -> None:
        host = silent_hub.removeprefix("http://")
        start = time.monotonic()
        assert load_error(f"hf:{NAME}") == (
            f"a network must be a local folder, in the cache of the hub, or on {host} while it can be reached, got "
            f"'hf:{NAME}', which is not in the cache, and {host} cannot be reached; connect, or download it elsewhere "
            "and pass its folder"
        )
        assert time.monotonic() - start < 5

    def test_an_incomplete_cache(self, silent_hub: str, source: Path, cache: Path) -> None:
        save_model(source)
        (source / "model.safetensors").unlink()
        write_cache(cache, NAME, source)
        assert f"got 'hf:{NAME}', which is in the cache without its weights, and" in load_error(f"hf:{NAME}")

    def test_forbidden_by_the_environment(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "which is not in the cache, and HF_HUB_OFFLINE is set; connect, or" in load_error(f"hf:{NAME}")
        assert hub.requests == []

    @pytest.mark.parametrize("name", ["timm:resnet18", "timm:hf-hub:owner/name"])
    def test_timm_says_so_in_one_line(
        self, name: str, silent_hub: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        start = time.monotonic()
        message = load_error(name)
        assert time.monotonic() - start < 5
        assert f"{silent_hub.removeprefix('http://')} cannot be reached" in message
        assert (*capfd.readouterr(), caplog.messages) == ("", "", [])

    def test_torchvision_says_so_in_one_line(
        self, silent_hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        from torchvision.models import ResNet18_Weights

        monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
        monkeypatch.setattr(ResNet18_Weights.DEFAULT.value, "url", f"{silent_hub}/resnet18.pth")
        start = time.monotonic()
        assert load_error("torchvision:resnet18") == (
            "the pretrained weights of torchvision:resnet18 could not be downloaded "
            f"({silent_hub.removeprefix('http://')} cannot be reached, and the cache does not have them); pass a local "
            "file with --weights FILE, or --weights random"
        )
        assert time.monotonic() - start < 5
        assert tuple(capfd.readouterr()) == ("", "")
