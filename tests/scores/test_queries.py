"""Queries: their known evidence is found; values, gradients and evaluation counts."""

import math
from collections import OrderedDict
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extremal import ExtremalValueError, Network, explain, explain_channels
from extremal.masking.solvers import Path
from extremal.networks.split import split
from extremal.scores import Box, Classes, Output, PerInput, Query, Segment, Similarity, Unit
from extremal.scores.classes import margin
from extremal.scores.target import is_mirror_invariant, parse_target
from support.query_toys import (
    AT_A,
    AT_B,
    CASES,
    NAMES,
    QUICK,
    SHORT,
    A,
    B,
    C,
    Detector,
    Segmenter,
    Tower,
    X,
    embedder,
    looks,
    mask_of,
    texture_in,
    three,
    value,
)
from support.toys import overlap


def measure_overlap(model: nn.Module, query: Query, expected: Tensor, **options: Any) -> float:
    """Return the IoU of the expected region with the cut mask of its area."""
    area = float(expected.mean())
    result = explain(
        Network(model, labels=NAMES), X, query, areas=(area,), perturbation="fade", solver=QUICK, **options
    )
    assert result.target_names == (query.name,)
    return overlap(result.binary(area)[0, 0], expected)


@pytest.mark.parametrize("case", CASES)
def test_the_evidence_is_found_at_its_own_area(case: str) -> None:
    model, query, expected = CASES[case]
    assert isinstance(query, Query)
    assert measure_overlap(model, query, expected) >= 0.6


class TestValues:
    def test_classes(self) -> None:
        y = three()(X)
        assert float(value(three(), Classes({0: 2, "dog": -0.5}))) == pytest.approx(float(2 * y[0, 0] - 0.5 * y[0, 1]))

    def test_units(self) -> None:
        tower = Tower(X)
        pair = tower.pair(tower.cells(X))
        assert float(value(tower, Unit("pair", 0, (2, 5)))) == pytest.approx(float(pair[0, 0, 2, 5]))
        assert float(value(tower, Unit("pair", 1))) == pytest.approx(float(pair[0, 1].mean()))
        assert float(value(tower, Unit("tokens", 1, 21))) == pytest.approx(float(pair[0, 1, 2, 5]))
        assert float(value(tower, Unit("tokens", 21, 1, axis=1))) == pytest.approx(float(pair[0, 1, 2, 5]))
        assert float(value(tower, Unit("behind", 0))) == pytest.approx(float(pair[0, 0].mean()))

    def test_similarity_is_the_cosine(self) -> None:
        e, r = embedder()(X)[0], embedder()(texture_in(B))[0]
        expected = float(e @ r / (e.norm() * r.norm()))
        assert float(value(embedder(), Similarity(texture_in(B)))) == pytest.approx(expected, abs=1e-6)
        assert float(value(embedder(), Similarity(-3 * r))) == pytest.approx(-expected, abs=1e-6)
        several = float(value(embedder(), Similarity(torch.stack([r, -r, e]))))
        assert several == pytest.approx(1 / 3, abs=1e-6)  # the mean of the cosines

    def test_places_are_weighted_by_their_fraction_in_the_region(self) -> None:
        model, region = Segmenter(X), torch.zeros(32, 32, dtype=torch.bool)
        region[0:4, 0:6] = True  # one cell and half of another
        seen = 8 * model.cells(X)[0, 0]
        assert float(value(model, Segment(1, region, "logit"))) == pytest.approx(
            float((seen[0, 0] + 0.5 * seen[0, 1]) / 1.5), rel=1e-6
        )
        margins = seen - math.log(math.exp(2) + math.exp(-3))
        assert float(value(model, Segment(1, region))) == pytest.approx(
            float((margins[0, 0] + 0.5 * margins[0, 1]) / 1.5), rel=1e-6
        )

    def test_a_single_class(self) -> None:
        model = Segmenter(texture_in(A), lambda maps: maps[:, 1:2] - 1, classes=1)
        inside = 8 * model.cells(X)[0, 0, 1:3, 1:3] - 1
        assert float(value(model, Segment(0))) == pytest.approx(float(inside.mean()), rel=1e-6)

    def test_boxes_are_matched_softly(self) -> None:
        score = float(torch.sigmoid(8 * (torch.tanh(torch.tensor(2.0)) - 0.6)))
        assert float(value(Detector(X, looks()), Box(AT_A))) == pytest.approx(score, rel=1e-5)
        assert float(value(Detector(X, looks()), Box((4, 4, 12, 9), 1))) == pytest.approx(score * 5 / 8, rel=1e-5)

    def test_a_box_is_followed_below_the_detectors_threshold(self) -> None:
        dim = X - 0.6 * texture_in(B)  # B has a score of 0.66, third after A and C; the detector reports two
        model = Detector(X, looks())
        assert len(model(dim)[0]["scores"]) == 2
        seen = torch.tanh(torch.tensor(2 * 0.4))
        bound = float(value(model, Box(AT_B, 1), dim))
        assert bound == pytest.approx(0.9 * float(torch.sigmoid(8 * (seen - 0.6))), rel=1e-4)
        faint = float(value(model, Box(AT_B, 1), 0 * X))
        assert faint == pytest.approx(0.9 * float(torch.sigmoid(torch.tensor(-4.8))), rel=1e-4)

    def test_no_box_left_is_zero_with_a_gradient(self) -> None:
        model = Detector(X, looks())
        with Network(model).frozen() as run:
            bound = Box(AT_B, 1).bind(run, X)
            inputs = (-X).requires_grad_()
            scores = bound(inputs, torch.tensor([0]))
            assert scores.tolist() == [0.0]
            (grad,) = torch.autograd.grad(scores.sum(), inputs)
        assert float(grad.abs().max()) == 0.0


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_the_input(case: str) -> None:
    model, query, expected = CASES[case]
    with Network(model, labels=NAMES).frozen() as run:
        inputs = (X * (0.3 + 0.5 * expected)).requires_grad_()
        (grad,) = torch.autograd.grad(query.bind(run, X)(inputs, torch.tensor([0])).sum(), inputs)
    moved = grad.abs().sum((0, 1)) > 0
    assert bool(moved[expected > 0].all())


@pytest.mark.parametrize(
    ("model", "queries", "names"),
    [
        (Detector(X, looks()), [Box(), Box(AT_B, 1)], ("best box", "box of class 1 at 16, 20, 24, 28")),
        (
            embedder(),
            [Classes({0: 1.0}), Similarity(torch.eye(4)[1])],
            ("class 0", "similarity to the reference"),
        ),
    ],
)
def test_several_queries_about_one_input(model: nn.Module, queries: list[Query], names: tuple[str, ...]) -> None:
    area = float(mask_of(A).mean())
    result = explain(model, X, queries, areas=(area,), perturbation="fade", solver=QUICK)
    assert result.target_names == names
    for n, box in enumerate((A, B)):
        assert overlap(result.binary(area)[n, 0], mask_of(box)) >= 0.6


def test_each_input_of_a_batch_has_its_own_box_and_region() -> None:
    x = torch.cat([texture_in(A, C), texture_in(B)])  # on each another box is the best
    with Network(Detector(X, looks())).frozen() as run, torch.no_grad():
        bound = Box().bind(run, x)
        rows, input_index = torch.cat([X, X, texture_in(B), texture_in(A)]), torch.tensor([0, 1, 1, 0])
        a, b = bound(x, torch.tensor([0, 1])).tolist()
        assert b == pytest.approx(0.9 * a)
        assert bound(rows, input_index).tolist() == pytest.approx([a, b, b, a])
    with Network(Segmenter(X)).frozen() as run, torch.no_grad():
        bound = Segment(1, score="logit").bind(run, x)
        whole = 8 * math.tanh(2)
        assert bound(rows, input_index).tolist() == pytest.approx([whole, whole, whole, whole / 2], rel=1e-5)


class TestUnitsCost:
    def test_later_layers_are_not_evaluated(self) -> None:
        calls = []
        for solver in (SHORT, Path(steps=12, polish=4, draws=2, search=0)):
            tower = Tower(X)
            result = explain(tower, X, Unit("pair", 0), areas=(0.2,), perturbation="fade", solver=solver)
            calls.append(tower.behind.calls)
            assert result.settings["evaluations"]["gradients"] == solver.steps + solver.polish + solver.draws
        assert calls[0] == calls[1] <= 5  # set-up and the check of the layer, independent of the length of the run

    def test_evaluations_are_counted(self) -> None:
        tower = Tower(X)
        with Network(tower).frozen() as run:
            bound = Unit("pair", 0).bind(run, X.repeat(3, 1, 1, 1))
            assert (run.forwards, run.gradients, tower.behind.calls) == (1, 0, 1)
            bound(X.repeat(3, 1, 1, 1), torch.arange(3))
            bound(X.clone().requires_grad_(), torch.tensor([0]))
            assert (run.forwards, run.gradients, tower.behind.calls) == (4, 1, 1)

    def test_a_unit_of_a_transformer(self) -> None:
        transformers = pytest.importorskip("transformers")
        config = transformers.ViTConfig(
            hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=8
        )
        torch.manual_seed(0)
        model, name = transformers.ViTForImageClassification(config).eval(), "vit.embeddings.patch_embeddings"
        patch = (slice(8, 16), slice(16, 24))  # the sixth of 4 × 4
        embed = model.get_submodule(name)
        embed.projection.weight.data[3] = X[(0, slice(None), *patch)] / 64
        with torch.no_grad():
            tokens = embed(X)  # (1, 16, 8)
        assert float(value(model, Unit(name, 3, 6, axis=2))) == pytest.approx(float(tokens[0, 6, 3]), abs=1e-6)
        assert measure_overlap(model, Unit(name, 3, 6), mask_of(patch)) >= 0.6


class TestChannels:
    """Queries in explanations of channels of a hidden layer, which comes before the queried one."""

    def net(self) -> nn.Module:
        torch.manual_seed(0)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            features=nn.Conv2d(3, 8, 1),
            pool=nn.AdaptiveAvgPool2d(2),
            mix=nn.Conv2d(8, 2, 1, bias=False),
            flat=nn.Flatten(),
        )
        weight = torch.zeros(2, 8, 1, 1)
        weight[0, 5], weight[1, 2] = 1.0, 1.0
        layers["mix"].weight.data = weight
        layers["features"].weight.data.uniform_(0.5, 1.0)
        return nn.Sequential(layers)

    @pytest.mark.parametrize(
        ("query", "channel"), [(Unit("mix", 0), 5), (Unit("mix", 1, (0, 1)), 2), (Output(6), 2), (Classes({0: 1}), 5)]
    )
    def test_the_relevant_channel_is_found(self, query: Query, channel: int) -> None:
        result = explain_channels(self.net(), X.abs(), "features", query, counts=(1,), solver=QUICK)
        assert result.channels(1) == (channel,)

    def test_a_reference_input_is_embedded_by_the_whole_network(self) -> None:
        net = Network(self.net())
        with net.frozen() as run, torch.no_grad():
            tail = split(run, "features", X.abs())
            rows, input_index = tail.activations, torch.tensor([0])
            parts = Similarity(X.abs() + 1).bind(tail, rows)(rows, input_index)
            whole = Similarity(X.abs() + 1).bind(run, X.abs())(X.abs(), input_index)
        torch.testing.assert_close(parts, whole)

    def test_a_layer_before_the_channels(self) -> None:
        with pytest.raises(ExtremalValueError) as caught:
            explain_channels(self.net(), X, "pool", Unit("features", 0), counts=(1,), solver=SHORT)
        assert str(caught.value) == (
            "a query about channels of 'pool' must use a later layer, 'features' comes before it; choose a later "
            "layer, or explain the input"
        )


@pytest.mark.parametrize(
    ("query", "name"),
    [
        (Classes({"cat": 1, 3: -2, "dog": 0.5}), "cat − 2·class 3 + 0.5·dog"),
        (Classes({"cat": -1}), "−cat"),
        (Output(), "output 0"),
        (Output(2, ("heads", 1)), "output heads 1 2"),
        (Unit("layer2", 5), "layer2 channel 5"),
        (Unit("layer2", 5, (3, 4)), "layer2 channel 5 at 3, 4"),
        (Similarity(torch.ones(2)), "similarity to the reference"),
        (Similarity(torch.ones(2), "layer2"), "similarity to the reference at layer2"),
        (Segment("cat"), "cat where it is predicted"),
        (Segment(1, torch.ones(2, 2) > 0), "class 1 over the region"),
        (Box((1, 2.5, 3, 4), "cat"), "box of cat at 1, 2.5, 3, 4"),
        (Box((1, 2, 3, 4)), "box at 1, 2, 3, 4"),
        (Box(label=2), "best box of class 2"),
        (Box(), "best box"),
    ],
)
def test_names(query: Query, name: str) -> None:
    assert query.name == name
    assert query.layer == ("layer2" if "layer2" in name else "")


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1.0, 1e30, 1e38])
def test_the_scale_of_embeddings_does_not_count(scale: float) -> None:
    x, reference = torch.tensor([[[3.0, 4.0]]]), torch.tensor([1.0, 0.0])
    for inputs, given in ((x, reference * scale), (x / 4 * scale, reference)):
        with Network(nn.Flatten()).frozen() as run:
            query = Similarity(given, others=torch.tensor([[0.0, 1.0]]) * scale)
            score = query.bind(run, inputs)(inputs, torch.tensor([0]))
        torch.testing.assert_close(score, torch.tensor([0.6 - 0.8]))


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_weights_of_other_libraries(number: float) -> None:
    assert Classes({0: number, 1: np.int64(2)}).weights == {0: 0.5, 1: 2.0}
    assert Classes({0: number, 1: np.int64(2)}).name == "0.5·class 0 + 2·class 1"


def test_queries_copy_their_arguments() -> None:
    weights, reference, region = {0: 1.0}, torch.ones(4), mask_of(A) > 0
    classes, similarity, segment = Classes(weights), Similarity(reference), Segment(1, region)
    weights[1], reference[0] = 5.0, 9.0
    region.fill_(False)
    assert dict(classes.weights) == {0: 1.0}
    assert torch.equal(similarity.reference, torch.ones(4))
    assert segment.region is not None
    assert bool(segment.region.any())


@pytest.mark.parametrize(
    ("query", "mirror"),
    [(Classes({0: 1.0}), True), (Output(0), True), (Segment(1), False), (Box((0, 0, 8, 8), 1), False)],
)
def test_queries_that_depend_on_position_are_not_mirror_invariant(query: Query, mirror: bool) -> None:
    x = torch.rand(1, 3, 8, 8)
    net = Network(nn.Flatten(), mirror=True)
    assert is_mirror_invariant(net, x, parse_target(query, margin)) is mirror
    assert is_mirror_invariant(net, x, parse_target([query], margin)) is mirror
    assert is_mirror_invariant(net, x, parse_target(0, margin))
    assert not is_mirror_invariant(Network(nn.Flatten()), x, parse_target(query, margin))


def test_queries_of_a_batch_are_split_with_it() -> None:
    """With memory for one input at a time, each part of the batch has its own query."""
    x = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    queries = [Output(0), Output(1), Output(0)]
    results = [
        explain(
            Network(nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), memory=memory), x, target, areas=(0.2,), solver=SHORT
        )
        for memory in (None, 1e-9)
        for target in (queries, PerInput(queries))
    ]
    expected = x.mean((2, 3))[[0, 1, 2], [0, 1, 0]]
    for result in results:
        torch.testing.assert_close(result.score_full, expected)
