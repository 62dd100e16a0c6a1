"""The command line: files, output, exit codes."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import extremal
from extremal.cli import main, options
from extremal.explanations.explanation import Explanation
from extremal.explanations.reduce_region import BUDGET
from extremal.explanations.verdict import Status
from extremal.scores import SCORES
from support.commands import RESULT_FILES, call, list_names
from support.fake_network import SIDE, save_image

pytestmark = pytest.mark.usefixtures("fake_commands")
DONE = "tabby, tabby cat (class 0)"


def document(*arguments: str, areas: str = "0.1,0.2") -> list[dict[str, Any]]:
    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} in JSON")

    code, out, err = call("--json", *arguments, areas=areas)
    assert (code, err) == (0, "")
    return json.loads(out, parse_constant=no_constant)


class TestResults:
    def test_files(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        code, out, err = call("cat.png")
        assert (code, err) == (0, "")
        folder = tmp_path / "extremal-out" / "cat"
        assert list_names(tmp_path / "extremal-out") == ["cat"]
        assert list_names(folder) == RESULT_FILES
        assert (folder / "report.html").read_text() == "cat.png"
        saved = Explanation.load(folder / "explanation.safetensors")
        assert saved.areas == (0.1, 0.2)
        for area in saved.areas:
            with Image.open(folder / f"mask-{area}.png") as mask:
                assert mask.size == (SIDE, SIDE)
                assert sum(mask.histogram()[1:255]) == 0
                assert mask.histogram()[255] == round(area * SIDE * SIDE)
        for name in RESULT_FILES:
            assert str(Path("extremal-out", "cat", name)) in out

    def test_table(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        _, out, _ = call("cat.png")
        saved = Explanation.load(tmp_path / "extremal-out" / "cat" / "explanation.safetensors")
        full, blank = float(saved.score_full[0]), float(saved.score_blank[0])
        lines = out.splitlines()
        low = f"{blank:.2f}".replace("-", "−")
        assert lines[0] == f"cat.png: {DONE}, score {full:.2f} whole, {low} destroyed"
        cells = [cell.strip() for cell in next(line for line in lines if " 20 % " in line).strip("│").split("│")]
        curve = saved.curve()
        assert cells[:2] == ["20 %", f"{float(saved.scores[0, 1]):.2f}"]
        assert cells[2:5] == [f"{100 * v:.0f} %" for v in (curve.soft[1], curve.binary[1], curve.control_best[1])]
        assert cells[5].startswith(str(saved.verdict[0][1]))
        assert any(line.startswith("smallest sufficient area: ") for line in lines)

    def test_json(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        (record,) = document("cat.png", "--target", "tabby", "--seed", "3")
        saved = Explanation.load(tmp_path / "extremal-out" / "cat-tabby" / "explanation.safetensors")
        assert list(record) == [
            *("path", "target", "target_name", "score_full", "score_blank"),
            *("probability", "unlikely", "areas", "scores", "binary_scores"),
            *(
                "effects",
                "verdicts",
                "status",
                "smallest",
                "certificate",
                "minimal",
                "stability",
                "regions",
                "left_out",
            ),
            *("files", "settings"),
        ]
        assert (record["path"], record["target"], record["target_name"]) == ("cat.png", 0, "tabby, tabby cat")
        assert record["scores"] == saved.scores[0].tolist()
        assert record["effects"]["binary"] == list(saved.curve().binary)
        assert [v["reason"] for v in record["verdicts"]] == [v.reason for v in saved.verdict[0]]
        assert record["settings"] == saved.settings
        assert record["settings"]["seed"] == 3
        assert [Path(name).name for name in record["files"]["masks"]] == ["mask-0.1.png", "mask-0.2.png"]
        assert all(Path(name).is_file() for name in (record["files"]["figure"], *record["files"]["masks"]))
        found = saved.smallest()
        assert record["smallest"] == (None if found is None else {"area": found.area, "effect": found.effect})

    def test_json_never_holds_nan(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        broken = torch.tensor([[math.nan, math.inf]])
        changed(monkeypatch, lambda found: replace(found, scores=broken, binary_scores=broken))
        save_image(tmp_path / "cat.png")
        (record,) = document("cat.png")
        assert record["scores"] == record["effects"]["soft"] == [None, None]

    def test_images_of_one_name_and_odd_names(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            save_image(tmp_path / name / "cat.png")
        save_image(tmp_path / "[red] cat.tar.png")
        records = document("a/cat.png", "b/cat.png", "[red] cat.tar.png", "--out", "deep/out")
        assert list_names(tmp_path / "deep" / "out") == ["[red] cat.tar", "cat", "cat-2"]
        assert [record["path"] for record in records] == ["a/cat.png", "b/cat.png", "[red] cat.tar.png"]

    def test_a_second_run_does_not_replace_the_first_result_unless_asked_to(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        call("cat.png", areas="0.3,0.4")
        first = list_names(tmp_path / "extremal-out" / "cat")
        call("cat.png")
        assert list_names(tmp_path / "extremal-out") == ["cat", "cat-2"]
        assert list_names(tmp_path / "extremal-out" / "cat") == first
        assert list_names(tmp_path / "extremal-out" / "cat-2") == RESULT_FILES
        call("cat.png", "--force")
        assert list_names(tmp_path / "extremal-out") == ["cat", "cat-2"]
        assert list_names(tmp_path / "extremal-out" / "cat") == RESULT_FILES

    def test_each_question_has_a_folder_of_its_own(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        for question in ([], ["--target", "tabby"], ["--target", "tiger cat"], ["--game", "delete"]):
            assert call("cat.png", *question)[0] == 0
        names = list_names(tmp_path / "extremal-out")
        assert names == ["cat", "cat-delete", "cat-tabby", "cat-tiger-cat"]

    def test_percentages_and_folders(self, tmp_path: Path) -> None:
        (tmp_path / "pets" / "old").mkdir(parents=True)
        for name in ("b.png", "old/a.png"):
            save_image(tmp_path / "pets" / name)
        records = document("pets", areas="10%, 20 %")
        assert [record["path"] for record in records] == ["pets/b.png", "pets/old/a.png"]
        assert records[0]["areas"] == [0.1, 0.2]

    def test_a_folder_without_images(self, tmp_path: Path) -> None:
        (tmp_path / "pets").mkdir()
        expected = "error: a folder must hold images, got 'pets' without any; check the path\n"
        assert call("pets") == (2, "", expected)

    @pytest.mark.parametrize("target", ["1", "tiger cat", "TIGER CAT"])
    def test_target_by_index_or_name(self, tmp_path: Path, target: str) -> None:
        save_image(tmp_path / "cat.png")
        (record,) = document("cat.png", "--target", target)
        assert record["target"] == 1

    def test_options_reach_the_library(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        (record,) = document("cat.png", "--game", "delete", "--perturbation", "fade", "--score", "logit")
        settings = record["settings"]
        assert (settings["game"], settings["perturbation"], settings["score"]) == ("delete", "Fade()", "logit")

    def test_unsorted_areas_are_reported_on_one_line(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        code, _, err = call("cat.png", areas="0.2, 0.1")
        assert (code, err) == (0, "warning: areas were sorted: 0.1, 0.2\n")


def changed(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let `explain` change what it returns."""
    explain = extremal.explain
    monkeypatch.setattr(extremal, "explain", lambda *args, **options: change(explain(*args, **options)))


class TestBadInput:
    @pytest.mark.parametrize(
        ("areas", "message"),
        [
            ("0.1,5", "areas must lie in (0, 1), got 5; an area is the share of places kept, e.g. 0.05 or 5%"),
            ("0", "areas must lie in (0, 1), got 0; an area is the share of places kept, e.g. 0.05 or 5%"),
            ("nan", "areas must lie in (0, 1), got nan; an area is the share of places kept, e.g. 0.05 or 5%"),
            ("0.1,0.2,0.1", "areas must be distinct, got 0.1 twice; leave one out"),
            ("0.1,big", "--areas must be numbers separated by commas, got '0.1,big'; e.g. 0.05,0.1 or 5%,10%"),
            ("", "--areas must be numbers separated by commas, got ''; e.g. 0.05,0.1 or 5%,10%"),
        ],
    )
    def test_areas(self, tmp_path: Path, areas: str, message: str) -> None:
        assert call("cat.png", areas=areas) == (2, "", f"error: {message}\n")
        assert list_names(tmp_path) == []

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("game", "game must be one of preserve, delete, dual, got 'x'"),
            ("perturbation", "perturbation must be one of mixed, blur, fade, constant, noise, got 'x'"),
            ("solver", "solver must be one of consensus, path, penalty, search, got 'x'"),
            ("score", f"score must be one of {', '.join(SCORES)}, got 'x'"),
        ],
    )
    def test_short_names(self, option: str, message: str) -> None:
        assert call("a.png", "b.png", f"--{option}", "x") == (2, "", f"error: {message}\n")

    def test_unknown_network(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        code, out, err = call("cat.png", "--network", "timm:resnt50")
        assert (code, out) == (2, "")
        assert err.startswith("error: a network must be a classifier of timm, got 'resnt50'; nearest: ")
        assert err.count("\n") == 1
        assert list_names(tmp_path) == []

    def test_unknown_target_with_the_nearest(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        expected = "error: target must be a class of fake, got 'tigr cat'; nearest: tiger cat, tabby cat\n"
        assert call("cat.png", "--target", "tigr cat") == (2, "", expected)

    @pytest.mark.parametrize("index", ["2", "-1", "99999"])
    def test_index_out_of_range(self, tmp_path: Path, index: str) -> None:
        save_image(tmp_path / "cat.png")
        rule = "be at least 0 for embedded" if index == "-1" else "lie in 0..1 for fake"
        expected = f"error: target must {rule}, got {index}; classes are counted from 0\n"
        assert call("cat.png", "--target", index) == (2, "", expected)
        assert list_names(tmp_path) == ["cat.png"]

    def test_missing_image(self, tmp_path: Path) -> None:
        expected = "error: an image must be an existing file, got 'no.png'; check the path\n"
        assert call("no.png") == (2, "", expected)
        assert list_names(tmp_path) == []

    def test_a_bad_image_does_not_stop_the_others(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        (tmp_path / "text.png").write_text("no picture")
        code, out, err = call("no.png", "cat.png", "text.png", "--json")
        assert code == 1
        assert [record["path"] for record in json.loads(out)] == ["cat.png"]
        assert err.splitlines() == [
            "error: an image must be an existing file, got 'no.png'; check the path",
            "error: an image must be in a format that Pillow reads, got 'text.png'; convert it to PNG or JPEG",
        ]

    def test_the_image_is_named_if_the_message_does_not_name_it(self, tmp_path: Path) -> None:
        save_image(tmp_path / "a.png")
        save_image(tmp_path / "b.png")
        assert call("a.png", "b.png", "--target", "7")[2].splitlines() == [
            "error: a.png: target must lie in 0..1 for fake, got 7; classes are counted from 0",
            "error: b.png: target must lie in 0..1 for fake, got 7; classes are counted from 0",
        ]

    def test_a_name_with_a_line_break_stays_on_one_line(self) -> None:
        expected = "error: an image must be an existing file, got 'a\\nb.png'; check the path\n"
        assert call("a\nb.png") == (2, "", expected)

    def test_run_that_is_not_finite(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        changed(monkeypatch, lambda found: replace(found, status=((Status.NOT_FINITE,) * 2,)))
        save_image(tmp_path / "cat.png")
        assert call("cat.png") == (
            *(2, ""),
            "error: a network must return finite scores, it returned NaN or infinite ones during the run, so nothing "
            "was written; check its weights, or try another perturbation or score\n",
        )
        assert list_names(tmp_path) == ["cat.png"]

    @pytest.mark.parametrize("arguments", [[], ["--colour"], ["cat.png", "--seed", "x"], ["cat.png", "--seed", "-1"]])
    def test_usage(self, arguments: list[str]) -> None:
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert "Usage: " in err


class TestOtherCommands:
    def test_networks(self) -> None:
        result = CliRunner().invoke(main.app, ["networks", "EMBED"])
        assert (result.exit_code, result.stdout) == (0, "embedded\n")
        assert result.stderr == "use one with: extremal explain IMAGE --network embedded\n"

    def test_networks_as_json(self) -> None:
        result = CliRunner().invoke(main.app, ["networks", "resnet50", "--json"])
        assert "timm:resnet50" in json.loads(result.stdout)

    def test_no_such_network(self) -> None:
        result = CliRunner().invoke(main.app, ["networks", "no such"])
        assert (result.exit_code, result.stdout.strip()) == (0, "")
        assert result.stderr == "no network name contains 'no such'; `extremal networks` lists all\n"

    def test_version(self) -> None:
        result = CliRunner().invoke(main.app, ["--version"])
        assert (result.exit_code, result.stdout) == (0, f"extremal {extremal.__version__}\n")


class TestRefine:
    def test_the_certificate_has_the_areas_and_effects_of_both_sides(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        (plain,) = document("cat.png", areas="0.02,0.6")
        assert plain["certificate"] is None
        (refined,) = document("cat.png", "--refine", "--force", areas="0.02,0.6")
        found = refined["certificate"]
        effects = {"effect", "unseen_effect", "control_effect", "below_effect", "below_unseen_effect"}
        assert set(found) == {"area", "below_area", "share", "verdict", *effects}
        assert found["verdict"]["word"] in {"sufficient", "chance is enough"}
        assert found["below_area"] < found["area"] <= 0.6
        assert found["effect"] >= found["share"] == 0.9
        assert refined["files"]["masks"][:-1] == plain["files"]["masks"]
        with Image.open(refined["files"]["masks"][-1]) as mask:
            values = np.asarray(mask)
        assert round(float((values > 0).mean()), 3) == round(found["area"], 3)

    def test_it_is_printed(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        _, out, _ = call("cat.png", "--refine", areas="0.02,0.6")
        assert re.search(r"Smallest area found: [0-9.]+\s% has \d+\s% of the effect", out)
        _, out, _ = call("cat.png", areas="0.02,0.6")
        assert "Smallest area found" not in out


class TestStability:
    def test_it_is_written_everywhere(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        (plain,) = document("cat.png", areas="0.3,0.6")
        assert plain["stability"] is None
        (record,) = document("cat.png", "--stability", "--force", areas="0.3,0.6")
        measured = record["stability"]
        saved = Explanation.load(tmp_path / "extremal-out" / "cat" / "explanation.safetensors").stability
        assert saved is not None
        assert (measured["copies"], saved.copies) == (4, 4)
        assert measured["ious"] == saved.ious[0].tolist()
        assert [len(row) for row in measured["ious"]] == [4, 4]
        assert measured["core_shares"] == saved.core_shares[0].tolist()
        assert measured["evaluations"] > 4 * sum(record["settings"]["evaluations"].values()) / 2
        assert {**record, "stability": None, "verdicts": None} == {**plain, "verdicts": None}

    def test_it_is_printed(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        _, out, _ = call("cat.png", "--stability", areas="0.3,0.6")
        assert "stable IoU" in out
        assert "Over 4 copies with one grey level of noise, " in out
        _, out, _ = call("cat.png", areas="0.3,0.6")
        assert "copies" not in out

    def test_its_cost_is_planned(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        _, out, _ = call("cat.png", "--stability", "--dry-run")
        assert "stability: 4 times these evaluations, " in out
        _, out, _ = call("cat.png", "--stability", "--dry-run", "--json")
        assert json.loads(out)[0]["copies"] == 4


class TestMinimal:
    def test_it_is_written(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        (plain,) = document("cat.png", areas="0.6,0.9")
        assert plain["minimal"] is None
        (record,) = document("cat.png", "--minimal", "--force", areas="0.6,0.9")
        found = record["minimal"]
        assert found["is_minimal"]
        assert found["area"] <= found["start_area"] <= 0.9
        assert min(found["effects"].values()) >= found["share"] == 0.9
        assert sum(piece["area"] for piece in found["pieces"]) == pytest.approx(found["area"])
        assert record["files"]["masks"] == [*plain["files"]["masks"], str(Path("extremal-out", "cat", "minimal.png"))]
        with Image.open(tmp_path / "extremal-out" / "cat" / "minimal.png") as mask:
            assert float((np.asarray(mask) > 0).mean()) == pytest.approx(found["area"])
        (again,) = document("cat.png", "--force", areas="0.6,0.9")  # a previous result is replaced
        assert again == plain

    def test_it_is_printed(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        _, out, _ = call("cat.png", "--minimal", areas="0.6,0.9")
        assert re.search(r"Minimal region: [0-9.]+\s%, reduced from [0-9.]+\s%, has \d+\s% of the effect", out)
        assert "1-minimal: " in out
        _, out, _ = call("cat.png", "--minimal", "--budget", "2", areas="0.6,0.9")
        assert re.search(
            r"Minimal region: not searched for, budget must suffice .*, got 2; e\.g\.", " ".join(out.split())
        )
        _, out, _ = call("cat.png", areas="0.6,0.9")
        assert "inimal region" not in out

    def test_its_cost_is_planned(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        _, out, _ = call("cat.png", "--minimal", "--budget", "300", "--dry-run")
        assert "minimal region: at most 300 forward" in out
        _, out, _ = call("cat.png", "--minimal", "--dry-run", "--json")
        assert json.loads(out)[0]["minimal_budget"] == options.DEFAULT_BUDGET == BUDGET


class TestAlternatives:
    def test_they_are_printed_and_written(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        _, out, _ = call("cat.png", "--alternatives", "2", areas="0.3,0.6")
        saved = Explanation.load(tmp_path / "extremal-out" / "cat" / "explanation.safetensors")
        regions = saved.regions()
        assert len(saved.alternatives) == 1
        if len(regions) < 2:
            word = "Only one" if regions else "No"
            assert f"{word} sufficient region was found; 2 were requested." in out
        else:
            assert "2 sufficient regions with little overlap were found (" in out
            assert "); 2 were requested." in out
        written = sorted(path.name for path in (tmp_path / "extremal-out" / "cat").glob("region-*.png"))
        assert written == [f"region-{number}.png" for number, _ in enumerate(regions, start=1)]
        _, out, _ = call("cat.png", areas="0.3,0.6")
        assert "were requested" not in out

    def test_a_bad_number_is_reported_before_anything_runs(self, tmp_path: Path) -> None:
        save_image(tmp_path / "cat.png")
        code, _, err = call("cat.png", "--alternatives", "0")
        assert code == 2
        assert "alternatives must lie in 1..16, got 0" in err
