"""Questions of other kinds than a class: the evidence that is known is found, what they cost, and what they refuse."""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from answering import Answering, Detector, Segmenter, Tower
from extremal import ExtremalError, ExtremalTypeError, ExtremalValueError, Network, explain, explain_channels
from extremal.scores import Box, Classes, Output, Query, Segment, Similarity, Unit
from extremal.solvers import Path, Step
from extremal.split import split
from toys import box_mask, overlap, texture

X = texture(1, 3, 32, 32)
A, B, C = (slice(4, 12), slice(4, 12)), (slice(20, 28), slice(16, 24)), (slice(4, 12), slice(20, 28))
CELL, QUARTER = (slice(8, 12), slice(20, 24)), (slice(0, 16), slice(0, 16))
AT_A, AT_B, AT_C = (4.0, 4.0, 12.0, 12.0), (16.0, 20.0, 24.0, 28.0), (20.0, 4.0, 28.0, 12.0)
QUICK = Path(steps=24, polish=6, draws=2, search=4)
SHORT = Path(steps=3, polish=2, draws=2, search=0)
NAMES = ("cat", "dog", "car")


def mask_of(*boxes: tuple[slice, ...]) -> Tensor:
    return sum(box_mask(box, (32, 32)) for box in boxes)  # type: ignore[return-value]


def shown(*boxes: tuple[slice, ...]) -> Tensor:
    """X in these boxes, nothing elsewhere."""
    return X * mask_of(*boxes)


def looks() -> list[Any]:
    return [(A, AT_A, 1), (B, AT_B, 1), (C, AT_C, 2)]


def found_by(model: nn.Module, query: Query, wanted: Tensor, **options: Any) -> float:
    """How well the mask of exactly the area of what is wanted covers it."""
    area = float(wanted.mean())
    result = explain(
        Network(model, labels=NAMES), X, query, areas=(area,), perturbation="fade", solver=QUICK, **options
    )
    assert result.target_names == (query.name,)
    return overlap(result.binary(area)[0, 0], wanted)


def value(model: nn.Module, query: Query, inputs: Tensor = X, whole: Tensor = X) -> Tensor:
    """What is asked of inputs, bound to the whole one."""
    with Network(model, labels=NAMES).frozen() as run, torch.no_grad():
        return query.bound(run, whole)(inputs, torch.zeros(len(inputs), dtype=torch.int64))


def three(answer: Callable[[Tensor], object] = lambda seen: seen) -> Answering:
    return Answering(X, [A, B, C], answer)


def embedder() -> Answering:
    return three(lambda seen: torch.cat([seen, 0.3 + 0 * seen[:, :1]], 1))


def planted(*boxes: tuple[slice, ...]) -> Tensor:
    return X * mask_of(*boxes)


REFERENCE = torch.tensor([1.0, 0.0, 0.0, 0.3])
CASES: dict[str, tuple[nn.Module, Query, Tensor]] = {
    "classes": (three(), Classes({"cat": 1.0, 1: 1.0, "car": -1.0}), mask_of(A, B)),
    "one class": (three(), Classes({"dog": 0.5}), mask_of(B)),
    "output": (three(lambda seen: {"all": (seen, seen.sum(1)), "last": seen[:, 2]}), Output(1, ("all", 0)), mask_of(B)),
    "regression": (three(lambda seen: seen[:, 0]), Output(), mask_of(A)),
    "unit": (Tower(X), Unit("pair", 0, (2, 5)), mask_of(CELL)),
    "channel": (Tower(X), Unit("pair", 1), mask_of(QUARTER)),
    "token": (Tower(X), Unit("tokens", 0, 21), mask_of(CELL)),
    "token's channel": (Tower(X), Unit("tokens", 1, axis=2), mask_of(QUARTER)),
    "embedding": (embedder(), Similarity(REFERENCE), mask_of(A)),
    "another input": (embedder(), Similarity(shown(A)), mask_of(A)),
    "two embeddings": (embedder(), Similarity(torch.eye(4)[:2]), mask_of(A, B)),
    "layer's embedding": (Tower(X), Similarity(torch.ones(2), "pair"), mask_of(QUARTER)),
    "segment": (Segmenter(X), Segment("dog", mask_of(A) > 0), mask_of(A)),
    "logits of a segment": (Segmenter(X, lambda y: {"out": y}), Segment(1, mask_of(C) > 0, "logit"), mask_of(C)),
    "predicted segment": (Segmenter(planted(A, C)), Segment("dog"), mask_of(A, C)),
    "box": (Detector(X, looks()), Box(AT_B, "dog"), mask_of(B)),
    "nearly the box": (Detector(X, looks()), Box((17, 20, 24, 28)), mask_of(B)),
    "best box": (Detector(X, looks()), Box(), mask_of(A)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_evidence_is_found_at_its_own_area(case: str) -> None:
    model, query, wanted = CASES[case]
    assert isinstance(query, Query)
    assert found_by(model, query, wanted) >= 0.6


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
        e, r = embedder()(X)[0], embedder()(shown(B))[0]
        wanted = float(e @ r / (e.norm() * r.norm()))
        assert float(value(embedder(), Similarity(shown(B)))) == pytest.approx(wanted, abs=1e-6)
        assert float(value(embedder(), Similarity(-3 * r))) == pytest.approx(-wanted, abs=1e-6)
        several = float(value(embedder(), Similarity(torch.stack([r, -r, e]))))
        assert several == pytest.approx(1 / 3, abs=1e-6)  # the mean of the cosines

    def test_a_place_counts_by_how_much_of_it_lies_in_the_region(self) -> None:
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

    def test_one_class_against_nothing(self) -> None:
        model = Segmenter(planted(A), lambda maps: maps[:, 1:2] - 1)
        inside = 8 * model.cells(X)[0, 0, 1:3, 1:3] - 1
        assert float(value(model, Segment(0))) == pytest.approx(float(inside.mean()), rel=1e-6)

    def test_boxes_are_matched_softly(self) -> None:
        score = float(torch.sigmoid(8 * (torch.tanh(torch.tensor(2.0)) - 0.6)))
        assert float(value(Detector(X, looks()), Box(AT_A))) == pytest.approx(score, rel=1e-5)
        assert float(value(Detector(X, looks()), Box((4, 4, 12, 9), 1))) == pytest.approx(score * 5 / 8, rel=1e-5)

    def test_a_box_is_followed_below_what_the_detector_reports(self) -> None:
        dim = X - 0.6 * shown(B)  # B is seen with 0.66, third after A and C; by itself the detector tells of two
        model = Detector(X, looks())
        assert len(model(dim)[0]["scores"]) == 2
        seen = torch.tanh(torch.tensor(2 * 0.4))
        asked = float(value(model, Box(AT_B, 1), dim))
        assert asked == pytest.approx(0.9 * float(torch.sigmoid(8 * (seen - 0.6))), rel=1e-4)
        faint = float(value(model, Box(AT_B, 1), 0 * X))
        assert faint == pytest.approx(0.9 * float(torch.sigmoid(torch.tensor(-4.8))), rel=1e-4)

    def test_no_box_left_is_zero_with_a_gradient(self) -> None:
        model = Detector(X, looks())
        with Network(model).frozen() as run:
            asked = Box(AT_B, 1).bound(run, X)
            inputs = (-X).requires_grad_()
            scores = asked(inputs, torch.tensor([0]))
            assert scores.tolist() == [0.0]
            (grad,) = torch.autograd.grad(scores.sum(), inputs)
        assert float(grad.abs().max()) == 0.0


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_the_input(case: str) -> None:
    model, query, wanted = CASES[case]
    with Network(model, labels=NAMES).frozen() as run:
        inputs = (X * (0.3 + 0.5 * wanted)).requires_grad_()
        (grad,) = torch.autograd.grad(query.bound(run, X)(inputs, torch.tensor([0])).sum(), inputs)
    moved = grad.abs().sum((0, 1)) > 0
    assert bool(moved[wanted > 0].all())


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
def test_several_questions_about_one_input_are_each_answered(
    model: nn.Module, queries: list[Query], names: tuple[str, ...]
) -> None:
    area = float(mask_of(A).mean())
    result = explain(model, X, queries, areas=(area,), perturbation="fade", solver=QUICK)
    assert result.target_names == names
    for n, box in enumerate((A, B)):
        assert overlap(result.binary(area)[n, 0], mask_of(box)) >= 0.6


def test_a_batch_is_asked_each_about_its_own() -> None:
    x = torch.cat([shown(A, C), shown(B)])  # on each another box is the best
    with Network(Detector(X, looks())).frozen() as run, torch.no_grad():
        asked = Box().bound(run, x)
        rows, images = torch.cat([X, X, shown(B), shown(A)]), torch.tensor([0, 1, 1, 0])
        a, b = asked(x, torch.tensor([0, 1])).tolist()
        assert b == pytest.approx(0.9 * a)
        assert asked(rows, images).tolist() == pytest.approx([a, b, b, a])
    with Network(Segmenter(X)).frozen() as run, torch.no_grad():
        asked = Segment(1, score="logit").bound(run, x)
        whole = 8 * math.tanh(2)
        assert asked(rows, images).tolist() == pytest.approx([whole, whole, whole, whole / 2], rel=1e-5)


class TestUnitsCost:
    def test_nothing_behind_the_layer_is_evaluated(self) -> None:
        calls = []
        for solver in (SHORT, Path(steps=12, polish=4, draws=2, search=0)):
            tower = Tower(X)
            result = explain(tower, X, Unit("pair", 0), areas=(0.2,), perturbation="fade", solver=solver)
            calls.append(tower.behind.calls)
            assert result.settings["evaluations"]["gradients"] == solver.steps + solver.polish + solver.draws
        assert calls[0] == calls[1] <= 5  # what settling and the check of the layer cost, however long the run

    def test_evaluations_are_counted(self) -> None:
        tower = Tower(X)
        with Network(tower).frozen() as run:
            asked = Unit("pair", 0).bound(run, X.repeat(3, 1, 1, 1))
            assert (run.forwards, run.gradients, tower.behind.calls) == (1, 0, 1)
            asked(X.repeat(3, 1, 1, 1), torch.arange(3))
            asked(X.clone().requires_grad_(), torch.tensor([0]))
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
        assert found_by(model, Unit(name, 3, 6), mask_of(patch)) >= 0.6


class TestChannels:
    """Questions about channels of a hidden layer: what is asked about lies behind it."""

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
    def test_the_channel_that_counts_is_found(self, query: Query, channel: int) -> None:
        found = explain_channels(self.net(), X.abs(), "features", query, counts=(1,), solver=QUICK)
        assert found.channels(1) == (channel,)

    def test_a_reference_input_is_embedded_by_the_whole_network(self) -> None:
        net = Network(self.net())
        with net.frozen() as run, torch.no_grad():
            made = split(run, "features", X.abs())
            rows, images = made.activations, torch.tensor([0])
            parts = Similarity(X.abs() + 1).bound(made, rows)(rows, images)
            whole = Similarity(X.abs() + 1).bound(run, X.abs())(X.abs(), images)
        torch.testing.assert_close(parts, whole)

    def test_a_layer_before_the_channels_is_refused(self) -> None:
        with pytest.raises(ExtremalValueError) as caught:
            explain_channels(self.net(), X, "pool", Unit("features", 0), counts=(1,), solver=SHORT)
        assert str(caught.value) == (
            "a question about channels of 'pool' must look at a layer behind it, 'features' is before it; choose one "
            "behind, or ask about the input"
        )


def state(model: nn.Module) -> dict[str, Any]:
    """All that a run could leave behind."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        own = {key: kept for key, kept in vars(module).items() if not key.startswith("_") and key != "calls"}
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        found[name] = own, hooks, list(module._modules), [id(part) for part in module._modules.values()]
    tensors = {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}
    return {"modules": found, "tensors": tensors}


class TestState:
    @pytest.mark.parametrize("case", CASES)
    def test_after_a_run(self, case: str) -> None:
        model, query, _ = CASES[case]
        model.train()
        before = state(model)
        explain(Network(model, labels=NAMES), X, query, areas=(0.2,), perturbation="fade", solver=SHORT)
        assert state(model) == before

    @pytest.mark.parametrize("case", ["unit", "segment", "box", "another input"])
    def test_after_an_exception_on_the_way(self, case: str) -> None:
        model, query, _ = CASES[case]
        before = state(model)

        def stop(step: Step) -> None:
            if step.index == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            explain(Network(model, labels=NAMES), X, query, areas=(0.2,), solver=SHORT, on_step=stop)
        assert state(model) == before

    @pytest.mark.parametrize("fail_after", range(1, 9))
    def test_after_a_detector_fails(self, fail_after: int) -> None:
        model = Detector(X, looks(), fail_after=fail_after)
        before = state(model)
        with pytest.raises(OSError, match="the detector has failed"):
            explain(model, X, Box(AT_A), areas=(0.2,), solver=SHORT)
        assert state(model) == before

    @pytest.mark.parametrize("query", [Unit("pair", 9), Unit("both", 0), Unit("twice", 0), Segment(7), Box(AT_A)])
    def test_after_a_question_is_refused(self, query: Query) -> None:
        model: nn.Module = Segmenter(X) if isinstance(query, Segment) else Tower(X)
        before = state(model)
        with pytest.raises(ExtremalError):
            explain(model, X, query, areas=(0.2,), solver=SHORT)
        assert state(model) == before

    def test_masks_are_left_out_only_while_boxes_are_asked(self) -> None:
        model = Detector(X, looks())
        part = model.head.mask_roi_pool
        value(model, Box(AT_A), torch.cat([X] * 5))
        assert part.calls == 1  # where the whole input was looked at
        assert model.head.mask_roi_pool is part
        assert (model.head.score_thresh, model.head.detections_per_img) == (0.5, 2)


class Trunk(nn.Sequential):
    """Three small convolutions."""

    out_channels = 8

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))


def tiny_detector(kind: type[nn.Module]) -> nn.Module:
    """A detector of torchvision's with random weights, large in its last layers, so that it is sure of something."""
    torch.manual_seed(0)
    sizes = {"min_size": 64, "max_size": 64}
    anchors = AnchorGenerator(((16, 32),), ((0.5, 1.0, 2.0),))
    if kind is RetinaNet:
        model = RetinaNet(Trunk(), 3, anchor_generator=anchors, score_thresh=0.3, **sizes)
        model.head.classification_head.cls_logits.weight.data.mul_(300)
        model.head.classification_head.cls_logits.bias.data.zero_()
        return model
    pools = [torchvision.ops.MultiScaleRoIAlign(["0"], size, 2) for size in (3, 4)]
    model = MaskRCNN(
        Trunk(),
        rpn_anchor_generator=anchors,
        box_roi_pool=pools[0],
        mask_roi_pool=pools[1],
        box_head=nn.Sequential(nn.Flatten(), nn.Linear(72, 16), nn.ReLU()),
        box_predictor=torchvision.models.detection.faster_rcnn.FastRCNNPredictor(16, 3),
        mask_head=nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()),
        mask_predictor=torchvision.models.detection.mask_rcnn.MaskRCNNPredictor(8, 8, 3),
        rpn_post_nms_top_n_test=30,
        **sizes,
    )
    model.roi_heads.box_predictor.cls_score.weight.data.mul_(20)
    return model


@pytest.mark.parametrize("kind", [MaskRCNN, RetinaNet])
def test_torchvisions_detectors_are_asked_with_their_gradient(kind: type[nn.Module]) -> None:
    model = tiny_detector(kind).eval()
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (alone,) = model(x)  # before its state is taken: it remembers the sizes of its maps by itself
    before = state(model)
    with Network(model).frozen() as run:
        asked = Box().bound(run, x)
        inputs = x.clone().requires_grad_()
        score = asked(inputs, torch.tensor([0]))
        (grad,) = torch.autograd.grad(score.sum(), inputs)
        lenient = asked((0.1 * x).detach(), torch.tensor([0]))
    assert score.tolist() == pytest.approx([float(alone["scores"].max())], abs=1e-5)
    assert float(grad.abs().max()) > 0
    assert float(lenient) > 0
    assert state(model) == before
    result = explain(model, x, Box(), areas=(0.2,), perturbation="fade", solver=SHORT)
    assert torch.isfinite(result.scores).all()
    assert state(model) == before


def refused(model: nn.Module, ask: Callable[[], Query]) -> tuple[type[Exception], str]:
    with pytest.raises(ExtremalError) as caught:
        value(model, ask())
    return type(caught.value), str(caught.value)


NAN = torch.tensor([1.0, math.nan])
ERRORS: list[tuple[nn.Module, Callable[[], Query], type[ExtremalError], str]] = [
    (
        three(),
        lambda: Classes([1]),  # type: ignore[arg-type]
        ExtremalTypeError,
        "weights must map classes to numbers, got list; e.g. {'cat': 1, 'dog': -1}",
    ),
    (
        three(),
        lambda: Classes({}),
        ExtremalValueError,
        "weights must name at least one class, got none; e.g. {'cat': 1, 'dog': -1}",
    ),
    (
        three(),
        lambda: Classes({"cat": "1"}),  # type: ignore[dict-item]
        ExtremalTypeError,
        "weights must be numbers, got '1' for cat; e.g. 1",
    ),
    (
        three(),
        lambda: Classes({"cat": 1, 1: math.nan}),
        ExtremalValueError,
        "weights must be finite and not 0, got nan for class 1; leave out classes that do not count",
    ),
    (
        three(),
        lambda: Classes({"dog": 1, 1: 1}),
        ExtremalValueError,
        "weights must name every class once, got dog 2 times; add its weights up",
    ),
    (three(), lambda: Classes({0: 1, 3: 1}), ExtremalValueError, "a class must lie in 0..2 for Answering, got 3"),
    (three(), lambda: Classes({-1: 1}), ExtremalValueError, "a class must be at least 0 for Answering, got -1"),
    (
        three(),
        lambda: Classes({"dogs": 1}),
        ExtremalValueError,
        "target must be a class of Answering, got 'dogs'; nearest: dog",
    ),
    (
        three(),
        lambda: Classes({1.5: 1}),  # type: ignore[dict-item]
        ExtremalTypeError,
        "a class must be given by its index or name, got 1.5",
    ),
    (
        three(),
        lambda: Output(3),
        ExtremalValueError,
        "the index of an output must lie in 0..2 for Answering, got 3",
    ),
    (
        three(),
        lambda: Output("cat"),  # type: ignore[arg-type]
        ExtremalTypeError,
        "the index of an output must be a whole number, got 'cat'; e.g. 0",
    ),
    (
        three(lambda seen: {"age": seen}),
        lambda: Output(0),
        ExtremalTypeError,
        "an output must be a floating tensor (B,) or (B, K), Answering's is a dict with the keys 'age'; choose with "
        "key",
    ),
    (
        three(lambda seen: seen > 0),
        lambda: Output(0),
        ExtremalTypeError,
        "an output must be a floating tensor (B,) or (B, K), Answering's is torch.bool; wrap the network",
    ),
    (
        three(lambda seen: {"age": seen, "height": seen}),
        lambda: Output(0, "size"),
        ExtremalValueError,
        "a key must lead into the output of Answering, got 'size' into a dict with the keys 'age', 'height'",
    ),
    (
        three(),
        lambda: Output(0, "size"),
        ExtremalValueError,
        "a key must lead into the output of Answering, got 'size' into a Tensor",
    ),
    (
        three(lambda seen: seen[..., None]),
        lambda: Output(0),
        ExtremalValueError,
        "an output must be (B,) or (B, K) with B = 1, Answering's is (1, 3, 1); pass a callable on the output as "
        "target, or wrap the network",
    ),
    (
        Tower(X),
        lambda: Unit("pairs", 0),
        ExtremalValueError,
        "a layer must be the name of a module in Tower, got 'pairs'; did you mean pair? extremal.layers(network) lists "
        "them",
    ),
    (
        Tower(X),
        lambda: Unit("", 0),
        ExtremalTypeError,
        "a unit's layer must be the name of a module, got ''",
    ),
    (
        Tower(X),
        lambda: Unit("pair", 0, (1.5, 0)),  # type: ignore[arg-type]
        ExtremalTypeError,
        "a unit's channel and place must be whole numbers, got 1.5; e.g. 0",
    ),
    (Tower(X), lambda: Unit("pair", 2), ExtremalValueError, "channel must lie in 0..1 for 'pair', got 2"),
    (
        Tower(X),
        lambda: Unit("pair", 0, 5),
        ExtremalValueError,
        "place must have 2 numbers for 'pair', whose channels are (8, 8), got (5,)",
    ),
    (
        Tower(X),
        lambda: Unit("pair", 0, (5, 8)),
        ExtremalValueError,
        "place must lie within (8, 8) for 'pair', got (5, 8)",
    ),
    (
        Tower(X),
        lambda: Unit("behind", 0, 0),
        ExtremalValueError,
        "place must be None for 'behind', whose channels are units, got (0,)",
    ),
    (
        Tower(X),
        lambda: Unit("behind", 0, axis=2),
        ExtremalValueError,
        "axis must be one of 1..1 for an output of shape (1, 2) (axis 0 is the batch), got 2",
    ),
    (
        Tower(X),
        lambda: Unit("twice", 0),
        ExtremalValueError,
        "a layer that is asked about must be called once and give one floating tensor (B, K, ...), 'twice' does not: "
        "it is called 2 times in a pass; extremal.layers(network) lists those that do",
    ),
    (
        Tower(X),
        lambda: Unit("both", 0),
        ExtremalValueError,
        "a layer that is asked about must be called once and give one floating tensor (B, K, ...), 'both' does not: "
        "its output is a tuple; extremal.layers(network) lists those that do",
    ),
    (
        embedder(),
        lambda: Similarity([1.0]),  # type: ignore[arg-type]
        ExtremalTypeError,
        "a reference must be a floating tensor, an embedding (D,) or prepared inputs (M, C, *S), got list",
    ),
    (
        embedder(),
        lambda: Similarity(torch.ones(4, dtype=torch.int64)),
        ExtremalTypeError,
        "a reference must be a floating tensor, an embedding (D,) or prepared inputs (M, C, *S), got torch.int64",
    ),
    (
        embedder(),
        lambda: Similarity(torch.ones(0, 4)),
        ExtremalValueError,
        "a reference must be an embedding (D,) or (M, D), or prepared inputs (M, C, *S), got shape (0, 4)",
    ),
    (
        embedder(),
        lambda: Similarity(NAN),
        ExtremalValueError,
        "a reference must be finite, got 1 NaN or infinite numbers; clean it",
    ),
    (
        embedder(),
        lambda: Similarity(torch.ones(3)),
        ExtremalValueError,
        "a reference must have as many numbers as the embedding, 4, got 3",
    ),
    (
        embedder(),
        lambda: Similarity(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]])),
        ExtremalValueError,
        "a reference must have a direction, number 1 is embedded as zeros only",
    ),
    (
        embedder(),
        lambda: Similarity(X[..., :16]),
        ExtremalValueError,
        "a reference input must have the shape (M, C, *S) of the inputs, (M, 3, 32, 32), got (1, 3, 32, 16); prepare "
        "it as they are",
    ),
    (
        three(lambda seen: 1 / seen),
        lambda: Similarity(shown(A, B)),
        ExtremalValueError,
        "the embedding of a reference must be finite, got 1 NaN or infinite numbers; clean it",
    ),
    (
        three(lambda seen: {"seen": seen}),
        lambda: Similarity(torch.ones(3)),
        ExtremalTypeError,
        "an embedding must be one floating tensor (B, ...), Answering returned dict; name a layer, or wrap the network",
    ),
    (
        Segmenter(X),
        lambda: Segment(3),
        ExtremalValueError,
        "a class must lie in 0..2 for Segmenter, got 3",
    ),
    (
        Segmenter(X),
        lambda: Segment(1, score="loss"),
        ExtremalValueError,
        "score must be one of margin, logit, probability, log-probability, contrastive, negative or a callable, got "
        "'loss'",
    ),
    (
        Segmenter(X),
        lambda: Segment(1, torch.ones(32, 32)),
        ExtremalTypeError,
        "a region must be a bool tensor (*S), got torch.float32; e.g. mask > 0.5",
    ),
    (
        Segmenter(X),
        lambda: Segment(1, torch.zeros(32, 32) > 0),
        ExtremalValueError,
        "a region must hold at least one place, got none; leave it out to find one",
    ),
    (
        Segmenter(X),
        lambda: Segment(1, torch.ones(8, 8) > 0),
        ExtremalValueError,
        "a region must have the shape (32, 32) of the input, got (8, 8)",
    ),
    (
        Segmenter(planted(A)),
        lambda: Segment("car"),
        ExtremalValueError,
        "a segmentation must predict the class somewhere, Segmenter predicts car nowhere on input 0; it predicts cat, "
        "dog: ask for one of these, or give a region",
    ),
    (
        Segmenter(X, lambda maps: -maps[:, 1:2]),
        lambda: Segment(0),
        ExtremalValueError,
        "a segmentation must predict the class somewhere, Segmenter predicts cat nowhere on input 0; give a region",
    ),
    (
        three(),
        lambda: Segment(0),
        ExtremalTypeError,
        "a segmentation network must return floating scores (B, classes, *places), or a mapping with these under 'out' "
        "or 'logits', Answering returned torch.float32 (1, 3); wrap the network",
    ),
    (
        Detector(X, looks()),
        lambda: Box((4, 4, 12)),  # type: ignore[arg-type]
        ExtremalValueError,
        "a box must be four finite numbers x1, y1, x2, y2 in pixels, got (4, 4, 12)",
    ),
    (
        Detector(X, looks()),
        lambda: Box((12, 4, 4, 12)),
        ExtremalValueError,
        "a box must be x1, y1, x2, y2 with x1 < x2 and y1 < y2, got 12, 4, 4, 12",
    ),
    (
        Detector(texture(1, 3, 32, 32, seed=1), looks()),
        Box,
        ExtremalValueError,
        "a detector must find a box on the whole input, Detector finds none on input 0; lower its own threshold of the "
        "score, or ask about another input",
    ),
    (
        Detector(X, looks()),
        lambda: Box(label="car"),
        ExtremalValueError,
        "a detector must find a box of car on the whole input, Detector finds none on input 0 but 2 dog; ask about one "
        "of these",
    ),
    (
        Detector(X, looks()),
        lambda: Box((8, 4, 16, 12), 1),
        ExtremalValueError,
        "a detector must find the box on the whole input with an IoU of at least 0.5, the best box of dog that "
        "Detector finds on input 0 has 0.33, of 2 dog; box=None takes the best",
    ),
    (
        Detector(X, looks()),
        lambda: Box(label=3),
        ExtremalValueError,
        "a class must lie in 0..2 for Detector, got 3",
    ),
    (
        three(),
        Box,
        ExtremalTypeError,
        "a detector must return for each input a mapping with boxes (M, 4), labels (M,) and scores (M,), Answering "
        "returned a Tensor; wrap the network",
    ),
    (
        three(lambda seen: [{"boxes": seen, "scores": seen}]),
        Box,
        ExtremalTypeError,
        "a detector must return for each input a mapping with boxes (M, 4), labels (M,) and scores (M,), Answering "
        "returned a list of 1 dict with the keys boxes, scores; wrap the network",
    ),
]


@pytest.mark.parametrize(("model", "ask", "kind", "message"), ERRORS, ids=[str(n) for n in range(len(ERRORS))])
def test_what_is_refused(model: nn.Module, ask: Callable[[], Query], kind: type[ExtremalError], message: str) -> None:
    assert refused(model, ask) == (kind, message)


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


def test_what_the_caller_changes_afterwards_changes_nothing() -> None:
    weights, reference, region = {0: 1.0}, torch.ones(4), mask_of(A) > 0
    classes, similarity, segment = Classes(weights), Similarity(reference), Segment(1, region)
    weights[1], reference[0] = 5.0, 9.0
    region.fill_(False)
    assert dict(classes.weights) == {0: 1.0}
    assert torch.equal(similarity.reference, torch.ones(4))
    assert segment.region is not None
    assert bool(segment.region.any())
