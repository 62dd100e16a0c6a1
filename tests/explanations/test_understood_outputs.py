"""What `explain` makes of outputs of other forms than (B, classes): the right answer, or one sentence."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from extremal import Network, explain
from extremal.errors import ExtremalError
from extremal.masking.solvers import Path
from extremal.scores import SCORES

FAST = Path(steps=8, polish=4, draws=2)
X = torch.ones(1, 3, 32, 32)
SQUARE = (slice(8, 16), slice(16, 24))  # 6.25 % of the places


class Evidence(nn.Module):
    """Sees the mean s of one square and the mean t of another; `answer` turns both into the output."""

    def __init__(self, answer: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        return self.answer(10 * x[(..., *SQUARE)].mean((1, 2, 3)), 10 * x[..., 24:, :8].mean((1, 2, 3)))


def share_inside(answer: Callable[[Tensor, Tensor], object], target: object = 1, **options: object) -> float:
    """Return the share of the cut mask that lies in the square of s."""
    labels = options.pop("labels", ())
    result = explain(
        Network(Evidence(answer), labels=labels), X, target, areas=(0.05,), perturbation="fade", solver=FAST, **options
    )
    mask = result.binary(0.05)[0, 0]
    return float(mask[SQUARE].sum() / mask.sum())


def refusal(answer: Callable[[Tensor, Tensor], object], target: object = 1, **options: object) -> str:
    with pytest.raises(ExtremalError) as caught:
        share_inside(answer, target, **options)
    return str(caught.value)


def stack(*rows: Tensor) -> Tensor:
    return torch.stack(rows, 1)


class TestClassAxis:
    LABELS = ("cat", "dog", "bird")

    def test_maps_are_averaged(self) -> None:
        for output in (lambda maps: maps, lambda maps: {"out": maps, "aux": -maps}, lambda maps: {"logits": maps}):
            inside = share_inside(
                lambda s, t, output=output: output(stack(t, s, -t)[:, :, None, None].expand(-1, -1, 2, 2)),
                "dog",
                labels=self.LABELS,
            )
            assert inside > 0.95

    def test_one_axis_of_places_needs_labels(self) -> None:
        signals = lambda s, t: stack(t, s, -t)[:, :, None].expand(-1, -1, 5)  # noqa: E731
        assert share_inside(signals, "dog", labels=self.LABELS) > 0.95
        assert refusal(signals) == (
            "a network must return (B, classes), Evidence returned (1, 3, 5), with no labels to tell which axis has "
            "the classes: its classes may lie on axis 1 or 2; wrap it to return one row of scores, e.g. lambda x: "
            "model(x)[:, 0] or model(x).mean(1), or pass a callable on the output as target"
        )

    @pytest.mark.parametrize("rows", [1, 3, 5])
    def test_tokens(self, rows: int) -> None:
        message = refusal(lambda s, t: stack(t, s, -t)[:, None].expand(-1, rows, -1), "dog", labels=self.LABELS)
        assert message.startswith(f"a network must return (B, classes), Evidence returned (1, {rows}, 3), with a class")

    def test_channels_last(self) -> None:
        message = refusal(lambda s, t: stack(t, s, -t)[:, None, None].expand(-1, 4, 4, -1), "dog", labels=self.LABELS)
        assert message == (
            "a network must return its classes on axis 1, Evidence returned (1, 4, 4, 3) and has 3 labels, the size "
            "of its last axis; wrap it, e.g. to model(x).movedim(-1, 1)"
        )

    @pytest.mark.parametrize("labels", [("cat", "dog"), ("cat", "dog", "bird", "owl")])
    @pytest.mark.parametrize("target", [1, "dog", None, [["cat", "dog"]]])
    def test_the_number_of_labels(self, labels: tuple[str, ...], target: object) -> None:
        assert refusal(lambda s, t: stack(t, s, -t), target, labels=labels) == (
            f"labels must name each class once, Evidence returns scores of 3 and has {len(labels)} labels; pass "
            "Network(model, labels=...) with one name for each output, in their order"
        )

    def test_detectors(self) -> None:
        queries = lambda s, t: {  # noqa: E731
            "logits": stack(t, s, -t, s)[:, None].expand(-1, 5, -1),
            "pred_boxes": torch.full((len(s), 5, 4), 0.5),
        }
        assert refusal(queries, "bird", labels=(*self.LABELS, "no object")) == (
            "a detector must be asked about a box, Evidence returns boxes with scores of classes for each; "
            "pass scores.Box() as target, or --ask box"
        )


class TestMaskedClasses:
    @pytest.mark.parametrize("score", list(SCORES))
    def test_other_classes_may_be_infinite(self, score: str) -> None:
        scale = 0.1 if "probability" in score else 1.0
        inside = share_inside(
            lambda s, t: scale * stack(s, -s, torch.full_like(s, -math.inf)), int(score == "negative"), score=score
        )
        assert inside > 0.95

    @pytest.mark.parametrize("value", [-math.inf, math.inf])
    @pytest.mark.parametrize("score", list(SCORES))
    def test_the_target_may_not(self, value: float, score: str) -> None:
        assert refusal(lambda s, t: stack(s, -s, torch.full_like(s, value)), 2, score=score) == (
            f"a network must return a finite score of the target, Evidence returned {value:g} for class 2 on input 0; "
            "choose a class that it does not mask"
        )


class TestHeads:
    @pytest.mark.parametrize("score", [score for score in SCORES if score != "negative"])
    def test_one_output_is_a_sigmoid(self, score: str) -> None:
        assert share_inside(lambda s, t: 0.1 * s[:, None], None, score=score) > 0.95

    def test_a_label_of_several(self) -> None:
        """Another label on another square: the log-odds of one label do not depend on it, the margin does."""
        answer = lambda s, t: stack(t, s, t) - 5  # noqa: E731
        assert share_inside(answer, score="sigmoid") > 0.95

    @pytest.mark.filterwarnings("default::UserWarning:extremal")
    def test_a_no_is_commented(self) -> None:
        with pytest.warns(UserWarning, match="the log-odds") as told:
            assert share_inside(lambda s, t: s[:, None] - 12, None) > 0.95
        assert [str(one.message) for one in told] == [
            "the log-odds of class 0 on input 0 are -2, 12 %: the network says no, and what speaks for yes is "
            "explained; score='negative' explains the no"
        ]
        with pytest.warns(UserWarning, match=r"the target scores\.Classes\(\{label: -1\}\) explains the no"):
            share_inside(lambda s, t: stack(t, s, t) - 12, score="sigmoid")
