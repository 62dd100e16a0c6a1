"""`explain` on networks whose right answer is known."""

import pkgutil
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import extremal
from extremal import Explanation, Network, explain
from extremal.masking.area import cut_one
from extremal.masking.games import Evaluate
from extremal.masking.perturbations import Blur
from extremal.masking.solvers import Consensus, Path, Step
from support.batches import assert_batch_is_its_singles
from support.toys import BRITTLE_INPUTS, Boxes, Brittle, Linear, box_mask, dim, hills, overlap, texture

QUICK = Path(steps=40, polish=10, draws=4)
SHORT = Path(steps=8, polish=4, draws=2)

PATCH = (slice(4, 12), slice(16, 24))
PAIR = [(slice(2, 10), slice(3, 11)), (slice(21, 29), slice(22, 30))]
X = texture(1, 3, 32, 32)


def found(result: Explanation, area: float) -> Tensor:
    return result.binary(area)[0, 0]


@pytest.mark.parametrize(("game", "least"), [("preserve", 0.95), ("delete", 0.9), ("dual", 0.95)])
@pytest.mark.parametrize("solver", [Path(), QUICK], ids=["default", "quick"])
def test_the_patch_that_is_looked_at_is_found_at_its_own_area(game: str, least: float, solver: Path) -> None:
    wanted = box_mask(PATCH, (32, 32))
    area = float(wanted.mean())
    result = explain(Boxes(X, [PATCH]), X, 0, areas=(area,), game=game, solver=solver)
    assert overlap(found(result, area), wanted) >= least
    assert result.curve().binary[0] >= 0.9
    assert str(result.verdict[0][0]) == "sufficient"


def test_areas_around_the_patch_nest_about_it() -> None:
    wanted = box_mask(PATCH, (32, 32))
    area = float(wanted.mean())
    result = explain(Boxes(X, [PATCH]), X, 0, areas=(area / 2, area, 2 * area), solver=QUICK)
    smaller, larger = found(result, area / 2), found(result, 2 * area)
    assert float((smaller * wanted).sum() / smaller.sum()) >= 0.95  # nothing is spent outside
    assert float((larger * wanted).sum() / wanted.sum()) >= 0.95  # nothing is missing
    words = [str(word) for word in result.verdict[0]]
    assert words == ["insufficient", "sufficient", "sufficient"]
    smallest = result.smallest()
    assert smallest is not None
    assert smallest.area == area


@pytest.mark.parametrize(("game", "least"), [("preserve", 0.95), ("delete", 0.9), ("dual", 0.95)])
def test_two_patches_are_both_covered(game: str, least: float) -> None:
    parts = [box_mask(box, (32, 32)) for box in PAIR]
    wanted = parts[0] + parts[1]
    area = float(wanted.mean())
    result = explain(Boxes(X, PAIR), X, 0, areas=(area,), game=game, solver=QUICK)
    mask = found(result, area)
    assert [float((mask * part).sum() / part.sum()) >= least for part in parts] == [True, True]
    assert overlap(mask, wanted) >= least


def test_one_channel_of_a_signal() -> None:
    x, box = texture(1, 4, 120), (slice(70, 94),)
    wanted = box_mask(box, (120,))
    area = float(wanted.mean())
    result = explain(Boxes(x, [box], channel=2), x, 0, areas=(area,), solver=QUICK)
    assert overlap(found(result, area), wanted) >= 0.85
    assert result.curve().binary[0] >= 0.95


def test_a_block_of_a_volume() -> None:
    shape, box = (12, 16, 20), (slice(3, 9), slice(4, 12), slice(8, 18))
    x, wanted = texture(1, 1, *shape), box_mask(box, shape)
    area = float(wanted.mean())
    result = explain(Boxes(x, [box]), x, 0, areas=(area,), solver=QUICK)
    assert overlap(found(result, area), wanted) >= 0.95


@pytest.mark.parametrize("shape", [(32, 32), (48, 36)])
@pytest.mark.parametrize("mirror", [False, True])
def test_a_linear_score_keeps_its_largest_weights_in_every_game(shape: tuple[int, int], mirror: bool) -> None:
    # mirrored in turn, the network sees w and w mirrored; weights that are their own mirror image ask the same question
    weights = hills(shape, torch.float64)
    weights = weights + weights.flip(-1) if mirror else weights
    x = torch.ones(1, 1, *shape, dtype=torch.float64)
    cuts = {}
    for game in ("preserve", "delete", "dual"):
        net = Network(Linear(weights), mirror=mirror)
        result = explain(net, x, areas=(0.05, 0.1, 0.2, 0.4), perturbation="fade", game=game, solver=QUICK)
        cuts[game] = [found(result, area) for area in result.areas]
        for area, cut in zip(result.areas, cuts[game], strict=True):
            wanted = cut_one(weights[None, None], area)[0, 0]
            assert overlap(cut, wanted) >= (0.85 if area < 0.1 else 0.95), (game, area)
            best = float((weights * wanted).mean())
            assert float((weights * cut).mean()) >= 0.995 * best
    for game in ("delete", "dual"):  # in a linear score what keeps is what deletes
        swapped = [int((a - b).abs().sum()) // 2 for a, b in zip(cuts[game], cuts["preserve"], strict=True)]
        # the hills are their own image across the diagonal or the middle: two such places weigh exactly the same, and
        # of the last pair either may be in, by rounding
        assert max(swapped) <= 1


@pytest.mark.parametrize("game", ["preserve", "delete", "dual"])
def test_returned_masks_are_the_ones_that_were_scored(game: str) -> None:
    model, perturbation = Boxes(X, PAIR), Blur()
    result = explain(model, X, 0, areas=(0.06, 0.2), game=game, perturbation=perturbation, solver=SHORT)

    def asked(masks: Tensor) -> Tensor:
        shown = 1 - masks if game == "delete" else masks
        return model(perturbation(X)(shown)[0])[:, 0]  # y_1 = 0, so the margin is y_0

    torch.testing.assert_close(asked(result.masks), result.scores[0], atol=1e-5, rtol=0)
    cut = torch.stack([result.binary(area) for area in result.areas], 1)
    torch.testing.assert_close(asked(cut), result.binary_scores[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(model(X)[:, 0], result.score_full)
    torch.testing.assert_close(model(perturbation(X)(X.new_zeros(1, 1, 1, 32, 32))[0])[:, 0], result.score_blank)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(24, 24), (20, 33), (60,), (6, 9, 8)])
def test_masks_have_exactly_their_areas(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = texture(2, 2, *shape, dtype=dtype)
    areas = (0.02, 0.15, 0.6)
    result = explain(Boxes(x, [tuple(slice(1, 4) for _ in shape)]), x, 0, areas=areas, solver=SHORT)
    assert result.masks.dtype == dtype
    wanted = torch.tensor([areas, areas], dtype=dtype)
    torch.testing.assert_close(result.masks.flatten(2).mean(2), wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(result.mask_areas, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("game", ["preserve", "dual"])
def test_passes_of_a_default_run_at_five_areas(game: str) -> None:
    net = Network(Boxes(X, [PATCH]), mirror=True)
    for count in (1, 2):
        result = explain(net, X.expand(count, -1, -1, -1), 0, game=game)
        assert len(result.areas) == 5
        limit = 160 * (2 if game == "dual" else 1)
        assert 0 < result.settings["evaluations"]["gradients"] / count <= limit


def test_no_public_name_is_hidden_by_a_module_of_that_name() -> None:
    """The import system puts a submodule in the place of a name of its package."""
    for package in (extremal, extremal.jobs, extremal.report):
        modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
        functions = {name for name in package.__all__ if not isinstance(getattr(package, name), ModuleType)}
        assert not modules & functions


@pytest.mark.parametrize(("shape", "mirror", "orientations"), [((8, 8), True, 2), ((8, 8), False, 1), ((8,), True, 1)])
def test_a_picture_is_mirrored_only_where_that_asks_the_same(
    shape: tuple[int, ...], mirror: bool, orientations: int
) -> None:
    class Witness(nn.Module):
        """Notes on which side the light of its input lies, and scores its sum."""

        def __init__(self) -> None:
            super().__init__()
            self.seen: set[bool] = set()

        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                self.seen.add(bool(x[..., :4].sum() > x[..., 4:].sum()))
            return x.flatten(1).sum(1, keepdim=True)

    x = torch.ones(1, 1, *shape)
    x[..., 4:] = 1e-3  # no mask can turn this light round
    witness = Witness()
    explain(Network(witness, mirror=mirror), x, 0, areas=(0.5,), perturbation="fade", solver=SHORT)
    assert len(witness.seen) == orientations


def test_on_step_sees_every_step() -> None:
    seen: list[Step] = []
    result = explain(Boxes(X, [PATCH]), X, 0, areas=(0.1,), solver=SHORT, on_step=seen.append)
    assert [step.index for step in seen] == list(range(seen[0].total))
    assert seen[-1].masks.shape == (1, 1, 1, 32, 32)
    assert int(result.trace_step[-1]) == seen[-1].index


def test_the_same_seed_gives_the_same_result_to_the_bit() -> None:
    def run(seed: int) -> Explanation:
        torch.manual_seed(seed + 100)  # the caller's own state plays no part
        return explain(Boxes(X, PAIR), X, 0, areas=(0.06, 0.2), perturbation="noise", solver=SHORT, seed=seed)

    first = run(0)
    assert run(0) == first
    assert not torch.equal(run(1).control_scores, first.control_scores)


def test_a_game_of_the_callers_own() -> None:
    def kept_and_lost(evaluate: Evaluate, mask: Tensor) -> Tensor:
        return evaluate(mask) - evaluate(1 - mask)

    own = explain(Boxes(X, PAIR), X, 0, areas=(0.1,), game=kept_and_lost, solver=SHORT)
    dual = explain(Boxes(X, PAIR), X, 0, areas=(0.1,), game="dual", solver=SHORT)
    assert torch.equal(own.masks, dual.masks)
    assert own.settings["game"] == "kept_and_lost"


def test_a_question_of_the_callers_own_on_the_raw_output() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Boxes(X, [PATCH])

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"boxes": self.inner(x)}

    def first_box(output: dict[str, Tensor]) -> Tensor:
        return output["boxes"][:, 0]

    asked = explain(Detector(), X, first_box, areas=(0.1,), solver=SHORT)
    plain = explain(Boxes(X, [PATCH]), X, 0, areas=(0.1,), score="logit", solver=SHORT)
    assert torch.equal(asked.masks, plain.masks)
    assert (asked.target, asked.target_names) == ((None,), ("first_box",))


class Sides(nn.Module):
    """y_0 looks left, y_1 looks right, y_2 = 0."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.left, self.right = Boxes(x, [PAIR[0]]), Boxes(x, [PAIR[1]])

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x)[:, 0], self.right(x)[:, 0]
        return torch.stack([left, 0.9 * right, torch.zeros_like(left)], 1)


@pytest.mark.parametrize("target", [[0, 1], (0, 1), torch.tensor([0, 1]), ["left", "right"]], ids=str)
def test_one_target_for_each_input(target: object) -> None:
    wanted = [box_mask(box, (32, 32)) for box in PAIR]
    area = float(wanted[0].mean())
    net = Network(Sides(X), labels=("left", "right", "nothing"))
    result = explain(net, X.expand(2, -1, -1, -1), target, areas=(area,), score="logit", solver=QUICK)  # type: ignore[arg-type]
    assert (result.target, result.target_names) == ((0, 1), ("left", "right"))
    assert all(overlap(result.binary(area)[n, 0], wanted[n]) >= 0.95 for n in range(2))


def test_without_a_target_the_top_class_is_asked() -> None:
    result = explain(Sides(X), X.expand(2, -1, -1, -1), areas=(0.1,), solver=SHORT)
    assert result.target == (0, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_its_single_runs(dtype: torch.dtype) -> None:
    x = texture(1, 3, 24, 28, dtype=dtype)
    scale = torch.tensor([1.0, 0.7, 1.3], dtype=dtype).view(3, 1, 1, 1)
    assert_batch_is_its_singles(Boxes(x, [(slice(3, 11), slice(6, 15))]), x * scale, (0.05, 0.1, 0.3), SHORT)


def test_the_default_solver_gives_a_batch_and_its_singles_the_same_masks_in_double_precision() -> None:
    """In single precision they differ by rounding, which 24 steps amplify (docs/solver_experiments.md)."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    net = nn.Sequential(*layers)
    net(torch.zeros(1, 3, 32, 32))
    inputs = texture(3, 3, 32, 32, dtype=torch.float64)
    areas = (0.05, 0.1, 0.2, 0.4)
    together = explain(net.double(), inputs, [0] * 3, areas=areas, solver=Consensus())
    for n in range(3):
        alone = explain(net, inputs[n : n + 1], [0], areas=areas, solver=Consensus())
        torch.testing.assert_close(together.masks[n], alone.masks[0], atol=0.01, rtol=0)


def test_a_score_that_is_not_finite_ends_its_input_only() -> None:
    with pytest.warns(RuntimeWarning, match="the run of input 1 met a score that is not finite and ended"):
        result = explain(Brittle(), BRITTLE_INPUTS, 0, areas=(0.1, 0.3), game="delete", perturbation=dim, solver=SHORT)
    assert [[str(s) for s in row] for row in result.status][1] == ["not finite", "not finite"]
    assert float(result.masks[1].abs().max()) == 0.0
    alone_areas = result.masks[0].flatten(1).mean(1)
    torch.testing.assert_close(alone_areas, torch.tensor([0.1, 0.3]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("several", [[0, 1], (0, 1), torch.tensor([0, 1])], ids=["list", "tuple", "tensor"])
def test_several_targets_of_one_image_are_a_batch(several: object) -> None:
    model = nn.Sequential(Boxes(X, [PATCH]), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]))
    both = explain(model, X, several, areas=(0.1,), solver=SHORT)  # type: ignore[arg-type]
    assert both.target == (0, 1)
    assert both.inputs.shape == (2, 3, 32, 32)
    for n in (0, 1):
        alone = explain(model, X, n, areas=(0.1,), solver=SHORT)
        torch.testing.assert_close(both.masks[n], alone.masks[0], atol=1e-4, rtol=0)


def test_a_list_of_images_is_a_batch() -> None:
    other = texture(1, 3, 32, 32, seed=5)
    both = explain(Boxes(X, [PATCH]), [X, other], 0, areas=(0.1,), solver=SHORT)
    assert torch.equal(both.inputs, torch.cat([X, other]))
