"""Channels of a class: means, intervals, overlap, parquet, errors."""

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from torch import Tensor, nn

from extremal import ExtremalValueError, class_channels
from extremal.explanations.channels.class_ranking import bootstrap_interval, class_overlap
from support.errors import message_of
from support.toys import Carriers

X = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.2


def test_the_channels_of_the_class_come_first() -> None:
    toy = Carriers([3], seed=1)
    found = class_channels(toy, X, "features", 0, score="logit")
    assert set(found.ranking()[:3]) == set(toy.sets[0])
    assert found.mean[list(toy.sets[0])].tolist() == [1.0] * 3
    assert float(found.mean.sum()) == 3.0
    assert found.low[list(toy.sets[0])].tolist() == [1.0] * 3
    assert found.sets.shape == (5, 64)
    assert (found.effects >= 0.9).all()


class Against(nn.Module):
    """Its layer supports class 0 where the light is above a half, and speaks against it elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 1)
        nn.init.ones_(self.features.weight)
        nn.init.zeros_(self.features.bias)

    def forward(self, x: Tensor) -> Tensor:
        light = self.features(x).mean((2, 3)).mean(1)
        score = torch.where(light > 1.5, light, -light)
        return torch.stack([score, torch.zeros_like(score)], 1)


def test_images_that_the_layer_does_not_support_are_left_out() -> None:
    images = torch.cat([torch.full((2, 3, 8, 8), 0.9), torch.full((1, 3, 8, 8), 0.1)])
    with pytest.warns(UserWarning, match="1 of 3 images are left out, in which features does not support class 0"):
        found = class_channels(Against(), images, "features", 0, score="logit")
    assert found.sets.shape == (2, 4)
    assert message_of(class_channels, Against(), images[2:], "features", 0, score="logit").startswith(
        "a class must have an image that features supports, class 0 has none among 1: destroying all channels raises"
    )


def test_pictures_of_any_kind_are_taken() -> None:
    pictures = [np.random.default_rng(k).integers(60, 255, (8, 8, 3)).astype(np.uint8) for k in range(3)]
    toy = Carriers([2], seed=0)
    assert set(class_channels(toy, pictures, "features", 0, score="logit").ranking()[:2]) == set(toy.sets[0])


def test_intervals_hold_the_mean_and_shrink_with_images() -> None:
    values = (torch.rand(40, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    low, high = bootstrap_interval(values, 0)
    assert ((low <= values.mean(0)) & (values.mean(0) <= high)).all()
    few_low, few_high = bootstrap_interval(values[:8], 0)
    assert (few_high - few_low).mean() > 1.5 * (high - low).mean()
    deviation = (values.mean(0) * (1 - values.mean(0)) / 40).sqrt()
    torch.testing.assert_close(high - low, 2 * 1.96 * deviation, rtol=0.15, atol=0.01)  # the normal approximation


def test_overlap_of_classes() -> None:
    same, other = Carriers([2], seed=0), Carriers([2], seed=0)
    one = class_channels(same, X, "features", 0, score="logit")
    two = class_channels(other, X, "features", 0, score="logit")
    torch.testing.assert_close(class_overlap([one, two]), torch.ones(2, 2))
    third = class_channels(Carriers([2], seed=3), X, "features", 0, score="logit")
    with pytest.raises(ExtremalValueError, match="classes must be of one layer of one network"):
        class_overlap([one, third])


def test_table_and_parquet(tmp_path: Path) -> None:
    found = class_channels(Carriers([3], seed=1), X, "features", 0, score="logit")
    found.save(tmp_path / "a.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.equals(found.table())
    assert table.column("channel").to_pylist() == list(found.ranking())
    assert table.column("rank").to_pylist() == list(range(64))
    means = table.column("mean").to_pylist()
    assert means == sorted(means, reverse=True)
    assert set(table.column("images").to_pylist()) == {5}


def test_bad_input_is_refused() -> None:
    toy = Carriers([3], seed=1)
    assert (
        message_of(class_channels, toy, [], "features", 0)
        == "a class must have at least one image, got none for 0; pass images that show it"
    )
    sizes = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)]
    assert message_of(class_channels, toy, sizes, "features", 0) == (
        "images of a class must have one size once prepared for the network, got (3, 8, 8) and, for image 1, "
        "(3, 8, 9); resize them, or give the network a preprocess that does"
    )
    assert message_of(class_overlap, []) == (
        "classes must be at least one result of class_channels, got none; pass a list of them"
    )
    tokens = nn.Sequential(nn.Flatten(2), nn.Linear(64, 16), nn.Flatten(), nn.Linear(48, 2, bias=False))
    target = int(tokens(X[:1]).argmax())  # both classes score 0 without the layer
    rankings = [class_channels(tokens, X[:1], "1", target, axis=axis) for axis in (1, 2)]
    assert message_of(class_overlap, rankings) == (
        "classes must be ranked along one axis of the layer, got 3 and 16 channels; run class_channels with the same "
        "axis"
    )
    with pytest.raises(ExtremalValueError, match="a layer must be the name of a module"):
        class_channels(nn.Sequential(toy), X, "features", 0)
