"""Fast networks for the app with known answers: they see colours, anywhere in an image."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from extremal.networks.network import Network
from support.toys import Colours

SIDE = 48
PATCH = (slice(8, 24), slice(20, 36))  # rows, columns: a ninth of the image
LABELS = ("red", "green", "blue, sky", "yellow")


def _preprocess(image: Image.Image) -> Tensor:
    pixels = np.array(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST))
    return torch.from_numpy(pixels).movedim(-1, 0).float() / 127.5 - 1


def colour_network(labels: tuple[str, ...] = LABELS) -> Network:
    """Build a network with four classes, the last of them yellow."""
    return Network(Colours(), _preprocess, labels, "colours", [0.5] * 3, [0.5] * 3)


def colour_image(colour: str = "red") -> Image.Image:
    """Return a patch of this colour on grey."""
    image = Image.new("RGB", (SIDE, SIDE), "grey")
    rows, columns = PATCH
    image.paste(colour, (columns.start, rows.start, columns.stop, rows.stop))
    return image


def save_colour_image(path: Path, colour: str = "red") -> Path:
    """Save a patch of this colour on grey."""
    colour_image(colour).save(path)
    return path


def random_network() -> Network:
    """Build a network with four meaningless classes; blur changes its scores on any image."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    for parameter in model.parameters():
        parameter.data.normal_(generator=generator)
    return Network(model, _preprocess, LABELS, "random", [0.5] * 3, [0.5] * 3)
