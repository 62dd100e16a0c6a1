"""A network for the app that is quick and whose right answer is known: it sees colours, wherever they are."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from extremal.networks.network import Network
from support.toys import Colours

SIDE = 48
PATCH = (slice(8, 24), slice(20, 36))  # rows, columns: a ninth of the picture
LABELS = ("red", "green", "blue, sky", "yellow")


def _signs(picture: Image.Image) -> Tensor:
    pixels = np.array(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST))
    return torch.from_numpy(pixels).movedim(-1, 0).float() / 127.5 - 1


def colours(labels: tuple[str, ...] = LABELS) -> Network:
    """Four classes, the last of them yellow."""
    return Network(Colours(), _signs, labels, "colours", [0.5] * 3, [0.5] * 3)


def picture(colour: str = "red") -> Image.Image:
    """A patch of this colour on grey."""
    whole = Image.new("RGB", (SIDE, SIDE), "grey")
    rows, columns = PATCH
    whole.paste(colour, (columns.start, rows.start, columns.stop, rows.stop))
    return whole


def photo(path: Path, colour: str = "red") -> Path:
    """The same as a file."""
    picture(colour).save(path)
    return path


def any_photograph() -> Network:
    """Four classes that mean nothing; blur changes the scores of whatever it looks at."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    for parameter in model.parameters():
        parameter.data.normal_(generator=generator)
    return Network(model, _signs, LABELS, "any", [0.5] * 3, [0.5] * 3)
