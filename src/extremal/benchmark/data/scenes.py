"""Planted scenes: objects cut out of photographs on real textures, with exact regions.

A scene has two objects of different classes, side by side or one above the other, at random places and sizes.
"""

import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from extremal.benchmark.data.samples import (
    Mask,
    Sample,
    build_regions,
    hash_keys,
    limit_keys,
    require_file,
    require_folder,
)
from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, describe_error, find_kind, quote
from extremal.json_files import MAX_JSON_BYTES, parse_json
from extremal.networks.image_files import MAX_FILE_BYTES, MAX_PIXELS
from extremal.number_checks import format_value

CUTOUTS_FILE = "cutouts.json"
CUTOUT_FORMATS = ("PNG", "WEBP", "GIF", "TIFF")  # with transparency
MAX_SCENES = 100_000
OBJECT_SIZES = 0.42, 0.56  # range of an object's longer side, in sides of the scene
HALF_CENTRES = 0.27, 0.73  # of the two halves
MAX_JITTER = 6  # px
OPAQUE_ALPHA = 127  # alpha above which a pixel belongs to the object
TUXPAINT_CUTOUTS = {  # of Debian's tuxpaint-stamps-default: those that EfficientNet-Lite0 names with certainty alone
    "animals/birds/duck.png": "drake",
    "animals/mammals/apes/gorilla.png": "gorilla",
    "animals/mammals/aquatic/sea_lion.png": "sea lion",
    "animals/mammals/badger.png": "badger",
    "animals/mammals/bears/european-bear.png": "brown bear",
    "animals/mammals/bovines/bison.png": "bison",
    "animals/mammals/camel/camel.png": "Arabian camel",
    "animals/mammals/cats/tiger.png": "tiger",
    "animals/mammals/pig_golden.png": "hog",
    "animals/mammals/rodents/rabbit.png": "hare",
    "animals/mammals/rodents/squirrel.png": "fox squirrel",
    "food/fruit/Strawberry2.png": "strawberry",
    "food/fruit/cherimoya.png": "custard apple",
    "hobbies/camera_35mm.png": "reflex camera",
    "household/tools/hammer.png": "hammer",
    "military/paratrooper.png": "parachute",
    "sports/basketball.png": "basketball",
    "vehicles/cycle/pink_tricycle.png": "tricycle",
    "vehicles/emergency/firetruck.png": "fire engine",
    "vehicles/flight/balloon360.png": "balloon",
}


class Scenes:
    """Scenes from a folder of RGBA cut-outs.

    `cutouts.json` in the folder, {path: class}, lists the cut-outs and their classes. Without it, a folder with the
    stamps above uses those; any other folder uses each PNG with transparency, whose class is the name of its sub-folder
    or, at the top level, its own name.

    Args:
        path: of the folder.
        count: number of scenes; the scene of a seed does not depend on it.
        size: of a scene, px.
        limit: maximum number of scenes.
    """

    has_regions = True

    def __init__(self, path: Path, *, count: int = 100, size: int = 224, limit: int | None = None) -> None:
        """List the cut-outs."""
        self.root = require_folder(path, "a folder of cut-outs")
        self.size = size
        if not 1 <= count <= MAX_SCENES:
            raise ExtremalValueError(f"count must lie in 1..{MAX_SCENES:,} scenes, got {format_value(count)}; e.g. 100")
        self.cutouts = _find_cutouts(path)
        self.classes = tuple(sorted(set(self.cutouts.values())))
        if len(self.classes) < 2:
            raise ExtremalValueError(
                f"a folder of cut-outs must hold two classes or more, {str(path)!r} holds {len(self.classes)}; add "
                f"images with transparency, or a {CUTOUTS_FILE} that names their classes"
            )
        self._keys = limit_keys([f"scene-{seed:05d}" for seed in range(count)], limit)

    def settings(self) -> dict[str, Any]:
        """Return number and size of the scenes, and the identity of the cut-outs."""
        labels = [f"{path}={label}" for path, label in sorted(self.cutouts.items())]
        return {"kind": "scenes", "pictures": len(self._keys), "size": self.size, "digest": hash_keys(labels)}

    def keys(self) -> tuple[str, ...]:
        """Return one key per seed."""
        return self._keys

    def sample(self, key: str) -> Sample:
        """Return a scene and its two objects."""
        image, masks = self.scene(int(key.rpartition("-")[2]))
        ordered = {label: (masks[label], "") for label in self.classes if label in masks}
        return Sample(key, image, build_regions(ordered, list(ordered)))

    def scene(self, seed: int) -> tuple[Image.Image, dict[str, Mask]]:
        """Return the RGB image of a seed, and the mask of each of its two objects in the order of drawing."""
        rng, size = random.Random(seed), self.size
        texture = rng.choice(_load_textures(size))
        top, left = rng.randrange(size), rng.randrange(size)
        tint = np.array([rng.uniform(0.75, 1.0) for _ in range(3)])
        background = texture[top : top + size, left : left + size, None] * tint
        canvas = Image.fromarray(background.astype(np.uint8)).convert("RGBA")
        side_by_side = rng.random() < 0.5
        halves = [0, 1]
        rng.shuffle(halves)
        paths: list[str] = []
        while len(paths) < 2:
            path = rng.choice(sorted(self.cutouts))
            if self.cutouts[path] not in [self.cutouts[selected] for selected in paths]:
                paths.append(path)
        masks = {
            self.cutouts[path]: self._paste(canvas, path, half, side_by_side, rng)
            for half, path in zip(halves, paths, strict=True)
        }
        first, second = masks.values()
        first &= ~second  # the second object covers part of the first
        return canvas.convert("RGB"), masks

    def _paste(self, canvas: Image.Image, path: str, half: int, side_by_side: bool, rng: random.Random) -> Mask:
        """Paste a cut-out into one half of the canvas, and return the mask of its opaque pixels."""
        size, cutout = self.size, _load_cutout(self.root / path).copy()
        side = int(size * rng.uniform(*OBJECT_SIZES))
        cutout.thumbnail((side, side), Image.Resampling.LANCZOS)
        extent = cutout.height if side_by_side else cutout.width
        along = int(size * HALF_CENTRES[half]) + rng.randint(-MAX_JITTER, MAX_JITTER)
        across = rng.randint(extent // 2, size - extent // 2)
        x, y = (along, across) if side_by_side else (across, along)
        left = min(max(x - cutout.width // 2, 0), size - cutout.width)
        top = min(max(y - cutout.height // 2, 0), size - cutout.height)
        canvas.alpha_composite(cutout, (left, top))
        mask = np.zeros((size, size), bool)
        mask[top : top + cutout.height, left : left + cutout.width] = np.asarray(cutout.getchannel("A")) > OPAQUE_ALPHA
        return mask


def _find_cutouts(path: Path) -> dict[str, str]:
    """Return the class of each cut-out, by path."""
    if find_kind(path / CUTOUTS_FILE, CUTOUTS_FILE):
        return _read_table(path)
    if all((path / name).is_file() for name in TUXPAINT_CUTOUTS):
        return dict(TUXPAINT_CUTOUTS)
    images = sorted(entry for entry in path.rglob("*.png") if _has_alpha(entry))
    return {
        entry.relative_to(path).as_posix(): (entry.stem if entry.parent == path else entry.parent.name)
        for entry in images
    }


def _read_table(path: Path) -> dict[str, str]:
    try:
        check_file(path / CUTOUTS_FILE, CUTOUTS_FILE, max_bytes=MAX_JSON_BYTES)
        table = parse_json((path / CUTOUTS_FILE).read_bytes())
        if not isinstance(table, dict) or not all(isinstance(label, str) for label in table.values()):
            raise ValueError("it is not an object of paths and class names")
    except ExtremalValueError:
        raise
    except (OSError, ValueError) as error:
        raise ExtremalValueError(
            f"{CUTOUTS_FILE} must be a JSON object {{path: class}}, got {quote(path / CUTOUTS_FILE)}: "
            f"{describe_error(error)}"
        ) from None
    for name in table:
        find_kind(path / name, "a cut-out")
        if not (path / name).resolve().is_relative_to(path.resolve()):
            raise ExtremalValueError(
                f"a cut-out must lie in its folder, {CUTOUTS_FILE} names {quote(name)}; move it there"
            )
        require_file(path / name, "a folder of cut-outs")
    return table


def _has_alpha(path: Path) -> bool:
    try:
        check_file(path, "a cut-out", max_bytes=MAX_FILE_BYTES)
        with Image.open(path, formats=CUTOUT_FORMATS) as image:
            return "A" in image.getbands()
    except Exception:  # it is no image
        return False


@cache
def _load_cutout(path: Path) -> Image.Image:
    """Read a cut-out, cropped to its pixels that are not transparent."""
    check_file(path, "a cut-out", max_bytes=MAX_FILE_BYTES)
    try:
        with Image.open(path, formats=CUTOUT_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it has more than {MAX_PIXELS // 10**6} megapixels")
            cutout = image.convert("RGBA")
    except Exception as error:  # decoders raise almost anything on broken files
        raise ExtremalValueError(
            f"a cut-out must be an image that Pillow reads, {quote(path)} is not: {describe_error(error)}"
        ) from None
    box = cutout.getchannel("A").getbbox()
    if box is None or max(np.asarray(cutout.getchannel("A")).flat) <= OPAQUE_ALPHA:
        raise ExtremalValueError(f"a cut-out must have opaque pixels, {quote(path)} has none; remove it")
    return cutout.crop(box)


@cache
def _load_textures(size: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Return photographs of grass, gravel and brick, twice the size of a scene."""
    try:
        import skimage.data
    except ImportError:
        raise ExtremalValueError(
            "planted scenes must have scikit-image for their backgrounds, it is not installed; "
            "install extremal[benchmark]"
        ) from None
    photographs: Any = skimage.data
    textures = (photographs.grass(), photographs.gravel(), photographs.brick())
    doubled = (size * 2, size * 2)
    return tuple(np.asarray(Image.fromarray(texture).resize(doubled, Image.Resampling.BICUBIC)) for texture in textures)
