"""Inversion and visualisation: results, seeds, batches, errors."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extremal import Network, explain_channels, invert, visualise
from extremal.explanations.channels.fourier_images import FourierImages, jitter, shift, total_variation
from extremal.explanations.channels.inversion import correlation
from extremal.masking.solvers import Path
from extremal.networks.split import compute_activations
from support.errors import message_of

SHAPE = (3, 24, 24)


class Small(nn.Module):
    """Two convolutions and a head."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 5, 3, stride=2, padding=1)
        self.head = nn.Linear(5, 2)
        for parameter in self.parameters():
            parameter.data.normal_(std=0.4, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))


NETWORK = Network(Small(), mean=[0.5] * 3, std=[0.25] * 3, name="small")


def smooth_input(count: int = 1, contrast: float = 200.0) -> Tensor:
    """Pictures of a few waves, as the network takes them."""
    pictures = FourierImages((count, *SHAPE), seed=3)
    with torch.no_grad():
        pictures.spectrum *= contrast
        return NETWORK.normalise(pictures.pixels())


def test_inversion_reaches_the_activations() -> None:
    x = smooth_input(2)
    found = invert(NETWORK, "second", x, steps=150, smooth=0.01)
    assert found.parts == ("all",)
    assert (found.correlation > 0.95).all()
    with NETWORK.frozen() as run:
        again = compute_activations(run, NETWORK.model.second, found.inputs[:, 0])  # type: ignore[arg-type]
        wanted = compute_activations(run, NETWORK.model.second, x)  # type: ignore[arg-type]
    torch.testing.assert_close(correlation(again, wanted), found.correlation[:, 0], rtol=1e-4, atol=1e-4)
    pixels = ((found.inputs[:, 0] * 0.25 + 0.5) * 255).round().byte().movedim(1, -1)
    assert torch.equal(pixels, found.pictures[:, 0])


def test_kept_and_removed_channels_differ() -> None:
    x, mask = smooth_input(), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    found = invert(NETWORK, "second", x, mask, steps=60)
    assert found.parts == ("all", "kept", "removed")
    assert found.pictures.shape == (1, 3, 24, 24, 3)
    with NETWORK.frozen() as run:
        whole = compute_activations(run, NETWORK.model.second, x)  # type: ignore[arg-type]
        reached = compute_activations(run, NETWORK.model.second, found.inputs[0])  # type: ignore[arg-type]
    kept = whole * mask.view(1, -1, 1, 1)
    alike = correlation(reached, kept.expand(3, -1, -1, -1))
    assert alike[1] > alike[0] > alike[2]


def test_the_mask_of_a_result_is_an_array() -> None:
    x = smooth_input()
    result = explain_channels(NETWORK, x, "second", 0, counts=(2,), solver=Path(steps=3, polish=0, search=0))
    mask = result.mask(2)
    assert mask.dtype == bool
    expected = invert(NETWORK, "second", x, torch.from_numpy(mask).float(), steps=5)
    for same in (mask, mask.astype("float64"), mask.tolist()):
        assert torch.equal(invert(NETWORK, "second", x, same, steps=5).inputs, expected.inputs)


def test_activations_may_be_given() -> None:
    x = smooth_input()
    with NETWORK.frozen() as run:
        wanted = compute_activations(run, NETWORK.model.second, x)  # type: ignore[arg-type]
    found = invert(NETWORK, "second", wanted, size=SHAPE, steps=30)
    assert found.originals.shape == (1, 0, 0, 3)
    torch.testing.assert_close(found.inputs, invert(NETWORK, "second", x, steps=30).inputs, rtol=1e-3, atol=1e-3)


def test_maximisation_raises_its_own_channel_above_others() -> None:
    found = visualise(NETWORK, "second", (0, 3), size=SHAPE, steps=200)
    with NETWORK.frozen() as run:
        x = NETWORK.normalise(found.pictures.movedim(-1, 1) / 255)
        reached = compute_activations(run, NETWORK.model.second, x).flatten(2).amax(2)  # type: ignore[arg-type]
        noise = compute_activations(run, NETWORK.model.second, smooth_input(200, 40.0)).flatten(2).amax(2)  # type: ignore[arg-type]
    torch.testing.assert_close(reached[[0, 1], [0, 3]], found.activations, rtol=0.02, atol=0.05)
    assert reached[0, 0] > reached[1, 0]
    assert reached[1, 3] > reached[0, 3]
    assert (found.activations > noise.amax(0)[[0, 3]]).all()


def test_patches_come_from_the_images_with_the_highest_activation() -> None:
    images = [smooth_input(4)[k : k + 1] for k in range(4)]
    found = visualise(NETWORK, "second", (1, 2), images=images, steps=1)
    assert found.patches.shape[:2] == (2, 4)
    with NETWORK.frozen() as run:
        values = torch.cat([compute_activations(run, NETWORK.model.second, x) for x in images])  # type: ignore[arg-type]
    peaks = values.flatten(2).amax(2)
    for m, channel in enumerate((1, 2)):
        order = peaks[:, channel].argsort(descending=True)
        assert found.patch_images[m].tolist() == order.tolist()
        torch.testing.assert_close(found.patch_activations[m], peaks[order, channel])


def test_patches_of_prepared_inputs() -> None:
    x = smooth_input(4)
    wanted = visualise(NETWORK, "second", np.array([1, 2]), images=[row[None] for row in x], steps=1)  # type: ignore[arg-type]
    for images in (x, [x], [x[:1], x[1:]]):
        found = visualise(NETWORK, "second", (1, 2), images=images, steps=1)  # type: ignore[arg-type]
        assert torch.equal(found.patches, wanted.patches)


@pytest.mark.parametrize("work", ["invert", "visualise"])
def test_seeded_batched_and_the_network_is_left_alone(work: str) -> None:
    before = {name: value.clone() for name, value in NETWORK.model.state_dict().items()}

    def run(network: Network, seed: int) -> Tensor:
        if work == "invert":
            return invert(network, "second", smooth_input(2), steps=5, seed=seed).pictures
        return visualise(network, "second", (0, 1), size=SHAPE, steps=5, seed=seed).pictures

    first = run(NETWORK, 0)
    assert torch.equal(first, run(NETWORK, 0))
    assert not torch.equal(first, run(NETWORK, 1))
    tight = Network(NETWORK.model, mean=[0.5] * 3, std=[0.25] * 3, memory=1e-9)  # one row at a time
    assert run(tight, 0).shape == first.shape
    assert all(torch.equal(value, before[name]) for name, value in NETWORK.model.state_dict().items())
    assert not NETWORK.model.second._forward_hooks  # type: ignore[union-attr]


def test_pictures_of_the_fourier_basis() -> None:
    pictures = FourierImages((2, 3, 9, 14), seed=0)
    pixels = pictures.pixels()
    assert pixels.shape == (2, 3, 9, 14)
    assert ((pixels > 0) & (pixels < 1)).all()
    grey = FourierImages((1, 1, 8, 8), seed=0).pixels()
    assert grey.shape == (1, 1, 8, 8)
    assert float(total_variation(torch.ones(1, 3, 4, 4))) == 0.0
    steps = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    assert float(total_variation(steps)) == 1.0


def test_moves_keep_the_size_and_small_ones_hardly_change() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = smooth_input()
    assert torch.equal(shift(pixels, 0, generator), pixels)
    assert shift(pixels, 3, generator).shape == pixels.shape
    torch.testing.assert_close(
        jitter(pixels, generator, max_shift=0.0, max_rotation=0.0, max_zoom=0.0), pixels, rtol=1e-4, atol=1e-4
    )
    assert (jitter(pixels, generator, max_shift=0.1, max_rotation=0.2, max_zoom=0.1) - pixels).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: invert(NETWORK, "secnd", smooth_input()), "a layer must be the name of a module in small, got 'secnd';"
         " did you mean second, head? extremal.layers(network) or `extremal layers` lists them"),
        (lambda: invert(NETWORK, "second", smooth_input(), torch.ones(4)),
         "a mask must have one value for each of 5 channels, (1, 5) or (5,), got (4,)"),
        (lambda: invert(NETWORK, "second", smooth_input(), "kept"),
         "a mask must be a tensor or an array with one value for each of 5 channels, got str; e.g. explanation.mask()"),
        (lambda: invert(NETWORK, "second", np.zeros((1, 5, 12, 12)), size=SHAPE),
         "with size, source must be a floating tensor of activations (N, K, ...), got ndarray; convert an array with"
         " torch.from_numpy"),
        (lambda: invert(NETWORK, "second", smooth_input(), torch.full((5,), 2.0)),
         "a mask must lie in [0, 1], got values from 2 to 2"),
        (lambda: invert(NETWORK, "second", smooth_input(), steps=0),
         "steps must be at least 1, got 0; 200 are usual"),
        (lambda: invert(NETWORK, "second", torch.zeros(1, 5, 3, 3), size=SHAPE),
         "activations must have the shape of the layer's output, (N, *(5, 12, 12)) for 'second' at (3, 24, 24),"
         " got (1, 5, 3, 3)"),
        (lambda: invert(NETWORK, "second", torch.full((1, 5, 12, 12), torch.nan), size=SHAPE),
         "activations must be finite, and of at least one input, got NaN or infinite values; record them again from"
         " an image"),
        (lambda: invert(NETWORK, "second", torch.zeros(0, 5, 12, 12), size=SHAPE),
         "activations must be finite, and of at least one input, got those of no input; record them again from an"
         " image"),
        (lambda: invert(NETWORK, "second", torch.zeros(1, 3, 24)),
         "a layer must belong to a network of images (1 or 3, H, W) to be visualised, got the input shape (3, 24);"
         " choose another network"),
        (lambda: invert(NETWORK, "second", torch.zeros(1, 7, 3, 3)),
         "an input must have a channel for each of the 3 values of mean and std, small got 7; pass an image, or what"
         " network.prepare(image) returns, or correct mean and std"),
        (lambda: visualise(NETWORK, "second", (5,), size=SHAPE),
         "channels must lie in 0..4 for 'second', which has 5, got 5"),
        (lambda: visualise(NETWORK, "second", (), size=SHAPE),
         "channels must name at least one channel, got none; e.g. (0, 7)"),
        (lambda: visualise(NETWORK, "second", (0.5,), size=SHAPE),
         "channels must be a sequence of whole numbers, got (0.5,); e.g. (0, 7)"),
        (lambda: visualise(NETWORK, "second", 1, size=SHAPE),
         "channels must be a sequence of whole numbers, got 1; e.g. (0, 7)"),
        (lambda: visualise(NETWORK, 1, (1,), size=SHAPE),
         "a layer must be the name of a module in small, got 1; extremal.layers(network) or `extremal layers` "
         "lists them"),
        (lambda: visualise(NETWORK, "second", (1,), size=(3, 24.0, 24)),
         "size must be a sequence of whole numbers, got (3, 24.0, 24); e.g. (3, 224, 224)"),
        (lambda: visualise(NETWORK, "second", (1,), size=(3, 0, 24)),
         "size must be (C, H, W) with 1 or 3 channels and at most 4 megapixels, got (3, 0, 24); e.g. (3, 224, 224)"),
        (lambda: visualise(NETWORK, "second", (1,), size=(3, 9999, 9999)),
         "size must be (C, H, W) with 1 or 3 channels and at most 4 megapixels, got (3, 9999, 9999); e.g."
         " (3, 224, 224)"),
        (lambda: visualise(NETWORK, "second", (1,), images="cat.png"),
         "images must be a list of images, or prepared inputs (N, C, *S), got str; e.g. [image]"),
        (lambda: visualise(NETWORK, "second", (1,), size=SHAPE, axis="1"),
         "axis must be a whole number, got '1'; e.g. 1"),
        (lambda: invert(NETWORK, "second", smooth_input(), steps=1.5),
         "steps must be a whole number, got 1.5; 200 are usual"),
        (lambda: invert(NETWORK, "second", smooth_input(), steps=2.0),
         "steps must be a whole number, got 2.0; 200 are usual"),
        (lambda: invert(NETWORK, "second", smooth_input(), smooth="1"),
         "smooth must be a number, got '1'; 0.5 is usual"),
        (lambda: invert(NETWORK, "second", smooth_input(), smooth=float("nan")),
         "smooth must be at least 0 and finite, got nan; 0.5 is usual"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(work: Any, message: str) -> None:
    assert message_of(work) == message
