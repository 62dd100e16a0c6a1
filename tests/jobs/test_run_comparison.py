"""Two runs side by side: masks without a network, overlaps as numpy has them, refusals, and the page."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from extremal import Network, explain, jobs
from extremal.errors import ExtremalValueError
from extremal.explanations.explanation import Explanation
from extremal.jobs.restore import cut_masks
from extremal.jobs.rows import build_row, run_settings
from extremal.jobs.store import Store
from extremal.masking.solvers import Path as PathSolver
from extremal.masking.solvers import Penalty
from extremal.report import comparison_page as report
from extremal.report import run_plots
from support import runs, synthetic
from support.datasets import write_images, sound
from support.fake_network import BOX, TEXTURE
from support.pages import NASTY, Page, check_self_contained
from support.run_pages import read_data, draw
from support.terminal import call
from support.toys import Boxes

COUNT = 12
TINY = PathSolver(steps=4, polish=2, rounds=2, draws=1, search=2)


Both = tuple[Explanation, Explanation]  # of the first run and of the second


def key(index: int) -> str:
    return f"picture-{index:02d}.jpg"


def first_and_second(index: int) -> Both:
    """Every third image has the same masks in both runs, every third some that resemble, the rest others."""
    level, target = 1.0 + 0.1 * index, index % 3
    one = runs.make_explanation(index, effect_factor=level, target=target)
    kind = index % 3
    if kind == 0:
        return one, one
    near = one if kind == 1 else None
    return one, runs.make_explanation(100 + index, effect_factor=2.5 - level, target=target, similar_to=near)


@pytest.fixture(scope="module")
def explanations() -> list[Both]:
    return [first_and_second(index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, explanations: list[Both]) -> list[Path]:
    """Two runs that share all images but one each; another failed in the second."""
    folder = tmp_path_factory.mktemp("runs")
    sides = []
    for side, name in enumerate(("before", "after")):
        made = [runs.make_row(both[side], key(index), thumbnail=runs.make_jpeg(side)) for index, both in enumerate(explanations)]
        made.append(runs.make_row(explanations[0][0], f"only {name}"))
        told = runs.make_settings(weights=str(side) * 64, seed=side)
        sides.append((made, told))
    sides[1][0][5] = {**sides[1][0][5], "status": "failed", "error": "it broke", "verdict": None}
    sides[1][0].reverse()  # images are paired by key, not by place
    return [runs.write_run(folder / name, *side) for name, side in zip(("before", "after"), sides, strict=True)]


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
    def test_they_are_those_of_the_explanation(self, explanations: list[Both]) -> None:
        for _, made in explanations[:4]:
            cuts = cut_masks(runs.make_row(made, "a"), run_settings(made))
            assert cuts.dtype == torch.bool
            for area, mask in zip(made.areas, cuts, strict=True):
                assert torch.equal(mask, made.binary(area)[0, 0] > 0)

    @pytest.mark.parametrize("solver", [TINY, Penalty(steps=3)])
    @pytest.mark.parametrize("terms", [(), ("within",), ("units",)])
    def test_of_every_solver_and_domain(self, solver: Any, terms: tuple[str, ...]) -> None:
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

    def test_what_was_not_finite_is_cut_to_nothing(self) -> None:
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
                "a row must be complete, parameters of row 'a' is missing or not of shape (1, 5, 1, 24, 32); explain its "
                "image again",
            ),
        ],
    )
    def test_rows_must_tell_them(self, changes: dict[str, Any], message: str) -> None:
        made = runs.make_explanation()
        with pytest.raises(ExtremalValueError) as raised:
            cut_masks(runs.make_row(made, "a", **changes), run_settings(made))
        assert str(raised.value) == message


class TestNumbers:
    def test_images_are_paired(self, found: jobs.Comparison) -> None:
        assert [pair.first.key for pair in found.pairs] == [key(index) for index in range(COUNT) if index != 5]
        assert all(pair.first.key == pair.second.key for pair in found.pairs)
        assert (found.failed, found.only_first, found.only_second) == ((key(5),), ("only before",), ("only after",))
        assert found.areas == synthetic.AREAS

    def test_overlaps(self, found: jobs.Comparison, explanations: list[Both]) -> None:
        naive = {key(index): overlaps(*both) for index, both in enumerate(explanations)}
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

    def test_progress_is_told(self, folders: list[Path]) -> None:
        told: list[tuple[int, int]] = []
        jobs.compare(*folders, on_image=lambda done, total: told.append((done, total)))
        assert told == [(index, 11) for index in range(1, 12)]

    def test_masks_are_read_a_part_at_a_time(self, folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        known = Store.read_part
        parts: list[str] = []
        monkeypatch.setattr(Store, "part", lambda store, name: (parts.append(name), known(store, name))[1])
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
        with pytest.raises(ExtremalValueError) as raised:
            jobs.compare(*folders)
        return str(raised.value)

    def test_no_area_in_common(self, tmp_path: Path) -> None:
        one = runs.write_run(tmp_path / "one", [])
        other = runs.write_run(tmp_path / "other", [], runs.make_settings((0.3, 0.5)))
        assert self.refused(one, other) == (
            f"runs must share an area to be compared, {str(one)!r} has 0.025, 0.05, 0.1, 0.2, 0.4 and {str(other)!r} "
            "0.3, 0.5; run one of them again with an area of the other"
        )

    def test_no_image_in_common(self, tmp_path: Path) -> None:
        one, other = (runs.write_run(tmp_path / name, [runs.make_row(runs.make_explanation(), name)]) for name in ("one", "other"))
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
            f"a run must have a manifest, {str(tmp_path / 'manifest.json')!r} is none; "
            "name the folder of a run"
        )

    def test_rows_of_a_former_version(self, tmp_path: Path) -> None:
        one = runs.write_run(tmp_path / "one", [runs.make_row(runs.make_explanation(), "a", input_shape=None)])
        assert self.refused(one, one) == (
            "a row must have an input_shape, row 'a' has none; explain its image again with this version"
        )


def page(found: jobs.Comparison, folders: list[Path]) -> tuple[str, Page]:
    thumbnails = [
        dict(zip(*(jobs.table(folder)[name].to_pylist() for name in ("key", "thumbnail")), strict=True))
        for folder in folders
    ]
    text = report.render(found, *thumbnails)
    return text, Page(text)


class TestPage:
    def test_nothing_is_loaded_from_elsewhere(self, found: jobs.Comparison, folders: list[Path]) -> None:
        check_self_contained(*page(found, folders))

    def test_rows_are_the_pairs_with_both_pictures(self, found: jobs.Comparison, folders: list[Path]) -> None:
        _, result = page(found, folders)
        told = read_data(result, "images-data")
        columns = {column["label"]: column for column in told["columns"]}
        assert columns["IoU"]["values"] == [pair.mean for pair in found.pairs]
        assert columns["Image"]["values"] == [pair.first.key for pair in found.pairs]
        assert told["sort"] == {"column": list(columns).index("IoU"), "down": False}
        changed = [pair for pair in found.pairs if pair.first.verdict != pair.second.verdict]
        assert changed
        shown = dict(zip(columns["Image"]["values"], columns["Verdict"]["values"], strict=True))
        assert shown[changed[0].first.key] == f"{changed[0].first.verdict} → {changed[0].second.verdict}"
        pictures = read_data(result, "images-pictures-0")
        assert len(pictures) == len(found.pairs)
        assert {len(both) for both in pictures} == {2}
        assert pictures[0][0] != pictures[0][1]

    def test_words(self, found: jobs.Comparison, folders: list[Path]) -> None:
        words = page(found, folders)[1].words.replace("\xa0", " ")
        share = f"{100 * found.moved / 11:.0f} %"
        assert f"{found.moved} of 11 explanations moved ({share}); the median of the mean IoU is" in words
        assert "1 image failed in one of them; 2 images in one run only." in words
        assert "Only in the second run: 1 only after" in re.sub(r"\s+", " ", words)
        assert "0.05 at 10 %, 0.11 at 20 %, 0.25 at 40 %" in words, "what chance has: a / (2 − a)"
        assert "1" * 64 in words

    def test_labels_may_hold_anything(self, found: jobs.Comparison, folders: list[Path]) -> None:
        _, clean = page(found, folders)
        image = dataclasses.replace(found.pairs[0].first, key=NASTY, name=NASTY)
        dirty_pairs = (dataclasses.replace(found.pairs[0], first=image, mean=0.0), *found.pairs[1:])
        classes = (dataclasses.replace(found.classes[0], name=NASTY), *found.classes[1:])
        differences = (("weights", NASTY, "1"), ("seed", "0", NASTY))
        changes = {"pairs": dirty_pairs, "classes": classes, "differences": differences}
        changed = dataclasses.replace(found, first=NASTY, only_first=(NASTY,), **changes)
        _, dirty = page(changed, folders)
        images = [tag for tag, _ in clean.elements].count("img") - [tag for tag, _ in dirty.elements].count("img")
        assert images == 2, "nothing is known to be in the pictures of that key"
        assert [tag for tag, _ in dirty.elements if tag != "img"] == [tag for tag, _ in clean.elements if tag != "img"]
        assert NASTY in dirty.words

    def test_runs_of_which_no_image_was_explained_in_both(self, tmp_path: Path) -> None:
        told = runs.make_row(runs.make_explanation(), "a")
        folders = [
            runs.write_run(tmp_path / "one", [told]),
            runs.write_run(tmp_path / "other", [{**told, "status": "failed", "error": "it broke"}]),
        ]
        found = jobs.compare(*folders)
        assert "No image was explained in both runs." in page(found, folders)[1].words
        draw(run_plots.comparison_figure(found))

    def test_the_figure_is_drawn(self, found: jobs.Comparison) -> None:
        axes = draw(run_plots.comparison_figure(found))
        assert [patch.get_width() for patch in axes[2].patches] == [count for *_, count in found.verdicts]
        assert [text.get_text() for text in axes[0].get_legend().get_texts()] == [
            "2.5 %",
            "5 %",
            "10 %",
            "20 %",
            "40 %",
        ]


class TestCommand:
    def test_table_page_and_figure(self, tmp_path: Path, folders: list[Path], found: jobs.Comparison) -> None:
        code, told, _ = call("compare", *map(str, folders), "--out", str(tmp_path), columns=160)
        assert code == 0
        goal = tmp_path / "before-after-compare"
        assert sorted(path.name for path in goal.iterdir()) == ["compare.html", "compare.png"]
        assert f"{found.moved} of 11 explanations moved" in told
        assert f"differs: weights: {'0' * 64} / {'1' * 64}\n" in told
        assert f"failed in one of them: 1: {key(5)}\nonly in the first: 1: only before\n" in told
        assert told.endswith(f"written:\n  {goal}/compare.html\n  {goal}/compare.png\n")

    def test_json_is_the_comparison(self, tmp_path: Path, folders: list[Path], found: jobs.Comparison) -> None:
        code, told, _ = call("compare", *map(str, folders), "--out", str(tmp_path), "--json", columns=160)
        values = json.loads(told)
        files = values.pop("files")
        assert code == 0
        assert values == json.loads(json.dumps(dataclasses.asdict(found)))
        assert {Path(path).name for path in files.values()} == {"compare.html", "compare.png"}

    def test_a_refusal_writes_nothing(self, tmp_path: Path, folders: list[Path]) -> None:
        code, _, told = call("compare", str(folders[0]), str(tmp_path), "--out", str(tmp_path / "out"), columns=160)
        assert code == 2
        assert told.startswith("error: a run must have a manifest, ")
        assert list((tmp_path / "out").iterdir()) == []
