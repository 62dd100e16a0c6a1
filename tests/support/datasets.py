"""A data set of tiny pictures and networks for runs over it, loaded by name in processes of their own."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from extremal.networks.network import Network
from support.fake_network import BOX, SIDE, TEXTURE
from support.fake_network import fake_network as sound
from support.toys import Boxes

NETWORK, DEADLY, SLOW = "support.datasets:sound", "support.datasets:deadly", "support.datasets:slow"
UNLOADABLE, HANGING = "support.datasets:unloadable", "support.datasets:hanging"
UNEQUAL_COLUMNS = ("seconds",)  # columns in which two runs may differ


def write_images(folder: Path, count: int, broken: tuple[int, ...] = ()) -> Path:
    """Write variations of the image that the network recognises, some of them truncated."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        noise = 0.3 * torch.randn(3, SIDE, SIDE, generator=generator)
        pixels = ((TEXTURE[0] + noise).clamp(-1, 1).movedim(0, -1) + 1) * 127.5
        path = folder / f"picture-{index:03d}.png"
        Image.fromarray(pixels.byte().numpy()).save(path)
        if index in broken:
            path.write_bytes(path.read_bytes()[:200])
    return folder


def write_black_image(path: Path) -> Path:
    """Write the image on which `deadly` kills its process."""
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(path)
    return path


def deadly() -> Network:
    """Like `sound`, but a black image kills the process that prepares it, as the system does if memory is short."""

    def end(picture: Image.Image) -> None:
        if not np.asarray(picture).any():
            os.kill(os.getpid(), signal.SIGKILL)

    return make_disturbed_network("deadly", end)


def unloadable() -> Network:
    """Fail, as a network that no worker can load."""
    raise RuntimeError("no weights here")


def hanging() -> Network:
    """Like `sound`, but preparing a black image never ends."""

    def hang(picture: Image.Image) -> None:
        while not np.asarray(picture).any():
            time.sleep(0.1)

    return make_disturbed_network("hanging", hang)


def printing() -> Network:
    """Like `sound`, but it prints when it is loaded and when an image is prepared."""
    print("loading")  # noqa: T201
    return make_disturbed_network("printing", lambda _: print("preparing"))  # noqa: T201


def slow() -> Network:
    """Like `sound`, but preparing an image takes so long that a run does not finish before it is disturbed."""
    return make_disturbed_network("slow", lambda _: time.sleep(0.4))


def make_disturbed_network(name: str, before: Callable[[Image.Image], object]) -> Network:
    """Like `sound`, but with a side effect before an image is prepared."""
    network = sound()
    known = network.preprocess
    assert known is not None

    def prepare(picture: Image.Image) -> Tensor:
        before(picture)
        return known(picture)

    return Network(Boxes(TEXTURE, [BOX]), prepare, network.labels, name, network.mean, network.std)


def comparable_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a run without the columns in which two runs may differ."""
    return table.drop_columns(list(UNEQUAL_COLUMNS)).to_pylist()


__all__ = [
    "DEADLY",
    "HANGING",
    "NETWORK",
    "SLOW",
    "comparable_rows",
    "deadly",
    "hanging",
    "slow",
    "sound",
    "write_black_image",
    "write_images",
]
