"""`stability`: masks that hold still under one grey level of noise, and masks that do not."""

import math
from dataclasses import replace

import pytest
import torch

import extremal
from extremal import Explanation, ExtremalValueError, Network, Stability
from extremal.explanations.verdict import MIN_CORE_SHARE, MIN_STABLE_IOU, reach_verdict
from extremal.tensor_files import read_tensors, write_tensors
from support.toys import AnyBox, Linear, Switchable, hills, texture

SIDE = 32
AREAS = (0.1, 0.3)
FEW_STEPS = extremal.solvers.Path(steps=16, polish=4, draws=2)
BOXES = [(slice(y, y + 8), slice(x, x + 8)) for y in (1, 12, 23) for x in (1, 12, 23)]


@pytest.fixture(scope="module")
def steady():
    """A network with one best mask for each area, its input, and its explanation."""
    net, x = Network(Linear(hills((SIDE, SIDE)))), torch.full((1, 1, SIDE, SIDE), 0.7)
    return net, x, extremal.explain(net, x, 0, areas=AREAS, perturbation="fade", solver=FEW_STEPS)


@pytest.fixture(scope="module")
def chaotic():
    """A network for which noise decides which of nine boxes is found."""
    template = texture(1, 3, SIDE, SIDE)
    net, x = Network(AnyBox(template, BOXES)), 0.5 + 0.1 * template
    return net, x, extremal.explain(net, x, 0, areas=(0.1,), perturbation="blur", solver=FEW_STEPS)


def test_a_linear_network_is_stable(steady):
    measured = extremal.stability(*steady)
    assert isinstance(measured, Stability)
    assert measured.ious.shape == (1, 2, 4)
    assert measured.copies == 4
    assert float(measured.ious.min()) > 0.9
    assert float(measured.core_shares.min()) > 0.85
    assert measured.smallest_area_factors[0] in (None, 1.0)


def test_a_chaotic_network_is_unstable(chaotic):
    net, x, result = chaotic
    assert result.verdict[0][0].label == "sufficient"
    measured = extremal.stability(net, x, result)
    assert float(measured.median_iou[0, 0]) < 0.3
    verdict = replace(result, stability=measured).verdict[0][0]
    shared = f"{100 * float(measured.median_iou[0, 0]):.0f} %"
    assert verdict.label == "unstable"
    assert verdict.reason == f"copies with one grey level of noise share only {shared} of their places"


def test_core_and_ious_follow_from_the_masks_of_the_copies(chaotic, monkeypatch):
    net, x, result = chaotic
    explained = []
    module = extremal.explanations.explain_copies
    monkeypatch.setattr(module, "explain", lambda *args, **options: explained.append(explain(*args, **options)))
    explain = extremal.explain
    monkeypatch.setattr(module, "compare_copies", lambda *_: None)
    extremal.stability(net, x, result, copies=3)
    monkeypatch.undo()
    (copies,) = explained
    assert len(copies.masks) == 3
    measured = module.compare_copies(result, copies, 0)
    own = result.binary(0.1)[0].bool()
    core = own.clone()
    for copy in range(3):
        other = copies.binary(0.1)[copy].bool()
        iou = float((own & other).sum() / (own | other).sum())
        assert float(measured.ious[0, 0, copy]) == pytest.approx(iou)
        assert float(measured.effects[0, 0, copy]) == pytest.approx(copies.curve(copy).binary[0])
        core &= other
    assert torch.equal(measured.core[0, 0], core)
    assert float(measured.core_shares[0, 0]) == pytest.approx(float(core.sum() / own.sum()))
    assert measured.effect_range[0, 0].tolist() == [measured.effects.min(), measured.effects.max()]
    assert measured.evaluations == sum(copies.settings["evaluations"].values())


def test_several_targets_and_inputs_keep_their_order():
    weights = torch.stack([hills((SIDE, SIDE)), hills((SIDE, SIDE)).flip(0)])[:, None]

    class Two(torch.nn.Module):
        def forward(self, x):
            return 10 * (x[:, None] * weights).flatten(2).mean(2)

    x = torch.full((1, 1, SIDE, SIDE), 0.7)
    options = {"areas": (0.1,), "perturbation": "fade", "solver": FEW_STEPS, "score": "logit"}
    net = Network(Two())
    targets = extremal.stability(net, x, extremal.explain(net, x, [0, 1], **options), copies=2)
    inputs = extremal.stability(
        net, x.expand(2, -1, -1, -1), extremal.explain(net, [x, x], [0, 1], **options), copies=2
    )
    for measured in (targets, inputs):
        assert measured.ious.shape == (2, 1, 2)
        assert float(measured.ious.min()) > 0.9  # masks of one target compared with those of the other: below 0.5


@pytest.mark.parametrize("shape", [(64,), (12, 12, 12)])
def test_signals_and_volumes(shape):
    net, x = Network(Linear(hills(shape))), torch.full((1, 1, *shape), 0.7)
    x[..., 0] = 0.69
    result = extremal.explain(net, x, 0, areas=(0.2,), perturbation="fade", solver=FEW_STEPS)
    measured = extremal.stability(net, x, result, copies=2)
    assert measured.core.shape == (1, 1, 1, *shape)
    assert float(measured.ious.min()) > 0.8


def test_the_network_comes_back_as_it_was():
    net = Switchable().train()
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    result = extremal.explain(net, x, areas=(0.2,), solver=FEW_STEPS)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    extremal.stability(net, x, result, copies=2)
    assert net.training
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_other_queries_and_callables(steady):
    net, x, _ = steady
    target = lambda output: output[:, 0]  # noqa: E731
    result = extremal.explain(net, x, target, areas=(0.1,), perturbation="fade", solver=FEW_STEPS)
    with pytest.raises(ExtremalValueError, match="the target of the explanation was not a class: pass it as target"):
        extremal.stability(net, x, result)
    assert float(extremal.stability(net, x, result, 1, target=target).ious.min()) > 0.9


def test_what_does_not_belong_to_the_result_is_refused(steady):
    net, x, result = steady
    with pytest.raises(ExtremalValueError, match="copies must be at least 1, got 0"):
        extremal.stability(net, x, result, 0)
    with pytest.raises(ExtremalValueError, match="an image must be the one that was explained"):
        extremal.stability(net, x + 0.1 * torch.rand_like(x), result)
    with pytest.raises(ExtremalValueError, match="a network must be the one that was explained"):
        extremal.stability(Network(Linear(2 * hills((SIDE, SIDE)))), x, result)


def test_progress_and_repetition(steady):
    net, x, result = steady
    reports = []
    first = extremal.stability(net, x, result, 2, on_progress=lambda *report: reports.append(report))
    assert {stage for stage, _, _ in reports} > {"evidence"}
    assert all(0 < done <= total for _, done, total in reports)
    assert extremal.stability(net, x, result, 2) == first


def test_stability_is_saved_and_loaded(chaotic, tmp_path):
    net, x, result = chaotic
    measured = replace(result, stability=extremal.stability(net, x, result, 2))
    measured.save(tmp_path / "with.safetensors")
    assert Explanation.load(tmp_path / "with.safetensors") == measured
    result.save(tmp_path / "without.safetensors")
    assert Explanation.load(tmp_path / "without.safetensors").stability is None


def test_files_from_before_stability_are_readable(chaotic, tmp_path):
    result = chaotic[2]
    result.save(tmp_path / "new.safetensors")
    tensors, head = read_tensors(tmp_path / "new.safetensors", "an explanation")
    head["format"] = 4
    del head["stability"]
    write_tensors(tmp_path / "old.safetensors", tensors, head)
    assert Explanation.load(tmp_path / "old.safetensors") == result


def test_inputs_are_concatenated(chaotic):
    net, x, result = chaotic
    measured = replace(result, stability=extremal.stability(net, x, result, 2))
    joined = Explanation.concatenate([measured, measured])
    assert joined.stability is not None
    assert joined.stability.ious.shape == (2, 1, 2)
    assert joined.stability.evaluations == 2 * measured.stability.evaluations
    assert Explanation.concatenate([measured, result]).stability is None


def test_areas_that_only_some_copies_have():
    empty = torch.zeros(1, 1, 2)
    areas = torch.tensor([[0.1, 0.25], [0.1, math.nan], [math.nan, math.nan]], dtype=torch.float64)
    measured = Stability((0.1,), empty, empty, empty, empty, empty, areas, 0, 0)
    assert measured.smallest_area_factors == (2.5, math.inf, None)
    ranges = replace(measured, effects=torch.tensor([[[math.nan, 2.0, 1.0]], [[math.nan] * 3]])).effect_range
    assert ranges[0, 0].tolist() == [1.0, 2.0]
    assert bool(ranges[1].isnan().all())


def test_order_of_the_verdicts():
    good = {"soft": 1.0, "cut": 0.95, "unseen": [0.9], "control": [0.1]}
    unstable = {"stable_iou": MIN_STABLE_IOU - 0.01}
    assert reach_verdict(**good, stable_iou=MIN_STABLE_IOU).label == "sufficient"
    assert reach_verdict(**good, **unstable).label == "unstable"
    assert reach_verdict(**good, stable_iou=0.9, core_share=MIN_CORE_SHARE).label == "sufficient"
    small_core = reach_verdict(**good, stable_iou=0.9, core_share=0.29)
    assert (small_core.label, small_core.reason) == (
        "unstable",
        "all copies with one grey level of noise keep only 29 % of its places",
    )
    assert reach_verdict(**{**good, "cut": 0.5}, **unstable).label == "insufficient"
    assert reach_verdict(**{**good, "unseen": [0.1]}, **unstable).label == "suspect"
    assert reach_verdict(**{**good, "control": [1.0]}, **unstable).label == "chance is enough"
