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
from extremal.jobs.rows import build_row
from extremal.jobs.store import Store
from extremal.masking.solvers import Path as PathSolver
from extremal.masking.solvers import Penalty
from support import runs, synthetic
from support.datasets import sound, write_images
from support.errors import message_of
from support.fake_network import BOX, TEXTURE
from support.run_pairs import COUNT, ExplanationPair, image_key, make_explanation_pairs, write_run_pair
from support.runs import run_settings
from support.toys import Boxes

TINY = PathSolver(steps=4, polish=2, rounds=2, draws=1, search=2)


@pytest.fixture(scope="module")
def explanations() -> list[ExplanationPair]:
    return make_explanation_pairs()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, explanations: list[ExplanationPair]) -> list[Path]:
    return write_run_pair(tmp_path_factory.mktemp("runs"), explanations)


@pytest.fixture(scope="module")
def comparison(folders: list[Path]) -> jobs.Comparison:
    return jobs.compare(*folders)


def overlaps(a: Explanation, b: Explanation) -> list[float]:
    """IoU at each area, in numpy."""
    values = []
    for area in a.areas:
        mask_a, mask_b = (explanation.binary(area)[0, 0].numpy() > 0.5 for explanation in (a, b))
        values.append(np.logical_and(mask_a, mask_b).sum() / np.logical_or(mask_a, mask_b).sum())
    return values


class TestMasks:
    def test_masks_equal_those_of_the_explanation(self, explanations: list[ExplanationPair]) -> None:
        for _, explanation in explanations[:4]:
            cuts = cut_masks(runs.make_row(explanation, "a"), run_settings(explanation))
            assert cuts.dtype == torch.bool
            for area, mask in zip(explanation.areas, cuts, strict=True):
                assert torch.equal(mask, explanation.binary(area)[0, 0] > 0)

    @pytest.mark.parametrize("solver", [TINY, Penalty(steps=3)])
    @pytest.mark.parametrize("terms", [(), ("within",), ("units",)])
    def test_masks_of_every_solver_and_domain(self, solver: Any, terms: tuple[str, ...]) -> None:
        places = torch.zeros(24, 24, dtype=torch.bool)
        places[:18] = True
        rows, columns = torch.arange(24).view(-1, 1) // 4, torch.arange(24) // 4
        options = {"within": places, "units": 6 * rows + columns}
        explanation = explain(
            sound(),
            TEXTURE,
            areas=(0.1, 0.3),
            solver=solver,
            perturbation="fade",
            **{name: options[name] for name in terms},
        )
        row = build_row(explanation, 0, key="a", path=None, digest=None, seconds=0.0)
        through_json = json.loads(json.dumps(run_settings(explanation)))
        for area, mask in zip(explanation.areas, cut_masks(row, through_json), strict=True):
            assert torch.equal(mask, explanation.binary(area)[0, 0] > 0)

    def test_masks_that_are_not_finite_are_cut_to_nothing(self) -> None:
        explanation = runs.make_explanation()
        row = runs.make_row(explanation, "a", mask_areas=[0.0] * 5)
        assert not cut_masks(row, run_settings(explanation)).any()

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
        explanation = runs.make_explanation()
        assert message_of(cut_masks, runs.make_row(explanation, "a", **changes), run_settings(explanation)) == message


class TestNumbers:
    def test_images_are_paired(self, comparison: jobs.Comparison) -> None:
        assert [pair.first.key for pair in comparison.pairs] == [
            image_key(index) for index in range(COUNT) if index != 5
        ]
        assert all(pair.first.key == pair.second.key for pair in comparison.pairs)
        assert (comparison.failed, comparison.only_first, comparison.only_second) == (
            (image_key(5),),
            ("only before",),
            ("only after",),
        )
        assert comparison.areas == synthetic.AREAS

    def test_overlaps(self, comparison: jobs.Comparison, explanations: list[ExplanationPair]) -> None:
        naive = {image_key(index): overlaps(*both) for index, both in enumerate(explanations)}
        frame = pd.DataFrame([naive[pair.first.key] for pair in comparison.pairs])
        np.testing.assert_allclose([pair.iou for pair in comparison.pairs], frame.to_numpy(), atol=1e-12)
        means = frame.mean(axis=1)
        assert [pair.mean for pair in comparison.pairs] == pytest.approx(means.tolist())
        assert comparison.moved == (means < 0.5).sum()
        assert 0 < comparison.moved < len(comparison.pairs)
        for k, quantiles in enumerate(comparison.iou):
            ordered = sorted(frame[k])
            assert (quantiles.min, quantiles.median, quantiles.max) == pytest.approx(
                (ordered[0], ordered[5], ordered[10])
            )

    def test_an_equal_explanation_has_not_moved(self, comparison: jobs.Comparison) -> None:
        same = [pair for pair in comparison.pairs if int(pair.first.key[8:10]) % 3 == 0]
        assert [pair.iou for pair in same] == [(1.0,) * 5] * 4
        assert all(dataclasses.replace(pair.first) == pair.second for pair in same)

    def test_changes(self, comparison: jobs.Comparison, folders: list[Path]) -> None:
        tables = [jobs.table(folder).to_pandas() for folder in folders]
        both = tables[0].merge(tables[1], on="key", suffixes=("_a", "_b"))
        both = both[both["status_b"] == "done"]
        counts = both.groupby(["verdict_a", "verdict_b"]).size()
        assert {(a, b): count for a, b, count in comparison.verdicts} == counts.to_dict()
        areas = both[["smallest_area_a", "smallest_area_b"]].fillna(2.0)
        change = np.sign(areas["smallest_area_b"] - areas["smallest_area_a"])
        assert comparison.sizes == {
            "smaller": (change < 0).sum(),
            "equal": (change == 0).sum(),
            "larger": (change > 0).sum(),
        }
        assert comparison.sizes["smaller"] > 0
        assert comparison.sizes["larger"] > 0
        assert comparison.scores.count == len(both)
        assert comparison.target_changed == 0

    def test_classes(self, comparison: jobs.Comparison) -> None:
        assert [group.images for group in comparison.classes] == [4, 4, 3]
        for group in comparison.classes:
            pairs = [pair for pair in comparison.pairs if pair.first.target == group.target]
            assert group.name == runs.CLASSES[group.target]
            assert group.images == len(pairs)
            assert group.moved == sum(pair.moved for pair in pairs)
            assert group.verdicts == sum(pair.first.verdict != pair.second.verdict for pair in pairs)
            assert group.iou.min == min(pair.mean for pair in pairs if pair.mean is not None)

    def test_settings_that_differ(self, comparison: jobs.Comparison) -> None:
        assert comparison.differences == (("weights", "0" * 64, "1" * 64), ("seed", "0", "1"))
        assert ("game", "preserve") in comparison.common
        assert not {name for name, *_ in comparison.differences} & {name for name, _ in comparison.common}

    def test_a_run_against_itself_has_not_moved(self, folders: list[Path]) -> None:
        comparison = jobs.compare(folders[0], folders[0])
        assert {pair.iou for pair in comparison.pairs} == {(1.0,) * 5}
        assert (
            comparison.moved,
            comparison.differences,
            comparison.failed,
            comparison.only_first,
            comparison.only_second,
        ) == (
            0,
            (),
            (),
            (),
            (),
        )
        assert comparison.mean.min == 1.0
        assert all(a == b for a, b, _ in comparison.verdicts)
        assert comparison.sizes == {"smaller": 0, "equal": 13, "larger": 0}
        assert (comparison.scores.min, comparison.scores.max) == (0.0, 0.0)

    def test_areas_that_both_have(self, tmp_path: Path) -> None:
        first, second = runs.make_explanation(0), runs.make_explanation(1, areas=(0.1, 0.3, 0.4))
        folders = [
            runs.write_run(
                tmp_path / str(number), [runs.make_row(explanation, "a")], runs.make_settings(explanation.areas)
            )
            for number, explanation in enumerate((first, second))
        ]
        comparison = jobs.compare(*folders)
        assert comparison.areas == (0.1, 0.4)
        mask_a, mask_b = first.binary(0.4)[0] > 0, second.binary(0.4)[0] > 0
        assert comparison.pairs[0].iou is not None
        assert comparison.pairs[0].iou[1] == pytest.approx(float((mask_a & mask_b).sum() / (mask_a | mask_b).sum()))

    def test_another_class_and_a_run_that_was_not_finite(self, tmp_path: Path) -> None:
        row = runs.make_row(runs.make_explanation(), "a")
        first = runs.write_run(tmp_path / "one", [row, {**row, "key": "b"}])
        changed = [{**row, "target": 3, "target_name": "missile"}, {**row, "key": "b", "mask_areas": [0.0] * 5}]
        comparison = jobs.compare(first, runs.write_run(tmp_path / "other", changed))
        assert comparison.target_changed == 1
        assert [pair.iou for pair in comparison.pairs] == [(1.0,) * 5, None]
        assert (comparison.moved, comparison.mean.count) == (0, 1)

    def test_another_query_is_another_target(self, tmp_path: Path) -> None:
        row = {**runs.make_row(runs.make_explanation(), "a"), "target": None, "target_name": "box 1"}
        first = runs.write_run(tmp_path / "one", [row, {**row, "key": "b"}])
        second = runs.write_run(tmp_path / "other", [{**row, "target_name": "box 2"}, {**row, "key": "b"}])
        assert jobs.compare(first, second).target_changed == 1

    def test_progress_is_reported(self, folders: list[Path]) -> None:
        calls: list[tuple[int, int]] = []
        jobs.compare(*folders, on_image=lambda done, total: calls.append((done, total)))
        assert calls == [(index, 11) for index in range(1, 12)]

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
        first = runs.write_run(tmp_path / "one", [])
        second = runs.write_run(tmp_path / "other", [], runs.make_settings((0.3, 0.5)))
        assert self.refused(first, second) == (
            f"runs must share an area to be compared, {str(first)!r} has 0.025, 0.05, 0.1, 0.2, 0.4 and "
            f"{str(second)!r} 0.3, 0.5; run one of them again with an area of the other"
        )

    def test_no_image_in_common(self, tmp_path: Path) -> None:
        first, second = (
            runs.write_run(tmp_path / name, [runs.make_row(runs.make_explanation(), name)]) for name in ("one", "other")
        )
        assert self.refused(first, second) == (
            f"runs must share images to be compared, {str(first)!r} and {str(second)!r} have no key in common; "
            "run both over the same folder or manifest"
        )

    def test_other_pictures(self, tmp_path: Path) -> None:
        row = runs.make_row(runs.make_explanation(), "a")
        first = runs.write_run(tmp_path / "one", [row])
        second = runs.write_run(tmp_path / "other", [{**row, "content_hash": "changed"}])
        assert self.refused(first, second) == (
            f"runs must be over the same images to be compared, the bytes of 'a' in {str(first)!r} are not those in "
            f"{str(second)!r}; run both over the same files"
        )

    def test_other_shapes(self, tmp_path: Path) -> None:
        first = runs.write_run(tmp_path / "one", [runs.make_row(runs.make_explanation(), "a")])
        second = runs.write_run(tmp_path / "other", [runs.make_row(runs.make_explanation(shape=(20, 20)), "a")])
        assert self.refused(first, second) == (
            f"runs must have inputs of one shape to be compared, that of 'a' is 24 × 32 in {str(first)!r} and "
            f"20 × 20 in {str(second)!r}; compare networks with the same input size"
        )

    def test_what_is_no_run(self, tmp_path: Path, folders: list[Path]) -> None:
        assert self.refused(folders[0], tmp_path) == (
            f"a run must have a manifest, {str(tmp_path / 'manifest.json')!r} is none; name the folder of a run"
        )

    def test_rows_without_an_input_shape(self, tmp_path: Path) -> None:
        first = runs.write_run(tmp_path / "one", [runs.make_row(runs.make_explanation(), "a", input_shape=None)])
        assert self.refused(first, first) == (
            "a row must have an input_shape, row 'a' has none; explain its image again with this version"
        )
