"""Folders in the format of Hugging Face that are damaged or absurdly large: refused by `load`, in one sentence."""

import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from extremal import zoo
from support.families import load_error

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path) -> Iterator[Path]:
    """The folder, restored afterwards."""
    contents = {file: file.read_bytes() for file in saved.iterdir()}
    yield saved
    for file in saved.iterdir():
        file.unlink()
    for file, content in contents.items():
        file.write_bytes(content)


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def refuse(folder: Path, weights: str | None = None) -> str:
    """The message for a folder that is refused without much memory or time."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    message = load_error(f"hf:{folder}", weights)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert time.monotonic() - start < 20
    assert "\n" not in message
    return message


class TestConfig:
    @pytest.mark.parametrize("weights", [None, "random"])
    @pytest.mark.parametrize(
        ("values", "part"),
        [
            ({"num_hidden_layers": 10**9}, "must have a 'num_hidden_layers' of at most 1,000 in its config.json"),
            ({"num_labels": 10**9}, "must have a 'num_labels' of at most 1,000,000 in its config.json"),
            ({"depths": [2, 10**8]}, "must have a 'depths' of at most 1,000"),
            ({"hidden_sizes": [8] * 5000}, "must have a 'hidden_sizes (layers)' of at most 1,000"),
        ],
    )
    def test_numbers_of_parts(self, folder: Path, values: dict[str, Any], part: str, weights: str | None) -> None:
        change(folder / "config.json", **values)
        assert part in refuse(folder, weights)

    def test_an_image_size_that_does_not_fit_the_weights(self, folder: Path) -> None:
        change(folder / "config.json", image_size=100_000)
        assert refuse(folder) == (
            f"weights must fit config.json, got {str(folder)!r} with 'vit.embeddings.position_embeddings' of shape "
            "(1, 17, 16), by config.json (1, 156250001, 16); correct it"
        )

    @pytest.mark.parametrize("values", [{"image_size": 2**24}, {"hidden_size": 2**25}, {"patch_size": 2**20}])
    def test_random_weights_beyond_the_memory(self, folder: Path, values: dict[str, Any]) -> None:
        change(folder / "config.json", **values)
        assert "values that half of this machine's memory holds" in refuse(folder, "random")

    def test_fewer_layers_than_the_weights_have(self, folder: Path) -> None:
        for count in (1, -1):
            change(folder / "config.json", num_hidden_layers=count)
            assert "a layer that config.json leaves out; correct it" in refuse(folder)

    @pytest.mark.parametrize(
        "values",
        [
            *({"architectures": other} for other in (5, {}, "ViTModel", [None], ["__init__"], ["a" * 10_000])),
            *({"id2label": other} for other in ({"a": "b"}, [], {"0": None}, 3)),
            *({"image_size": other} for other in ("x", None, -8, 1e400, [], [32], {"a": 1})),
            *({"patch_size": other} for other in (0, None, 2**70)),
            {"hidden_act": "none"},
            {"dtype": "float17"},
        ],
    )
    def test_other_values(self, folder: Path, values: dict[str, Any]) -> None:
        change(folder / "config.json", **values)
        refuse(folder)

    @pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 99 + "1" + "}" * 99, "1" + "0" * 5000, "\xff"])
    def test_damaged_json(self, folder: Path, text: str) -> None:
        for name in ("preprocessor_config.json", "config.json"):
            (folder / name).write_bytes(text.encode("latin-1"))
            assert f"an hf: network must have a {name} in JSON" in refuse(folder)


class TestPreprocessor:
    @pytest.mark.parametrize(
        "size", [{"height": 10**6, "width": 10**6}, {"shortest_edge": 10**6}, {"height": 0, "width": 8}]
    )
    def test_sizes(self, folder: Path, size: dict[str, int]) -> None:
        change(folder / "preprocessor_config.json", size=size)
        message = refuse(folder)
        assert (
            "an hf: network must take images of 1..4096 px" in message or "a preprocessor_config.json that" in message
        )

    @pytest.mark.parametrize(
        "values",
        [
            {"image_mean": [0.5]},
            {"image_mean": "a"},
            {"image_mean": [float("nan")] * 3},
            {"image_std": [0.0, 1.0, 1.0]},
            {"image_std": None},
            {"rescale_factor": 1e400},
            {"rescale_factor": "a"},
            {"resample": 99},
        ],
    )
    def test_values(self, folder: Path, values: dict[str, Any]) -> None:
        change(folder / "preprocessor_config.json", **values)
        if values != {"image_mean": [0.5]}:  # one value for all channels
            assert "must have a preprocessor_config.json that works" in refuse(folder)

    def test_without_one_the_image_size_is_bounded(self, folder: Path) -> None:
        (folder / "preprocessor_config.json").unlink()
        transformers.ResNetModel(
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
        ).save_pretrained(folder)
        change(folder / "config.json", image_size=200_000)
        assert "an hf: network must take images of 1..4096 px" in refuse(folder)


class TestFiles:
    def test_truncated_weights(self, folder: Path) -> None:
        for share in (0.0, 0.01, 0.5, 0.99):
            file = folder / "model.safetensors"
            os.truncate(file, int(file.stat().st_size * share))
            assert refuse(folder).startswith(f"an hf: network must load as it is, got {str(folder)!r}: ")

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_pipe(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)
        assert refuse(folder).endswith("which is a pipe; copy it to a file")

    @pytest.mark.parametrize("shards", [{}, [], None, {"a": "../other.safetensors"}, {"a": "no.safetensors"}, {"a": 3}])
    def test_shards(self, folder: Path, shards: Any) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
        assert refuse(folder).startswith("weights must ")

    def test_addresses_and_users(self) -> None:
        assert load_error("hf:https://huggingface.co/google/vit") == (
            "an hf: network must be a local folder, or OWNER/NAME[@REVISION] on the hub, got "
            "'https://huggingface.co/google/vit'; check the path"
        )
        assert "whose user does not exist; give the full path" in load_error("hf:~nobody-here/net")
        assert "File name too long" in load_error(f"hf:{'a' * 300}")

    def test_it_still_loads(self, folder: Path) -> None:
        assert zoo.load(f"hf:{folder}").prepare(Image.new("RGB", (40, 50))).shape == (1, 3, 32, 32)
