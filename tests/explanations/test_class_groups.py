"""Groups of classes as targets: what is found, and results that can be continued and restored."""

from pathlib import Path as File

import pytest
import torch
from torch import Tensor

import extremal
from extremal import ChannelExplanation, Explanation, Network, explain, explain_channels, judge
from extremal.benchmark.baselines import get_method
from extremal.captum import ExtremalPerturbation
from extremal.explanations.channels.class_ranking import class_channels
from extremal.masking.solvers import Path
from extremal.report import result_files, text
from extremal.report.channel_files import channel_record
from extremal.scores import ClassGroup
from support.errors import message_of
from support.toys import Carriers, SharedEvidence, box_mask, texture

SIDE = 24
EVIDENCE, DIVISION = (slice(3, 11), slice(2, 10)), (slice(14, 20), slice(13, 21))
X = texture(1, 3, SIDE, SIDE)
NET = Network(
    SharedEvidence(X, EVIDENCE, DIVISION),
    labels=("tabby", "tiger cat", "beagle", "owl"),
    name="shared",
    groups={"cat": (0, 1)},
)
AREA = 64 / SIDE**2
QUICK = Path(steps=24, polish=4, rounds=1, draws=2, search=2)
OPTIONS = {"areas": (AREA, 0.3), "perturbation": "fade", "solver": QUICK}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def result() -> Explanation:
    return explain(NET, X, ["tabby", ["tabby", "tiger cat"]], **OPTIONS)


class TestResult:
    def test_the_group_needs_only_what_its_classes_share(self, result: Explanation) -> None:
        assert (result.target, result.target_names) == ((0, (0, 1)), ("tabby", "cat (2 classes)"))
        evidence, division = box_mask(EVIDENCE, (SIDE, SIDE)), box_mask(DIVISION, (SIDE, SIDE))
        group, single = result.binary(AREA)[1, 0], result.binary(0.3)[0, 0]
        assert float((group * evidence).sum() / evidence.sum()) > 0.9
        assert float((single * division).sum() / division.sum()) > 0.9  # which of the two classes it is
        effects = result.effects(result.binary_scores)[:, 0].tolist()
        assert effects[1] > 0.95
        assert effects[0] < 0.9

    @pytest.mark.parametrize("score", ["logit", "sigmoid"])
    def test_all_classes_are_a_group_for_scores_that_compare_them_with_no_other(self, score: str) -> None:
        found = explain(NET, X, [[0, 1, 2, 3]], score=score, areas=(AREA,), perturbation="fade", effort="fast")
        logits = NET.model(X)[0]
        odds = torch.log(torch.expm1(torch.log1p(logits.exp()).sum()))
        expected = logits.logsumexp(0) if score == "logit" else odds
        assert float(found.score_full) == pytest.approx(float(expected), rel=1e-4)

    def test_its_score_does_not_fall_if_probability_moves_between_its_classes(self) -> None:
        moved = X.clone()
        moved[(..., *DIVISION)] *= -1  # the division says the other class
        scores = explain(NET, torch.cat([X, moved]), ClassGroup([0, 1]), **OPTIONS).score_full
        assert float(scores[1]) == pytest.approx(float(scores[0]), abs=1e-5)
        single = explain(NET, torch.cat([X, moved]), 0, **OPTIONS).score_full
        assert float(single[1]) < float(single[0]) - 4

    def test_a_group_of_one_class_is_the_class(self) -> None:
        assert explain(NET, X, [["tiger cat"]], **OPTIONS) == explain(NET, X, [1], **OPTIONS)

    def test_a_name_and_its_classes_are_one_target(self, result: Explanation) -> None:
        by_name = explain(NET, X, "cat", **OPTIONS)
        assert (by_name.target, by_name.target_names) == (((0, 1),), ("cat (2 classes)",))
        assert by_name == explain(NET, X, "tiger cat|tabby", **OPTIONS)

    def test_it_is_saved_and_loaded(self, result: Explanation, tmp_path: File) -> None:
        result.save(tmp_path / "group.safetensors")
        loaded = Explanation.load(tmp_path / "group.safetensors")
        assert loaded == result
        assert (loaded.target, loaded.is_class) == ((0, (0, 1)), True)

    def test_report_and_record_name_the_group(self, result: Explanation) -> None:
        group = explain(NET, X, "cat", **OPTIONS)
        assert text.summarise(group).name == "cat (2 classes)"
        record = result_files.result_record("cat.png", group, {}, None)
        assert (record["target"], record["target_name"]) == ([0, 1], "cat (2 classes)")


class TestContinuations:
    def test_smallest_area_and_stability_need_no_target(self, result: Explanation) -> None:
        single, group = extremal.smallest_area(NET, result, tolerance=0.2)
        assert group is not None
        assert group.area <= AREA
        assert single is None or single.area > AREA
        measured = extremal.stability(NET, X, result, copies=1)
        assert float(measured.unseen_effects.nan_to_num(1.0).abs().max()) < 10
        assert measured.ious.shape == (2, 2, 1)

    def test_judge(self, result: Explanation) -> None:
        judged = judge(NET, X, result.masks[1:], [(0, 1)], areas=OPTIONS["areas"], perturbation="fade")
        torch.testing.assert_close(judged.binary_scores, result.binary_scores[1:])
        assert judged.target == ((0, 1),)

    def test_plan(self) -> None:
        (planned,) = extremal.plan(NET, X, "cat", **OPTIONS).inputs
        probabilities = NET.model(X).softmax(1)[0]
        assert (planned.target, planned.name) == ((0, 1), "cat (2 classes)")
        assert planned.probability == pytest.approx(float(probabilities[:2].sum()))
        assert planned.full == pytest.approx(
            float(NET.model(X)[0, :2].logsumexp(0) - torch.tensor(2.0).log()), abs=1e-5
        )

    @pytest.mark.parametrize("score", ["margin", "probability"])
    def test_examine(self, score: str) -> None:
        findings = extremal.examine(NET, X, "cat", perturbation="fade", score=score)
        assert findings.target == "cat (2 classes)"
        clear = next(finding for finding in findings.findings if finding.name == "clear class")
        probability = 100 * float(NET.model(X).softmax(1)[0, :2].sum())
        assert clear.measured == f"cat (2 classes) has {probability:.1f} %"

    def test_captum(self) -> None:
        method = ExtremalPerturbation(NET.model)
        found = method.explain(torch.cat([X, X]), [[0, 1], 2], **OPTIONS)
        assert found.target == ((0, 1), 2)

    def test_captum_with_further_arguments_of_each_input(self) -> None:
        def forward(x: Tensor, scale: Tensor) -> Tensor:
            return NET.model(x) * scale[:, None]

        found = ExtremalPerturbation(forward).explain(torch.cat([X, X]), [[0, 1], 0], torch.ones(2), **OPTIONS)
        assert found.target == ((0, 1), 0)

    def test_methods_of_the_benchmark_that_need_a_single_class_refuse_it(self) -> None:
        assert message_of(get_method("gradient"), NET, X, "cat") == (
            "a method must be asked about single classes, got the group cat (2 classes); `explain` takes groups, and "
            "so do the methods mask-gradient, penalty, path and consensus"
        )


class TestChannels:
    def test_channels_of_a_group(self, tmp_path: File) -> None:
        toy = Carriers([3], seed=0)
        x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 0.2
        model, layer = torch.nn.Sequential(toy, _Append()), "0.features"
        found = explain_channels(model, x[:1], layer, [[0, 2]], counts=[3])
        assert (found.target, found.target_names) == (((0, 2),), ("class 0 | class 2",))
        assert found.channels(3) == toy.sets[0]
        found.save(tmp_path / "channels.safetensors")
        assert ChannelExplanation.load(tmp_path / "channels.safetensors") == found
        assert channel_record("cat.png", found, {})["target"] == [0, 2]
        ranking = class_channels(model, x, layer, ClassGroup([0, 2]))
        assert ranking.target == (0, 2)
        ranking.save(tmp_path / "class.parquet")
        assert ranking.table()["target"].to_pylist()[0] == [0, 2]


class _Append(torch.nn.Module):
    """Appends a class with the score of the first less 1."""

    def forward(self, y: Tensor) -> Tensor:
        return torch.cat([y, y[:, :1] - 1], 1)
