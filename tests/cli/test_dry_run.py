"""The option `--dry-run`."""

import json
from pathlib import Path

import pytest

from extremal import explain, plan
from extremal.masking.solvers import SOLVERS, Consensus, Penalty
from support import terminal
from support.fake_network import fake_network, save_image

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _image(fake_commands: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SOLVERS, "consensus", Consensus(steps=1, draws=2, least=1))
    save_image(tmp_path / "cat.png")


def call(*arguments: str) -> tuple[int, str, str]:
    return terminal.call("explain", "--dry-run", "--areas", "0.1,0.2", *arguments)


def test_the_plan_is_printed_and_nothing_is_written(tmp_path: Path) -> None:
    code, out, err = call("cat.png")
    assert (code, err) == (0, "")
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat.png"]
    planned = plan(fake_network(), "cat.png", areas=(0.1, 0.2))
    first, counts = planned.inputs[0], planned.evaluations
    assert counts is not None
    assert first.remaining is not None
    lines = out.splitlines()
    assert lines[0] == "cat.png: 3 × 24 × 24 as input of fake"
    low, high = planned.reading.low, planned.reading.high
    assert lines.pop(1) == (
        f"input (1, 3, 24, 24): batch on axis 0, channels on axis 1; values {low:.3g} to {high:.3g}; "
        "torch.float32 on cpu"
    )
    assert lines.pop(1) == "output (1, 2): classes on axis 1; 2 labels; logits"
    assert [cell.strip() for cell in lines[4].strip("│").split("│")] == [
        *("tabby, tabby cat (class 0)", f"{first.full:.2f}", f"{100 * (first.probability or 0):.1f} %"),
    ]
    blank = f"{first.blank:.2f}".replace("-", "−")
    assert lines[7:12] == [
        "target: tabby, tabby cat (class 0)",
        f"score: {first.full:.2f} whole, {blank} destroyed; destroying it takes {first.span:.2f} away, "
        f"leaves {100 * first.remaining:.2g} % of its probability",
        "run: preserve, mixed, consensus, margin; areas 10 %, 20 %; seed 0",
        "on: cpu, torch.float32, 1 threads",
        f"at once: 4 rows of the network, of {planned.rows} that fit ({planned.row_bytes / 2**20:.3g} MiB each)",
    ]
    assert lines[12] == (
        f"evaluations: {counts.gradients} forward and backward, {counts.forwards} forward; "
        f"{counts.evidence_gradients} and at most {counts.evidence_forwards} for the evidence"
    )
    assert lines[13].startswith("expected: ")
    assert lines[13].endswith(" MiB of memory for weights and gradients")
    assert lines[14:] == [f"nothing was written; the results would be in {Path('extremal-out', 'cat')}"]


def test_json(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    save_image(tmp_path / "b" / "cat.png")
    options = ["--game", "dual", "--solver", "penalty", "--score", "logit", "--seed", "3", "--target", "tiger cat"]
    code, out, err = call("cat.png", "b/cat.png", "--json", *options, "--score", "margin", "--refine")
    records = json.loads(out)
    assert (code, err) == (0, "")
    assert [record["path"] for record in records] == ["cat.png", "b/cat.png"]
    assert [Path(record["folder"]).name for record in records] == ["cat-tiger-cat-dual", "cat-tiger-cat-dual-2"]
    record = records[0]
    assert list(record) == [
        *(
            "path",
            "folder",
            "shape",
            "reading",
            "inputs",
            "areas",
            "settings",
            "rows",
            "row_bytes",
            "rows_at_once",
            "memory",
        ),
        *("answers", "refining", "pace", "seconds", "seconds_refining", "evaluations"),
    ]
    settings = record["settings"]
    assert (settings["game"], settings["solver"]["name"], settings["seed"]) == ("dual", "penalty", 3)
    assert record["inputs"][0]["target"] == 1
    assert record["evaluations"]["gradients"] == 2 * 2 * Penalty().steps
    assert record["refining"]["gradients"] > 0


def test_evaluations_are_those_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = call("cat.png", "--json", "--alternatives", "2", "--perturbation", "noise", "--effort", "fast")
    (record,) = json.loads(out)
    options = {"areas": (0.1, 0.2), "alternatives": 2, "perturbation": "noise", "effort": "fast"}
    result = explain(fake_network(), "cat.png", **options)  # type: ignore[arg-type]
    assert record["answers"] == [item.settings["evaluations"] for item in (result, *result.alternatives)]


def test_a_destroyed_input_that_scores_as_high_is_reported() -> None:
    _, out, _ = call("cat.png", "--target", "tiger cat", "--refine", "--alternatives", "2")
    lines = out.splitlines()
    assert (
        lines[-2] == "the destroyed input scores as high as the whole: run `extremal doctor` to find out what to change"
    )
    assert lines[-3].startswith("smallest area: at most ")


def test_a_bad_image_does_not_stop_the_others() -> None:
    code, out, err = call("no.png", "cat.png")
    assert code == 1
    assert err == "error: an image must be an existing file, got 'no.png'; check the path\n"
    assert out.startswith("cat.png: 3 × 24 × 24")


def test_a_folder_that_explain_would_not_replace(tmp_path: Path) -> None:
    (tmp_path / "extremal-out" / "cat").mkdir(parents=True)
    (tmp_path / "extremal-out" / "cat" / "mine.txt").write_text("mine")
    code, out, err = call("cat.png")
    assert (code, err) == (0, "")
    assert out.endswith("the results would be in extremal-out/cat-2\n")
    code, _, err = call("cat.png", "--force")
    assert code == 2
    assert err == (
        "error: a result must be a new folder or replace a previous result, got 'extremal-out/cat' with 'mine.txt' "
        "in it; choose another folder for the results\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--areas", "5"], "areas must lie in (0, 1), got 5; an area is the share of places kept, e.g. 0.05 or 5%"),
        (["--solver", "x"], "solver must be one of consensus, path, penalty, search, got 'x'"),
        (["--target", "tigr cat"], "target must be a class of fake, got 'tigr cat'; nearest: tiger cat, tabby cat"),
    ],
)
def test_bad_options_are_reported_once(arguments: list[str], message: str) -> None:
    assert call("cat.png", "b.png", *arguments) == (2, "", f"error: {message}\n")
