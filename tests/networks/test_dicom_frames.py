"""DICOM files of several frames: read by their functional groups, or refused in one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extremal import ExtremalValueError, VolumeReader, read_volume
from extremal.networks.stacks import dicom_frames, dicom_slices
from extremal.networks.stacks.checks import check_stack_file
from extremal.networks.stacks.paths import StackKind, find_stack_kind
from support.stack_files import write_frames, write_series

VALUES = np.random.default_rng(0).integers(0, 1000, (6, 8, 10))  # slices, rows, columns
POSITIONS = [-30 + 2.5 * k for k in range(6)]
GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")


@pytest.mark.parametrize("each", [GROUPS[:1], GROUPS, (*GROUPS, "PixelValueTransformationSequence")])
@pytest.mark.parametrize("of_folder", [False, True])
def test_frames_are_sorted_by_position_and_rescaled(each: tuple[str, ...], of_folder: bool, tmp_path: Path) -> None:
    path = write_frames(tmp_path / "scan.dcm", VALUES, POSITIONS, (0.5, 0.7), each=each)
    assert find_stack_kind(path) is find_stack_kind(tmp_path) is StackKind.VOLUME
    check_stack_file(path, StackKind.VOLUME)
    volume = read_volume(tmp_path if of_folder else path)
    assert volume.orientation == "SPL"
    assert volume.spacing == pytest.approx((2.5, 0.5, 0.7))
    np.testing.assert_array_equal(volume.values[0].numpy(), 2 * VALUES - 1024)
    assert VolumeReader("RAS").read(path).x.shape == (1, 1, 10, 8, 6)


def test_frames_are_read_as_a_series_of_the_same_slices(tmp_path: Path) -> None:
    frames = read_volume(write_frames(tmp_path / "scan.dcm", VALUES, POSITIONS))
    series = read_volume(write_series(tmp_path / "series", VALUES, POSITIONS))
    np.testing.assert_array_equal(frames.values.numpy(), series.values.numpy())
    assert (frames.spacing, frames.orientation) == (series.spacing, series.orientation)


def test_values_without_a_rescaling_are_those_stored(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "scan.dcm", VALUES, POSITIONS, leave_out=("PixelValueTransformationSequence",))
    np.testing.assert_array_equal(read_volume(path).values[0].numpy(), VALUES)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no positions": ({"leave_out": GROUPS[:1]}, "must state its position, .* got frame 1 of '.*scan.dcm'"),
    "no directions": ({"leave_out": GROUPS[1:2]}, "must state its position, directions"),
    "no spacing": ({"leave_out": GROUPS[2:]}, "must state its position, directions and pixel spacing"),
    "no groups": ({"PerFrameFunctionalGroupsSequence": None}, "a functional group for each, got 0"),
    "fewer groups": ({"NumberOfFrames": 7}, "a file of 7 frames must have a functional group for each, got 6"),
    "colours": ({"SamplesPerPixel": 3}, "one grey picture, got .* with 3 channels"),
    "short": ({"PixelData": bytes(10)}, "must be readable DICOM"),
    "one place": ({"positions": [0.0] * 6}, "positions of their own, got 'frame 1 of scan.dcm' and 'frame 2 of"),
    "gap": ({"positions": [0, 1, 2, 4, 5, 6]}, "no gaps, got 2 mm instead of 1 mm between 'frame 4 of scan.dcm'"),
    "flat": ({"gaps": (0.0, 1.0)}, "distances above 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused(tmp_path: Path, name: str) -> None:
    changes, rule = WRONG[name]
    changes = {"positions": POSITIONS, **changes}
    with pytest.raises(ExtremalValueError, match=rule) as raised:
        read_volume(write_frames(tmp_path / "scan.dcm", VALUES, **changes))
    assert "\n" not in str(raised.value)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_frames(tmp_path / "scan.dcm", VALUES, POSITIONS)
    monkeypatch.setattr(dicom_slices, "MAX_PLACES", 100)
    monkeypatch.setattr(dicom_frames, "_read_values", lambda *_: pytest.fail("decoded before it is checked"))
    with pytest.raises(ExtremalValueError, match="at most 100 places, got 6 slices of 8 × 10"):
        read_volume(path)
    monkeypatch.setattr(dicom_frames, "MAX_SLICES", 5)
    with pytest.raises(ExtremalValueError, match="at most 5 frames, got 6"):
        read_volume(path)


def test_files_that_are_no_frames(tmp_path: Path) -> None:
    one = next(write_series(tmp_path / "one", VALUES[:1], POSITIONS[:1]).iterdir())
    calls: tuple[Callable[[Path], object], ...] = (read_volume, lambda path: check_stack_file(path, StackKind.VOLUME))
    for call in calls:
        with pytest.raises(ExtremalValueError, match=r"got the file .*; name its folder"):
            call(one)
    (tmp_path / "text.dcm").write_text("no DICOM" * 40)
    with pytest.raises(ExtremalValueError, match="must be readable DICOM"):
        read_volume(tmp_path / "text.dcm")
    several = tmp_path / "several"
    several.mkdir()
    for name in ("a.dcm", "b.dcm"):
        write_frames(several / name, VALUES, POSITIONS)
    with pytest.raises(ExtremalValueError, match="with 6 frames; name a file of frames itself, or use NIfTI"):
        read_volume(several)
