"""Mistakes are reported before torch is imported; what the checks know is what the library knows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from extremal import Network, zoo
from extremal.benchmark.baselines import METHODS
from extremal.benchmark.bench import TASK_NAMES
from extremal.benchmark.data import DATA_SET_KINDS
from extremal.cli import argument_checks, options
from extremal.errors import ExtremalValueError
from extremal.explanations.effort import EFFORTS
from extremal.masking.games import GAMES
from extremal.masking.perturbations import PERTURBATIONS
from extremal.masking.solvers import SOLVERS
from extremal.networks.imagenet import imagenet_labels
from extremal.networks.names import check_network_name, registered_names
from extremal.networks.zoo import timm, torchvision
from extremal.scores import SCORES
from extremal.scores.parse import parse_class
from support.fake_network import save_image

MISTAKES = [  # arguments, and a part of the message
    (["explain", "no.png"], "an image must be an existing file, got 'no.png'"),
    (["explain", "text.png"], "an image must be in a format that Pillow reads, got 'text.png'"),
    (["explain", "empty"], "a folder must hold images, got 'empty' without any"),
    (["explain", "https://example.org/cat.png"], "got the address 'https:"),
    (["explain", "cat.png", "--game", "keep"], "game must be one of preserve, delete, dual, got 'keep'"),
    (["explain", "cat.png", "--areas", "10%,ten"], "--areas must be numbers separated by commas, got '10%,ten'"),
    (["explain", "cat.png", "--areas", "10"], "areas must lie in (0, 1), got 10"),
    (["explain", "cat.png", "--perturbation", "blur,blr"], "got 'blr'; nearest: blur"),
    (["explain", "cat.png", "--solver", "pth"], "got 'pth'; nearest: path"),
    (["explain", "cat.png", "--target", "gren"], "target must be a class of embedded, got 'gren'; nearest: groin, "),
    (["explain", "cat.png", "--target", "tabby|grene"], "target must be a class of embedded, got 'grene'; nearest: "),
    (["explain", "cat.png", "--target", "1000"], "target must lie in 0..999 for embedded, got 1000"),
    (["sets", "cat.png", "--target", "fx"], "nearest groups of classes: fox"),
    (["contrast", "cat.png", "--other", "gren"], "target must be a class of embedded, got 'gren'; nearest: groin, "),
    (["explain", "cat.png", "--score", "logits"], "got 'logits'; nearest: logit"),
    (["explain", "cat.png", "--network", "resnet50"], "got 'resnet50'; `extremal networks` lists the names; nearest: "),
    (["explain", "cat.png", "--network", "timm:resnt50"], "a network must be a classifier of timm, got 'resnt50'"),
    (["explain", "cat.png", "--network", "nomodule:make"], "there is no module 'nomodule'"),
    (["explain", "cat.png", "--network", "file:no.pt2"], "got 'no.pt2'"),
    (["explain", "cat.png", "--network", "timm:resnet18", "--weights", "no.pt"], "weights must be an existing file"),
    (["explain", "cat.png", "--ask", "unit:blocks.3"], "--ask unit must name a layer and a channel number"),
    (["explain", "cat.png", "--ask", "like:no.png"], "an image must be an existing file, got 'no.png'"),
    (["explain", "cat.png", "--out", "text.png"], "an output must lie in a folder that can be written"),
    (["explain", "cat.png", "--force"], "got 'extremal-out/cat' with 'thesis.tex' in it"),
    (["channels", "cat.png", "--layer", "a", "--counts", "few"], "--counts must be whole numbers"),
    (["class-channels", "no", "--layer", "a", "--target", "b"], "a class must be a folder of images, got 'no'"),
    (["doctor", "embeded", "cat.png"], "got 'embeded'; `extremal networks` lists the names; nearest: embedded"),
    (["layers", "--network", "torchvision:resnet5"], "got 'resnet5'; nearest: "),
    (["run", "no", "--out", "run"], "a source of a run must be an image, a folder or a manifest .csv that exists"),
    (["run", "cat.png", "--out", "run", "--batch", "many"], "--batch must be auto or a whole number"),
    (["run", "cat.png", "--out", "run", "--engine", "rey"], "got 'rey'; nearest: ray"),
    (["status", "empty"], "a run must have a manifest"),
    (["summary", "empty"], "a run must have a manifest"),
    (["compare", "empty", "empty"], "a run must have a manifest"),
    (["bench", "pointng", "--out", "b", "--data", "photographs"], "got 'pointng'; nearest: pointing"),
    (["bench", "pointing", "--out", "b", "--data", "vox:d"], "got 'vox:d'; did you mean voc:DIR?"),
    (["bench", "pointing", "--out", "b", "--data", "voc:no"], "data must be in a folder that exists, got 'no'"),
    (["bench", "grid", "--out", "b", "--data", "photographs", "--methods", "gradcam"], "nearest: grad-cam"),
    (["figures", "areas", "no.png"], "an image must be an existing file, got 'no.png'"),
    (["app", "--network", "embeded"], "nearest: embedded"),
]
SCRIPT = """
import io, json, sys
from contextlib import redirect_stderr
from extremal.cli.main import app
results = []
for arguments in json.load(sys.stdin):
    error = io.StringIO()
    with redirect_stderr(error):
        try:
            app(arguments)
        except SystemExit as end:
            code = end.code
    results.append([code, error.getvalue(), "torch" in sys.modules])
print(json.dumps(results))
"""


def prepare_folder(folder: Path) -> None:
    """Write the files that the mistakes name."""
    save_image(folder / "cat.png")
    (folder / "text.png").write_text("no picture")
    (folder / "empty").mkdir()
    (folder / "extremal-out" / "cat").mkdir(parents=True)
    (folder / "extremal-out" / "cat" / "thesis.tex").write_text("mine")


def test_mistakes_are_reported_without_torch(tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    commands = json.dumps([arguments for arguments, _ in MISTAKES])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=commands, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    for (arguments, part), (code, error, has_torch) in zip(MISTAKES, json.loads(done.stdout), strict=True):
        assert (arguments, code, has_torch) == (arguments, 2, False)
        assert part in error
        assert error.count("\n") == 1
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert names == ["cat.png", "empty", "extremal-out", "extremal-out/cat", "extremal-out/cat/thesis.tex", "text.png"]


def test_the_names_are_those_of_the_library() -> None:
    assert list(GAMES) == list(options.GAME_NAMES)
    assert list(PERTURBATIONS) == list(options.PERTURBATION_NAMES)
    assert list(SOLVERS) == list(options.SOLVER_NAMES)
    assert list(SCORES) == list(options.SCORE_NAMES)
    assert list(EFFORTS) == list(options.EFFORT_NAMES)
    assert list(METHODS) == list(options.METHOD_NAMES)
    assert TASK_NAMES == options.TASK_NAMES
    assert DATA_SET_KINDS == options.DATA_KINDS


def test_networks_of_torchvision_and_timm_are_known() -> None:
    assert set(timm.names()) == registered_names("timm")
    assert set(torchvision.names()) <= registered_names("torchvision")
    for name in zoo.names():
        check_network_name(name)


@pytest.mark.parametrize("name", ["timm:resnet18.a1_in1k", "hf:folder", "collections:OrderedDict", "voc:vgg16"])
def test_names_that_only_loading_can_judge_pass(name: str) -> None:
    check_network_name(name)


@pytest.mark.parametrize(
    "text", ["", "cat", "cat|beagle", "dog | tabby", "tabby|2", "281", "Tabby", "tench, Tinca tinca", "999"]
)
def test_classes_that_the_library_takes_pass(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argument_checks, "IMAGENET_NETWORKS", ("embedded",))
    argument_checks.check_class(text, "embedded")
    parse_class(Network(nn.Identity(), labels=imagenet_labels()), text)


def test_a_package_that_is_not_installed_has_no_names() -> None:
    assert registered_names("nopackage") == frozenset()
    with pytest.raises(ExtremalValueError, match="there is no module 'nopackage'"):
        check_network_name("nopackage:make")
