"""Volumes: values, spacing and orientation of NIfTI files and DICOM series, and what is refused in one sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extremal import ExtremalTypeError, ExtremalValueError, Volume, VolumeReader, read_volume
from extremal.errors import MissingDependencyError
from extremal.networks.stacks import dicom_files, dicom_slices, nifti_files
from extremal.networks.stacks.checks import check_stack_file
from extremal.networks.stacks.paths import StackKind, find_stack_kind
from support.stack_files import write_nifti, write_series

VALUES = np.random.default_rng(0).integers(0, 1000, (6, 8, 10))  # slices, rows, columns
POSITIONS = [-30 + 2.5 * k for k in range(6)]


def test_nifti_has_slices_first_and_the_spacing_of_its_affine(tmp_path: Path) -> None:
    for name in ("a.nii", "b.nii.gz"):
        written = write_nifti(tmp_path / name, VALUES.transpose(2, 1, 0).astype(np.float32), (0.7, 0.5, 2.5))
        volume = read_volume(written)
        assert volume.orientation == "SPL"
        assert volume.spacing == pytest.approx((2.5, 0.5, 0.7))
        np.testing.assert_array_equal(volume.values[0].numpy(), VALUES)


def test_nifti_2_with_scaled_whole_numbers(tmp_path: Path) -> None:
    import nibabel

    image = nibabel.Nifti2Image(VALUES.transpose(2, 1, 0).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(2, -1024)
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert volume.orientation == "SAR"
    np.testing.assert_allclose(volume.values[0].numpy(), 2 * VALUES - 1024)


def test_a_series_is_sorted_by_position_and_rescaled(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", VALUES, POSITIONS, (0.5, 0.7))
    assert [path.name[4] for path in sorted(folder.iterdir())] != [*"012345"]  # names in another order
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / "notes.txt").write_text("of the scanner")
    volume = read_volume(folder)
    assert volume.orientation == "SPL"
    assert volume.spacing == pytest.approx((2.5, 0.5, 0.7))
    np.testing.assert_array_equal(volume.values[0].numpy(), 2 * VALUES - 1024)


def test_a_series_without_suffixes(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", VALUES, POSITIONS)
    for index, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"IM{index}")
    assert find_stack_kind(folder) is StackKind.VOLUME
    assert read_volume(folder).values.shape == (1, 6, 8, 10)


def test_sagittal_and_oblique_slices_have_their_orientation(tmp_path: Path) -> None:
    sagittal = write_series(
        tmp_path / "sagittal",
        *(VALUES, POSITIONS),
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
        ImagePositionPatient=lambda k: [2.0 * k, 0, 0],
    )
    turn = 0.6, 0.8  # 53 degrees about the axis from left to right
    oblique = write_series(
        tmp_path / "oblique",
        *(VALUES, POSITIONS),
        ImageOrientationPatient=[1, 0, 0, 0, turn[1], turn[0]],
        ImagePositionPatient=lambda k: [0, -3 * k * turn[0], 3 * k * turn[1]],
    )
    assert read_volume(sagittal).orientation[1:] == "IP"
    assert read_volume(sagittal).spacing[0] == pytest.approx(2.0)
    assert read_volume(oblique).orientation == "SPL"
    assert read_volume(oblique).spacing[0] == pytest.approx(3.0)


def _nudge(k: int) -> list[float]:
    return [0, 0, 2.5 * k + 0.2 * (k == 3)]


WRONG_SERIES: dict[str, tuple[dict[str, Any], str]] = {
    "gap": ({"ImagePositionPatient": lambda k: [0, 0, 2.5 * k + 2.5 * (k > 2)]}, "no gaps, got 5 mm instead of 2.5 mm"),
    "uneven": ({"ImagePositionPatient": lambda k: [0, 0, 2.5 * k + 0.4 * (k > 2)]}, "must have no gaps, got 2.9 mm"),
    "twice": ({"ImagePositionPatient": lambda k: [0, 0, 2.5 * (k // 2)]}, "positions of their own"),
    "mixed": ({"SeriesInstanceUID": lambda k: f"1.2.{k % 2}"}, "one series, got 2 in .*, of 3, 3 slices"),
    "sizes": ({"PixelSpacing": lambda k: [1, 1 + (k == 2)]}, "one size, got 8 × 10 pixels of 1 × 1 mm"),
    "turned": (
        {"ImageOrientationPatient": lambda k: [1, 0, 0, 0, 1, 0] if k else [0, 1, 0, 1, 0, 0]},
        "must be parallel",
    ),
    "nowhere": ({"ImagePositionPatient": None}, "must state its position"),
    "flat": ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "perpendicular directions"),
    "no distance": ({"PixelSpacing": [0, 1]}, "distances above 0"),
    "frames": ({"NumberOfFrames": 3}, "one grey picture, got .* with 3 frames"),
    "colours": ({"SamplesPerPixel": 3}, "one grey picture, got .* with 3 channels"),
    "short": ({"PixelData": bytes(10)}, "must be readable DICOM"),
}


@pytest.mark.parametrize("name", WRONG_SERIES)
def test_a_wrong_series_is_refused(tmp_path: Path, name: str) -> None:
    changes, rule = WRONG_SERIES[name]
    with pytest.raises(ExtremalValueError, match=rule) as raised:
        read_volume(write_series(tmp_path / "series", VALUES, POSITIONS, **changes))
    assert "\n" not in str(raised.value)


def test_small_differences_of_distances_are_accepted(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", VALUES, POSITIONS, ImagePositionPatient=_nudge)
    assert read_volume(folder).spacing[0] == pytest.approx(2.5)


def test_other_folders_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    one = write_series(tmp_path / "one", VALUES[:1], POSITIONS[:1])
    rules = {
        tmp_path / "empty": "must have DICOM files",
        one: "at least 2 slices",
        next(one.iterdir()): "got the file .*; name its folder",
        tmp_path / "missing.nii.gz": "must be an existing file",
    }
    for path, rule in rules.items():
        with pytest.raises(ExtremalValueError, match=rule):
            read_volume(path)
    assert find_stack_kind(tmp_path / "empty") is None


def test_wrong_nifti_files_are_refused(tmp_path: Path) -> None:
    import nibabel

    values = np.zeros((4, 5, 6), np.float32)
    write_nifti(tmp_path / "good.nii.gz", values)
    content = (tmp_path / "good.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(content[:-20])
    (tmp_path / "text.nii").write_text("no volume" * 100)
    (tmp_path / "text.nii.gz").write_text("no volume" * 100)
    write_nifti(tmp_path / "flat.nii", values[:, :, 0])
    write_nifti(tmp_path / "several.nii", np.zeros((4, 5, 6, 2), np.float32))
    write_nifti(tmp_path / "nan.nii", np.full((4, 5, 6), np.nan, np.float32))
    colours = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "colours.nii")
    header = nibabel.Nifti1Header()
    header.set_sform(np.diag([1.0, 0.0, 1.0, 1.0]), code=1)
    nibabel.save(nibabel.Nifti1Image(values, None, header), tmp_path / "affine.nii")
    rules = {
        "cut.nii.gz": "must be readable to its end",
        "text.nii": "must be NIfTI",
        "text.nii.gz": "must be readable to its end",
        "flat.nii": "three dimensions of at least one place, got 4 × 5",
        "several.nii": "got 4 × 5 × 6 × 2",
        "nan.nii": "must be finite, got 120 NaN",
        "colours.nii": "must hold real numbers",
        "affine.nii": "affine",
    }
    for name, rule in rules.items():
        with pytest.raises(ExtremalValueError, match=rule) as raised:
            read_volume(tmp_path / name)
        assert name in str(raised.value)
        assert "\n" not in str(raised.value)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = write_nifti(tmp_path / "bomb.nii.gz", np.zeros((64, 64, 64), np.float32))
    assert bomb.stat().st_size < 10_000
    monkeypatch.setattr(nifti_files, "MAX_VOLUME_BYTES", 100_000)
    with pytest.raises(ExtremalValueError, match=r"at most 0\.0001 GB, got more"):
        read_volume(bomb)
    monkeypatch.undo()
    for module in (nifti_files, dicom_slices):
        monkeypatch.setattr(module, "MAX_PLACES", 100)
    for path in (bomb, write_series(tmp_path / "series", VALUES, POSITIONS)):
        with pytest.raises(ExtremalValueError, match="at most 100 places"):
            read_volume(path)
    monkeypatch.setattr(dicom_files, "MAX_SLICES", 5)
    with pytest.raises(ExtremalValueError, match="at most 5 files, got 6"):
        read_volume(tmp_path / "series")


def test_missing_extras_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_nifti(tmp_path / "a.nii", VALUES.astype(np.float32)), write_series(tmp_path / "b", VALUES, POSITIONS)
    monkeypatch.setattr("extremal.errors.find_spec", lambda name: None)
    for path in paths:
        with pytest.raises(MissingDependencyError, match=r"pip install 'extremal\[medical\]'"):
            check_stack_file(path, StackKind.VOLUME)


def test_a_volume_is_turned_and_scaled_as_by_nibabel(tmp_path: Path) -> None:
    import nibabel

    image = nibabel.load(write_nifti(tmp_path / "a.nii", VALUES.astype(np.float32), (1, 2, 3)))
    turned = nibabel.as_closest_canonical(image)
    volume = read_volume(tmp_path / "a.nii").orient("RAS")
    np.testing.assert_array_equal(volume.values[0].numpy(), np.asarray(turned.dataobj))
    assert volume.spacing == pytest.approx(tuple(turned.header.get_zooms()))
    assert volume.scale(0, 2000).values.max() == pytest.approx(VALUES.max() / 2000)
    normalised = volume.normalise().values
    assert (float(normalised.mean()), float(normalised.std())) == pytest.approx((0, 1), abs=1e-5)


def test_resampling_keeps_the_extent() -> None:
    volume = Volume(torch.rand(1, 6, 8, 10), (2.5, 0.5, 0.7))
    fine = volume.resample((1.0, 0.5, 0.5))
    assert fine.values.shape == (1, 15, 8, 14)
    extents = [size * gap for size, gap in zip(fine.values.shape[1:], fine.spacing, strict=True)]
    assert extents == pytest.approx([15, 4, 7])
    assert volume.resize((3, 4, 5)).values.mean() == pytest.approx(float(volume.values.mean()), abs=1e-6)


def test_wrong_volumes_are_refused() -> None:
    good = Volume(torch.zeros(1, 2, 3, 4), (1.0, 1.0, 1.0), "SPL")
    for letters in ("SP", "SPI", "XYZ", "SSP"):
        with pytest.raises(ExtremalValueError, match="an orientation must have"):
            good.orient(letters)
        with pytest.raises(ExtremalValueError, match="an orientation must have"):
            VolumeReader(letters)
        with pytest.raises(ExtremalValueError, match="an orientation must have"):
            Volume(good.values, good.spacing, letters)
    for other in (None, 5):
        with pytest.raises(ExtremalTypeError, match=f"orientation must be three letters as text, got {other}"):
            Volume(good.values, good.spacing, other)  # type: ignore[arg-type]
        with pytest.raises(ExtremalTypeError, match=f"orientation must be three letters as text, got {other}"):
            good.orient(other)  # type: ignore[arg-type]
    assert Volume(good.values, good.spacing, "spl").orient("ras").orientation == "RAS"
    with pytest.raises(ExtremalValueError, match="must state its orientation"):
        Volume(good.values, good.spacing).orient("RAS")
    with pytest.raises(ExtremalValueError, match="spacing must be three distances"):
        Volume(good.values, (1.0, 0.0, 1.0))
    with pytest.raises(ExtremalValueError, match=r"values must be \(C, D, H, W\)"):
        Volume(good.values[0], good.spacing)
    with pytest.raises(ExtremalTypeError, match="values must be a floating tensor"):
        Volume(good.values.int(), good.spacing)
    with pytest.raises(ExtremalValueError, match="low must be below high"):
        good.scale(1, 1)
    with pytest.raises(ExtremalValueError, match=r"got 0 and a number of about 401 digits; they are at most 1e\+300"):
        good.scale(0, 10**400)
    with pytest.raises(ExtremalValueError, match="three sizes"):
        good.resize((2, 2))


@pytest.mark.parametrize("bound", [1e-300, 1e-42, 1e-30, 400, 1e16, 3e38, 1e300])
def test_a_window_of_any_width_is_scaled(bound: float) -> None:
    zero = Volume(torch.zeros(1, 1, 1, 1), (1.0, 1.0, 1.0))
    assert float(zero.scale(-bound, bound).values) == 0.5
    assert float(zero.scale(0, bound).values) == 0
    assert float(zero.scale(-bound, 0).values) == 1


def test_a_preprocess_must_return_a_volume(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", VALUES.astype(np.float32))
    with pytest.raises(ExtremalTypeError, match=r"must turn an extremal.Volume .* it returned a Tensor"):
        VolumeReader(preprocess=lambda volume: volume.values).read(path)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e37])
def test_values_of_any_magnitude_are_normalised(scale: float) -> None:
    values = torch.from_numpy(VALUES.astype(np.float32))[None]
    normal = Volume(values, (2.5, 0.7, 0.5)).normalise().values
    scaled = Volume(values / values.abs().max() * scale, (2.5, 0.7, 0.5)).normalise().values
    torch.testing.assert_close(scaled, normal, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "values", [torch.full((1, 7, 13, 11), 1000.1), torch.ones(1, 1, 1, 1), torch.zeros(1, 2, 2, 2)]
)
def test_constant_values_are_normalised_to_zero(values: torch.Tensor) -> None:
    assert Volume(values, (2.5, 0.7, 0.5)).normalise().values.tolist() == torch.zeros_like(values).tolist()
