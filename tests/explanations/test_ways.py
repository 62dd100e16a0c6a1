"""Several ways of destroying an input: scores on one scale, ways that are left out, rewards by turns."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import extremal
from extremal import Explanation, ExtremalValueError, Network, explain
from extremal.explanations.build_objective import build_objective
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.objective import MAX_JOINT_ROWS, Objective
from extremal.explanations.settings import Settings
from extremal.explanations.ways import MIN_WAY_SPAN, Ways, choose_turns, choose_ways
from extremal.masking.perturbations import Blur, Constant, Fade, Mix, Noise, split_ways
from extremal.masking.solvers import Path, Penalty
from extremal.scores.target import parse_target

TEMPLATE = torch.randn(2, 12, 10, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
NOISE = torch.randn(3, 2, 12, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = TEMPLATE + 0.3 * NOISE + 0.5
MASKS = torch.rand(3, 4, 1, 12, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
MIX = Mix((Blur(), Fade(), Noise()))
SHORT = Path(steps=6, polish=4, rounds=2, draws=2, search=2)


class Toy(nn.Module):
    """A smooth score of a fixed template, and the sizes of the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        value = torch.tanh((x * TEMPLATE).flatten(1).sum(1, keepdim=True) / 200)
        return torch.cat([value, -value], 1)


class OnlyColour(nn.Module):
    """The sign of the mean colour: blur and noise keep it, fade takes it away."""

    def forward(self, x: Tensor) -> Tensor:
        value = 5 * torch.tanh(x.flatten(1).mean(1, keepdim=True))
        return torch.cat([value, -value], 1)


@pytest.fixture
def model() -> Toy:
    return Toy()


@pytest.fixture
def objective(model: Toy) -> Iterator[Objective]:
    with Network(model).frozen() as run:
        yield build(run)


def build(run: Any, **options: Any) -> Objective:
    settings = Settings(**{"perturbation": MIX, "score": "logit", **options})
    return build_objective(run, X, parse_target([0, 0, 0], settings.score), settings)


def naive_effects(way: object, masks: Tensor, mirrored: bool = False) -> Tensor:
    """Return (Φ − Φ_blank) / (Φ_full − Φ_blank) of one way, (N, K), one input at a time."""
    model, rows = Toy(), []
    for x, own in zip(X, masks, strict=True):
        perturb = way(x[None])  # type: ignore[operator]
        blank, full = model(perturb(torch.zeros_like(own[None, :1]))[:, 0])[0, 0], model(x[None])[0, 0]
        scores = []
        for mask in own:
            perturbed = perturb(mask[None, None])[:, 0]
            scores.append((model(perturbed.flip(-1) if mirrored else perturbed)[0, 0] - blank) / (full - blank))
        rows.append(torch.stack(scores))
    return torch.stack(rows)


def to_effects(objective: Objective, scores: Tensor) -> Tensor:
    low, high = objective.score_destroyed[:, None], objective.score_input[:, None]
    return (scores - low) / (high - low)


@pytest.mark.parametrize("count", [1, 4])
def test_perturbations_and_ways_share_a_batch_if_it_is_small(objective: Objective, model: Toy, count: int) -> None:
    masks = MASKS[:, :count]
    perturbs = [perturbation(X) for perturbation in (Constant(0.4), Noise(5), Blur(levels=3))]
    expected = torch.stack([Toy()(perturb(masks).flatten(0, 1))[:, 0].view(len(X), count) for perturb in perturbs], 2)
    ways = torch.stack([objective.evaluate_way(masks, way) for way in range(len(objective.ways))], 1)
    model.batches.clear()
    torch.testing.assert_close(objective.evaluate_under(masks, perturbs), expected)
    torch.testing.assert_close(objective.evaluate(masks), objective.ways.average(ways))
    rows = len(X) * count
    assert model.batches == ([3 * rows] * 2 if 3 * rows <= MAX_JOINT_ROWS else [rows] * 6)


class TestObjective:
    def test_the_score_of_a_mix_is_the_mean_effect_of_its_ways(self, objective: Objective) -> None:
        expected = torch.stack([naive_effects(way, MASKS) for way in MIX.perturbations]).mean(0)
        assert objective.ways.counts.all()
        torch.testing.assert_close(to_effects(objective, objective.evaluate(MASKS)), expected)
        torch.testing.assert_close(to_effects(objective, objective.reward(MASKS, False)), expected)
        assert objective.ways.names == ("blur", "fade", "noise")

    def test_blank_is_the_mean_of_the_ways_and_an_empty_mask_scores_it(self, objective: Objective) -> None:
        torch.testing.assert_close(objective.score_destroyed, objective.ways.destroyed.mean(1))
        nothing, all_ = torch.zeros_like(MASKS[:, :1]), torch.ones_like(MASKS[:, :1])
        torch.testing.assert_close(objective.evaluate(nothing)[:, 0], objective.score_destroyed)
        torch.testing.assert_close(objective.evaluate(all_)[:, 0], objective.score_input)

    @pytest.mark.parametrize("way", [0, 1, 2])
    @pytest.mark.parametrize("mirrored", [False, True])
    def test_one_way(self, objective: Objective, way: int, mirrored: bool) -> None:
        scores = objective.reward(MASKS, mirrored, way)
        torch.testing.assert_close(
            to_effects(objective, scores), naive_effects(MIX.perturbations[way], MASKS, mirrored)
        )

    def test_a_way_and_an_orientation_for_each_mask_in_one_batch(self, objective: Objective) -> None:
        ways, mirrors = (2, 0, 2, 1), (True, False, False, True)
        masks = MASKS.clone().requires_grad_()
        together = objective.reward(masks, mirrors, ways)
        (slopes,) = torch.autograd.grad(together.sum(), masks)
        for k, (way, mirrored) in enumerate(zip(ways, mirrors, strict=True)):
            mask = MASKS[:, k : k + 1].clone().requires_grad_()
            alone = objective.reward(mask, mirrored, way)
            (slope,) = torch.autograd.grad(alone.sum(), mask)
            torch.testing.assert_close(together[:, k : k + 1], alone)
            torch.testing.assert_close(slopes[:, k : k + 1], slope)

    @pytest.mark.parametrize(("way", "rows"), [(None, 36), (1, 12), ((0, 1, 2, 0), 12)])
    def test_a_call_is_one_batch_of_the_network(self, way: Any, rows: int) -> None:
        model = Toy()
        with Network(model).frozen() as run:
            objective = build(run)
            model.batches.clear()
            objective.reward(MASKS, (True, False, False, True), way)
        assert model.batches == [rows]

    @pytest.mark.parametrize("game", ["preserve", "delete", "dual"])
    @pytest.mark.parametrize("way", [None, 1, (2, 0, 0, 1)])
    @pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
    def test_chunks_do_not_change_rewards_and_gradients(self, game: str, way: Any, rows: int) -> None:
        with Network(Toy()).frozen() as run:
            objective = build(run, game=game)
            results = []
            for reward in (objective.reward, ChunkedReward(objective, rows)):
                masks = MASKS.clone().requires_grad_()
                paid = reward(masks, (False, True, True, False), way)
                results.append((paid.detach(), torch.autograd.grad(paid.square().sum(), masks)[0]))
        for whole, chunked in zip(*results, strict=True):
            torch.testing.assert_close(chunked, whole, atol=1e-12, rtol=1e-9)

    def test_dual_is_kept_less_lost_by_the_same_way(self) -> None:
        with Network(Toy()).frozen() as run:
            objective = build(run, game="dual")
            rewards = objective.reward(MASKS, False, 2)
        span = (objective.score_input - objective.score_destroyed)[:, None]
        way = MIX.perturbations[2]
        torch.testing.assert_close(rewards / span, naive_effects(way, MASKS) - naive_effects(way, 1 - MASKS))

    def test_one_perturbation_is_not_rescaled(self) -> None:
        model = Toy()
        with Network(model).frozen() as run:
            objective = build(run, perturbation="fade")
            scores = objective.reward(MASKS, False)
            expected = model((MASKS * X[:, None]).flatten(0, 1))[:, 0].view(3, 4)
        assert torch.equal(scores, expected)
        assert torch.equal(scores, objective.reward(MASKS, False, 0))

    def test_a_subset_has_the_scores_of_its_inputs(self, objective: Objective) -> None:
        part = objective.subset(1, 3)
        torch.testing.assert_close(part.evaluate(MASKS[1:]), objective.evaluate(MASKS)[1:])
        assert part.ways.left_out == ((), ())


class TestChoice:
    def test_ways_of_little_or_opposite_effect_do_not_count(self) -> None:
        full = torch.tensor([10.0, 10.0, -3.0, 0.0])
        destroyed = torch.tensor([[0.0, 8.1, 7.9], [12.0, 5.0, 0.0], [-1.0, -2.7, -2.0], [1.0, -0.3, 5.0]])
        expected = [[True, False, True], [False, True, True], [True, False, True], [True, False, True]]
        assert choose_ways(full, destroyed).tolist() == expected
        assert MIN_WAY_SPAN == 0.2

    def test_all_ways_have_turns_for_what_is_not_the_answer(self) -> None:
        counts = torch.tensor([[True, False, True], [True, False, False], [False, True, False]])
        destroyed = torch.tensor([[0.0, 1.0, 2.0], [0.0, 9.0, torch.inf], [0.0, 1.0, 2.0]])
        turns = choose_turns(counts, destroyed, torch.tensor([True, False, False]))
        assert turns.tolist() == [[True, False, True], [True, True, False], [True, True, True]]

    def test_scores_that_are_not_finite_do_not_count(self) -> None:
        chosen = choose_ways(torch.ones(2), torch.tensor([[torch.nan, 0.0], [0.5, -torch.inf]]))
        assert chosen.tolist() == [[False, True], [True, False]]

    def test_the_only_way_counts(self) -> None:
        assert choose_ways(torch.ones(1), torch.tensor([[2.0]])).tolist() == [[True]]

    def test_the_next_way_that_counts_has_the_turn_of_one_that_does_not(self) -> None:
        perturbs = tuple((lambda mask, value=value: value * mask.expand(-1, -1, 2, -1)) for value in (1.0, 2.0, 3.0))
        counts = torch.tensor([[True, True, True], [False, True, False]])
        destroyed = torch.tensor([[0.0, 1.0, 2.0], [9.0, 3.0, 9.0]])
        ways = Ways(("a", "b", "c"), perturbs, destroyed, torch.tensor([4.0, 5.0]), counts, has_turns=counts)
        ones = torch.ones(2, 1, 1, 5)
        assert [ways.perturb(ones, way)[:, 0, 0, 0].tolist() for way in range(3)] == [[1, 2], [2, 2], [3, 2]]
        assert ways.left_out == ((), ("a", "c"))
        assert ways.blank.tolist() == [1.0, 3.0]
        scores = torch.tensor([[2.0, 2.0], [4.0, 4.0]])
        torch.testing.assert_close(ways.rescale(scores, [0, 2]), torch.tensor([[2.5, 1.0], [4.0, 4.0]]))
        part = ways.subset(slice(1, 2), perturbs)
        assert ways.counting is ways
        assert part.counting is part

    def test_a_way_that_does_not_count_may_have_turns_by_its_own_scores(self) -> None:
        perturbs = tuple((lambda mask, value=value: value * mask.expand(-1, -1, 2, -1)) for value in (1.0, 2.0, 3.0))
        counts, has_turns = torch.tensor([[False, True, False]]), torch.tensor([[True, True, False]])
        ways = Ways(
            ("a", "b", "c"), perturbs, torch.tensor([[9.0, 3.0, torch.nan]]), torch.tensor([5.0]), counts, has_turns
        )
        ones = torch.ones(1, 1, 1, 5)
        assert [float(ways.perturb(ones, way)[0, 0, 0, 0]) for way in range(3)] == [1, 2, 1]
        assert ways.rescale(torch.tensor([[9.5, 4.0, 8.0]]), [0, 1, 2]).tolist() == [[3.5, 4.0, 2.0]]
        assert ways.average(torch.tensor([[[9.5], [4.0], [8.0]]])).tolist() == [[4.0]]
        assert ways.left_out == (("a", "c"),)
        assert [float(ways.counting.perturb(ones, way)[0, 0, 0, 0]) for way in range(3)] == [2, 2, 2]
        assert ways.subset(slice(0, 1), perturbs).has_turns.tolist() == [[True, True, False]]


class TestExplain:
    def test_ways_left_out_are_reported_and_stored(self, tmp_path: Any) -> None:
        x = 0.2 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 0.5
        result = explain(OnlyColour(), x, 0, areas=(0.1, 0.3), solver=SHORT)
        assert result.left_out == (("blur", "noise"),)
        assert float(result.score_blank[0]) == pytest.approx(0.0, abs=1e-5)  # that of fade alone
        result.save(tmp_path / "saved")
        assert Explanation.load(tmp_path / "saved") == result
        assert "Effects leave out blur, noise: destroying the image" in extremal.report.render(result)
        alone = explain(OnlyColour(), x, 0, areas=(0.1, 0.3), solver=SHORT, perturbation="fade")
        torch.testing.assert_close(result.binary_scores, alone.binary_scores)
        assert alone.left_out == ((),)

    @pytest.mark.parametrize(
        ("target", "options", "has_turns"),
        [
            (1, {}, [True, True, True]),
            (1, {"score": "logit"}, [True, True, True]),
            (0, {}, [False, True, False]),
            (1, {"solver": "path"}, [False, True, False]),
            (1, {"game": "delete"}, [False, True, False]),
            (1, {"score": "negative"}, [False, True, False]),
        ],
    )
    def test_which_searches_ask_about_all_ways(
        self, target: int, options: dict[str, Any], has_turns: list[bool]
    ) -> None:
        """Class 0 is the answer for an image that is brighter than its destroyed copies."""
        x = 0.2 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 0.5
        settings = Settings(**options)
        with Network(OnlyColour()).frozen() as run:
            ways = build_objective(run, x, parse_target([target], settings.score), settings).ways
        assert ways.counts.tolist() == [[False, True, False]]
        assert ways.has_turns.tolist() == [has_turns]

    def test_a_way_without_gradient_does_not_disturb_the_default(self) -> None:
        """Blur and noise keep the mean colour, so their gradients are rounding."""
        x = 0.2 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 0.5
        x[..., 4:14, 4:14] += 2
        mixed = explain(OnlyColour(), x, 1, areas=(0.1, 0.3))
        assert mixed.left_out == (("blur", "noise"),)
        alone = explain(OnlyColour(), x, 1, areas=(0.1, 0.3), perturbation="fade")
        torch.testing.assert_close(mixed.binary_scores, alone.binary_scores, atol=0.05, rtol=0.02)

    def test_an_input_on_which_nothing_has_an_effect_is_refused(self) -> None:
        class Fixed(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.ones(len(x), 2) + 0 * x.flatten(1).mean(1, keepdim=True)

        with pytest.raises(ExtremalValueError, match="a score must change when the input is destroyed"):
            explain(Fixed(), torch.rand(1, 3, 16, 16), 0, score="logit")

    def test_a_way_that_is_not_finite_is_left_out(self) -> None:
        class Normed(OnlyColour):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x[..., 8:16, 8:16] / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1))

        x = torch.zeros(1, 3, 24, 24)
        x[..., 8:16, 8:16] = 1 + torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
        result = explain(Normed(), x, 0, areas=(0.15,), solver=SHORT, score="logit")
        assert "fade" in result.left_out[0]
        assert result.status[0][0] == "converged"
        assert bool(result.masks.isfinite().all())

    @pytest.mark.parametrize("shape", [(64,), (32, 32), (6, 16, 16)])
    @pytest.mark.parametrize("solver", [SHORT, Penalty(steps=2)], ids=["path", "penalty"])
    def test_inputs_of_any_dimension(self, shape: tuple[int, ...], solver: Any) -> None:
        class Half(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                value = x[..., : shape[-1] // 2].flatten(1).mean(1, keepdim=True)
                return torch.cat([value, -value], 1)

        x = 1 + torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0))
        result = explain(Half(), x, 0, areas=(0.2, 0.5), solver=solver)
        assert result.unseen_names == ("black", "white", "wide blur", "mosaic")
        assert bool(result.binary_scores.isfinite().all())
        assert len(result.left_out) == 2

    def test_a_mix_finds_the_region_and_takes_the_expected_evaluations(self) -> None:
        class Middle(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                value = x[:, :, 8:20, 8:20].mean((1, 2, 3))[:, None]
                return torch.cat([value, -value], 1)

        noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        x = 0.3 * noise
        x[..., 8:20, 8:20] += 2
        result = explain(Middle(), x, 0, areas=(0.15, 0.3))
        assert float(result.binary(0.15)[0, 0, 8:20, 8:20].mean()) > 0.8
        assert result.curve().binary[0] > 0.85
        counts = result.settings["evaluations"]
        # the scores of the cut masks, three for each, are known from the search
        assert counts["evidence_forwards"] == 2 * (3 + 4) + 4 + sum(result.count_controls())
        assert result.settings["perturbation"] == [repr(way) for way in MIX.perturbations]

    def test_inputs_with_other_ways_do_not_affect_each_other(self) -> None:
        generator = torch.Generator().manual_seed(0)
        template = torch.randn(3, 24, 24, generator=generator)

        class Mixed(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                value = torch.tanh(x.flatten(1).mean(1)) + (x * template).flatten(1).mean(1)
                return torch.stack([value, -value], 1)

        x = torch.stack([torch.ones(3, 24, 24) + 0.01 * torch.randn(3, 24, 24, generator=generator), template])
        together = explain(Mixed(), x, 0, areas=(0.1, 0.3), solver=SHORT)
        assert together.left_out[0] != together.left_out[1]
        for n in range(2):
            alone = explain(Mixed(), x[n : n + 1], 0, areas=(0.1, 0.3), solver=SHORT)
            torch.testing.assert_close(together.masks[n], alone.masks[0], atol=1e-3, rtol=0)
            assert together.left_out[n] == alone.left_out[0]


def test_a_mix_is_stored_as_text_and_restored() -> None:
    settings = Settings(perturbation=["noise", "constant"])
    plain = settings.as_dict()
    assert plain["perturbation"] == ["Noise(seed=0)", "Constant(value=-1.0)"]
    assert Settings.from_dict(plain).perturbation == Mix((Noise(), Constant(-1.0)))
    assert Settings.from_dict({"perturbation": "mixed"}).perturbation == Settings().perturbation == MIX
    assert list(split_ways(settings.perturbation)) == ["noise", "constant"]
    with pytest.raises(ExtremalValueError, match="has no short name: pass it as perturbation"):
        Settings.from_dict(Settings(perturbation=(Blur(sigma=3.0), "fade")).as_dict())
