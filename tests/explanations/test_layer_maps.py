"""Maps of hidden layers against their formulas, and through objective, chunks and games."""

import pytest
import torch
from torch import Tensor, nn

from extremal.explanations.build_objective import build_objective
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.layer_maps import compute_layer_map
from extremal.explanations.objective import Objective
from extremal.explanations.settings import Settings
from extremal.masking.perturbations import PerturbationLike
from extremal.networks.attribution_layers import AttributionLayer, find_map_layers
from extremal.networks.network import Network
from extremal.scores.target import parse_target


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def convolutional(side: int = 64) -> nn.Sequential:
    """Two stages on lattices of a 16th and a 32nd of the sides."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 12, 2, 2), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )


def objectives(
    x: Tensor, game: str = "preserve", max_rows: int = 100, perturbation: PerturbationLike = "fade"
) -> tuple[Objective, ChunkedReward]:
    net = Network(convolutional())
    settings = Settings(game=game, perturbation=perturbation, score="logit")
    with net.frozen() as run:
        layers = find_map_layers(run, x)
        assert [layer.name for layer in layers] == ["0", "1"]
        objective = build_objective(run, x, parse_target(1, settings.score), settings, layers)
    return objective, ChunkedReward(objective, max_rows)


def test_maps_of_a_layer_equal_their_formulas() -> None:
    a, g = seeded(2, 5, 3, 4), seeded(2, 5, 3, 4, seed=1)
    layer = AttributionLayer("maps", nn.Identity(), (3, 4), tokens=False)
    cam = torch.einsum("rk,rkhw->rhw", g.mean((2, 3)), a)
    torch.testing.assert_close(compute_layer_map(layer, a, g, is_last=True)[:, 0], cam)
    layer_cam = (g.clamp_min(0) * a).sum(1)
    torch.testing.assert_close(compute_layer_map(layer, a, g, is_last=False)[:, 0], layer_cam)


def test_tokens_are_maps_without_the_class_token() -> None:
    maps, g = seeded(2, 5, 4, 4), seeded(2, 5, 4, 4, seed=1)

    def tokens(values: Tensor) -> Tensor:
        return torch.cat([torch.full((2, 1, 5), 9.0), values.flatten(2).transpose(1, 2)], 1)

    layers = [AttributionLayer("t", nn.Identity(), (4, 4), tokens=is_tokens) for is_tokens in (True, False)]
    found = compute_layer_map(layers[0], tokens(maps), tokens(g), is_last=True)
    torch.testing.assert_close(found, compute_layer_map(layers[1], maps, g, is_last=True))


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_map_of_the_last_layer_is_the_classes_weights_times_its_maps(mirrored: bool) -> None:
    """With pooling and a linear head, the logit is the sum of the last map, up to its bias."""
    x = seeded(2, 3, 64, 64)
    _, reward = objectives(x)
    masks = seeded(2, 3, 1, 64, 64).sigmoid()
    found = reward.attribute(masks, mirrored, 0)
    assert [tuple(values.shape) for values in found.maps] == [(2, 3, 1, 4, 4), (2, 3, 1, 2, 2)]
    model = convolutional().requires_grad_(False)
    for n, k in ((0, 0), (1, 2)):
        kept = x[n] * masks[n, k]
        maps = model[1](model[0]((kept.flip(-1) if mirrored else kept)[None]))[0]
        expected = torch.einsum("k,khw->hw", model[4].weight[1] / 4, maps)
        expected = expected.flip(-1) if mirrored else expected
        torch.testing.assert_close(found.maps[1][n, k, 0], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.rewards, reward(masks, mirrored, 0))


def test_gradients_are_those_of_the_reward() -> None:
    _, reward = objectives(seeded(2, 3, 64, 64))
    masks = seeded(2, 3, 1, 64, 64).sigmoid()
    expected = reward.with_gradients(masks, False, 0)[1]
    torch.testing.assert_close(reward.attribute(masks, False, 0).gradients, expected)


def test_chunks_change_nothing() -> None:
    x, masks = seeded(3, 3, 64, 64), seeded(3, 4, 1, 64, 64).sigmoid()
    whole, parts = (objectives(x, max_rows=rows)[1].attribute(masks, True, 0) for rows in (100, 5))
    for a, b in zip(
        (whole.rewards, whole.gradients, *whole.maps), (parts.rewards, parts.gradients, *parts.maps), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_masks_of_several_ways_and_orientations_are_attributed_in_one_batch() -> None:
    x, masks = seeded(2, 3, 64, 64), seeded(2, 5, 1, 64, 64).sigmoid()
    turns = [(1, True), (0, False), (1, False), (0, True), (1, True)]  # way and orientation of each
    _, reward = objectives(x, perturbation=("fade", "noise"))
    ways, mirrored = zip(*turns, strict=True)
    found = reward.attribute(masks, mirrored, ways)
    for k, (way, turn) in enumerate(turns):
        alone = reward.attribute(masks[:, k : k + 1], turn, way)
        both = zip(
            (found.rewards, found.gradients, *found.maps), (alone.rewards, alone.gradients, *alone.maps), strict=True
        )
        for a, b in both:
            torch.testing.assert_close(a[:, k : k + 1], b, atol=1e-5, rtol=1e-4)


def test_masks_that_delete_have_the_maps_of_what_they_remove() -> None:
    """The reward rises as the score falls: places are still positive where the score needs them."""
    x, masks = seeded(2, 3, 64, 64), seeded(2, 3, 1, 64, 64).sigmoid()
    kept = objectives(x)[1].attribute(1 - masks, False, 0)
    deleted = objectives(x, "delete")[1].attribute(masks, False, 0)
    for a, b in zip(kept.maps, deleted.maps, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(kept.gradients, deleted.gradients)


def test_dual_masks_have_the_maps_of_both_parts() -> None:
    x, masks = seeded(1, 3, 64, 64), seeded(1, 2, 1, 64, 64).sigmoid()
    parts = [objectives(x)[1].attribute(part, False, 0).maps for part in (masks, 1 - masks)]
    both = objectives(x, "dual")[1].attribute(masks, False, 0).maps
    for total, a, b in zip(both, *parts, strict=True):
        torch.testing.assert_close(total, a + b)


def test_a_layer_that_is_called_twice_gives_no_map() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = convolutional()

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x) + self.model(x.flip(-1))

    x = seeded(1, 3, 64, 64)
    settings = Settings(perturbation="fade", score="logit")
    net = Network(Twice())
    with net.frozen() as run:
        assert find_map_layers(run, x) == ()
        layer = AttributionLayer("model.0", net.model.get_submodule("model.0"), (4, 4), tokens=False)
        objective = build_objective(run, x, parse_target(1, settings.score), settings, (layer,))
        (found,) = objective.attribute(torch.full((1, 2, 1, 64, 64), 0.5), False, 0).maps
    assert not found.any()
