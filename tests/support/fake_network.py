"""A tiny network for the command line: it looks at one box of a small picture."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extremal.networks.network import Network
from support.toys import Boxes, texture

SIDE = 24
BOX = (slice(4, 14), slice(6, 16))
TEXTURE = texture(1, 3, SIDE, SIDE)


def fake_network() -> Network:
    """Scores the likeness of the box to `photo`'s; two classes, with names."""

    def signs(picture: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(picture)).movedim(-1, 0).float() / 127.5 - 1

    return Network(Boxes(TEXTURE, [BOX]), signs, ("tabby, tabby cat", "tiger cat"), "fake", [0.5] * 3, [0.5] * 3)


def photo(path: Path) -> Path:
    """A picture that the network knows."""
    pixels = ((TEXTURE[0].movedim(0, -1) + 1) * 127.5).byte().numpy()
    Image.fromarray(pixels).save(path)
    return path
