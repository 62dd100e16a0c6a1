"""Clips and volumes from files: the planted region is found, its evidence is right, wrong questions are refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import extremal
from extremal import Explanation, ExtremalError, Network, scores
from support.stack_files import write_clip, write_nifti, write_series
from support.stack_toys import (
    CLIP_CUBOID,
    CLIP_SHAPE,
    VOLUME_CUBOID,
    VOLUME_SHAPE,
    Cuboid,
    clip_network,
    cuboid_mask,
    draw_scene,
    iou,
    volume_network,
)

PLANTED: dict[str, tuple[Callable[[], Network], tuple[int, int, int], Cuboid]] = {
    "clip.mp4": (clip_network, CLIP_SHAPE, CLIP_CUBOID),
    "scan.nii.gz": (volume_network, VOLUME_SHAPE, VOLUME_CUBOID),
    "series": (volume_network, VOLUME_SHAPE, VOLUME_CUBOID),
}
FILES = list(PLANTED)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted scenes as files; slices are 4 mm apart, pixels 1 mm."""
    found = tmp_path_factory.mktemp("stacks")
    frames, values = draw_scene(CLIP_SHAPE), draw_scene(VOLUME_SHAPE).astype(np.float32)
    write_clip(found / "clip.mp4", np.stack([frames] * 3, -1).repeat(2, 0))  # of which the reader takes every second
    write_nifti(found / "scan.nii.gz", (8 * values - 1024).transpose(2, 1, 0), (1.0, 1.0, 4.0))
    write_series(found / "series", 4 * values.astype(int), [4 * k - 30 for k in range(VOLUME_SHAPE[0])])
    return found


@pytest.fixture(scope="module")
def explained(folder: Path) -> dict[str, Explanation]:
    """Each planted file explained at half of its own area, at that area, and at twice of it."""
    results = {}
    for name, (make, shape, cuboid) in PLANTED.items():
        area = float(cuboid_mask(shape, cuboid).float().mean())
        results[name] = extremal.explain(
            make(), folder / name, "texture", areas=(area / 2, area, 2 * area), effort="thorough"
        )
    return results


@pytest.mark.parametrize("name", FILES)
def test_the_planted_region_is_found(explained: dict[str, Explanation], name: str) -> None:
    _, shape, cuboid = PLANTED[name]
    result, expected = explained[name], cuboid_mask(shape, cuboid)
    mask = result.binary(result.areas[1])[0, 0]
    assert int(mask.sum()) == int(expected.sum())
    assert iou(mask, expected) >= 0.6
    assert result.verdict[0][1].label == "sufficient"


@pytest.mark.parametrize("name", FILES)
def test_the_evidence_is_that_of_the_network(explained: dict[str, Explanation], name: str) -> None:
    """The score of the cut mask under fading, evaluated by hand, and a mask elsewhere."""
    make, *_ = PLANTED[name]
    result, model = explained[name], make().model
    x, mask = result.inputs, result.binary(result.areas[1])
    whole = model(x)
    torch.testing.assert_close(result.score_full, whole[:, 0] - whole[:, 1])
    judged = extremal.judge(make(), x, mask[:, None], "texture", areas=(result.areas[1],), perturbation="fade")
    torch.testing.assert_close(judged.binary_scores[:, 0], model(x * mask)[:, 0])
    curve = result.curve()
    assert curve.binary[1] >= 0.9
    assert curve.control_best[1] < 0.9
    elsewhere = torch.roll(mask, tuple(size // 2 for size in mask.shape[2:]), (2, 3, 4))
    away = extremal.judge(make(), x, elsewhere[:, None], "texture", areas=(result.areas[1],))
    assert away.verdict[0][0].label == "insufficient"


@pytest.mark.parametrize("name", FILES)
def test_wrong_questions_are_refused(folder: Path, name: str) -> None:
    net = PLANTED[name][0]()
    wrong = {
        "a score must change when the input is destroyed": ("none", {"score": "logit"}),
        "target must be a class": ("cat", {}),
        "a detector must return": (scores.Box(), {}),
    }
    for rule, (target, options) in wrong.items():
        with pytest.raises(ExtremalError, match=rule):
            extremal.explain(net, folder / name, target, areas=(0.05,), **options)  # type: ignore[arg-type]
    other = volume_network() if name == "clip.mp4" else clip_network()
    with pytest.raises(ExtremalError, match=r"a network must take (clips|volumes) to read"):
        extremal.explain(other, folder / name)


def test_a_scene_without_the_texture_is_not_sufficient(tmp_path: Path) -> None:
    values = draw_scene(VOLUME_SHAPE).astype(np.float32)
    values[VOLUME_CUBOID] = 128
    write_nifti(tmp_path / "plain.nii.gz", (8 * values - 1024).transpose(2, 1, 0), (1.0, 1.0, 4.0))
    with pytest.raises(ExtremalError, match="a score must change when the input is destroyed"):
        extremal.explain(volume_network(), tmp_path / "plain.nii.gz", "texture", perturbation="fade", areas=(0.05,))


def test_the_spacing_of_the_file_smooths_masks(explained: dict[str, Explanation], folder: Path) -> None:
    result = explained["scan.nii.gz"]
    assert result.settings["spacing"] == pytest.approx([4, 1, 1])
    assert result.settings["stack"] == {"kind": "volume", "orientation": "SPL"}
    assert torch.equal(result.masks, explained["series"].masks), "the same volume as DICOM"
    own = extremal.explain(
        replace(volume_network(), spacing=(4.0, 1.0, 1.0)), result.inputs, 0, areas=result.areas, effort="thorough"
    )
    assert torch.equal(result.masks, own.masks), "as if the spacing was passed"
    thin = extremal.explain(replace(volume_network(), spacing=(1, 1, 1)), folder / "series", 0, areas=result.areas)
    assert thin.settings["spacing"] == [1, 1, 1], "a network's own spacing is kept"
    assert not torch.equal(result.masks, thin.masks)


def test_times_are_stored_with_a_clip(explained: dict[str, Explanation], tmp_path: Path) -> None:
    result = explained["clip.mp4"]
    times = result.settings["stack"]["times"]
    assert len(times) == 16
    assert np.allclose(np.diff(times), 0.25, atol=0.01)
    result.save(tmp_path / "a")
    assert Explanation.load(tmp_path / "a") == result


def test_further_measurements_use_the_spacing(explained: dict[str, Explanation], folder: Path) -> None:
    result, net = explained["series"], volume_network()
    (certificate,) = extremal.smallest_area(net, result)
    own = extremal.smallest_area(replace(net, spacing=(4.0, 1.0, 1.0)), result)[0]
    assert certificate is not None
    assert own is not None
    assert certificate.area == own.area <= result.areas[0]
    (region,) = extremal.minimal(net, result)
    assert region is not None
    assert region.mask.shape == result.masks.shape[2:]
    stable = extremal.stability(net, folder / "series", result, copies=2)
    assert float(stable.median_iou.min()) > 0.5
    assert net.spacing == (), "the caller's network is as it was"
    assert extremal.examine(net, folder / "series").ok
    assert extremal.plan(net, folder / "series").settings["spacing"] == pytest.approx([4, 1, 1])
    found = extremal.explain_sets(net, folder / "series", "texture", areas=(0.05, 0.1))
    assert found.sufficient.settings["spacing"] == pytest.approx([4, 1, 1])


def test_volumes_of_different_spacing_are_not_a_batch(folder: Path, tmp_path: Path) -> None:
    values = draw_scene(VOLUME_SHAPE).astype(np.float32)
    write_nifti(tmp_path / "thin.nii", (8 * values - 1024).transpose(2, 1, 0))
    both = [folder / "scan.nii.gz", tmp_path / "thin.nii"]
    with pytest.raises(ExtremalError, match="the volumes of a batch must have one spacing"):
        extremal.explain(volume_network(), both, 0, areas=(0.05,))
    same = extremal.explain(volume_network(), [folder / "scan.nii.gz", folder / "series"], 0, areas=(0.05,))
    assert same.settings["spacing"] == pytest.approx([4, 1, 1])
    assert len(same.masks) == 2
