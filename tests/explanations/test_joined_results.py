"""Results are joined only if they belong together; values asked of a result are checked."""

from dataclasses import replace
from typing import Any

import pytest

from extremal import ExtremalTypeError, ExtremalValueError, explain
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.explanation import Explanation
from support.made_explanations import explanation as made_explanation


def explanation() -> Explanation:
    return made_explanation(settings={"seed": 0, "game": "preserve", "device": "cpu", "evaluations": {"forward": 3}})


class TestConcatenation:
    def test_results_of_the_same_settings(self) -> None:
        first = explanation()
        other = replace(first, settings={**first.settings, "device": "cuda:1", "threads": 7})
        joined = Explanation.concatenate([first, other])
        assert joined.masks.shape[0] == 2
        assert joined.settings["evaluations"] == {"forward": 6}
        assert joined.settings["device"] == first.settings["device"]

    @pytest.mark.parametrize(
        ("change", "name"),
        [
            ({"keeps": False}, "keeps"),
            ({"areas": (0.25, 0.6)}, "areas"),
            ({"unseen_names": ("other",)}, "unseen_names"),
            ({"settings": {"seed": 5}}, "seed"),
            ({"settings": {"game": "dual"}}, "game"),
        ],
    )
    def test_results_of_other_settings(self, change: dict[str, Any], name: str) -> None:
        first = explanation()
        changed = {**change, "settings": {**first.settings, **change.get("settings", {})}}
        with pytest.raises(
            ExtremalValueError, match=rf"under the same settings, got others in {name}; explain the inputs"
        ):
            Explanation.concatenate([first, replace(first, **changed)])

    def test_names_of_each_input_where_only_one_result_has_some(self) -> None:
        first, named = explanation(), replace(explanation(), left_out=(("fade",),))
        assert Explanation.concatenate([first, named]).left_out == ((), ("fade",))
        assert Explanation.concatenate([named, first, first]).left_out == (("fade",), (), ())
        assert Explanation.concatenate([first, first]).left_out == ()

    def test_results_of_other_kinds(self) -> None:
        with pytest.raises(ExtremalTypeError, match="must be results of one type, got Explanation and EvidenceCurve"):
            Explanation.concatenate([explanation(), explanation().curve()])  # type: ignore[list-item]
        with pytest.raises(ExtremalTypeError, match="must be results of one type, got int"):
            Explanation.concatenate([3])  # type: ignore[list-item]
        with pytest.raises(ExtremalValueError, match="must be at least one, got none"):
            ChannelExplanation.concatenate([])

    def test_results_of_other_shapes_and_numbers_of_alternatives(self) -> None:
        first = explanation()
        with pytest.raises(ExtremalValueError, match="got others in inputs"):
            Explanation.concatenate([first, replace(first, inputs=first.inputs[..., 1:])])
        with pytest.raises(ExtremalValueError, match="got others in alternatives"):
            Explanation.concatenate([first, replace(first, alternatives=(first,))])
        with pytest.raises(ExtremalValueError, match="got others in fields"):
            Explanation.concatenate([first, replace(first, fields=first.masks)])


class TestValues:
    @pytest.mark.parametrize("share", [float("nan"), 0, -5, float("inf"), True, "a", None])
    def test_shares(self, share: Any) -> None:
        with pytest.raises((ExtremalValueError, ExtremalTypeError), match="share must be"):
            explanation().verdicts(share=share)

    @pytest.mark.parametrize("overlap", [float("nan"), -1, 1.5, "x", None])
    def test_overlaps(self, overlap: Any) -> None:
        with pytest.raises(ExtremalValueError, match=r"overlap must be a number in \[0, 1\], got"):
            explanation().regions(overlap=overlap)

    @pytest.mark.parametrize("image", [-1, 2, True, None])
    def test_images(self, image: Any) -> None:
        for ask in (explanation().order, explanation().verdicts):
            with pytest.raises((ExtremalValueError, ExtremalTypeError), match="image must"):
                ask(image)  # type: ignore[operator]

    @pytest.mark.parametrize("area", ["0.25", None, float("nan")])
    def test_areas(self, area: Any) -> None:
        with pytest.raises(ExtremalValueError, match="area must be one of the computed areas"):
            explanation().binary(area)

    def test_settings(self) -> None:
        with pytest.raises(ExtremalTypeError, match=r"settings must be extremal\.Settings, got dict"):
            explain(lambda x: x.mean((2, 3)), explanation().inputs, settings={"areas": (0.1,)})  # type: ignore[arg-type]
