"""Comparison of two runs: masks without a network, overlaps recomputed with numpy, and refusals."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from extremal import Network, explain, jobs
from extremal.explanations.explanation import Explanation
from extremal.jobs.restore import cut_masks
from extremal.jobs.rows import build_row, run_settings
from extremal.jobs.store import Store
from extremal.masking.solvers import Path as PathSolver
from extremal.masking.solvers import Penalty
from support import runs, synthetic
from support.datasets import sound, write_images
from support.errors import message_of
from support.fake_network import BOX, TEXTURE
from support.run_pairs import COUNT, ExplanationPair, image_key, make_explanation_pairs, write_run_pair
from support.toys import Boxes

TINY = PathSolver(steps=4, polish=2, rounds=2, draws=1, search=2)


@pytest.fixture(scope="module")
def explanations() -> list[ExplanationPair]:
    return make_explanation_pairs()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, explanations: list[ExplanationPair]) -> list[Path]:
    return write_run_pair(tmp_path_factory.mktemp("runs"), explanations)


@pytest.fixture(scope="module")
def found(folders: list[Path]) -> jobs.Comparison:
    return jobs.compare(*folders)


def overlaps(one: Explanation, other: Explanation) -> list[float]:
    """IoU at each area, in numpy."""
    told = []
    for area in one.areas:
        mine, theirs = (side.binary(area)[0, 0].numpy() > 0.5 for side in (one, other))
        told.append(np.logical_and(mine, theirs).sum() / np.logical_or(mine, theirs).sum())
    return told


class TestMasks:
    def test_masks_equal_those_of_the_explanation(self, explanations: list[ExplanationPair]) -> None:
        for _, made in explanations[:4]:
            cuts = cut_masks(runs.make_row(made, "a"), run_settings(made))
            assert cuts.dtype == torch.bool
            for area, mask in zip(made.areas, cuts, strict=True):
                assert torch.equal(mask, made.binary(area)[0, 0] > 0)

    @pytest.mark.parametrize("solver", [TINY, Penalty(steps=3)])
    @pytest.mark.parametrize("terms", [(), ("within",), ("units",)])
    def test_masks_of_every_solver_and_domain(self, solver: Any, terms: tuple[str, ...]) -> None:
        places = torch.zeros(24, 24, dtype=torch.bool)
        places[:18] = True
        rows, columns = torch.arange(24).view(-1, 1) // 4, torch.arange(24) // 4
        options = {"within": places, "units": 6 * rows + columns}
        made = explain(
            sound(),
            TEXTURE,
            areas=(0.1, 0.3),
            solver=solver,
            perturbation="fade",
            **{name: options[name] for name in terms},
        )
        told = build_row(made, 0, key="a", path=None, digest=None, seconds=0.0)
        through_json = json.loads(json.dumps(run_settings(made)))
        for area, mask in zip(made.areas, cut_masks(told, through_json), strict=True):
            assert torch.equal(mask, made.binary(area)[0, 0] > 0)

    def test_masks_that_are_not_finite_are_cut_to_nothing(self) -> None:
        made = runs.make_explanation()
        told = runs.make_row(made, "a", mask_areas=[0.0] * 5)
        assert not cut_masks(told, run_settings(made)).any()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"input_shape": None},
                "a row must have an input_shape, row 'a' has none; explain its image again with this version",
            ),
            (
                {"status": "failed", "error": "it broke"},
                "a row must hold an explanation to be restored, row 'a' failed: it broke; explain its image again",
            ),
            (
                {"parameters": [0.5]},
                "a row must be complete, parameters of row 'a' is missing or not of shape (1, 5, 1, 24, 32); explain "
                "its image again",
            ),
        ],
    )
    def test_incomplete_rows_are_refused(self, changes: dict[str, Any], message: str) -> None:
        made = runs.make_explanation()
        assert message_of(cut_masks, runs.make_row(made, "a", **changes), run_settings(made)) == message


class TestNumbers:
    def test_images_are_paired(self, found: jobs.Comparison) -> None:
        assert [pair.first.key for pair in found.pairs] == [image_key(index) for index in range(COUNT) if index != 5]
        assert all(pair.first.key == pair.second.key for pair in found.pairs)
        assert (found.failed, found.only_first, found.only_second) == (
            (image_key(5),),
            ("only before",),
            ("only after",),
        )
        assert found.areas == synthetic.AREAS

    def test_overlaps(self, found: jobs.Comparison, explanations: list[ExplanationPair]) -> None:
        naive = {image_key(index): overlaps(*both) for index, both in enumerate(explanations)}
        frame = pd.DataFrame([naive[pair.first.key] for pair in found.pairs])
        np.testing.assert_allclose([pair.iou for pair in found.pairs], frame.to_numpy(), atol=1e-12)
        means = frame.mean(axis=1)
        assert [pair.mean for pair in found.pairs] == pytest.approx(means.tolist())
        assert found.moved == (means < 0.5).sum()
        assert 0 < found.moved < len(found.pairs)
        for k, one in enumerate(found.iou):
            ordered = sorted(frame[k])
            assert (one.min, one.median, one.max) == pytest.approx((ordered[0], ordered[5], ordered[10]))

    def test_an_equal_explanation_has_not_moved(self, found: jobs.Comparison) -> None:
        same = [pair for pair in found.pairs if int(pair.first.key[8:10]) % 3 == 0]
        assert [pair.iou for pair in same] == [(1.0,) * 5] * 4
        assert all(dataclasses.replace(pair.first) == pair.second for pair in same)

    def test_changes(self, found: jobs.Comparison, folders: list[Path]) -> None:
        tables = [jobs.table(folder).to_pandas() for folder in folders]
        both = tables[0].merge(tables[1], on="key", suffixes=("_a", "_b"))
        both = both[both["status_b"] == "done"]
        counts = both.groupby(["verdict_a", "verdict_b"]).size()
        assert {(one, other): n for one, other, n in found.verdicts} == counts.to_dict()
        areas = both[["smallest_area_a", "smallest_area_b"]].fillna(2.0)
        change = np.sign(areas["smallest_area_b"] - areas["smallest_area_a"])
        assert found.sizes == {
            "smaller": (change < 0).sum(),
            "equal": (change == 0).sum(),
            "larger": (change > 0).sum(),
        }
        assert found.sizes["smaller"] > 0
        assert found.sizes["larger"] > 0
        assert found.scores.count == len(both)
        assert found.target_changed == 0

    def test_classes(self, found: jobs.Comparison) -> None:
        assert [one.images for one in found.classes] == [4, 4, 3]
        for one in found.classes:
            mine = [pair for pair in found.pairs if pair.first.target == one.target]
            assert one.name == runs.CLASSES[one.target]
            assert one.images == len(mine)
            assert one.moved == sum(pair.moved for pair in mine)
            assert one.verdicts == sum(pair.first.verdict != pair.second.verdict for pair in mine)
            assert one.iou.min == min(pair.mean for pair in mine if pair.mean is not None)

    def test_settings_that_differ(self, found: jobs.Comparison) -> None:
        assert found.differences == (("weights", "0" * 64, "1" * 64), ("seed", "0", "1"))
        assert ("game", "preserve") in found.common
        assert not {name for name, *_ in found.differences} & {name for name, _ in found.common}

    def test_a_run_against_itself_has_not_moved(self, folders: list[Path]) -> None:
        found = jobs.compare(folders[0], folders[0])
        assert {pair.iou for pair in found.pairs} == {(1.0,) * 5}
        assert (found.moved, found.differences, found.failed, found.only_first, found.only_second) == (
            0,
            (),
            (),
            (),
            (),
        )
        assert found.mean.min == 1.0
        assert all(one == other for one, other, _ in found.verdicts)
        assert found.sizes == {"smaller": 0, "equal": 13, "larger": 0}
        assert (found.scores.min, found.scores.max) == (0.0, 0.0)

    def test_areas_that_both_have(self, tmp_path: Path) -> None:
        one, other = runs.make_explanation(0), runs.make_explanation(1, areas=(0.1, 0.3, 0.4))
        folders = [
            runs.write_run(tmp_path / str(number), [runs.make_row(made, "a")], runs.make_settings(made.areas))
            for number, made in enumerate((one, other))
        ]
        found = jobs.compare(*folders)
        assert found.areas == (0.1, 0.4)
        mine, theirs = one.binary(0.4)[0] > 0, other.binary(0.4)[0] > 0
        assert found.pairs[0].iou is not None
        assert found.pairs[0].iou[1] == pytest.approx(float((mine & theirs).sum() / (mine | theirs).sum()))

    def test_another_class_and_a_run_that_was_not_finite(self, tmp_path: Path) -> None:
        told = runs.make_row(runs.make_explanation(), "a")
        one = runs.write_run(tmp_path / "one", [told, {**told, "key": "b"}])
        changed = [{**told, "target": 3, "target_name": "missile"}, {**told, "key": "b", "mask_areas": [0.0] * 5}]
        found = jobs.compare(one, runs.write_run(tmp_path / "other", changed))
        assert found.target_changed == 1
        assert [pair.iou for pair in found.pairs] == [(1.0,) * 5, None]
        assert (found.moved, found.mean.count) == (0, 1)

    def test_progress_is_reported(self, folders: list[Path]) -> None:
        told: list[tuple[int, int]] = []
        jobs.compare(*folders, on_image=lambda done, total: told.append((done, total)))
        assert told == [(index, 11) for index in range(1, 12)]

    def test_masks_are_read_a_part_at_a_time(self, folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        known = Store.read_part
        parts: list[str] = []
        monkeypatch.setattr(Store, "read_part", lambda store, name: (parts.append(name), known(store, name))[1])
        jobs.compare(*folders)
        assert set(parts) == {"00000000"}
        assert parts.count("00000000") == 6, "of each run: its table, its keys, its masks"


class TestRuns:
    def test_another_network_moves_explanations(self, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "pictures", 3)
        known = sound()
        elsewhere = (slice(14, 24), slice(0, 10))
        other = Network(Boxes(TEXTURE, [elsewhere]), known.preprocess, known.labels, "other", known.mean, known.std)
        options: dict[str, Any] = {"areas": (0.1, 0.2), "perturbation": "fade"}
        for name, network in (("one", known), ("again", sound()), ("other", other)):
            jobs.run(folder, tmp_path / name, network=network, **options)
        same = jobs.compare(tmp_path / "one", tmp_path / "again")
        assert {pair.iou for pair in same.pairs} == {(1.0, 1.0)}
        assert same.differences == ()
        moved = jobs.compare(tmp_path / "one", tmp_path / "other")
        assert moved.moved == 3
        assert moved.mean.max is not None
        assert moved.mean.max < 0.2
        assert "network" in {name for name, *_ in moved.differences}
        assert elsewhere != BOX


class TestRefusals:
    def refused(self, *folders: Path) -> str:
        return message_of(jobs.compare, *folders)

    def test_no_area_in_common(self, tmp_path: Path) -> None:
        one = runs.write_run(tmp_path / "one", [])
        other = runs.write_run(tmp_path / "other", [], runs.make_settings((0.3, 0.5)))
        assert self.refused(one, other) == (
            f"runs must share an area to be compared, {str(one)!r} has 0.025, 0.05, 0.1, 0.2, 0.4 and {str(other)!r} "
            "0.3, 0.5; run one of them again with an area of the other"
        )

    def test_no_image_in_common(self, tmp_path: Path) -> None:
        one, other = (
            runs.write_run(tmp_path / name, [runs.make_row(runs.make_explanation(), name)]) for name in ("one", "other")
        )
        assert self.refused(one, other) == (
            f"runs must share images to be compared, {str(one)!r} and {str(other)!r} have no key in common; "
            "run both over the same folder or manifest"
        )

    def test_other_pictures(self, tmp_path: Path) -> None:
        told = runs.make_row(runs.make_explanation(), "a")
        one = runs.write_run(tmp_path / "one", [told])
        other = runs.write_run(tmp_path / "other", [{**told, "content_hash": "changed"}])
        assert self.refused(one, other) == (
            f"runs must be over the same images to be compared, the bytes of 'a' in {str(one)!r} are not those in "
            f"{str(other)!r}; run both over the same files"
        )

    def test_other_shapes(self, tmp_path: Path) -> None:
        one = runs.write_run(tmp_path / "one", [runs.make_row(runs.make_explanation(), "a")])
        other = runs.write_run(tmp_path / "other", [runs.make_row(runs.make_explanation(shape=(20, 20)), "a")])
        assert self.refused(one, other) == (
            f"runs must have inputs of one shape to be compared, that of 'a' is 24 × 32 in {str(one)!r} and 20 × 20 in "
            f"{str(other)!r}; compare networks with the same input size"
        )

    def test_what_is_no_run(self, tmp_path: Path, folders: list[Path]) -> None:
        assert self.refused(folders[0], tmp_path) == (
            f"a run must have a manifest, {str(tmp_path / 'manifest.json')!r} is none; name the folder of a run"
        )

    def test_rows_without_an_input_shape(self, tmp_path: Path) -> None:
        one = runs.write_run(tmp_path / "one", [runs.make_row(runs.make_explanation(), "a", input_shape=None)])
        assert self.refused(one, one) == (
            "a row must have an input_shape, row 'a' has none; explain its image again with this version"
        )
