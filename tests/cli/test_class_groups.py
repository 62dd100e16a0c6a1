"""Groups of classes on the command line."""

import json
from pathlib import Path

import pytest

from extremal import Network, zoo
from extremal.masking.solvers import SOLVERS, Consensus
from support.fake_network import fake_network, save_image
from support.terminal import call
from support.toys import Switchable

LABELS = ("tabby", "tiger cat", "beagle", "owl")
TINY = Consensus(steps=1, draws=2, least=1)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _image(fake_commands: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    net = Network(Switchable(), fake_network().preprocess, LABELS, "toy", groups={"cat": (0, 1)})
    monkeypatch.setattr(zoo, "load", lambda name, weights=None, *_: net)
    monkeypatch.setitem(SOLVERS, "consensus", TINY)
    save_image(tmp_path / "cat.png")


@pytest.mark.parametrize("target", ["cat", "tabby|tiger cat", "1 | 0"])
def test_explain(target: str) -> None:
    code, out, err = call("explain", "cat.png", "--target", target, "--areas", "0.1,0.2", "--refine", "--json")
    assert (code, err) == (0, "")
    (record,) = json.loads(out)
    assert (record["target"], record["target_name"]) == ([0, 1], "cat (2 classes)")


def test_a_table_has_the_name_without_an_index() -> None:
    code, out, _ = call("explain", "cat.png", "--target", "tabby|owl", "--areas", "0.2", columns=140)
    assert code == 0
    assert out.startswith("cat.png: tabby | owl, score ")


@pytest.mark.parametrize(
    "options", [("explain", "cat.png", "--dry-run", "--areas", "0.2"), ("doctor", "embedded", "cat.png")]
)
def test_dry_run_and_doctor(options: tuple[str, ...]) -> None:
    _, out, err = call(*options, "--target", "cat", columns=140)
    assert err == ""
    assert "target: cat (2 classes)\n" in out or "target cat (2 classes)" in out


def test_channels(tmp_path: Path) -> None:
    code, out, err = call("channels", "cat.png", "--layer", "norm", "--target", "cat", "--counts", "2", columns=140)
    assert (code, err) == (0, "")
    assert out.startswith("cat.png: cat (2 classes), layer norm of 6 channels")
    (tmp_path / "cats").mkdir()
    save_image(tmp_path / "cats" / "cat.png")
    code, out, err = call("class-channels", "cats", "--layer", "norm", "--target", "beagle|owl", columns=140)
    assert (code, err) == (0, "")
    assert out.startswith("beagle | owl, layer norm: 1 images")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("tabby|tigr cat", "target must be a class of toy, got 'tigr cat'; nearest: tiger cat"),
        ("cat|tabby", "a group must hold each class once, got tabby (class 0) twice in cat | tabby; leave one out"),
        (
            "0|1|2|3",
            "a group must leave out a class to be compared with, got all 4 classes of toy; leave one out",
        ),
    ],
)
def test_invalid_groups(target: str, message: str) -> None:
    code, out, err = call("explain", "cat.png", "--target", target, "--areas", "0.2", columns=200)
    assert (code, out) == (2, "")
    assert message in err
