"""A tiny network for the command line: it sees one box of a small image."""

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
    """Build a network with two classes that compares the box with that of `save_image`."""

    def preprocess(image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 127.5 - 1

    return Network(Boxes(TEXTURE, [BOX]), preprocess, ("tabby, tabby cat", "tiger cat"), "fake", [0.5] * 3, [0.5] * 3)


def save_image(path: Path) -> Path:
    """Save an image that the network recognises, and return its path."""
    pixels = ((TEXTURE[0].movedim(0, -1) + 1) * 127.5).byte().numpy()
    Image.fromarray(pixels).save(path)
    return path
