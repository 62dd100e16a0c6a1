"""Runs over clips, volumes and sounds: the rows of `explain`, restored with their own spacing, by every engine."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from extremal import Network, explain, jobs
from extremal.explanations.explanation import Explanation
from extremal.jobs.engines.ray_cluster import connect
from extremal.jobs.restore import cut_masks
from extremal.jobs.runner import run
from extremal.networks.input_kinds import hash_input
from support.errors import message_of
from support.sounds import tone_network, write_planted_tone
from support.stack_files import write_clip, write_nifti, write_series
from support.stack_toys import (
    CLIP_CUBOID,
    CLIP_SHAPE,
    VOLUME_CUBOID,
    VOLUME_SHAPE,
    clip_network,
    cuboid_mask,
    draw_scene,
    iou,
    volume_network,
)

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK: dict[str, Any] = {"perturbation": "fade", "threads": 1}


def write_clips(folder: Path) -> Path:
    """Write two clips, next to a picture and a text that the network does not take."""
    folder.mkdir()
    for seed in (0, 1):
        write_clip(folder / f"{seed}.mp4", np.stack([draw_scene(CLIP_SHAPE, seed)] * 3, -1))
    shutil.copy(Path(__file__).parents[2] / "docs" / "tripod.jpg", folder / "cover.jpg")
    (folder / "notes.txt").write_text("two clips")
    return folder


def write_volumes(folder: Path) -> Path:
    """Write a series of slices 4 mm apart, one of slices 2 mm apart, and a NIfTI file."""
    folder.mkdir()
    values = 4 * draw_scene(VOLUME_SHAPE).astype(int)
    write_series(folder / "thick", values, range(0, 40, 4))
    write_series(folder / "thin", values, range(0, 20, 2))
    write_nifti(folder / "scan.nii.gz", (2 * values - 1024).transpose(2, 1, 0).astype(np.int16), (1.0, 1.0, 3.0))
    return folder


def write_sounds(folder: Path) -> Path:
    """Write a sound."""
    folder.mkdir()
    write_planted_tone(folder / "tone.wav")
    return folder


def explain_alone(network: Network, path: Path, **options: Any) -> Explanation:
    return explain(network, str(path), perturbation="fade", **options)


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[], Network], str, tuple[float, ...]]] = {
    "clips": (write_clips, clip_network, "texture", (0.03, 0.066)),
    "volumes": (write_volumes, volume_network, "texture", (0.03, 0.066)),
    "sounds": (write_sounds, tone_network, "440 Hz", (0.05, 0.15)),
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start one Ray cluster for all kinds; this takes seconds."""
    with connect(None) as started:
        yield started


@pytest.mark.filterwarnings("ignore:clip toy takes clips")
@pytest.mark.parametrize("kind", KINDS)
class TestEachKind:
    def test_rows_equal_those_of_explain_and_are_restored(self, kind: str, tmp_path: Path) -> None:
        write, build, target, areas = KINDS[kind]
        folder, network, out = write(tmp_path / "data"), build(), tmp_path / "out"
        done = run(folder, out, network=network, target=target, areas=areas, **QUICK)
        assert (done.failed, done.done) == (0, {"clips": 2, "volumes": 3, "sounds": 1}[kind])
        for row in jobs.table(out).to_pylist():
            expected = explain_alone(build(), Path(row["path"]), target=target, areas=areas)
            assert row["content_hash"] == hash_input(row["path"])
            assert row["binary_scores"] == pytest.approx(expected.binary_scores[0].tolist(), abs=1e-4)
            restored = jobs.explanation(out, row["key"], network)
            torch.testing.assert_close(restored.masks, expected.masks, atol=1e-4, rtol=0)
            torch.testing.assert_close(restored.saliency(), expected.saliency(), atol=1e-3, rtol=0)
            for name in ("spacing", "stack", "sample_rate"):
                assert restored.settings.get(name) == expected.settings.get(name), name
            assert (row["spacing"] or []) == expected.settings["spacing"]
            cut = cut_masks(row, jobs.settings(out)["explain"])
            assert torch.equal(cut, torch.stack([restored.binary(area)[0, 0].bool() for area in areas]))

    def test_all_measurements_by_processes_and_again(self, kind: str, tmp_path: Path) -> None:
        write, build, target, areas = KINDS[kind]
        one, out = min(write(tmp_path / "data").iterdir()), tmp_path / "out"  # the others take as long again
        areas = areas[1:]
        options: dict[str, Any] = {
            "network": f"{build.__module__}:{build.__name__}",
            "target": target,
            "areas": areas,
            "refine": True,
            "stability": True,
            "workers": 1,
            **QUICK,
        }
        assert run(one, out, **options).failed == 0
        (row,) = jobs.table(out).to_pylist()
        assert len(row["stable_ious"]) == len(areas)
        assert row["certified_area"] <= areas[0]
        parts = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
        assert run(one, out, **options).done == 1
        assert {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()} == parts, "nothing runs again"

    @pytest.mark.cluster
    @pytest.mark.usefixtures("cluster")
    def test_ray_gives_the_rows_of_the_local_engine(self, kind: str, tmp_path: Path) -> None:
        write, build, target, areas = KINDS[kind]
        one = min(write(tmp_path / "data").iterdir())  # the others take as long again
        name = f"{build.__module__}:{build.__name__}"
        options: dict[str, Any] = {"network": name, "target": target, "areas": areas[1:], **QUICK}
        run(one, tmp_path / "local", workers=0, **options)
        run(one, tmp_path / "ray", engine="ray", workers=1, **options)
        columns = ("key", "content_hash", "spacing", "status", "verdict", "binary_scores", "parameters")
        local, ray = (jobs.table(tmp_path / out, columns).to_pylist() for out in ("local", "ray"))
        assert ray == local


@pytest.mark.filterwarnings("ignore:clip toy takes clips")
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("clips", cuboid_mask(CLIP_SHAPE, CLIP_CUBOID)),
        ("volumes", cuboid_mask(VOLUME_SHAPE, VOLUME_CUBOID)),
    ],
)
def test_the_planted_cuboid_is_found(kind: str, expected: Tensor, tmp_path: Path) -> None:
    write, build, target, _ = KINDS[kind]
    area = float(expected.float().mean())
    run(write(tmp_path / kind), tmp_path / "out", network=build(), target=target, areas=(area,), threads=1)
    for row in jobs.table(tmp_path / "out").to_pylist():
        assert row["verdict"] == "sufficient"
        (cut,) = cut_masks(row, jobs.settings(tmp_path / "out")["explain"])
        assert iou(cut, expected) >= 0.55  # by chance 0.03


def test_files_that_the_network_does_not_take(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "data")
    with pytest.warns(UserWarning, match="^clip toy takes clips, 1 picture in the folders of this run were left out$"):
        assert run(folder, tmp_path / "out", network=clip_network(), areas=(0.05,), **QUICK).items == 2
    message = message_of(run, write_sounds(tmp_path / "sounds"), tmp_path / "none", network=clip_network(), **QUICK)
    assert message.startswith("a run of clip toy must have clips (.mp4, ")
    assert message.endswith("got only 1 sound; name others, or another network")
    assert not (tmp_path / "none").exists()


def test_named_files_of_another_kind_and_damaged_ones_fail_in_their_rows(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "data")
    (folder / "text.mp4").write_text("no video")
    sound = write_planted_tone(tmp_path / "tone.wav")
    named = [folder / "0.mp4", folder / "cover.jpg", folder / "text.mp4", sound, tmp_path / "gone.mp4"]
    done = run(named, tmp_path / "out", network=clip_network(), areas=(0.05,), **QUICK)
    assert (done.items, done.failed) == (5, 4)
    first, *errors = jobs.table(tmp_path / "out", ("key", "status", "error")).to_pylist()
    assert first["status"] == "done"
    rules = ("clip toy takes clips, got a picture", "a clip must be readable to its end", "sound", "an existing file")
    for row, rule in zip(errors, rules, strict=True):
        assert rule in row["error"], row


def test_a_series_that_changes_is_explained_again(tmp_path: Path) -> None:
    folder = write_volumes(tmp_path / "data")
    options: dict[str, Any] = {"network": volume_network(), "areas": (0.05,), **QUICK}
    series, out = folder / "thick", tmp_path / "out"
    assert run(series, out, **options).items == 1
    before = jobs.table(out).to_pylist()
    renamed = sorted(series.iterdir())[0]
    renamed.rename(series / "zzz.dcm")
    assert run(series, out, **options).done == 1
    shutil.rmtree(series)
    write_series(series, 3 * draw_scene(VOLUME_SHAPE, seed=1).astype(int), range(0, 40, 4))
    with pytest.warns(UserWarning, match="1 image has changed since the rows were written"):
        run(series, out, **options)
    with pytest.warns(UserWarning, match="changed"):
        run(series, out, retry=True, **options)
    assert jobs.table(out)["content_hash"].to_pylist() != [row["content_hash"] for row in before]


def test_parts_of_earlier_versions_have_no_spacing(tmp_path: Path) -> None:
    run(write_sounds(tmp_path / "data"), tmp_path / "out", network=tone_network(), areas=(0.1,), **QUICK)
    (part,) = (tmp_path / "out" / "parts").iterdir()
    written = pq.read_table(part)
    pq.write_table(written.drop_columns(["spacing"]), part)
    assert repr(jobs.table(tmp_path / "out").to_pylist()) == repr(written.to_pylist())  # some numbers are NaN
    for wrong in ([0.0], [1.0, 2.0], [float("nan")]):
        column = pa.array([wrong], pa.list_(pa.float64()))
        pq.write_table(written.set_column(written.column_names.index("spacing"), "spacing", column), part)
        assert "spacing of row 'tone.wav'" in message_of(jobs.table, tmp_path / "out")
