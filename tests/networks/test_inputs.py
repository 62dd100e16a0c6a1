"""From what a user hands in to a prepared batch."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.networks import image_files
from extremal.networks.image_files import read_image_file, to_upright_rgb
from extremal.networks.inputs import prepare
from extremal.networks.network import Network

PLAIN = Network(nn.Conv2d(3, 2, 1))
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def fails(path: Path) -> str:
    with pytest.raises(ExtremalValueError) as error:
        read_image_file(path)
    return str(error.value)


def save_image(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


def corners(width: int = 6, height: int = 4) -> Image.Image:
    """Red above left, green above right, blue below left, white below right."""
    picture = Image.new("RGB", (width, height))
    places = (0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)
    for place, colour in zip(places, (RED, GREEN, BLUE, WHITE), strict=True):
        picture.putpixel(place, colour)
    return picture


class TestFilesThatCannotBeRead:
    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "no.png"
        assert fails(path) == f"an image must be an existing file, got {str(path)!r}; check the path"

    def test_folder(self, tmp_path: Path) -> None:
        assert fails(tmp_path) == (f"an image must be a file, got the folder {str(tmp_path)!r}; name the images in it")

    def test_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.png"
        path.touch()
        assert fails(path) == f"an image must not be empty, got {str(path)!r} with 0 bytes; copy it again"

    def test_not_an_image(self, tmp_path: Path) -> None:
        path = tmp_path / "text.png"
        path.write_text("not a picture")
        assert fails(path) == (
            f"an image must be in a format that Pillow reads, got {str(path)!r}; convert it to PNG or JPEG"
        )

    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
    def test_truncated(self, tmp_path: Path, suffix: str) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        path = save_image(tmp_path / f"half.{suffix}", Image.fromarray(noise))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        message = fails(path)
        assert message.startswith(("an image must be readable to its end, got", "an image must be in a format"))
        assert repr(str(path)) in message

    def test_bomb_above_the_limit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(image_files, "MAX_PIXELS", 2_000_000)
        path = save_image(tmp_path / "big.png", Image.new("1", (2000, 1001)))
        assert fails(path) == (
            f"an image must have at most 2 megapixels, got 2000×1001 in {str(path)!r}; shrink it first"
        )

    def test_bomb_by_its_header_alone(self, tmp_path: Path) -> None:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        path = tmp_path / "bomb.png"
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))))
        assert fails(path) == (
            f"an image must have at most 100 megapixels, got a larger one in {str(path)!r}; shrink it first"
        )

    def test_pillow_image_of_a_truncated_file(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        path = save_image(tmp_path / "half.bmp", Image.fromarray(noise))
        path.write_bytes(path.read_bytes()[:5000])
        with Image.open(path) as picture, pytest.raises(ExtremalValueError) as error:
            prepare(PLAIN, picture)
        assert str(error.value).startswith("an image must be readable to its end, got a Pillow image that is not: ")

    def test_pillow_image_without_pixels(self) -> None:
        with pytest.raises(ExtremalValueError) as error:
            prepare(PLAIN, Image.new("RGB", (0, 4)))
        assert str(error.value) == ("an image must have pixels, got 0×4 in the Pillow image; check how it was cropped")


class TestModes:
    @pytest.mark.parametrize(
        "mode", ["1", "L", "LA", "La", "P", "PA", "RGBa", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]
    )
    def test_every_mode_becomes_rgb(self, mode: str) -> None:
        picture = to_upright_rgb(Image.new(mode, (3, 2)))
        assert (picture.mode, picture.size) == ("RGB", (3, 2))

    def test_cmyk(self, tmp_path: Path) -> None:
        path = save_image(tmp_path / "print.tiff", Image.new("CMYK", (2, 2), (0, 255, 255, 0)))
        assert read_image_file(path).getpixel((0, 0)) == RED

    def test_16_bit_is_scaled_to_8(self, tmp_path: Path) -> None:
        values = np.array([[0, 65535], [32768, 257]], dtype=np.uint16)
        picture = read_image_file(save_image(tmp_path / "deep.png", Image.fromarray(values)))
        assert np.asarray(picture)[..., 0].tolist() == [[0, 255], [128, 1]]

    def test_dark_16_bit_stays_dark(self, tmp_path: Path) -> None:
        dark = Image.fromarray(np.full((2, 2), 200, dtype=np.uint16))
        picture = read_image_file(save_image(tmp_path / "dark.png", dark))
        assert picture.getpixel((0, 0)) == (1, 1, 1)

    def test_float_image_is_scaled_to_its_range(self, tmp_path: Path) -> None:
        path = save_image(tmp_path / "float.tiff", Image.fromarray(np.array([[-1.0, 0.0, 1.0]], dtype=np.float32)))
        assert np.asarray(read_image_file(path))[0, :, 0].tolist() == [0, 128, 255]

    def test_float_image_with_nan(self, tmp_path: Path) -> None:
        path = save_image(tmp_path / "nan.tiff", Image.fromarray(np.array([[0.5, np.nan]], dtype=np.float32)))
        assert fails(path) == "an image must be finite, got 1 NaN or infinite pixels; clean it"

    def test_palette(self, tmp_path: Path) -> None:
        path = save_image(tmp_path / "palette.png", corners().quantize(8))
        assert read_image_file(path).getpixel((5, 0)) == GREEN

    def test_palette_with_a_transparent_entry_lies_over_white(self, tmp_path: Path) -> None:
        picture = Image.new("P", (2, 1))
        picture.putpalette([255, 0, 0, 0, 0, 255])
        picture.putpixel((1, 0), 1)
        result = read_image_file(save_image(tmp_path / "palette.png", picture, transparency=1))
        assert [result.getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]

    def test_alpha_lies_over_white(self, tmp_path: Path) -> None:
        picture = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
        picture.putpixel((1, 0), (255, 0, 0, 0))
        picture.putpixel((2, 0), (0, 0, 0, 51))
        result = read_image_file(save_image(tmp_path / "alpha.png", picture))
        assert [result.getpixel((x, 0)) for x in (0, 1, 2)] == [RED, WHITE, (204, 204, 204)]

    def test_1_bit(self, tmp_path: Path) -> None:
        picture = Image.new("1", (2, 1))
        picture.putpixel((1, 0), 1)
        result = read_image_file(save_image(tmp_path / "bits.png", picture))
        assert [result.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), WHITE]

    def test_animated_gif_gives_its_first_frame(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
        path = save_image(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
        assert read_image_file(path).getpixel((0, 0)) == RED


class TestRotation:
    """What a camera stored, and the orientation that it noted (EXIF tag 274), give the same upright picture."""

    STORED: ClassVar = {  # orientation -> how the stored picture comes from the upright one
        1: (),
        2: (Image.Transpose.FLIP_LEFT_RIGHT,),
        3: (Image.Transpose.ROTATE_180,),
        4: (Image.Transpose.FLIP_TOP_BOTTOM,),
        5: (Image.Transpose.TRANSPOSE,),
        6: (Image.Transpose.ROTATE_90,),
        7: (Image.Transpose.TRANSVERSE,),
        8: (Image.Transpose.ROTATE_270,),
    }

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_the_image_is_upright(self, tmp_path: Path, orientation: int) -> None:
        stored = corners()
        for step in self.STORED[orientation]:
            stored = stored.transpose(step)
        exif = Image.Exif()
        exif[274] = orientation
        result = read_image_file(save_image(tmp_path / "camera.png", stored, exif=exif))
        assert result.size == (6, 4)
        assert np.array_equal(np.asarray(result), np.asarray(corners()))


class TestArrays:
    def test_colours_and_places_are_kept(self) -> None:
        array = np.asarray(corners())
        x = prepare(PLAIN, array)
        assert x.shape == (1, 3, 4, 6)
        assert torch.equal(x[0], torch.from_numpy(array.copy()).movedim(-1, 0) / 255)

    @pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 4)])
    def test_other_shapes(self, shape: tuple[int, ...]) -> None:
        assert prepare(PLAIN, np.full(shape, 255, dtype=np.uint8)).tolist() == torch.ones(1, 3, 4, 6).tolist()

    @pytest.mark.parametrize("shape", [(6,), (4, 6, 2), (1, 4, 6, 3), (0, 6, 3)])
    def test_wrong_shape(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ExtremalValueError) as error:
            prepare(PLAIN, np.zeros(shape, dtype=np.uint8))
        assert str(error.value) == (f"an image array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {shape}")

    @pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "uint16"])
    def test_wrong_dtype(self, dtype: str) -> None:
        with pytest.raises(ExtremalTypeError) as error:
            prepare(PLAIN, np.zeros((4, 6, 3), dtype=dtype))
        assert str(error.value) == (
            f"an image array must be uint8 (H, W, C), got {dtype}; scale it to 0..255, or pass a prepared tensor"
        )

    @pytest.mark.parametrize("image", [3.5, [[1, 2]], {"a": 1}])
    def test_something_else(self, image: object) -> None:
        kind = "int" if isinstance(image, list) else type(image).__name__
        with pytest.raises(ExtremalTypeError) as error:
            prepare(PLAIN, image)  # type: ignore[arg-type]
        assert str(error.value) == (
            "an image must be a path, a Pillow image, a uint8 array (H, W, C) or a prepared tensor (N, C, *S), or a "
            f"list of these, got {kind}"
        )


class TestBatches:
    def test_different_images_of_one_shape(self) -> None:
        pictures = [torch.rand(1, 3, 8, 8), torch.rand(2, 3, 8, 8)]
        assert torch.equal(prepare(PLAIN, pictures), torch.cat(pictures))

    def test_arrays_and_images_together(self) -> None:
        array = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
        batch = prepare(PLAIN, [array, Image.fromarray(array)])
        assert torch.equal(batch[0], batch[1])

    def test_none(self) -> None:
        with pytest.raises(ExtremalValueError, match="a batch must hold at least one image, got an empty list"):
            prepare(PLAIN, [])

    def test_other_shapes(self) -> None:
        with pytest.raises(ExtremalValueError) as error:
            prepare(PLAIN, [torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9)])
        assert str(error.value) == (
            "the images of a batch must have one shape after preparation, got (3, 8, 8) and (3, 8, 9); "
            "explain them one by one, or crop them to one shape"
        )


class TestTensors:
    @pytest.mark.parametrize("shape", [(1, 3, 8), (2, 3, 8, 8), (1, 1, 4, 4, 4)])
    def test_one_to_three_dimensions(self, shape: tuple[int, ...]) -> None:
        x = torch.rand(shape)
        assert torch.equal(prepare(PLAIN, x), x)

    @pytest.mark.parametrize("shape", [(8, 8), (1, 3, 2, 2, 2, 2), (0, 3, 8, 8)])
    def test_wrong_rank(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ExtremalValueError) as error:
            prepare(PLAIN, torch.zeros(shape))
        assert str(error.value) == (
            f"a prepared tensor must be (N, C, *S) with 1 to 3 spatial dimensions, got shape {shape}; "
            "add a batch axis with x[None] if it is missing"
        )

    def test_integers(self) -> None:
        with pytest.raises(ExtremalTypeError) as error:
            prepare(PLAIN, torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
        assert str(error.value) == (
            "a prepared tensor must be floating, got torch.uint8; convert and normalise it first"
        )

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda x: x.to_sparse(), "must be dense, got sparse_coo; convert it with x.to_dense()"),
            (lambda x: x.to("meta"), "must have values, got one on the device meta; load its values"),
            (
                lambda x: x.to(torch.float8_e4m3fn),
                "must have at least 16 bits, got torch.float8_e4m3fn; convert it by x.float()",
            ),
            (lambda x: torch.nested.nested_tensor([x[0]]), "must be dense, got a nested one; convert it with"),
        ],
    )
    def test_unusual_tensor(self, make: Callable[[torch.Tensor], torch.Tensor], message: str) -> None:
        with pytest.raises(ExtremalError) as error:
            prepare(PLAIN, make(torch.zeros(1, 3, 8, 8)))
        assert str(error.value).startswith(f"a prepared tensor {message}")

    def test_values_that_the_network_cannot_represent(self) -> None:
        with pytest.raises(ExtremalValueError) as error:
            prepare(PLAIN, torch.full((1, 3, 8, 8), 1e300, dtype=torch.float64))
        assert str(error.value) == (
            "an input must be finite in the network's torch.float32, got values up to 1e+300; normalise it"
        )

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_not_finite(self, value: float) -> None:
        x = torch.zeros(1, 3, 8, 8)
        x[0, 0, 0, :2] = value
        with pytest.raises(ExtremalValueError) as error:
            prepare(PLAIN, x)
        assert str(error.value) == "a prepared tensor must be finite, got 2 NaN or infinite values; clean it"

    def test_follows_the_network_and_leaves_the_callers_tensor(self) -> None:
        x = torch.rand(1, 3, 8, 8, requires_grad=True)
        before = x.detach().clone()
        result = prepare(Network(nn.Conv2d(3, 2, 1).double()), x)
        assert result.dtype == torch.float64
        assert not result.requires_grad
        assert x.requires_grad
        assert x.dtype == torch.float32
        assert torch.equal(x, before)
