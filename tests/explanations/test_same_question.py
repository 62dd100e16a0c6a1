"""What is asked about a result is what was explained; arguments are never dropped or reordered silently."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import extremal
from extremal import Explanation, ExtremalTypeError, ExtremalValueError, Network, Settings, class_channels, explain
from extremal.explanations.judge import judge
from extremal.masking.area import cut

X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
SHORT = extremal.solvers.Path(steps=3, polish=2, search=2)


def build_network() -> Network:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    return Network(nn.Sequential(*layers), labels=("cat", "dog", "fox"))


def first_output(output: Tensor) -> Tensor:
    return output[:, 0]


def other_output(output: Tensor) -> Tensor:
    return output[:, 1]


@pytest.fixture(scope="module")
def about_class() -> Explanation:
    return explain(build_network(), X, "cat", areas=(0.1, 0.3), perturbation="fade", solver=SHORT)


@pytest.fixture(scope="module")
def about_output() -> Explanation:
    return explain(build_network(), X, first_output, areas=(0.1, 0.3), perturbation="fade", solver=SHORT)


def ask_stability(network: Network, result: Explanation, target: object) -> object:
    return extremal.stability(network, X, result, 1, target=target)  # type: ignore[arg-type]


FOLLOW_UPS = [extremal.smallest_area, extremal.minimal, ask_stability]


@pytest.mark.parametrize("ask", FOLLOW_UPS)
class TestQuestionsAboutAResult:
    @pytest.mark.parametrize("target", [1, "dog", [1], [["cat", "dog"]], first_output])
    def test_another_target_than_the_class(
        self, about_class: Explanation, ask: Callable[..., object], target: object
    ) -> None:
        with pytest.raises(ExtremalValueError, match=r"target must be that of the explanation, cat, got .*; leave it"):
            ask(build_network(), about_class, target)

    @pytest.mark.parametrize("target", [0, "cat", [0], "CAT"])
    def test_the_same_class_in_other_words(
        self, about_class: Explanation, ask: Callable[..., object], target: object
    ) -> None:
        ask(build_network(), about_class, target)

    def test_another_function(self, about_output: Explanation, ask: Callable[..., object]) -> None:
        ask(build_network(), about_output, first_output)
        with pytest.raises(ExtremalValueError, match="target and score must be those of the explanation, got"):
            ask(build_network(), about_output, other_output)


class TestSettingsBesideOptions:
    @pytest.mark.parametrize("option", [{"game": "preserve"}, {"seed": 0}, {"areas": (0.2,)}])
    def test_options_are_not_dropped(self, option: dict[str, Any]) -> None:
        settings = Settings(areas=(0.1,), game="delete", seed=3)
        with pytest.raises(ExtremalTypeError, match="must be passed by settings or by name, got settings and"):
            explain(build_network(), X, 0, settings=settings, **option)


class TestMasksToJudge:
    def test_masks_follow_the_order_of_their_areas(self) -> None:
        saliency = torch.rand(1, 1, 1, 16, 16, generator=torch.Generator().manual_seed(2))
        rising = cut(saliency.expand(-1, 2, -1, -1, -1), (0.1, 0.3))
        expected = judge(build_network(), X, rising, 0, areas=(0.1, 0.3), perturbation="fade")
        with pytest.warns(UserWarning, match="areas were sorted"):
            found = judge(build_network(), X, rising.flip(1), 0, areas=(0.3, 0.1), perturbation="fade")
        assert torch.equal(found.masks, expected.masks)
        assert torch.equal(found.binary_scores, expected.binary_scores)


@pytest.mark.parametrize("target", [[0, 1], [0], None, [["cat", "dog"], "fox"], first_output])
def test_channels_of_a_class_are_of_one_class(target: Any) -> None:
    with pytest.raises(ExtremalTypeError, match="a class must be given by its index or name, or as one group"):
        class_channels(build_network(), torch.cat([X, X]), "1", target)
