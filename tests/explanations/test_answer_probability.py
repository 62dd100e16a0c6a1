"""An answer that the network does not give: in results from their scores, in the doctor from the outputs."""

import json
import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal import Network, examine, explain
from extremal.explanations.answer_probability import find_probability, is_unlikely
from extremal.explanations.explanation import Explanation
from extremal.explanations.preflight.findings import Level
from extremal.masking.solvers import Consensus
from extremal.report import explanation_page
from extremal.report.result_files import result_record
from extremal.report.text import summarise
from support import made_explanations

pytestmark = pytest.mark.usefixtures("one_thread")
X = torch.ones(1, 3, 16, 16)
OPTIONS: dict[str, Any] = {"areas": (0.1, 0.2), "perturbation": "fade", "solver": Consensus(steps=2, draws=2)}


class Squares(nn.Module):
    """Logits of classes for an input, each from the light of a square, and in the dark others."""

    def __init__(self, light: tuple[float, ...], dark: tuple[float, ...], end: nn.Module | None = None) -> None:
        super().__init__()
        self.light, self.dark, self.end = light, dark, end or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        lit = [x[..., 4 * k : 4 * k + 4, 3:9].mean((1, 2, 3)) for k in range(len(self.light))]
        values = zip(self.light, self.dark, lit, strict=True)
        return self.end(torch.stack([bright * share + dark * (1 - share) for bright, dark, share in values], 1))


def network(*light: float, end: nn.Module | None = None) -> Network:
    """A network with independent labels: none of them in the dark."""
    return Network(Squares(light, (-8.0,) * len(light), end), labels=("cat", "dog", "car")[: len(light)])


def softmax_network(*light: float, end: nn.Module | None = None) -> Network:
    """A network whose classes exclude each other: in the dark, it answers none of them."""
    model = Squares((*light, -9.0), (*[-4.0] * len(light), 5.0), end)
    return Network(model, labels=(*("cat", "dog", "car")[: len(light)], "none"))


@pytest.mark.parametrize("score", ["probability", "log-probability"])
def test_the_probability_of_a_softmax(score: str) -> None:
    chances = torch.tensor([4.0, 0.0, 3.0]).softmax(0).tolist()
    for index, is_named in enumerate((True, False, True)):
        result = explain(softmax_network(4.0, 0.0, 3.0), X, index, score=score, **OPTIONS)
        assert find_probability(result) == pytest.approx(chances[index], rel=1e-4)
        assert is_unlikely(result) is not is_named


def test_the_probability_of_a_label() -> None:
    for height, is_named in ((3.0, True), (-4.0, False)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the network says no
            result = explain(network(height, 0.0), X, 0, score="sigmoid", **OPTIONS)
        assert find_probability(result) == pytest.approx(1 / (1 + math.exp(-height)), rel=1e-5)
        assert is_unlikely(result) is not is_named


@pytest.mark.parametrize("score", ["margin", "logit", "contrastive"])
def test_other_scores_state_no_probability(score: str) -> None:
    result = explain(softmax_network(4.0, 0.0, 3.0), X, 1, score=score, **OPTIONS)
    assert find_probability(result) is None
    assert not is_unlikely(result)
    assert "probability" not in summarise(result).caution


def made(score: str, full: float, **changes: Any) -> Explanation:
    one = made_explanations.explanation()
    settings = {**one.settings, "score": score}
    return replace(one, score_full=torch.tensor([full]), settings=settings, **changes)


def test_extreme_and_tampered_scores() -> None:
    assert find_probability(made("sigmoid", -1e30)) == 0
    assert find_probability(made("sigmoid", 1e30)) == 1
    assert find_probability(made("log-probability", -math.inf)) == 0
    assert find_probability(made("probability", 7.0)) is None
    assert find_probability(made("probability", 0.5, target=(None,))) is None
    assert is_unlikely(made("probability", 0.0499))
    assert not is_unlikely(made("probability", 0.05))


def test_report_and_record_say_so(tmp_path: Any) -> None:
    result = explain(softmax_network(4.0, 0.0, 3.0), X, 1, score="probability", **OPTIONS)
    sentence = "The network gives this answer little probability for the whole image: 1.3\N{NO-BREAK SPACE}%."
    assert sentence in summarise(result).caution
    explanation_page.write(result, tmp_path / "report.html")
    assert sentence in (tmp_path / "report.html").read_text(encoding="utf-8").replace("&nbsp;", "\N{NO-BREAK SPACE}")
    record = json.loads(json.dumps(result_record("a.png", result, {})))
    assert (record["probability"], record["unlikely"]) == (pytest.approx(0.0132, abs=1e-4), True)


def test_it_is_true_of_the_likeliest_of_many_classes() -> None:
    torch.manual_seed(0)
    flat = Network(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 300)))
    likely = explain(flat, X, score="probability", **OPTIONS)
    assert "gives this answer little probability" in summarise(likely).caution
    assert "does not give" not in summarise(likely).caution
    nothing = summarise(made("log-probability", -50.0)).caution
    assert nothing == "The network gives this answer almost no probability for the whole image."


class TestDoctor:
    def find(self, net: Network, target: Any, score: str = "margin") -> tuple[Level, str]:
        findings = examine(net, X, target, perturbation="fade", score=score).findings
        (one,) = [finding for finding in findings if finding.name == "answer given"]
        return one.level, one.measured

    def test_logits(self) -> None:
        net = softmax_network(4.0, 0.0, 3.0)
        assert self.find(net, 1) == (Level.WARNING, "dog has 1.3 %, cat 72.1 %")
        assert self.find(net, 2) == (Level.OK, "car has 26.5 %")
        assert self.find(net, 1, "negative")[0] is Level.OK

    def test_outputs_that_are_probabilities(self) -> None:
        assert self.find(softmax_network(4.0, 0.0, 3.0, end=nn.Softmax(1)), 1, "logit") == (
            Level.WARNING,
            "dog has 1.3 %, cat 72.1 %",
        )
        assert self.find(network(3.0, -4.5, end=nn.Sigmoid()), 1, "logit") == (
            Level.WARNING,
            "dog has 1.1 %, cat 95.3 %",
        )

    def test_the_likeliest_class_is_given_even_if_it_has_little(self) -> None:
        torch.manual_seed(0)
        flat = Network(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 100)))
        level, measured = self.find(flat, None)
        assert level is Level.OK
        assert float(measured.rpartition(" has ")[2].removesuffix(" %")) < 5

    def test_groups_and_single_outputs(self) -> None:
        assert self.find(softmax_network(4.0, 0.0, 3.0), [[0, 1]])[0] is Level.OK
        assert self.find(network(-6.0), 0)[0] is Level.OK
