"""Image files as they come: float values, broken EXIF, thin shapes, odd paths, and bytes that are damaged."""

import os
import resource
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin
from torch import nn

from extremal.errors import ExtremalValueError
from extremal.networks import zoo
from extremal.networks.image_bounds import check_scaled_pixels
from extremal.networks.image_files import read_image_file, to_upright_rgb
from extremal.networks.inputs import open_image, prepare
from extremal.networks.network import Network
from extremal.networks.zoo.preprocessing import CenterCropResize, ShrinkShortSide

SCALED = Network(nn.Conv2d(3, 2, 1), CenterCropResize(3, 8, 8))


def read(values: list[list[float]]) -> list[int]:
    """The grey levels that a float image becomes."""
    picture = Image.fromarray(np.array(values, dtype=np.float32))
    return np.asarray(to_upright_rgb(picture))[..., 0].flatten().tolist()


def fails(path: Path | str) -> str:
    with pytest.raises(ExtremalValueError) as error:
        read_image_file(path)
    return str(error.value)


class TestFloatValues:
    def test_from_0_to_1(self) -> None:
        assert read([[0.0, 0.25, 0.5, 1.0]]) == [0, 64, 128, 255]

    def test_of_a_part_of_0_to_1_are_not_stretched(self) -> None:
        assert read([[0.2, 0.4]]) == [51, 102]

    def test_from_0_to_255(self) -> None:
        assert read([[0.0, 64.0, 200.0]]) == [0, 64, 200]

    @pytest.mark.parametrize("values", [[0.0, 0.65, 1.3], [-1.0, 0.0, 1.0], [0.0, 500.0, 1000.0], [-0.01, 0.5, 1.01]])
    def test_of_another_range_are_scaled_to_it(self, values: list[float]) -> None:
        assert read([values]) == [0, 128, 255]

    def test_in_a_tiff_file(self, tmp_path: Path) -> None:
        grey = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
        Image.fromarray(grey).save(tmp_path / "a.tiff")
        pixels = np.asarray(read_image_file(tmp_path / "a.tiff"))[..., 0]
        assert pixels.tolist() == np.round(grey * 255).astype(int).tolist()

    def test_whole_numbers_of_32_bits_keep_their_range(self) -> None:
        picture = Image.fromarray(np.array([[0, 1, 255]], dtype=np.int32))
        assert np.asarray(to_upright_rgb(picture))[0, :, 0].tolist() == [0, 1, 255]


class TestExif:
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_orientation_with_a_tag_that_cannot_be_written_again(self, tmp_path: Path, orientation: int) -> None:
        entries = struct.pack("<HHIHH", 274, 3, 1, orientation, 0) + struct.pack("<HHIHH", 271, 3, 1, 7, 0)
        exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)
        pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
        Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
        turned = {
            1: pixels,
            2: pixels[:, ::-1],
            3: pixels[::-1, ::-1],
            4: pixels[::-1],
            5: pixels.T,
            6: np.rot90(pixels, -1),
            7: pixels[::-1, ::-1].T,
            8: np.rot90(pixels),
        }
        assert np.asarray(read_image_file(tmp_path / "a.png"))[..., 0].tolist() == turned[orientation].tolist()

    @pytest.mark.parametrize("block", [b"", b"Exif\0\0", b"nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", bytes(70_000)])
    def test_a_broken_block_does_not_matter(self, tmp_path: Path, block: bytes) -> None:
        Image.new("RGB", (3, 2), "red").save(tmp_path / "a.png", exif=block)
        assert read_image_file(tmp_path / "a.png").size == (3, 2)

    def test_an_orientation_that_is_no_number(self) -> None:
        picture = Image.new("RGB", (3, 2))
        picture.getexif()[274] = TiffImagePlugin.IFDRational(1, 0)
        assert to_upright_rgb(picture).size == (3, 2)


class TestThinPictures:
    @pytest.mark.parametrize("size", [(10, 400_000), (400_000, 10), (1, 51)])
    def test_are_refused_before_they_are_scaled(self, size: tuple[int, int]) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ExtremalValueError) as error:
            prepare(SCALED, Image.new("L", size))
        assert str(error.value) == (
            "an image must not be longer than 50 times its short side, since it is scaled for the network, got "
            f"{size[0]}×{size[1]}; crop it, or pad its short side"
        )
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB

    def test_with_50_times_the_short_side_are_scaled(self) -> None:
        assert prepare(SCALED, Image.new("L", (1, 50))).shape == (1, 3, 8, 8)

    def test_are_taken_where_nothing_is_scaled(self) -> None:
        assert prepare(Network(nn.Conv2d(3, 2, 1)), Image.new("L", (4, 400))).shape == (1, 3, 400, 4)

    def test_for_networks_that_do_not_crop(self) -> None:
        network = zoo.load("voc:resnet50", "random")
        assert network.prepare(Image.new("RGB", (10, 300))).shape == (1, 3, 6720, 224)
        with pytest.raises(ExtremalValueError, match=r"at most 4 megapixels when its short side is scaled to 800 px"):
            ShrinkShortSide(800)(Image.new("1", (1000, 10_000)))
        check_scaled_pixels(Image.new("1", (10, 10_000)), 800, enlarge=False)


class TestPaths:
    def test_without_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: object) -> os.stat_result:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("extremal.file_checks.os.stat", refuse)  # the superuser may look everywhere
        assert fails("locked/a.png") == (
            "an image must have a path that can be opened, got 'locked/a.png': Permission denied; check the path"
        )

    def test_too_long(self) -> None:
        message = fails("a" * 5000)
        assert message.endswith("File name too long; check the path")
        assert len(message) < 500

    def test_no_path(self) -> None:
        assert fails("a\0b.png") == (
            "an image must have a path that can be opened, got 'a\\x00b.png': embedded null byte; check the path"
        )

    def test_empty(self) -> None:
        assert fails("") == "an image must be an existing file, got ''; check the path"

    def test_not_utf8(self, tmp_path: Path) -> None:
        path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png")
        Image.new("RGB", (3, 2)).save(path)
        assert read_image_file(path).size == (3, 2)

    @pytest.mark.parametrize("address", ["s3://bucket/cat.png", "https://example.org/cat.png", "hdfs:///cat.png"])
    @pytest.mark.parametrize("kind", [str, Path])
    def test_addresses(self, address: str, kind: type) -> None:
        assert fails(kind(address)) == (
            f"an image must be a local file, got the address {str(kind(address))!r}; download it first"
        )

    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.png")
        path = str(tmp_path / "a.png")
        assert fails(path) == f"an image must be a regular file, got {path!r}, which is a pipe; copy it to a file"

    def test_a_device(self) -> None:
        assert fails("/dev/zero").endswith("got '/dev/zero', which is a device; copy it to a file")

    def test_a_socket(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("a.png")
            assert fails("a.png").endswith("which is a socket; copy it to a file")

    def test_a_link_in_a_circle(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
        assert "Too many levels of symbolic links" in fails(tmp_path / "a.png")


class TestDamagedFiles:
    def test_a_sparse_file_of_a_terabyte(self, tmp_path: Path) -> None:
        with (tmp_path / "a.webp").open("wb") as file:
            file.write(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
            file.truncate(2**40)
        assert "an image must have at most 500 MB" in fails(tmp_path / "a.webp")

    def test_formats_that_start_a_program_are_not_read(self, tmp_path: Path) -> None:
        Image.new("RGB", (3, 2)).save(tmp_path / "a.eps")
        assert "in a format that Pillow reads" in fails(tmp_path / "a.eps")

    def test_any_error_of_a_decoder_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        picture = Image.new("RGB", (3, 2))

        def convert(*_: object) -> Image.Image:
            raise struct.error("unpack requires a buffer of 4 bytes")

        monkeypatch.setattr(picture, "convert", convert)
        with pytest.raises(ExtremalValueError, match="unpack requires a buffer of 4 bytes; copy or convert it again"):
            open_image(picture)

    def test_alpha_lies_over_white(self) -> None:
        pixels = np.array([[[200, 0, 0, 0], [200, 0, 0, 128], [200, 0, 0, 255]]], dtype=np.uint8)
        alpha = torch.tensor([0, 128, 255]) / 255
        expected = 255 + alpha[:, None] * (torch.tensor([200.0, 0, 0]) - 255)
        found = torch.from_numpy(np.asarray(to_upright_rgb(Image.fromarray(pixels)))[0].astype(np.float32))
        assert (found - expected).abs().max() <= 1
