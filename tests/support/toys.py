"""Networks whose correct explanation is known, with an input for each."""

import torch
from torch import Tensor, nn

from extremal.masking.perturbations import Perturb

Box = tuple[slice, ...]


def texture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw signs ±1 for each place, which blur removes almost completely. (1, C, *S) or any other shape."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(dtype)


def box_mask(box: Box, shape: tuple[int, ...]) -> Tensor:
    """Return the mask (*S) that is 1 in the box and 0 elsewhere."""
    mask = torch.zeros(shape)
    mask[box] = 1.0
    return mask


def build_classifier() -> nn.Module:
    """Return a convolutional network of two classes and any size of images, with seeded weights."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)
    return nn.Sequential(*layers)


class Boxes(nn.Module):
    """Depends only on some boxes of the input, in all channels or one.

    y_0 = gain · mean over boxes of tanh(2 · mean over the box of x·template); y_1 = 0. The template is the input's own
    texture, so that the unperturbed input scores gain·tanh(2), for which every box is needed.
    """

    template: Tensor

    def __init__(self, template: Tensor, boxes: list[Box], *, channel: int | None = None, gain: float = 5.0) -> None:
        super().__init__()
        self.register_buffer("template", template[:1].clone())
        self.boxes, self.gain = boxes, gain
        self.channel = slice(None) if channel is None else slice(channel, channel + 1)

    def forward(self, x: Tensor) -> Tensor:
        correlation = (x * self.template)[:, self.channel]
        parts = [torch.tanh(2 * correlation[(..., *box)].flatten(1).mean(1)) for box in self.boxes]
        score = self.gain * torch.stack(parts).mean(0)
        return torch.stack([score, torch.zeros_like(score)], 1)


class AnyBox(nn.Module):
    """Needs any one of some equal boxes: y_0 = gain · max over boxes of the mean of (x − ½)·template; y_1 = 0.

    One grey level of noise decides which box is the largest, and so which one a solver finds.
    """

    template: Tensor

    def __init__(self, template: Tensor, boxes: list[Box], *, gain: float = 40.0) -> None:
        super().__init__()
        self.register_buffer("template", template[:1].clone())
        self.boxes, self.gain = boxes, gain

    def forward(self, x: Tensor) -> Tensor:
        correlation = (x - 0.5) * self.template
        score = self.gain * torch.stack([correlation[(..., *box)].flatten(1).mean(1) for box in self.boxes]).amax(0)
        return torch.stack([score, torch.zeros_like(score)], 1)


class Linear(nn.Module):
    """The one output y_0 is the mean over places of w·x: for an input of ones under fade, Φ(m) = mean(w·m).

    The best mask of area a is 1 at the a|Ω| places of largest w.
    """

    weights: Tensor

    def __init__(self, weights: Tensor, gain: float = 10.0) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x * self.weights).flatten(1).mean(1, keepdim=True)


def hills(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return smooth weights (*S) with two unequal hills that are wide compared to the lattice."""
    lines = [torch.linspace(0, 1, size, dtype=torch.float64) for size in shape]
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)

    def hill(centre: float, width: float) -> Tensor:
        return torch.exp(-(grid - centre).square().sum(-1) / (2 * width**2))

    return (hill(0.3, 0.16) + 0.8 * hill(0.75, 0.13)).to(dtype)


class Switchable(nn.Module):
    """A small ordinary network with state that could be left changed: batch norm, dropout, buffers."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(6, 4)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1  # in place, also in evaluation mode, as some quantised layers do
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))).mean((2, 3)))


def overlap(a: Tensor, b: Tensor) -> float:
    """Return the intersection over union of two masks of zeros and ones."""
    intersection, union = torch.minimum(a, b).sum(), torch.maximum(a, b).sum()
    return float(intersection / union)


class Brittle(nn.Module):
    """√ of the mean: NaN if the input is dark enough, as the second of `BRITTLE_INPUTS` may become."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(1, keepdim=True).sub(0.2).sqrt()


def dim(x: Tensor) -> Perturb:
    """Fade to grey: to dark grey if the input is dark."""
    bright = x.mean((1, 2, 3), keepdim=True).unsqueeze(1) > 0.4
    return lambda mask: x[:, None] * mask + (1 - mask) * torch.where(bright, 0.5, 0.21)


BRITTLE_INPUTS = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) + 0.3
BRITTLE_INPUTS[1] = 0.21
BRITTLE_INPUTS[1, :, :4], BRITTLE_INPUTS[1, :, 4:8] = 0.0, 0.5


class Carriers(nn.Module):
    """64 channels, some sets of which carry class 0, each set alone; no set carries class 1.

    y_0 = gain · max over sets of (mean of tanh in the set)²: all channels of a set are needed; one set is sufficient.
    """

    def __init__(self, sizes: list[int], *, seed: int, channels: int = 64, gain: float = 6.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(100 + seed)
        self.features = nn.Conv2d(3, channels, 1)
        self.features.weight.data.uniform_(0.5, 1.5, generator=generator)  # positive on positive inputs
        self.features.bias.data.zero_()  # type: ignore[union-attr]
        order = torch.randperm(channels, generator=generator).tolist()
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        self.sets = [tuple(sorted(order[first : first + size])) for first, size in zip(starts, sizes, strict=True)]
        self.gain = gain

    def tail(self, activations: Tensor) -> Tensor:
        """Activations (B, 64, H, W) -> (B, 2)."""
        pooled = torch.tanh(activations.mean((2, 3)))
        score = self.gain * torch.stack([pooled[:, list(channels)].mean(1) for channels in self.sets]).square().amax(0)
        return torch.stack([score, pooled[:, 0] * 0], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.features(x))


class Colours(nn.Module):
    """Measures the amounts of red, green, blue and yellow (classes 0 to 3); ignores grey."""

    COLOURS = ((1, -1, -1), (-1, 1, -1), (-1, -1, 1), (1, 1, -1))

    def __init__(self, gain: float = 100.0) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 1)
        self.features.weight.data = torch.tensor(self.COLOURS, dtype=torch.float32)[..., None, None]
        self.features.bias.data.fill_(-2.0)  # type: ignore[union-attr]
        self.act = nn.ReLU()
        self.head = nn.Linear(4, 4)
        self.head.weight.data, self.head.bias.data = gain * torch.eye(4), torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.features(x)).mean((2, 3)))


class SharedEvidence(nn.Module):
    """Two classes share the evidence of one box; a second box only divides it between them.

    With e = gain · mean of x·template over the first box, and d the same over the second, y_0 = e + log σ(d) and
    y_1 = e + log σ(−d), so that log(exp y_0 + exp y_1) = e whatever d is; y_2 = y_3 = 0. The group {0, 1} needs the
    first box only, class 0 both.
    """

    template: Tensor

    def __init__(self, template: Tensor, evidence: Box, division: Box, *, gain: float = 6.0) -> None:
        super().__init__()
        self.register_buffer("template", template[:1].clone())
        self.evidence, self.division, self.gain = evidence, division, gain

    def forward(self, x: Tensor) -> Tensor:
        e, d = (
            self.gain * (x * self.template)[(..., *box)].flatten(1).mean(1) for box in (self.evidence, self.division)
        )
        zero = torch.zeros_like(e)
        return torch.stack([e + nn.functional.logsigmoid(d), e + nn.functional.logsigmoid(-d), zero, zero], 1)


class Square(nn.Module):
    """Scores (0, s, −s) with s the mean of one square, behind a batch norm and a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale * self.norm(x)[:, :, 8:20, 8:20].mean((1, 2, 3))
        return torch.stack([0 * score, score, -score], 1)
