"""Small clips, NIfTI files and DICOM series, written for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def write_clip(path: Path, frames: Array, rate: int = 8, codec: str = "libx264") -> Path:
    """Write frames (T, H, W, 3) uint8 as a video file."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "8"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Write a file of sound only."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_nifti(path: Path, values: Array, spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> Path:
    """Write values (X, Y, Z), whose axes rise to the left, back and top, as NIfTI."""
    import nibabel

    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def write_series(
    folder: Path, values: Array, positions: Sequence[float], gaps: Sequence[float] = (1.0, 1.0), **changes: Any
) -> Path:
    """Write slices (D, H, W) at positions in mm as DICOM files, whose names are in another order.

    Args:
        folder: new.
        values: whole numbers, rescaled by 2·v − 1024.
        positions: (D,) of the slices.
        gaps: of rows, and of columns.
        changes: attributes by their names in DICOM; callables get the number of the slice, None removes.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir()
    for index, (plane, position) in enumerate(zip(values, positions, strict=True)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{index + 1}"
        data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        data.SeriesInstanceUID, data.Modality = "1.2.3", "CT"
        data.Rows, data.Columns = plane.shape
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 1, 1
        data.PhotometricInterpretation, data.PixelSpacing = "MONOCHROME2", list(gaps)
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, float(position)]
        data.RescaleSlope, data.RescaleIntercept = "2", "-1024"
        data.PixelData = plane.astype("<i2").tobytes()
        for name, change in changes.items():
            value = change(index) if callable(change) else change
            if value is None:
                delattr(data, name)
            else:
                setattr(data, name, value)
        data.save_as(folder / f"{(5 * index + 3) % 7:03d}-{index}.dcm", enforce_file_format=True)
    return folder


def write_frames(
    path: Path,
    values: Array,
    positions: Sequence[float],
    gaps: Sequence[float] = (1.0, 1.0),
    *,
    each: tuple[str, ...] = ("PlanePositionSequence",),
    leave_out: tuple[str, ...] = (),
    **changes: Any,
) -> Path:
    """Write slices (D, H, W) at positions in mm as the frames of one Enhanced CT file, in the opposite order.

    Args:
        path: of the file.
        values: whole numbers, rescaled by 2·v − 1024.
        positions: (D,) of the slices.
        gaps: of rows, and of columns.
        each: functional groups that each frame has of its own; the others are shared.
        leave_out: functional groups that are missing.
        changes: attributes of the file by their names in DICOM; None removes.
    """
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = EnhancedCTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = "1.2.3.1"
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SeriesInstanceUID, data.Modality, data.NumberOfFrames = "1.2.3", "CT", len(values)
    data.Rows, data.Columns = values.shape[1:]
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 1, 1
    data.PhotometricInterpretation = "MONOCHROME2"

    def build_groups(is_of_frame: bool, position: float) -> Dataset:
        contents: dict[str, dict[str, Any]] = {
            "PlanePositionSequence": {"ImagePositionPatient": [0, 0, float(position)]},
            "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            "PixelMeasuresSequence": {"PixelSpacing": list(gaps)},
            "PixelValueTransformationSequence": {"RescaleSlope": "2", "RescaleIntercept": "-1024"},
        }
        groups = Dataset()
        for name, content in contents.items():
            if (name in each) is is_of_frame and name not in leave_out:
                group = Dataset()
                for attribute, value in content.items():
                    setattr(group, attribute, value)
                setattr(groups, name, [group])
        return groups

    data.SharedFunctionalGroupsSequence = [build_groups(False, 0)]
    data.PerFrameFunctionalGroupsSequence = [build_groups(True, position) for position in reversed(positions)]
    data.PixelData = values[::-1].astype("<i2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path
