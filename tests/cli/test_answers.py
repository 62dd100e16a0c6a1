"""Answers on the command line: `--ask answer` with `--prompt`, from a folder to the report."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import ImageOps

from support.terminal import call
from support.vlm_toys import ANSWER, PROMPT, planted_network, planted_picture, save_family

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a folder with a tiny model, in a folder with a picture."""
    save_family("SmolVLM", tmp_path / "model")
    planted_picture().save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return ["--network", "hf:model", "--areas", "0.2", "--solver", "path"]


def test_a_dry_run_tells_prompt_answer_tokens_and_picture(arguments: list[str]) -> None:
    question = ["--ask", f"answer:{ANSWER}", "--prompt", PROMPT]
    code, out, err = call("explain", "photo.png", *arguments, *question, "--dry-run", columns=400)
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert f'answer "{ANSWER}" to "{PROMPT}"' in text
    assert "3 tokens of the answer (a | red | bus) after" in text
    assert "the picture of 112 × 112 px" in text
    assert re.search(r", [0-9.]+ MiB of memory for weights and gradients", text)


def test_the_models_own_answer_is_explained_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from extremal import zoo

    planted_picture().save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "load", lambda name, weights=None, *_: planted_network())
    options = ["--areas", "0.06,0.13", "--ask", "answer", "--prompt", PROMPT, "--json"]
    code, out, err = call("explain", "photo.png", *options)
    assert (code, err) == (0, "")
    (record,) = json.loads(out)
    assert record["target_name"] == f'answer "{ANSWER}" to "{PROMPT}"'
    page = next((tmp_path / "extremal-out").rglob("*.html")).read_text(encoding="utf-8")
    assert "a red bus" in page
    assert PROMPT in page


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (["--prompt", PROMPT], "error: --prompt must be used with --ask answer or token"),
        (
            ["--ask", "answer:a red bus"],
            "a prompt must be given for hf:model, whose template is that of a conversation",
        ),
        (["--ask", "answer:a green bus", "--prompt", PROMPT], "an answer must consist of tokens that the model knows"),
        (["--ask", "token:3:a red bus", "--prompt", PROMPT], "token must lie in 0..2 for the answer a | red | bus"),
        ([], "a model of images and text must be asked for an answer, hf:model returns logits of tokens"),
    ],
)
def test_wrong_questions_are_refused_in_one_line(arguments: list[str], question: list[str], message: str) -> None:
    code, _, err = call("explain", "photo.png", *arguments, *question, columns=400)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_an_answer_token_by_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from extremal import AnswerTokens, zoo

    planted_picture().save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "load", lambda name, weights=None, *_: planted_network())
    options = ["--network", "hf:planted", "--prompt", PROMPT, "--areas", "0.06,0.13"]
    monkeypatch.setattr("extremal.cli.sets.check_network_name", lambda *_: None)
    code, out, err = call("tokens", "photo.png", *options, "--dry-run", columns=140)
    assert (code, err) == (0, "")
    assert "the same without the picture, and not explained: a (1 of 3), red (2 of 3)" in out
    assert not (tmp_path / "extremal-out").exists()
    code, out, err = call("tokens", "photo.png", *options, columns=80)
    assert (code, err) == (0, "")
    assert "1 of 3 tokens depends on the picture" in out
    assert "no picture needed" in out
    folder = next((tmp_path / "extremal-out").iterdir())
    assert AnswerTokens.load(folder / "tokens.safetensors").answer == ANSWER
    code, out, _ = call("tokens", "photo.png", *options, "--answer", "a blue cat", "--json")
    assert code == 0
    (record,) = json.loads(out)
    assert [token["depends"] for token in record["tokens"]] == [False, False, True]
    assert len(list((tmp_path / "extremal-out").iterdir())) == 2


def test_a_data_set_is_asked_for_the_models_own_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    planted_picture().save(tmp_path / "photos" / "a.png")
    ImageOps.invert(planted_picture()).save(tmp_path / "photos" / "b.png")
    monkeypatch.chdir(tmp_path)
    network = ("--network", "support.vlm_toys:planted_network", "--areas", "0.06,0.13", "--workers", "0")
    code, *_ = call("run", "photos", "--out", "run", *network, "--ask", "answer", "--prompt", PROMPT)
    assert code == 0
    rows = sorted(pq.read_table("run/parts").to_pylist(), key=lambda row: row["key"])
    assert rows[0]["target_name"] == f'answer "{ANSWER}" to "{PROMPT}"'
    assert rows[1]["target_name"] != rows[0]["target_name"]
    code, _, err = call(
        "run", "photos", "--out", "run", *network, "--ask", "answer", "--prompt", "what is in the picture"
    )
    assert code == 2
    assert "prompt" in err
