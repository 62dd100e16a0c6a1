"""The gallery is what its recorded numbers say, its words hold of them, and its script makes numbers and pictures."""

import doctest
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import extremal
from extremal.masking.solvers import Path as PathSolver
from extremal.networks.network import Network
from extremal.report.text import area_percent, percent

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "examples"))
script, words, asked = (importlib.import_module(f"gallery{part}") for part in ("", "_page", "_entries"))
FOLDER = ROOT / "docs" / "gallery"
PAGE = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
NUMBERS = json.loads((FOLDER / "numbers.json").read_text(encoding="utf-8"))
ENTRIES = {entry.name: entry for entry in asked.ENTRIES}
PERCENT = re.compile(r"−?\d+(?:\.\d+)?\xa0%")


def row(size: float, binary: float, best: float, verdict: str = "sufficient", reason: str = "it is") -> dict[str, Any]:
    """One area of a toy."""
    return {"area": size, "binary": binary, "control_best": best, "controls": 8, "verdict": verdict, "reason": reason}


def toy(*rows: dict[str, Any], keeps: bool = True, **more: Any) -> dict[str, Any]:
    """Numbers of a run that never was."""
    head = {"class": "cup", "probability": 0.25, "rank": 3, "classes": 10, "score_full": 1.0, "score_blank": -2.5}
    return {**head, "keeps": keeps, "rows": list(rows), "regions": [], "answers": 1, **more}


def plain(text: str) -> str:
    """With ordinary spaces."""
    return text.replace("\xa0", " ")


def part(name: str) -> str:
    """What the page says of one entry."""
    return PAGE.split(f"### {ENTRIES[name].title}\n")[1].split("\n##")[0]


def percentages(value: Any) -> set[str]:
    """Every recorded number as the page writes shares and areas."""
    if isinstance(value, dict | list):
        found = (percentages(item) for item in (value.values() if isinstance(value, dict) else value))
        return set().union(*found)
    if isinstance(value, float):
        return {percent(value), percent(value, 1), area_percent(value)}
    return set(PERCENT.findall(words.typeset(value))) if isinstance(value, str) else set()


def test_the_page_is_that_of_its_numbers() -> None:
    assert words.page(NUMBERS) == PAGE, "run: python examples/gallery.py --words"


def test_every_number_of_an_entry_is_recorded() -> None:
    assert {*NUMBERS["entries"]} == {*ENTRIES}
    for name, record in NUMBERS["entries"].items():
        told = set(PERCENT.findall(part(name)))
        assert len(told) >= 3, name
        assert told <= percentages(record) | {"0.1\xa0%"}, (name, told - percentages(record))


def test_no_measured_number_is_typed_by_hand() -> None:
    for entry in ENTRIES.values():
        assert not re.search(r"\d", entry.title + entry.text + entry.scene + entry.region), entry.name


def test_words_hold_of_the_recorded_runs() -> None:
    for name, entry in ENTRIES.items():
        script.check(entry, NUMBERS["entries"][name])
    masks = len(script.AREAS) * len(asked.PHOTOS)
    assert {name: sum(counts.values()) for name, counts in NUMBERS["survey"].items()} == dict.fromkeys(
        asked.SURVEY, masks
    )


def test_a_run_that_found_something_else_stops_the_script() -> None:
    entry = ENTRIES["grey"]
    message = "grey is written for 'suspect: grey values carry it', its run found sufficient: it is"
    with pytest.raises(SystemExit, match=f"^{re.escape(message)}$"):
        script.check(entry, toy(row(0.1, 0.95, 0.2)))


def test_the_page_names_every_picture_and_no_other() -> None:
    named = re.findall(r"\]\(gallery/([\w-]+\.jpg)\)", PAGE)
    assert sorted(named) == sorted(picture.name for picture in FOLDER.glob("*.jpg"))
    assert {file.name for file in FOLDER.iterdir()} == {*named, "numbers.json"}


def test_pictures_are_small() -> None:
    pictures = sorted(FOLDER.glob("*.jpg"))
    sizes = [picture.stat().st_size for picture in pictures]
    assert max(sizes) <= 120_000
    assert sum(sizes) < 1_500_000
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.format == "JPEG"
            assert picture.width <= 900


def test_alternative_texts_tell_scene_region_and_curve() -> None:
    for name, entry in ENTRIES.items():
        (alt,) = re.findall(r"!\[(.*?)\]", part(name), re.DOTALL)
        assert alt.startswith(f"{entry.scene}; {entry.region}; ")
        for recorded in NUMBERS["entries"][name]["rows"]:
            assert percent(recorded["binary"]) in alt


def test_each_entry_ends_with_its_command() -> None:
    for name, entry in ENTRIES.items():
        assert part(name).strip().endswith(f"```console\n{entry.run.command}\n```")
    spoken = asked.ImageRun("chelsea", target="Egyptian cat", game="delete", alternatives="3").command
    assert spoken == "extremal explain chelsea.png --target 'Egyptian cat' --game delete --alternatives 3"
    spoken = asked.ChannelRun("coffee", "blocks.5", (4, 8)).command
    assert spoken == "extremal channels coffee.png --layer blocks.5 --counts 4,8 --visualise"


def test_sentences_of_a_region_that_is_enough() -> None:
    record = toy(row(0.025, 0.4, 0.1), row(0.2, 0.914, -0.03, reason="91 % of the effect, at best -3 % by chance"))
    assert [plain(text) for text in words.sentences(record)] == [
        "Target: *cup*, probability 25 %, rank 3 of 10. Destroying the image takes the margin from 1.00 to −2.50.",
        "20 % of the image keeps 91 % of the effect; the best of 8 random regions of that size keeps −3 %.",
        "Verdict: **sufficient**, 91 % of the effect, at best −3 % by chance.",
    ]
    assert plain(words.describe_curve(record)) == "effects of the cut masks are 40 % at 2.5 %, 91 % at 20 %"


def test_sentences_where_nothing_is_enough() -> None:
    record = toy(
        row(0.1, 0.2, 0.1), row(0.4, 0.48, 0.3, "insufficient", "48 % of the effect, wanted 90 %"), keeps=False
    )
    assert [plain(text) for text in words.sentences(record)[1:]] == [
        "None of the 2 areas is enough. The largest: without 40 % of the image, 48 % of the effect is lost; "
        "without the best of 8 random regions of that size, 30 %.",
        "Verdict: **insufficient**, 48 % of the effect, wanted 90 %.",
    ]


def test_sentences_of_several_answers() -> None:
    record = toy(
        row(0.05, 0.96, 0.1), regions=[{"area": 0.05, "effect": 0.96}, {"area": 0.025, "effect": 1.1}], answers=3
    )
    assert plain(words.sentences(record)[2]) == (
        "2 of 3 explanations are sufficient and hardly overlap: 5 % that keeps 96 %, 2.5 % that keeps 110 %."
    )


def test_sentences_of_channels() -> None:
    counted = {**row(0.0, 0.95, 0.1), "count": 4, "ranked": {"activation": 0.3, "ablation": 0.5}}
    record = toy(counted, layer="blocks.5", total=192, smallest={"count": 2, "channels": [3, 17]})
    assert words.sentences(record)[0].endswith(" Setting the layer to zero takes the margin from 1.00 to −2.50.")
    assert plain(words.sentences(record)[1]) == (
        "4 of the 192 channels of `blocks.5`, the others at zero, keep 95 % of the effect; the best random set of that "
        "size keeps 10 %, the top channels by activation 30 % and by ablation 50 %. The smallest sufficient set "
        "found has 2: 3, 17."
    )
    assert plain(words.describe_curve(record)) == "effects of the cut masks are 95 % at 4 channels"


def test_doctests_of_the_sentences() -> None:
    tried = doctest.testmod(words)
    assert tried.attempted > 0
    assert tried.failed == 0


class Corner(torch.nn.Module):
    """Class 0 is contrast in the upper left corner."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = 8 * x[..., 4:16, 4:16].var((1, 2, 3))
        return torch.stack([score, torch.zeros_like(score)], 1)


def test_a_run_is_recorded_and_drawn(tmp_path: Path, one_thread: None) -> None:
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).round()
    net = Network(Corner(), labels=("corner", "none"))
    quick = PathSolver(steps=6, polish=2, draws=1, search=2)
    result = extremal.explain(net, x, "corner", areas=(0.1, 0.3), solver=quick)
    record = script.to_record(net, result)
    assert record["class"] == "corner"
    assert (record["rank"], record["classes"]) == (1, 2)
    assert record["probability"] == pytest.approx(float(net.model(x).softmax(1)[0, 0]), rel=0.01)
    assert [line["area"] for line in record["rows"]] == [0.1, 0.3]
    assert [line["binary"] for line in record["rows"]] == pytest.approx(result.curve().binary, abs=1e-4)
    assert [line["reason"] for line in record["rows"]] == [verdict.reason for verdict in result.verdict[0]]
    script.draw_entry(ENTRIES["grey"], result, record, tmp_path / "toy.jpg")
    with Image.open(tmp_path / "toy.jpg") as picture:
        assert (picture.format, picture.width) == ("JPEG", 900)


def test_verdicts_are_counted_by_their_reason() -> None:
    from extremal.explanations.verdict import reach_verdict

    kinds = [
        script.kind(reach_verdict(*mask))
        for mask in (
            (1.0, 0.95, [0.9], [0.1]),
            (0.5, 0.4, [0.3], [0.1]),
            (1.1, 0.2, [0.1], [0.0]),
            (1.3, 1.17, [0.01], [0.28]),
            (6.0, 5.9, [0.9], [0.28]),
            (1.3, 1.17, [0.9], [0.95]),
        )
    ]
    assert kinds == [*words.KINDS]
