"""Networks that answer without a gradient for some inputs, like detectors that find nothing in them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from extremal import ExtremalValueError, Network, explain, invert, plan, visualise
from extremal.explanations.build_objective import build_objective
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.settings import Settings
from extremal.masking.solvers import Consensus, Path, Solver
from extremal.scores.target import parse_target
from support.errors import message_of

SOLVERS = {
    "path": Path(steps=8, polish=4, draws=2, search=4),
    "consensus": Consensus(steps=2, least=2, columns=2, draws=2, repair_steps=4),
}
SQUARE = (slice(4, 8), slice(4, 8))
X = torch.cat([torch.full((1, 3, 16, 16), 1.0), torch.full((1, 3, 16, 16), 0.3)])  # found at a mask of 0.5 in the first


class Detector(nn.Module):
    """The light of a square; a constant without a gradient for dark inputs."""

    def forward(self, x: Tensor) -> Tensor:
        found = [row[(..., *SQUARE)].mean() if float(row.detach().mean()) > 0.2 else torch.zeros(()) for row in x]
        scores = torch.stack(found)
        return torch.stack([scores, 0 * scores], 1)


class Rounded(nn.Module):
    """A layer behind an operation without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).detach().round()).mean((2, 3))


@pytest.mark.parametrize("game", ["preserve", "delete", "dual"])
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_a_reward_without_a_gradient_has_the_gradient_zero(game: str, rows: int) -> None:
    masks = torch.full((2, 1, 1, 16, 16), 0.5)
    settings = Settings(game=game, perturbation="fade", score="logit")
    with Network(Detector()).frozen() as run:
        chunked = ChunkedReward(build_objective(run, X, parse_target(0, settings.score), settings), rows)
        rewards, gradients = chunked.with_gradients(masks, False, 0)
        attributed = chunked.attribute(masks, False, 0)
    inside = torch.zeros(16, 16)
    inside[SQUARE] = 1 / 16
    first = inside * (2 if game == "dual" else 1)
    torch.testing.assert_close(gradients[:, 0, 0], torch.stack([first, torch.zeros(16, 16)]))
    torch.testing.assert_close(attributed.gradients, gradients)
    torch.testing.assert_close(attributed.rewards, rewards)


@pytest.mark.parametrize("game", ["preserve", "dual"])
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_inputs_are_explained_alike_one_at_a_time_and_together(solver: Solver, game: str) -> None:
    options = {"areas": (0.3,), "perturbation": "fade", "score": "logit", "solver": solver, "game": game}
    one, together = (
        explain(Network(Detector(), memory=memory), X, 0, **options)  # type: ignore[arg-type]
        for memory in (1e-9, None)
    )
    torch.testing.assert_close(one.masks, together.masks)
    assert one.binary(0.3)[0, 0][SQUARE].all()
    assert one.verdict == together.verdict


class Stepped(nn.Module):
    """The light of bright inputs; whether there is any in dark ones, which has no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        light = x.mean((1, 2, 3))
        scores = torch.where(x.detach().amax((1, 2, 3)) > 0.4, light, (light > 0.1).to(x.dtype))
        return torch.stack([scores, 0 * scores], 1)


@pytest.mark.parametrize("run", [explain, plan])
def test_a_batch_is_refused_only_if_no_input_has_a_gradient(run: Callable[..., object]) -> None:
    bright, dark = X[:1], X[1:]
    options = {"areas": (0.3,), "perturbation": "fade", "score": "logit", "solver": SOLVERS["consensus"]}
    run(Stepped(), torch.cat([dark, bright]), 0, **options)
    with pytest.raises(ExtremalValueError, match="Stepped's has one that is zero everywhere"):
        run(Stepped(), dark, 0, **options)


class Watched(nn.Module):
    """A network that records the number of rows in each pass whose gradient is computed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 7, 2))
        self.passes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layers(x)
        if scores.requires_grad:
            scores.register_hook(lambda _: self.passes.append(len(x)))
        return scores


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_the_gradient_is_not_computed_for_a_check_alone(solver: Solver) -> None:
    module = Watched().eval()
    result = explain(module, X[:1], 0, areas=(0.1, 0.3), perturbation="fade", solver=solver)
    counts = result.settings["evaluations"]
    assert sum(module.passes) == counts["gradients"] + counts["evidence_gradients"]


@pytest.mark.parametrize("name", ["invert", "visualise"])
def test_a_layer_without_a_gradient_is_not_visualised(name: str) -> None:
    network = Network(Rounded(), name="rounded")
    call = (
        (lambda: invert(network, "last", X[:1], steps=2))
        if name == "invert"
        else (lambda: visualise(network, "last", (1,), size=(3, 16, 16), steps=2))
    )
    assert message_of(call) == (
        "a layer must depend on the image with a gradient to be visualised, 'last' of rounded does not; look for "
        "no_grad, detach, rounding or argmax before it"
    )
