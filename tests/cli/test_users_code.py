"""The user's own code on the command line: what it prints goes to stderr, and what it raises is one sentence."""

import json
import sys
from pathlib import Path

import pytest

from support import terminal
from support.fake_network import save_image

MODULE = """
import torch
from torch import nn
from extremal import Network

print("imported")


class Loud(nn.Module):
    def __init__(self, fail=None, after=0):
        super().__init__()
        self.weight, self.fail, self.after = nn.Parameter(torch.ones(())), fail, after

    def forward(self, x):
        print("evaluated")
        self.after -= 1
        if self.fail and self.after < 0:
            raise self.fail
        score = 20 * self.weight * x[:, :, 4:12, 4:12].mean((1, 2, 3))
        return torch.stack([0 * score, score], 1)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def loud():
    print("built")
    return Network(Loud(), lambda image: print("prepared") or torch.rand(3, 24, 24))


def leaves_while_built():
    raise SystemExit(0)


def leaves_in_forward():
    return Loud(SystemExit(0))


def leaves_later():
    return Loud(SystemExit(0), 30)


def is_mute():
    return Loud(Mute())


def is_mute_while_built():
    raise Mute


def leaves_in_preprocess():
    def preprocess(image):
        raise SystemExit(0)
    return Network(Loud(), preprocess)
"""
FAILURES = {
    "leaves_while_built": "a network's callable must work without arguments, 'users_code:leaves_while_built' raised "
    "SystemExit: 0; correct it",
    "leaves_in_forward": "a network must take the prepared input, users_code:leaves_in_forward raised SystemExit for",
    "leaves_later": "a network must be evaluated without an error, users_code:leaves_later raised SystemExit for",
    "is_mute": "a network must take the prepared input, users_code:is_mute raised Mute for",
    "is_mute_while_built": "a network's callable must work without arguments, 'users_code:is_mute_while_built' raised "
    "Mute: Mute; correct it",
    "leaves_in_preprocess": "preprocess must turn an RGB image into a tensor (C, H, W), that of Loud raised "
    "SystemExit: 0; correct it",
}


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_code", raising=False)
    (tmp_path / "users_code.py").write_text(MODULE)
    save_image(tmp_path / "cat.png")


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "cat.png", "--areas", "0.2", "--solver", "path", "--network", "users_code:loud", "--json"),
        ("explain", "cat.png", "--areas", "0.2", "--dry-run", "--network", "users_code:loud", "--json"),
        ("doctor", "users_code:loud", "cat.png", "--json"),
        ("layers", "--network", "users_code:loud", "--json"),
    ],
)
def test_prints_go_to_stderr(arguments: tuple[str, ...]) -> None:
    code, out, err = terminal.call(*arguments)
    json.loads(out)
    assert code == 0
    assert {"imported", "built", "prepared", "evaluated"} <= {*err.splitlines()}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_one_sentence(failure: str) -> None:
    code, out, err = terminal.call(
        "explain", "cat.png", "--areas", "0.2", "--solver", "path", "--network", f"users_code:{failure}"
    )
    lines = [line for line in err.splitlines() if line not in ("imported", "evaluated", "built")]
    assert (code, out, len(lines)) == (2, "", 1)
    assert lines[0].startswith("error: ")
    assert FAILURES[failure] in lines[0]
