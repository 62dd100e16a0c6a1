"""Planted scenes: photographs of single objects, cut out, on real textures; the truth is their alpha mask.

Each scene holds two objects of different ImageNet classes. The cut-outs are those of Debian's package
tuxpaint-stamps-default (`apt-get download tuxpaint-stamps-default; dpkg -x *.deb stamps`, then pass
stamps/usr/share/tuxpaint/stamps); only those that EfficientNet-Lite0 names with certainty alone are listed.
"""

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

CUTOUTS = {
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


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and where each of its objects is."""

    picture: Image.Image  # RGB, size × size
    objects: tuple[tuple[str, np.ndarray], ...]  # class name, (size, size) bool


@cache
def _backgrounds(size: int) -> tuple[np.ndarray, ...]:
    textures = (skimage.data.grass(), skimage.data.gravel(), skimage.data.brick())
    wide = (size * 2, size * 2)
    return tuple(np.asarray(Image.fromarray(t).resize(wide, Image.Resampling.BICUBIC)) for t in textures)


def scene(cutouts: Path, seed: int, size: int = 224) -> Scene:
    """The scene of this seed: two objects side by side or one above the other, at random places and sizes."""
    draw = random.Random(seed)
    texture = draw.choice(_backgrounds(size))
    top, left = draw.randrange(size), draw.randrange(size)
    tint = np.array([draw.uniform(0.75, 1.0) for _ in range(3)])
    ground = texture[top : top + size, left : left + size, None] * tint
    canvas = Image.fromarray(ground.astype(np.uint8)).convert("RGBA")
    side_by_side = draw.random() < 0.5
    halves = [0, 1]
    draw.shuffle(halves)
    names: list[str] = []
    while len(names) < 2:
        name = draw.choice(sorted(CUTOUTS))
        if CUTOUTS[name] not in [CUTOUTS[other] for other in names]:
            names.append(name)
    objects = tuple(
        (CUTOUTS[name], _place(canvas, cutouts / name, half, side_by_side, draw))
        for half, name in zip(halves, names, strict=True)
    )
    return Scene(canvas.convert("RGB"), objects)


def _place(canvas: Image.Image, path: Path, half: int, side_by_side: bool, draw: random.Random) -> np.ndarray:
    """Put a cut-out into one half of the canvas; where it is opaque."""
    size = canvas.width
    cutout = Image.open(path).convert("RGBA")
    cutout = cutout.crop(cutout.getchannel("A").getbbox())
    side = int(size * draw.uniform(0.42, 0.56))
    cutout.thumbnail((side, side), Image.Resampling.LANCZOS)
    extent = cutout.height if side_by_side else cutout.width
    along = int(size * (0.73 if half else 0.27)) + draw.randint(-6, 6)
    across = draw.randint(extent // 2, size - extent // 2)
    x, y = (along, across) if side_by_side else (across, along)
    left = min(max(x - cutout.width // 2, 0), size - cutout.width)
    top = min(max(y - cutout.height // 2, 0), size - cutout.height)
    canvas.alpha_composite(cutout, (left, top))
    inside = np.zeros((size, size), bool)
    inside[top : top + cutout.height, left : left + cutout.width] = np.asarray(cutout.getchannel("A")) > 127
    return inside
