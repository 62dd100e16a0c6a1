"""The commands about channels: files, JSON, tables, messages, exit codes; their figure and report."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from extremal import ChannelExplanation, Network, invert, visualise, zoo
from support.pages import Page
from support.terminal import call
from support.toys import Carriers

TOY = Carriers([3], seed=1)
LABELS = ("tabby, tabby cat", "tiger <b>cat")


@pytest.fixture(autouse=True)
def _toy_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in an empty folder with a toy network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "load", lambda name, weights=None, *_: Network(Carriers([3], seed=1), None, LABELS, "toy"))


def save_random_image(path: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(60, 255, (16, 20, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


class TestChannels:
    def test_files_and_table(self, tmp_path: Path) -> None:
        save_random_image(tmp_path / "cat.png")
        code, out, err = call("channels", "cat.png", "--layer", "features", "--target", "tabby", "--counts", "1,3")
        assert (code, err) == (0, "")
        folder = tmp_path / "extremal-out" / "cat-channels-features-tabby"
        assert sorted(p.name for p in folder.iterdir()) == ["channels.safetensors", "figure.png", "report.html"]
        saved = ChannelExplanation.load(folder / "channels.safetensors")
        assert saved.counts == (1, 3)
        assert saved.channels(3) == TOY.sets[0]
        assert "cat.png: tabby, tabby cat (class 0), layer features of 64 channels" in out
        assert "The smallest sufficient set that was found has 3 of 64 channels" in out
        assert "sufficient" in out

    def test_json(self, tmp_path: Path) -> None:
        save_random_image(tmp_path / "cat.png")
        code, out, err = call("channels", "cat.png", "--layer", "features", "--target", "0", "--counts", "3", "--json")
        (record,) = json.loads(out)
        assert (code, err) == (0, "")
        assert record["channels"] == [list(TOY.sets[0])]
        assert record["smallest"]["channels"] == list(TOY.sets[0])
        assert set(record["effects"]) == {
            *("soft", "exactly", "random", "random_best"),
            *("activation × gradient", "activation", "ablation"),
        }

    def test_minimal_set(self, tmp_path: Path) -> None:
        save_random_image(tmp_path / "cat.png")
        arguments = ("channels", "cat.png", "--layer", "features", "--target", "0", "--counts", "3")
        _, out, _ = call(*arguments, "--minimal")
        assert "Minimal set: 3 of 64 channels" in out
        assert "1-minimal: none of its 3 pieces can go" in out
        page = (tmp_path / "extremal-out" / "cat-channels-features-0" / "report.html").read_text()
        assert "A set that cannot lose a piece" in page
        _, out, _ = call(*arguments, "--minimal", "--json")
        (record,) = json.loads(out)
        assert sorted(piece["channels"] for piece in record["minimal"]["pieces"]) == [[k] for k in TOY.sets[0]]
        _, out, _ = call(*arguments, "--json")
        assert json.loads(out)[0]["minimal"] is None

    def test_images_if_requested(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("extremal.cli.channel_run.invert", lambda *a, **o: invert(*a, **(o | {"steps": 2})))
        monkeypatch.setattr("extremal.cli.channel_run.visualise", lambda *a, **o: visualise(*a, **(o | {"steps": 2})))
        save_random_image(tmp_path / "cat.png")
        (tmp_path / "broken.png").write_bytes(b"nothing")
        arguments = ("--layer", "features", "--target", "0", "--counts", "3", "--visualise")
        code, out, err = call("channels", "cat.png", "broken.png", *arguments)
        assert code == 1
        assert err.startswith("error: an image must be in a format that Pillow reads, got 'broken.png'")
        names = {p.name for p in (tmp_path / "extremal-out" / "cat-channels-features-0").iterdir()}
        wanted = {"inversion-all.png", "inversion-kept.png", "inversion-removed.png"}
        assert wanted | {f"channel-{channel}.png" for channel in TOY.sets[0]} <= names
        assert "channel-" in out
        page = (tmp_path / "extremal-out" / "cat-channels-features-0" / "report.html").read_text()
        assert "What the channels encode" in page
        assert "What activates individual channels" in page
        assert call("channels", "cat.png", "--force", *arguments[:-1])[0] == 0  # a previous result is replaced
        assert len(list((tmp_path / "extremal-out" / "cat-channels-features-0").iterdir())) == 3

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--layer", "feature"], "error: a layer must be the name of a module in toy, got 'feature'; did you mean"
             " features? extremal.layers(network) or `extremal layers` lists them\n"),
            (["--layer", "features", "--counts", "0"], "error: counts must be at least 1, got 0; e.g. (1, 4, 16)\n"),
            (["--layer", "features", "--counts", "64"], "error: counts must lie in 1..63 for 'features', which has 64"
             " channels, got 64; all of them need no search\n"),
            (["--layer", "features", "--counts", "a"], "error: --counts must be whole numbers separated by commas, got"
             " 'a'; e.g. 4,16\n"),
        ],
    )  # fmt: skip
    def test_bad_input(self, tmp_path: Path, arguments: list[str], message: str) -> None:
        save_random_image(tmp_path / "cat.png")
        code, out, err = call("channels", "cat.png", *arguments)
        assert (code, out, err) == (2, "", message)
        assert not (tmp_path / "extremal-out").exists()


class TestClassChannels:
    def test_parquet_and_table(self, tmp_path: Path) -> None:
        (tmp_path / "cats").mkdir()
        for k in range(3):
            save_random_image(tmp_path / "cats" / f"{k}.png", k)
        (tmp_path / "cats" / "notes.txt").write_text("not a picture")
        code, out, err = call("class-channels", "cats", "--layer", "features", "--target", "tabby")
        assert (code, err) == (0, "")
        folder = tmp_path / "extremal-out" / "cats-class-channels-features-tabby"
        assert sorted(p.name for p in folder.iterdir()) == ["class-channels.parquet", "figure.png", "report.html"]
        table = pyarrow.parquet.read_table(folder / "class-channels.parquet")
        assert set(table.column("channel").to_pylist()[:3]) == set(TOY.sets[0])
        assert "tabby, tabby cat (class 0), layer features: 3 images" in out
        page = Page((folder / "report.html").read_text())
        assert "Over 3 images, a median of 3 of 64 channels of features is enough (range 3 to 3)" in page.words
        assert sum(tag == "img" for tag, _ in page.elements) == 3
        assert sum(tag == "tr" for tag, _ in page.elements) == 1 + 3  # a channel a row, that is needed at all

    def test_json_and_images(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("extremal.cli.channel_run.visualise", lambda *a, **o: visualise(*a, **(o | {"steps": 2})))
        (tmp_path / "cats").mkdir()
        save_random_image(tmp_path / "cats" / "1.png")
        code, out, err = call("class-channels", "cats", "--layer", "features", "--target", "0", "--json", "--visualise")
        assert (code, err) == (0, "")
        document = json.loads(out)
        assert len(document["channels"]) == 64
        assert len(document["files"]["pictures"]) == 8
        assert all(Path(path).exists() for path in document["files"]["pictures"])
        assert "What activates individual channels" in Path(document["files"]["report"]).read_text()

    @pytest.mark.parametrize(
        ("folder", "message"),
        [
            ("none", "error: a class must be a folder of images, got 'none'; check the path\n"),
            ("empty", "error: a class must have at least one image, got none for 0; pass images that show it\n"),
        ],
    )
    def test_bad_input(self, tmp_path: Path, folder: str, message: str) -> None:
        (tmp_path / "empty").mkdir()
        code, out, err = call("class-channels", folder, "--layer", "features", "--target", "0")
        assert (code, out, err) == (2, "", message)
        assert not list((tmp_path / "extremal-out").glob("*"))


def test_layers() -> None:
    code, out, err = call("layers")
    assert (code, err) == (0, "")
    assert "features" in out
    assert "64 × 224 × 224" in out or "64 × 256 × 256" in out
    listed = json.loads(call("layers", "--json")[1])
    assert listed[0]["name"] == "features"
    assert listed[0]["clean"] is True


def test_no_layer_of_a_name() -> None:
    assert call("layers", "zzzz") == (0, "", "no layer contains 'zzzz'; `extremal layers --all` lists all 1\n")
