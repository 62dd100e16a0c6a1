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
UNEQUAL_COLUMNS = ("seconds",)  # columns in which two runs may differ


def write_images(folder: Path, count: int, broken: tuple[int, ...] = ()) -> Path:
    """So many variations of the picture that the network knows, some of them cut off."""
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
    """The picture on which `deadly` ends its process."""
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(path)
    return path


def deadly() -> Network:
    """As `sound`, but a black picture ends the process that prepares it, as the system does where memory is short."""

    def end(picture: Image.Image) -> None:
        if not np.asarray(picture).any():
            os.kill(os.getpid(), signal.SIGKILL)

    return make_disturbed_network("deadly", end)


def slow() -> Network:
    """As `sound`, but a picture takes so long to prepare that a run is not over before it is disturbed."""
    return make_disturbed_network("slow", lambda _: time.sleep(0.4))


def make_disturbed_network(name: str, before: Callable[[Image.Image], object]) -> Network:
    """As `sound`, but something happens before a picture is prepared."""
    network = sound()
    known = network.preprocess
    assert known is not None

    def prepare(picture: Image.Image) -> Tensor:
        before(picture)
        return known(picture)

    return Network(Boxes(TEXTURE, [BOX]), prepare, network.labels, name, network.mean, network.std)


def comparable_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a run without what two runs may differ in."""
    return table.drop_columns(list(UNEQUAL_COLUMNS)).to_pylist()


__all__ = ["DEADLY", "NETWORK", "SLOW", "write_black_image", "deadly", "write_images", "comparable_rows", "slow", "sound"]
