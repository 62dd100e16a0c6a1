"""The result value: saving, and everything that is read from its scores, by hand."""

import dataclasses
import math
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from extremal.errors import ExtremalValueError
from extremal.explanations.explanation import EvidenceCurve, Explanation
from extremal.masking.grid import gaussian_blur
from extremal.tensor_files import read_tensors, write_tensors
from support.made_explanations import AREAS, MASKS, explanation

NAN = float("nan")


def refused(path: Path) -> str:
    with pytest.raises(ExtremalValueError) as caught:
        Explanation.load(path)
    return str(caught.value)


def foreign(path: Path, kind: str) -> str:
    return (
        "an explanation must be a file written by its save, in the format of this version, "
        f"got {str(path)!r} ({kind}); save it again"
    )


class TestSaving:
    @pytest.mark.parametrize("images", [1, 3])
    def test_load_gives_back_what_was_saved(self, tmp_path: Path, images: int) -> None:
        before = explanation(images=images)
        before.save(tmp_path / "one.safetensors")
        assert Explanation.load(tmp_path / "one.safetensors") == before

    def test_fields_come_with_it_and_an_older_file_has_none(self, tmp_path: Path) -> None:
        before = explanation(images=2, fields=torch.rand(2, 2, 1, 3, 3))
        before.save(tmp_path / "new.safetensors")
        assert torch.equal(Explanation.load(tmp_path / "new.safetensors").fields, before.fields)  # type: ignore[arg-type]
        tensors, head = read_tensors(tmp_path / "new.safetensors", "an explanation")
        del tensors["fields"]
        write_tensors(tmp_path / "old.safetensors", tensors, head)
        assert Explanation.load(tmp_path / "old.safetensors") == dataclasses.replace(before, fields=None)

    def test_nan_comes_back_as_nan(self, tmp_path: Path) -> None:
        before = explanation(scores=torch.tensor([[NAN, math.inf]]))
        before.save(tmp_path / "nan.safetensors")
        after = Explanation.load(tmp_path / "nan.safetensors")
        assert after == before
        assert math.isnan(float(after.scores[0, 0]))

    def test_views_are_saved_as_they_look(self, tmp_path: Path) -> None:
        before = explanation(inputs=torch.rand(1, 2, 4, 3).movedim(-1, 1))
        before.save(tmp_path / "view.safetensors")
        assert Explanation.load(tmp_path / "view.safetensors") == before

    def test_fields_may_share_memory(self, tmp_path: Path) -> None:
        shared, empty = torch.tensor([[4.0, 9.6]]), torch.zeros(1, 0, 0, 3, dtype=torch.uint8)
        before = explanation(scores=shared, binary_scores=shared, pictures=empty, destroyed=empty)
        before.save(tmp_path / "shared.safetensors")
        assert Explanation.load(tmp_path / "shared.safetensors") == before

    def test_one_file_appears_and_is_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "one.safetensors"
        explanation(images=2).save(path)
        explanation().save(str(path))
        assert [entry.name for entry in tmp_path.iterdir()] == ["one.safetensors"]
        assert len(Explanation.load(str(path)).masks) == 1

    def test_a_failed_save_leaves_the_former_file(self, tmp_path: Path) -> None:
        path = tmp_path / "one.safetensors"
        explanation().save(path)
        with pytest.raises(TypeError):
            explanation(settings={"seed": object()}).save(path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["one.safetensors"]
        assert Explanation.load(path).settings["seed"] == 0

    def test_into_a_missing_folder(self, tmp_path: Path) -> None:
        message = (
            f"an output must lie in a folder that can be written, got {str(tmp_path / 'no')!r}: "
            "No such file or directory; choose another folder"
        )
        with pytest.raises(ExtremalValueError, match=f"^{re.escape(message)}$"):
            explanation().save(tmp_path / "no" / "one.safetensors")

    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "no"
        assert refused(path) == f"an explanation must be an existing file, got {str(path)!r}; check the path"

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
    def test_truncated(self, tmp_path: Path, share: float) -> None:
        path = tmp_path / "half.safetensors"
        explanation().save(path)
        os.truncate(path, int(path.stat().st_size * share))
        assert refused(path) == foreign(path, "SafetensorError")

    def test_foreign_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "photo.png"
        path.write_bytes(bytes(range(256)) * 9)
        assert refused(path) == foreign(path, "SafetensorError")

    def test_foreign_tensors(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.safetensors"
        save_file({"weight": torch.zeros(2)}, path)
        assert refused(path) == foreign(path, "KeyError")

    @pytest.mark.parametrize(
        ("head", "kind"),
        [("[]", "TypeError"), ("{", "JSONDecodeError"), ('{"format": 1}', "KeyError"), ('{"format": 3}', "KeyError")],
    )
    def test_foreign_metadata(self, tmp_path: Path, head: str, kind: str) -> None:
        path = tmp_path / "other.safetensors"
        save_file({"weight": torch.zeros(2)}, path, metadata={"extremal": head})
        assert refused(path) == foreign(path, kind)

    @pytest.mark.parametrize(
        ("extra", "kind"),
        [({"colour": "red"}, "TypeError"), ({"keeps": None}, "keeps must be true or false, got 'None'")],
    )
    def test_other_fields(self, tmp_path: Path, extra: dict[str, object], kind: str) -> None:
        path = tmp_path / "other.safetensors"
        explanation().save(path)
        tensors, head = read_tensors(path, "an explanation")
        write_tensors(path, tensors, {**head, **extra})
        assert refused(path) == foreign(path, kind)


class TestEquality:
    def test_not_equal_where_anything_differs(self) -> None:
        torch.manual_seed(0)
        one = explanation(inputs=torch.zeros(1, 3, 2, 4))
        assert one == dataclasses.replace(one)
        assert one != dataclasses.replace(one, keeps=False)
        assert one != dataclasses.replace(one, scores=one.scores + 1)
        assert one != dataclasses.replace(one, scores=one.scores.double())
        assert one != explanation(images=2)
        assert one != "one"

    def test_unhashable(self) -> None:
        with pytest.raises(TypeError):
            hash(explanation())


def rounded(curve: EvidenceCurve) -> dict[str, list[float]]:
    return {name: [round(value, 5) for value in values] for name, values in dataclasses.asdict(curve).items()}


class TestCurve:
    def test_preserve(self) -> None:
        assert rounded(explanation().curve()) == {
            "areas": [0.25, 0.5],
            "soft": [0.5, 1.25],  # (6 − 2)/8, (12 − 2)/8
            "binary": [0.25, 0.95],
            "unseen": [0.125, 0.875],  # medians of 1/8, 5/10, 0/6 and of 7/8, 10/10, 0/6
            "control": [0.1, 0.0],  # medians of 0, .15, .1 and of .2, 0, −.1
            "control_best": [0.15, 0.2],
        }

    def test_delete(self) -> None:
        assert rounded(explanation(keeps=False).curve()) == {
            "areas": [0.25, 0.5],
            "soft": [0.5, -0.25],
            "binary": [0.75, 0.05],
            "unseen": [0.875, 0.125],
            "control": [0.9, 1.0],
            "control_best": [1.0, 1.1],
        }

    def test_of_each_image_by_its_own_scores(self) -> None:
        both = explanation(images=2)
        both.score_full[1] = 18.0
        assert rounded(both.curve(0))["soft"] == [0.5, 1.25]
        assert rounded(both.curve(1))["soft"] == [0.25, 0.625]

    def test_effects_of_more_axes(self) -> None:
        found = explanation().effects(torch.tensor([[[2.0, 10.0], [6.0, 4.0]]]))
        assert found.tolist() == [[[0.0, 1.0], [0.5, 0.25]]]

    def test_effects_where_the_score_falls_with_the_input(self) -> None:
        turned = explanation(score_full=torch.tensor([2.0]), score_blank=torch.tensor([10.0]))
        assert turned.effects(torch.tensor([[10.0, 2.0, 4.0]])).tolist() == [[0.0, 1.0, 0.75]]


class TestVerdict:
    def test_preserve(self) -> None:
        first, second = explanation().verdict[0]
        assert (first.label, first.reason) == ("insufficient", "25 % of the effect, wanted 90 %")
        assert (second.label, second.reason) == ("sufficient", "95 % of the effect, at best 20 % by chance")

    def test_delete(self) -> None:
        words = [str(verdict) for verdict in explanation(keeps=False).verdict[0]]
        assert words == ["chance is enough"] * 2  # removing a random region takes all of the effect away
        rare = explanation(keeps=False, control_scores=torch.full((1, 2, 3), 9.0))
        assert [str(verdict) for verdict in rare.verdict[0]] == ["insufficient", "insufficient"]

    def test_grey(self) -> None:
        grey = explanation(scores=torch.tensor([[11.0, 12.0]]), binary_scores=torch.tensor([[3.0, 9.6]]))
        assert grey.verdict[0][0].label == "suspect"
        assert (
            grey.verdict[0][0].reason
            == "grey values carry it: 112 % of the effect as found, 12 % cut to black and white"
        )

    def test_chance(self) -> None:
        lucky = explanation(control_scores=torch.tensor([[[2.0, 2.0], [9.8, 2.0]]]))
        assert lucky.verdict[0][1].reason == "a random region of this size reaches 98 % of the effect, this one 95 %"

    def test_unseen(self) -> None:
        narrow = explanation(unseen_scores=torch.tensor([[[2.0, 0.0, 4.0], [2.8, 1.0, 10.0]]]))
        assert narrow.verdict[0][1].reason == "only 10 % of the effect under perturbations it was not made for"

    def test_an_unseen_perturbation_that_changes_nothing_is_left_out(self) -> None:
        silent = explanation(
            unseen_scores=torch.tensor([[[10.0, 5.0, 4.0], [10.0, 9.6, 10.0]]]),
            unseen_blank=torch.tensor([[9.9, 0.0, 4.0]]),
        )
        assert silent.unseen_effects()[0, 1].tolist() == pytest.approx([NAN, 0.96, 1.0], nan_ok=True)
        assert silent.verdict[0][1].label == "sufficient"

    def test_a_broken_unseen_score_is_not_left_out(self) -> None:
        broken = explanation(unseen_scores=torch.tensor([[[3.0, 5.0, 4.0], [9.0, NAN, 4.0]]]))
        assert broken.verdict[0][1].reason == "a score is not finite"

    def test_not_finite(self) -> None:
        assert explanation(scores=torch.tensor([[NAN, 9.0]])).verdict[0][0].reason == "a score is not finite"


class TestSmallest:
    def test_default_share(self) -> None:
        found = explanation().smallest()
        assert found is not None
        assert (found.area, round(found.effect, 5)) == (0.5, 0.95)
        assert found.mask.tolist() == [[[1, 1, 0, 0], [1, 1, 0, 0]]]

    def test_lower_share(self) -> None:
        found = explanation().smallest(0.2)
        assert found is not None
        assert found.area == 0.25
        assert found.mask.tolist() == [[[1, 0, 0, 0], [1, 0, 0, 0]]]

    def test_none(self) -> None:
        assert explanation().smallest(0.96) is None
        assert explanation(binary_scores=torch.full((1, 2), NAN)).smallest() is None

    def test_wrong_share(self) -> None:
        with pytest.raises(ExtremalValueError) as caught:
            explanation().smallest(0)
        assert str(caught.value) == "share must be above 0 and finite, got 0; it is a fraction of the effect, e.g. 0.9"


class TestMasks:
    def test_binary(self) -> None:
        assert explanation(images=2).binary(0.25).tolist() == [[[[1, 0, 0, 0], [1, 0, 0, 0]]]] * 2
        assert explanation().places(0.25) == 2

    def test_binary_of_an_area_in_single_precision(self) -> None:
        result = dataclasses.replace(explanation(), areas=(0.1, 0.3))
        for area in (0.1, 0.3):
            single = float(torch.tensor(area))
            assert single != area
            assert torch.equal(result.binary(single), result.binary(area))
            assert dataclasses.replace(result, areas=(0.05, single)).column(area) == 1

    def test_binary_of_an_area_that_was_not_computed(self) -> None:
        with pytest.raises(ExtremalValueError) as caught:
            explanation().binary(0.3)
        assert str(caught.value) == (
            "area must be one of the computed areas 0.25, 0.5, got 0.3; explain again with this area"
        )

    def test_order(self) -> None:
        assert explanation().order().tolist() == [
            [[0, 5, 3, 2], [1, 7, 6, 4]],
            [[0, 2, 5, 4], [1, 3, 7, 6]],
        ]

    def test_order_begins_with_the_cut_mask_also_among_equals(self) -> None:
        flat = explanation(masks=torch.full((1, 2, 1, 2, 4), 0.5))
        for k, area in enumerate(AREAS):
            first = flat.order()[k] < flat.places(area)
            assert torch.equal(first, flat.binary(area)[0, 0].bool())

    def test_the_mean_of_the_masks(self) -> None:
        assert torch.allclose(explanation().saliency(kind="masks")[0], MASKS.mean(0))
        assert explanation().saliency(0.5, "masks").shape == (1, 1, 2, 4)

    def test_an_unknown_kind(self) -> None:
        with pytest.raises(ExtremalValueError, match=r"^kind must be one of support, masks, got 'mask'$"):
            explanation().saliency(kind="mask")

    def test_saliency_is_what_the_masks_and_the_unseen_agree_on(self) -> None:
        answer = explanation()
        around = gaussian_blur(answer.agreement, 7 * 2 / 224)  # the short side has 2 places
        assert torch.allclose(answer.saliency()[0], (MASKS.mean(0) * around[0]) ** 1.5)
        line = torch.zeros(1, 1, 64, 64).index_fill(2, torch.tensor(32), 1.0)
        wide = dataclasses.replace(answer, masks=torch.ones(1, 2, 1, 64, 64), agreement=line)
        assert torch.allclose(wide.saliency(), gaussian_blur(line, 7 * 64 / 224) ** 1.5)
        assert answer.saliency(0.5).shape == (1, 1, 2, 4)

    def test_saliency_where_nothing_agrees_is_that_of_the_masks(self) -> None:
        assert torch.allclose(explanation(agreement=torch.zeros(1, 1, 2, 4)).saliency()[0], MASKS.mean(0))

    def test_trace(self) -> None:
        assert {name: values.tolist() for name, values in explanation().trace.items()} == {
            "step": [0, 1],
            "area": [pytest.approx([0.5, 0.4])],
            "reward": [[1.0, 2.0]],
            "grey": [pytest.approx([0.1, 0.0])],
        }
