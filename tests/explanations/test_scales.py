"""Scales: at which other sizes a network is asked, by whom, and that only the search does so."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import extremal
from extremal import explain, plan
from extremal.explanations.build_objective import build_objective
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.exclusion import ExcludeRegion
from extremal.explanations.objective import Objective
from extremal.explanations.preparation import find_layers
from extremal.explanations.scales import Resizing, scale_shape
from extremal.explanations.settings import Settings
from extremal.masking.grid import apply_along_axes, gaussian_blur, resampling_matrix, resize
from extremal.masking.solvers import Consensus, Step
from extremal.networks.network import Network
from extremal.scores.target import Target, parse_target
from support.toys import texture

SIDE = 192
LARGER, SMALLER = 256, 128  # 1.25 and 0.7 of it, in multiples of 32
MOST = {"fast": 39, "normal": 92, "thorough": 175}  # equivalents of a forward-backward pass at five areas, by places


def pooled(channels: int = 3) -> nn.Module:
    """Return a network of any size of images."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=8, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


def flattened() -> nn.Module:
    """Return a network of one size."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=16, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 12 * 12, 5)
    ).eval()


class Sides(list[int]):
    """The sides of the inputs of a network, in the order of its evaluations."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        module.register_forward_pre_hook(lambda _, args: self.append(args[0].shape[-1]))


def objective_of(module: nn.Module, x: Tensor, target: Target = 1, **options: Any) -> Objective:
    settings = Settings(**options)
    network = Network(module)
    with network.frozen() as run:
        layers = find_layers(run, x, settings)
        return build_objective(run, x, parse_target(target, settings.score), settings, layers)


def resize_to(x: Tensor, scale: float) -> Tensor:
    return Resizing(x, scale_shape(x.shape[2:], scale))(x)


def test_sides_are_multiples_of_32() -> None:
    assert scale_shape((224, 300), 1.25) == (288, 384)
    assert scale_shape((SIDE, 160), 0.7) == (SMALLER, 128)
    assert scale_shape((10, 10), 0.7) == (32, 32)


@pytest.mark.parametrize("scale", [1.25, 0.7])
def test_resampling_keeps_constants_and_slopes(scale: float) -> None:
    ramp = torch.linspace(0, 1, SIDE).view(1, 1, 1, -1).expand(1, 3, SIDE, SIDE)
    resized = resize_to(torch.stack([torch.ones_like(ramp[0]), ramp[0]]), scale)
    assert resized.shape[2:] == scale_shape((SIDE, SIDE), scale)
    torch.testing.assert_close(resized[0], torch.ones_like(resized[0]))
    inside = resized[1, 0, 0, 8:-8]
    torch.testing.assert_close(
        inside.diff(), torch.full_like(inside[1:], float(inside.diff().mean())), atol=2e-5, rtol=0
    )


@pytest.mark.parametrize("scale", [1.25, 0.7, 0.4])
def test_devices_resize_alike(scale: float) -> None:
    x = texture(2, 3, SIDE, SIDE)
    shape = scale_shape(x.shape[2:], scale)
    sigma = (SIDE / shape[0] - 1) / 2
    matrices = [resampling_matrix(SIDE, side, max(0.0, sigma), like=x) for side in shape]
    expected = apply_along_axes(x, matrices)
    torch.testing.assert_close(resize_to(x, scale), expected, atol=3e-3, rtol=1e-3)
    if sigma > 0.25:  # the blur counts
        torch.testing.assert_close(expected, resize(gaussian_blur(x, sigma), shape), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(expected, resize(x, shape), atol=1e-2)


@pytest.mark.parametrize(
    ("module", "shape", "options"),
    [
        (flattened(), (3, SIDE, SIDE), {}),
        (pooled(1), (1, SIDE, SIDE), {}),  # a spectrogram, or a scan
        (pooled(), (3, 96, 96), {}),
        (pooled(), (3, SIDE, SIDE), {"solver": "path"}),
    ],
)
def test_where_an_input_keeps_its_size(module: nn.Module, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    assert objective_of(module, texture(1, *shape), **options).scales == ()


class Windows(nn.Module):
    """Divides its maps into windows, as MaxViT does: the sides must be multiples of 96."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = pooled()

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        windows = x.reshape(batch, channels, height // 96, 96, width // 96, 96)
        logits: Tensor = self.inner(windows.reshape(x.shape))
        return logits


def test_a_network_of_windows_keeps_its_size() -> None:
    assert objective_of(Windows(), texture(1, 3, SIDE, SIDE)).scales == ()


def test_a_question_that_is_not_about_a_class_keeps_its_size() -> None:
    x = texture(1, 3, SIDE, SIDE)
    assert objective_of(pooled(), x, lambda output: output[:, 1]).scales == ()
    assert objective_of(pooled(), x).scales == (1.25, 0.7)


def test_the_reward_at_a_scale_is_that_of_the_resized_perturbed_input() -> None:
    module, x = pooled(), texture(2, 3, SIDE, SIDE)
    objective = objective_of(module, x, [1, 2], perturbation="fade", score="logit")
    masks = torch.rand(2, 3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    scaled = ChunkedReward(objective, 4).at_scale(0.7)
    assert scaled is not None
    rows = resize_to((masks * x.unsqueeze(1)).flatten(0, 1), 0.7)
    with torch.no_grad():
        expected = module(rows).view(2, 3, 5)[torch.arange(2), :, torch.tensor([1, 2])]
        torch.testing.assert_close(scaled(masks, False), expected)
        torch.testing.assert_close(scaled(masks, True), module(rows.flip(-1)).view(2, 3, 5)[torch.arange(2), :, [1, 2]])


def test_a_larger_input_takes_the_memory_of_more_rows() -> None:
    objective = objective_of(pooled(), texture(1, 3, SIDE, SIDE))
    larger = ChunkedReward(objective, 5).at_scale(1.25)
    assert larger is not None
    assert larger.max_rows == 3
    assert ChunkedReward(objective, 1).at_scale(1.25) is None
    smaller = ChunkedReward(objective, 5).at_scale(0.7)
    assert smaller is not None
    assert smaller.max_rows == 5
    assert ChunkedReward(objective, 5).at_scale(0.9) is None


def test_regions_stay_excluded() -> None:
    objective = objective_of(pooled(), texture(1, 3, SIDE, SIDE))
    reward = ChunkedReward(objective, 5)
    excluded = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    excluded[:, : SIDE // 2] = True
    masks = torch.rand(1, 2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    outside, plain = ExcludeRegion(reward, excluded).at_scale(0.7), reward.at_scale(0.7)
    assert outside is not None
    assert plain is not None
    with torch.no_grad():
        torch.testing.assert_close(outside(masks, False), plain(masks * ~excluded, False))
    assert ExcludeRegion(reward, excluded).at_scale(0.9) is None


def test_the_search_alone_asks_at_other_sizes() -> None:
    module = pooled()
    sides, stages, n_asked = Sides(module), list[tuple[str, int]](), list[int]()

    def note(step: Step) -> None:
        stages.append((step.stage, sides[-1]))
        n_asked.append(len(sides))

    result = explain(module, texture(1, 3, SIDE, SIDE), 1, on_step=note)
    n_starts = sum(stage == "start" for stage, _ in stages) // 2
    assert stages == [
        *[("start", SIDE)] * n_starts,
        *[("start", LARGER)] * n_starts,
        *[("descent", SMALLER)] * 5,
        ("descent", SIDE),
    ]
    rest = [side for side, _ in itertools.groupby(sides[n_asked[-1] :])]
    assert rest == [SMALLER, SIDE]  # the choice, and then the evidence
    assert result.masks.shape[3:] == (SIDE, SIDE)


@pytest.mark.parametrize("effort", MOST)
def test_what_an_effort_costs_and_the_plan_knows_it(effort: str) -> None:
    module, x, sizes = pooled(), texture(1, 3, SIDE, SIDE), list[float]()

    def note(_: nn.Module, args: tuple[Tensor]) -> None:
        (rows,) = args
        sizes.append(len(rows) * rows[0].numel() / x.numel() * (1 if rows.requires_grad else 1 / 3))

    module.register_forward_pre_hook(note)
    settings = explain(Network(module, mirror=True), x, 1, effort=effort).settings
    assert settings["mirror"]
    assert sum(sizes) <= MOST[effort]
    planned = plan(Network(module, mirror=True), x, 1, effort=effort).evaluations
    assert planned is not None
    counts = settings["evaluations"]
    assert (planned.gradients, planned.forwards) == (counts["gradients"], counts["forwards"])


def test_a_network_of_one_size_gets_the_answer_of_a_solver_without_scales() -> None:
    x, own = texture(1, 3, SIDE, SIDE), Consensus(enlarged=1.0, reduced=1.0)
    assert torch.equal(explain(flattened(), x, 1).masks, explain(flattened(), x, 1, solver=own).masks)
    assert not torch.equal(explain(pooled(), x, 1).masks, explain(pooled(), x, 1, solver=own).masks)


def test_the_embedded_network_answers_the_same_with_and_without_acceleration() -> None:
    x = torch.rand(2, 3, 288, 320, generator=torch.Generator().manual_seed(0))
    network = extremal.zoo.load("embedded")
    with torch.no_grad():
        plain = network.model(x)
    with network.frozen() as run, torch.no_grad():
        run.accelerate(x[..., :224, :224])
        torch.testing.assert_close(run(x), plain, atol=1e-4, rtol=1e-4)
