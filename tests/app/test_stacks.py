"""The app with networks on clips or volumes: uploads, previews, requests, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from extremal import ClipReader, Network
from extremal.app import networks as app_networks
from extremal.app import reader_uploads
from extremal.app.call_check import InputKind
from extremal.app.image_messages import read_visitors_file
from extremal.app.job_queue import JobQueue
from extremal.app.networks import ServedNetwork, load_networks
from extremal.app.page import build_page, find_input_kinds
from extremal.app.request import Request
from extremal.app.request_run import run_request
from extremal.app.result_cache import ResultCache
from extremal.explanations.explanation import Explanation
from extremal.explanations.settings import Settings
from support.app_toys import colour_network
from support.errors import message_of
from support.stack_files import write_clip, write_nifti
from support.stack_toys import CLIP_SHAPE, VOLUME_SHAPE, clip_network, draw_scene, volume_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A planted clip."""
    return write_clip(tmp_path / "clip.mp4", np.stack([draw_scene(CLIP_SHAPE)] * 3, -1))


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A planted volume."""
    values = draw_scene(VOLUME_SHAPE).astype(np.float32)
    return write_nifti(tmp_path / "scan.nii.gz", (8 * values - 1024).transpose(2, 1, 0), (1.0, 1.0, 4.0))


@pytest.mark.parametrize("kind", ["clip", "volume"])
def test_a_request_about_an_upload(clip: Path, scan: Path, tmp_path: Path, kind: str) -> None:
    path, make = (clip, clip_network) if kind == "clip" else (scan, volume_network)
    served = ServedNetwork("toy", make())
    assert served.kind == kind
    assert served.layers == {}
    classes = served.top_classes(read_visitors_file(path, path.name, served))
    assert [item.label for item in classes] == ["texture", "none"]
    settings = Settings(areas=(0.03, 0.06))
    (tmp_path / "out").mkdir()
    request = Request("digest", path.name, 0, ("toy",), ("preserve",), refine=True, stability=True, settings=settings)
    stages = set()
    response = run_request(request, path, {"toy": served}, tmp_path / "out", lambda step: stages.add(step.stage))
    (view,) = response.views
    assert f"of the {kind} keeps" in view.sentence
    result = Explanation.load(view.folder / "explanation.safetensors")
    assert result.verdict[0][1].label == "sufficient"
    assert result.settings["stack"]["kind"] == kind
    assert 'id="frame"' in (view.folder / "report.html").read_text(encoding="utf-8")
    assert response.thumbnail.startswith(b"\xff\xd8")
    assert {"evidence", "smallest area", "writing"} <= stages


def test_each_network_has_its_own_frames(clip: Path, tmp_path: Path) -> None:
    networks = {
        name: ServedNetwork(name, replace(clip_network(), name=name, reader=ClipReader(frames)))
        for name, frames in (("few", 8), ("many", 12))
    }
    request = Request("digest", clip.name, 0, ("few", "many"), settings=Settings(areas=(0.06,), effort="fast"))
    (tmp_path / "out").mkdir()
    response = run_request(request, clip, networks, tmp_path / "out", lambda step: None)
    results = [Explanation.load(view.folder / "explanation.safetensors") for view in response.views]
    assert [result.inputs.shape[2] for result in results] == [8, 12]
    assert response.overlaps == ()


def test_uploads_of_other_kinds_are_refused_without_paths(clip: Path, scan: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    served = ServedNetwork("toy", clip_network())
    rules = {
        scan: "a network must take volumes to read 'scan.nii.gz', toy takes clips; choose another file",
        tmp_path
        / "photo.png": "a network must take pictures to read 'photo.png', toy takes clips; choose another file",
        tmp_path / "text.mp4": "a clip must be readable to its end, got 'text.mp4'",
        tmp_path / "missing.mp4": "the file is no longer stored here",
    }
    for path, rule in rules.items():
        text = message_of(read_visitors_file, path, path.name, served)
        assert rule in text
        assert str(tmp_path) not in text


def test_uploads_have_tighter_limits(clip: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_uploads, "MAX_STACK_BYTES", 5000)
    for path, make, rule in ((clip, clip_network, "must have at most"), (scan, volume_network, "at most 5e-06 GB")):
        assert rule in message_of(read_visitors_file, path, path.name, ServedNetwork("toy", make()))


def test_the_page_has_a_field_for_the_files_of_its_networks(tmp_path: Path) -> None:
    found: dict[str, tuple[str, list[InputKind]]] = {}
    for make in (clip_network, volume_network, colour_network):
        folder = tmp_path / make.__name__
        folder.mkdir()
        served = {"toy": ServedNetwork("toy", make())}
        with JobQueue(10) as queue, JobQueue(10) as previews:
            page = build_page(served, queue, previews, ResultCache(folder))
        (field,) = [block for block in page.blocks.values() if getattr(block, "elem_id", None) == "photo"]
        kinds = [kinds[0] for kinds in find_input_kinds(page).values() if kinds and kinds[0] == "file"]
        found[make.__name__] = (field.label, kinds)
    assert [label for label, _ in found.values()] == ["Clip", "Volume (NIfTI)", "Image"]
    assert all(len(kinds) >= 3 for _, kinds in found.values())


def test_networks_of_one_app_take_the_same_kind_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    makers = {"clips": clip_network, "volumes": volume_network}

    def load(name: str, weights: str, device: object) -> Network:
        return makers[name]()

    monkeypatch.setattr(app_networks, "load_network", load)
    assert message_of(load_networks, ["clips", "volumes"]) == (
        "the networks of an app must take the same kind of files, got clips clips, volumes volumes; start an app "
        "for each"
    )
    assert load_networks(["clips"])["clips"].kind == "clip"
