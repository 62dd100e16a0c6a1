"""Channels of hidden layers: known sets are found, exact counts, controls, certificates, errors, saving."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import extremal
from extremal import ChannelExplanation, ExtremalValueError, Network, explain_channels
from extremal.explanations.build_objective import build_objective
from extremal.explanations.channels.controls import rankings
from extremal.explanations.settings import Settings
from extremal.explanations.verdict import compute_effects
from extremal.masking.perturbations import ScaleChannels
from extremal.networks.split import split
from extremal.scores.classes import logit
from extremal.scores.target import parse_target
from support.errors import message_of
from support.toys import Carriers

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 0.2


def explain_toy(model: nn.Module, layer: str = "features", **options: Any) -> ChannelExplanation:
    return explain_channels(model, X[:1], layer, 0, **({"score": "logit"} | options))


@pytest.mark.parametrize("count", [1, 3, 10])
@pytest.mark.parametrize(("solver", "seed"), [*(("path", seed) for seed in range(5)), ("penalty", 0)])
def test_the_channels_that_carry_the_class_are_found(count: int, seed: int, solver: str) -> None:
    toy = Carriers([count], seed=seed)
    explanation = explain_toy(toy, counts=[count], seed=seed, solver=solver)
    assert explanation.channels(count) == toy.sets[0]
    assert explanation.smallest().channels == toy.sets[0]
    assert explanation.verdict[0][0].label == "sufficient"


@pytest.mark.parametrize("seed", range(5))
def test_one_of_two_redundant_sets_is_found_and_is_sufficient(seed: int) -> None:
    toy = Carriers([4, 4], seed=seed)
    explanation = explain_toy(toy, counts=[4, 8], seed=seed)
    for channels in (set(explanation.channels(4)), set(explanation.smallest().channels)):
        assert channels in [set(one) for one in toy.sets]
    assert set(toy.sets[0]) <= set(explanation.channels(8)) or set(toy.sets[1]) <= set(explanation.channels(8))
    assert (explanation.effects(explanation.binary_scores) >= 0.9).all()


def test_delete_finds_what_every_redundant_set_needs() -> None:
    toy = Carriers([3, 3], seed=0)
    explanation = explain_toy(toy, counts=[2, 6], game="delete")
    assert not explanation.keeps
    remaining = set(range(64)) - set(explanation.channels(2))
    assert not any(set(channels) <= remaining for channels in toy.sets)  # one of each set is enough
    effects = explanation.effects(explanation.binary_scores)[0].tolist()
    assert effects[0] > 0.5  # 1 − (2/3)²: a third of each set is gone
    assert effects[1] == pytest.approx(1.0)


def test_masks_have_exactly_the_counts_and_scores_are_of_these_sets() -> None:
    toy = Carriers([3], seed=1)
    explanation = explain_channels(toy, X, "features", [0, 0], counts=(3, 1, 20), score="logit")
    assert explanation.counts == (1, 3, 20)
    assert explanation.masks.shape == (2, 3, 64)
    torch.testing.assert_close(explanation.masks.sum(2), torch.tensor([[1.0, 3.0, 20.0]] * 2), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        activations = toy.features(X)
        for column, count in enumerate(explanation.counts):
            sets = explanation.binary(count)
            assert sets.sum(1).tolist() == [count] * 2
            outputs = toy.tail(activations * sets[:, :, None, None])
            torch.testing.assert_close(explanation.binary_scores[:, column], outputs[:, 0])
            expected = (activations * sets[:, :, None, None]).sum(1)
            torch.testing.assert_close(explanation.maps[:, column], expected, rtol=1e-4, atol=1e-5)
            assert explanation.activity is not None
            strength = (activations * sets[:, :, None, None]).square().sum(1).sqrt()
            torch.testing.assert_close(explanation.activity[:, column], strength, rtol=1e-4, atol=1e-5)
            assert explanation.map(count, 1).shape == (16, 16)


def test_rankings_match_a_naive_computation() -> None:
    toy = Carriers([3], seed=2).double()
    x = X.double()
    network = Network(toy)
    with network.frozen() as run:
        split_network = split(run, "features", x)
        objective = build_objective(
            split_network,
            split_network.activations,
            parse_target(0, logit),
            Settings(game="delete", perturbation=ScaleChannels(), score="logit"),
        )
        ranked = rankings(objective, 5)
    with torch.no_grad():
        activations = toy.features(x)
        full = toy.tail(activations)[:, 0]
        for channel in (0, 17, toy.sets[0][0]):
            without = activations.clone()
            without[:, channel] = 0
            torch.testing.assert_close(ranked[:, 2, channel], full - toy.tail(without)[:, 0])
            torch.testing.assert_close(ranked[:, 1, channel], activations[:, channel].abs().mean((1, 2)))
    leaf = activations.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(toy.tail(leaf)[:, 0].sum(), leaf)
    torch.testing.assert_close(ranked[:, 0], (leaf * gradient).sum((2, 3)).detach())


def test_chance_is_enough_if_a_random_set_is_and_a_ranking_that_surpasses_a_set_makes_it_suspect() -> None:
    explanation = explain_toy(Carriers([3], seed=1), counts=[3])
    assert [str(verdict) for verdict in explanation.verdict[0]] == ["sufficient"]  # the rankings find it too: a tie
    equal = explanation.binary_scores.unsqueeze(2)
    (chance,) = replace(explanation, random_scores=equal).verdict[0]
    (surpassed,) = replace(explanation, ranked_scores=equal + 0.1).verdict[0]
    assert (chance.label, surpassed.label) == ("chance is enough", "suspect")
    assert chance.reason.startswith("a random set of this size reaches 10")
    assert surpassed.reason.startswith("a ranking's set of this size reaches 1")


def test_the_certificate_is_exact_on_both_sides() -> None:
    toy = Carriers([7], seed=3)
    smallest = explain_toy(toy, areas=(0.05, 0.4)).smallest()
    assert (smallest.count, smallest.below_count) == (7, 6)
    assert smallest.effect >= 0.9 > smallest.below_effect
    with torch.no_grad():
        activations = toy.features(X[:1])
        mask = torch.zeros(64)
        mask[list(smallest.channels)] = 1
        scores = torch.stack([toy.tail(a)[0, 0] for a in (activations * mask.view(1, -1, 1, 1), activations)])
        blank = toy.tail(torch.zeros_like(activations))[0, 0]
    assert float(compute_effects(scores[0], blank, scores[1], True)) == pytest.approx(smallest.effect, abs=1e-5)


def test_if_no_count_is_sufficient_the_smallest_set_is_still_found() -> None:
    explanation = explain_toy(Carriers([10], seed=0), counts=(1, 2))
    assert not (explanation.effects(explanation.binary_scores) >= 0.9).any()
    assert set(explanation.smallest().channels) == set(Carriers([10], seed=0).sets[0])


def test_same_seed_same_answer_and_inputs_do_not_mix() -> None:
    toy = Carriers([3, 3], seed=4)
    both = explain_channels(toy, X, "features", 0, counts=(2, 5), score="logit", seed=3)
    again = explain_channels(toy, X, "features", 0, counts=(2, 5), score="logit", seed=3)
    assert both == again
    alone = explain_channels(toy, X[1:], "features", 0, counts=(2, 5), score="logit", seed=3)
    torch.testing.assert_close(both.masks[1:], alone.masks, rtol=1e-4, atol=1e-4)
    small = Network(toy, memory=1e-9)  # one row at a time, one input at a time
    blocks = explain_channels(small, X, "features", 0, counts=(2, 5), score="logit", seed=3)
    torch.testing.assert_close(blocks.binary_scores, both.binary_scores, rtol=1e-3, atol=1e-3)


def test_the_part_before_the_layer_runs_only_a_few_times() -> None:
    toy = Carriers([3], seed=1)
    rows = []
    toy.features.register_forward_hook(lambda _, __, output: rows.append(len(output)))
    explanation = explain_toy(toy, counts=(2, 5))
    evaluations = explanation.settings["evaluations"]
    assert evaluations["whole"] <= 4
    assert evaluations["gradients"] > 50


def test_tokens_and_their_channels() -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, depth=2, img_size=64).eval()
    x = torch.rand(1, 3, 64, 64)
    channels = explain_channels(model, x, "blocks.0", counts=(8, 64))
    assert channels.masks.shape == (1, 2, 192)
    assert channels.maps.shape == (1, 2, 4, 4)
    tokens = explain_channels(model, x, "blocks.0", counts=(3, 9), axis=1)
    assert tokens.masks.shape == (1, 2, 17)
    assert tokens.map(9).shape == (64, 64)
    assert (tokens.maps[0, 1] > 0).sum() in (8, 9)  # the class token is none of the places


def test_a_skip_connection_is_reported() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Conv2d(3, 3, 1), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((x + self.inner(x)).mean((2, 3)))

    with pytest.warns(UserWarning, match="part of the answer does not pass through 'inner'") as caught:
        explanation = explain_channels(Skip(), X, "inner", counts=(1,))
    assert explanation.bypassed
    assert len(caught) == 1


def test_a_clean_layer_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not explain_toy(Carriers([2], seed=0), counts=(2,)).bypassed


def test_saved_and_loaded(tmp_path: Path) -> None:
    explanation = explain_toy(Carriers([3], seed=1), counts=(3, 5))
    explanation.save(tmp_path / "a.safetensors")
    assert ChannelExplanation.load(tmp_path / "a.safetensors") == explanation
    assert explanation != replace(explanation, layer="other")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ExtremalValueError, match="an explanation of channels must be an existing file"):
        ChannelExplanation.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ExtremalValueError, match=r"an explanation of channels must be a file written by its save"):
        ChannelExplanation.load(path)
    toy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    extremal.explain(toy, X[:1], areas=(0.1,)).save(path)
    with pytest.raises(ExtremalValueError, match="an explanation of channels must be a file written by its save"):
        ChannelExplanation.load(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": (0,)}, "counts must be at least 1, got 0; e.g. (1, 4, 16)"),
        ({"counts": (64,)}, "counts must lie in 1..63 for 'features', which has 64 channels, got 64; all of them need"
         " no search"),
        ({"counts": (2, 2)}, "counts must be distinct, got 2 twice; leave one out"),
        ({"counts": ()}, "counts must name at least one count, got none; e.g. (1, 4, 16)"),
        ({"counts": (0.5,)}, "counts must be a sequence of whole numbers, got (0.5,); e.g. (1, 4, 16)"),
        ({"counts": 2}, "counts must be a sequence of whole numbers, got 2; e.g. (1, 4, 16)"),
        ({"share": "1"}, "share must be a number, got str; it is a fraction of the effect, e.g. 0.9"),
        ({"axis": 1.5}, "axis must be a whole number, got 1.5; e.g. 1"),
        ({"layer": 1}, "a layer must be the name of a module in Carriers, got 1; extremal.layers(network) or "
         "`extremal layers` lists them"),
        ({"counts": (1,), "areas": (0.1,)}, "counts and areas must not both be given, got both; leave one out"),
        ({"areas": (1.5,)}, "areas must lie in (0, 1), got 1.5; an area is the share of places kept, e.g. 0.05 or 5%"),
        ({"share": 0}, "share must be above 0 and finite, got 0; it is a fraction of the effect, e.g. 0.9"),
        ({"axis": 4}, "axis must be one of 1..3 for an output of shape (1, 64, 16, 16) (axis 0 is the batch), got 4"),
        ({"axis": 0}, "axis must be one of 1..3 for an output of shape (1, 64, 16, 16) (axis 0 is the batch), got 0"),
        ({"layer": "feature"}, "a layer must be the name of a module in Carriers, got 'feature'; did you mean features?"
         " extremal.layers(network) or `extremal layers` lists them"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(options: dict[str, Any], message: str) -> None:
    toy = Carriers([3], seed=0)
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    assert message_of(explain_toy, toy, **options) == message
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())
    assert not toy.features._forward_hooks


def test_a_count_that_was_not_computed_is_refused() -> None:
    explanation = explain_toy(Carriers([3], seed=0), counts=(3, 5))
    assert (
        message_of(explanation.channels, 4)
        == "count must be one of the computed counts 3, 5, got 4; explain again with this count"
    )


def test_a_layer_without_places_has_no_map() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    assert message_of(explain_channels(model, X, "3", counts=(2,)).map, 2) == (
        "a map must be of a layer whose channels have places, '3' has none; choose an earlier layer"
    )


@pytest.mark.parametrize("axis", [1, 2])
def test_a_layer_of_a_signal_has_no_map(axis: int) -> None:
    """The three axes of its activations are no tokens of a lattice."""
    model = nn.Sequential(nn.Conv1d(2, 16, 4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 2))
    found = explain_channels(model, torch.rand(1, 2, 19), "1", 0, counts=(2,), axis=axis)
    for view in (found.map, found.heatmap):
        assert message_of(view, 2).startswith("a map must be of a layer whose channels have places, '1' has none")


@pytest.mark.parametrize("image", [-1, 1])
def test_maps_of_an_input_that_does_not_exist(image: int) -> None:
    found = explain_toy(Carriers([3], seed=0), counts=(3,))
    for view in (found.map, found.activity_map):
        assert message_of(view, 3, image) == f"image must lie in 0..0 for 1 inputs, got {image}"


def test_all_channels_have_the_whole_effect() -> None:
    found = explain_toy(Carriers([3], seed=0), counts=(3,), share=20.0)
    smallest = found.smallest()
    assert (smallest.count, smallest.effect) == (64, 1.0)


def test_the_search_for_the_smallest_set_can_be_ended() -> None:
    """Its passes repeat the last report of the evidence."""
    reports = list[tuple[int, int]]()
    explain_toy(Carriers([10], seed=0), on_evidence=lambda done, total: reports.append((done, total)))
    n_complete = sum(done == total for done, total in reports)
    assert n_complete > 1

    def stop(done: int, total: int) -> None:
        reports.append((done, total))
        if sum(done == total for done, total in reports) == n_complete:
            raise KeyboardInterrupt

    reports.clear()
    with pytest.raises(KeyboardInterrupt):
        explain_toy(Carriers([10], seed=0), on_evidence=stop)
