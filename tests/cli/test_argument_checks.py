"""Mistakes are reported before torch is imported; what the checks know is what the library knows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from extremal import Network, zoo
from extremal.benchmark.baselines import METHODS
from extremal.benchmark.bench import TASK_NAMES
from extremal.benchmark.data import DATA_SET_KINDS
from extremal.cli import options, question_checks
from extremal.errors import ExtremalValueError
from extremal.explanations.effort import EFFORTS
from extremal.explanations.settings import Settings
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
    (
        ["explain", "cat.png", "--perturbation", "blur,blur"],
        "perturbations must be distinct, got blur twice in 'blur,blur'",
    ),
    (["explain", "cat.png", "--perturbation", "mixed, blur"], "must be used alone, got 'mixed, blur'; name the"),
    (["explain", "cat.png", "--alternatives", "0"], "alternatives must lie in 1..16, got 0"),
    (["explain", "thin.png"], "an image must not be longer than 50 times its short side"),
    (["explain", "cat.png", "--solver", "pth"], "got 'pth'; nearest: path"),
    (["explain", "cat.png", "--target", "gren"], "target must be a class of embedded, got 'gren'; nearest: groin, "),
    (["explain", "cat.png", "--target", "tabby|grene"], "target must be a class of embedded, got 'grene'; nearest: "),
    (["explain", "cat.png", "--target", "1000"], "target must lie in 0..999 for embedded, got 1000"),
    (["explain", "cat.png", "--target", "-1"], "target must lie in 0..999 for embedded, got -1; classes are counted"),
    (["explain", "cat.png", "--network", "mod:f", "--target", "-1"], "there is no module 'mod'"),
    (["explain", "cat.png", "--network", "json:f", "--target", "-1"], "target must be at least 0 for json:f, got -1"),
    (["explain", "cat.png", "--target", "tabby|"], "a group must name a class on each side of |, got 'tabby|'"),
    (["explain", "cat.png", "--target", "tabby|tabby"], "a group must hold each class once, got tabby"),
    (["explain", "cat.png", "--target", "cat|281"], "a group must hold each class once, got tabby"),
    (["sets", "cat.png", "--target", "fx"], "nearest groups of classes: fox"),
    (["contrast", "cat.png", "--other", "gren"], "target must be a class of embedded, got 'gren'; nearest: groin, "),
    (["contrast", "cat.png", "--target", "tabby", "--other", "tabby"], "--other must be another class than --target"),
    (["contrast", "cat.png", "--target", "tabby", "--other", "281"], "--other must be another class than --target"),
    (["contrast", "cat.png", "--target", "cat"], "--target must be a single class for a contrast, got the group 'cat'"),
    (["explain", "cat.png", "--score", "logits"], "got 'logits'; nearest: logit"),
    (["explain", "cat.png", "--network", "resnet50"], "got 'resnet50'; `extremal networks` lists the names; nearest: "),
    (["explain", "cat.png", "--network", "timm:resnt50"], "a network must be a classifier of timm, got 'resnt50'"),
    (["explain", "cat.png", "--network", "nomodule:make"], "there is no module 'nomodule'"),
    (["explain", "cat.png", "--network", "file:no.pt2"], "got 'no.pt2'"),
    (["explain", "cat.png", "--network", "timm:resnet18", "--weights", "no.pt"], "weights must be an existing file"),
    (
        ["explain", "cat.png", "--weights", "cat.png"],
        "the embedded network includes its weights, got --weights 'cat.png'",
    ),
    (["explain", "cat.png", "--network", "onnx:cat.png"], "an ONNX network must be a .onnx file, got 'cat.png'"),
    (
        ["explain", "cat.png", "--network", "file:cat.png"],
        "an exported network must be a .pt2 file of torch.export.save",
    ),
    (["explain", "cat.png", "--network", "file:a.pt2", "--weights", "random"], "file:a.pt2 includes its weights, got"),
    (["explain", "cat.png", "--network", "hf:img"], "an hf: network must have a config.json, got 'img' without one"),
    (["explain", "cat.png", "--network", "hf:imgs"], "got 'imgs'; check the path; nearest: img"),
    (["explain", "cat.png", "--ask", "unit:blocks.3"], "--ask unit must name a layer and a channel number"),
    (
        ["explain", "cat.png", "--ask", "unit:a:5", "--score", "probability"],
        "got probability with --ask unit, which has",
    ),
    (
        ["sets", "cat.png", "--ask", "box", "--score", "logit"],
        "--score must be used for a class, got logit with --ask box",
    ),
    (
        ["run", "cat.png", "--out", "run", "--ask", "answer", "--score", "logit"],
        "got logit with --ask answer, which has",
    ),
    (
        ["doctor", "embedded", "cat.png", "--ask", "instance", "--score", "logit"],
        "got logit with --ask instance, which",
    ),
    (["explain", "cat.png", "--ask", "like:no.png"], "an image must be an existing file, got 'no.png'"),
    (["explain", "cat.png", "--out", "text.png"], "an output must lie in a folder that can be written"),
    (["explain", "cat.png", "--force"], "got 'extremal-out/cat' with 'thesis.tex' in it"),
    (["channels", "cat.png", "--layer", "a", "--counts", "few"], "--counts must be whole numbers"),
    (["channels", "cat.png", "--layer", "a", "--counts", "4,4"], "counts must be distinct, got 4 twice; leave one out"),
    (["channels", "cat.png", "--layer", "a", "--counts", "0"], "counts must be at least 1, got 0"),
    (["class-channels", "no", "--layer", "a", "--target", "cat"], "a class must be a folder of images, got 'no'"),
    (["doctor", "embeded", "cat.png"], "got 'embeded'; `extremal networks` lists the names; nearest: embedded"),
    (["layers", "--network", "torchvision:resnet5"], "got 'resnet5'; nearest: "),
    (["run", "no", "--out", "run"], "a source of a run must be an image, a folder or a manifest .csv that exists"),
    (["run", "cat.png", "--out", "run", "--batch", "many"], "--batch must be auto or a whole number"),
    (["run", "cat.png", "--out", "run", "--engine", "rey"], "got 'rey'; nearest: ray"),
    (["run", "cat.png", "--out", "run", "--batch", "0"], "batch must be at least 1, got 0; leave it out"),
    (["run", "cat.png", "--out", "run", "--workers", "-1"], "workers must be at least 0, got -1; 0 is this process"),
    (["run", "cat.png", "--out", "run", "--threads", "0"], "threads must be at least 1, got 0; leave it out"),
    (["run", "cat.png", "--out", "run", "--threads", "9999"], "threads must be at most 512, got 9999"),
    (["run", "cat.png", "--out", "run", "--unit-timeout", "0"], "unit_timeout must be positive and finite, got 0"),
    (["run", "cat.png", "--out", "run", "--gpus-per-worker", "1"], "gpus_per_worker must be used with engine ray"),
    (["run", "cat.png", "--out", "run", "--alternatives", "0"], "alternatives must lie in 1..16, got 0"),
    (["run", "cat.png", "--out", "."], "a run must have a folder of its own, '.' holds "),
    (["run", "cat.png", "--out", "img"], "a run must have a folder of its own, 'img' holds 'cat.png' and no run"),
    (["status", "empty"], "a run must have a manifest"),
    (["summary", "empty"], "a run must have a manifest"),
    (["compare", "empty", "empty"], "a run must have a manifest"),
    (["bench", "pointng", "--out", "b", "--data", "photographs"], "got 'pointng'; nearest: pointing"),
    (["bench", "pointing", "--out", "b", "--data", "vox:d"], "got 'vox:d'; did you mean voc:DIR?"),
    (["bench", "grid", "--out", "b", "--data", "scenes:"], "got 'scenes:'; name its folder, e.g. scenes:pictures"),
    (["bench", "grid", "--out", "b", "--data", "nope:img"], "got 'nope:img'; e.g. folder:pictures"),
    (["bench", "grid", "--out", "b", "--data", "img"], "got 'img'; for the images of a folder: folder:img"),
    (["bench", "pointing", "--out", "b", "--data", "voc:no"], "VOC must be an existing folder, 'no' is not"),
    (["bench", "grid", "--out", "b", "--data", "photographs", "--methods", "gradcam"], "nearest: grad-cam"),
    (
        ["bench", "grid", "--out", "b", "--data", "photographs", "--methods", "path,path"],
        "got path twice in 'path,path'",
    ),
    (["bench", "grid", "--out", "b", "--data", "photographs", "--areas", "5"], "areas must lie in (0, 1), got 5"),
    (["bench", "grid", "--out", "img", "--data", "photographs"], "a run must have a folder of its own, 'img' holds"),
    (
        ["bench", "pointing", "--out", "b", "--data", "voc:img"],
        "VOC must be unpacked completely, 'img/VOCdevkit/VOC2007",
    ),
    (["bench", "pointing", "--out", "b", "--data", "coco:img"], "COCO must be unpacked completely, 'img/annotations"),
    (["bench", "grid", "--out", "b", "--data", "folder:empty"], "a folder of images must hold some"),
    (["bench", "grid", "--out", "b", "--data", "scenes:img"], "a folder of cut-outs must hold two classes or more"),
    (
        ["bench", "pointing", "--out", "b", "--data", "photographs"],
        "must have a data set with regions, got photographs",
    ),
    (["bench", "pointing", "--out", "b", "--data", "folder:img"], "must have a data set with regions, got folder:img"),
    (["bench", "pointing", "--out", "b", "--data", "voc:no", "--tolerance", "inf"], "tolerance must be at least 0 and"),
    (["bench", "pointing", "--out", "b", "--data", "voc:no", "--smooth", "1.5"], "smooth must lie in [0, 1], got 1.5"),
    (
        ["bench", "pointing", "--out", "b", "--data", "scenes:img", "--side", "3"],
        "--side must be used with the task grid",
    ),
    (
        ["bench", "stability", "--out", "b", "--confidence", "0.9"],
        "with the task grid or faithfulness or sanity, got it",
    ),
    (["bench", "sanity", "--out", "b", "--data", "folder:img", "--count", "3"], "the task grid or data of scenes, got"),
    (
        ["bench", "grid", "--out", "b", "--data", "folder:img", "--layer", "a", "--methods", "rise"],
        "the methods grad-cam",
    ),
    (
        ["bench", "grid", "--out", "b", "--data", "folder:img", "--areas", "0.1", "--methods", "rise"],
        "the task stability",
    ),
    (
        ["bench", "grid", "--out", "b", "--data", "folder:img", "--effort", "fast", "--methods", "rise"],
        "--effort must be used with the methods path, consensus, got it with grid",
    ),
    (["bench", "grid", "--out", "b", "--data", "folder:img", "--effort", "quick"], "effort must be one of fast, "),
    (["figures", "methods", "cat.png", "--target", "gren"], "target must be a class of embedded, got 'gren'"),
    (["figures", "areas", "empty"], "a folder must hold images, got 'empty' without any"),
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
    (folder / "img").mkdir()
    save_image(folder / "img" / "cat.png")
    (folder / "img" / "notes.txt").write_text("mine")
    Image.new("RGB", (451, 1)).save(folder / "thin.png")
    (folder / "extremal-out" / "cat").mkdir(parents=True)
    (folder / "extremal-out" / "cat" / "thesis.tex").write_text("mine")


def test_mistakes_are_reported_without_torch(tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    names = list_files(tmp_path)
    commands = json.dumps([arguments for arguments, _ in MISTAKES])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=commands, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    for (arguments, part), (code, error, has_torch) in zip(MISTAKES, json.loads(done.stdout), strict=True):
        assert (arguments, code, has_torch) == (arguments, 2, False)
        assert part in error
        assert error.count("\n") == 1
    assert list_files(tmp_path) == names


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_names_are_those_of_the_library() -> None:
    assert list(GAMES) == list(options.GAME_NAMES)
    assert list(PERTURBATIONS) == list(options.PERTURBATION_NAMES)
    assert list(SOLVERS) == list(options.SOLVER_NAMES)
    assert list(SCORES) == list(options.SCORE_NAMES)
    assert SCORES[options.DEFAULT_SCORE] is Settings().score
    assert list(EFFORTS) == list(options.EFFORT_NAMES)
    assert list(METHODS) == list(options.METHOD_NAMES)
    for name, listed in (
        ("layer", options.LAYER_METHODS),
        ("areas", options.AREA_METHODS),
        ("effort", options.EFFORT_METHODS),
    ):
        assert tuple(key for key, method in METHODS.items() if hasattr(method, name)) == listed
    assert TASK_NAMES == options.TASK_NAMES
    assert DATA_SET_KINDS == options.DATA_KINDS


def test_networks_of_torchvision_and_timm_are_known() -> None:
    assert set(timm.names()) == registered_names("timm")
    assert set(torchvision.names()) <= registered_names("torchvision")
    for name in zoo.names():
        check_network_name(name)


@pytest.mark.parametrize("name", ["timm:resnet18.a1_in1k", "hf:owner/name", "collections:OrderedDict", "voc:vgg16"])
def test_names_that_only_loading_can_judge_pass(name: str) -> None:
    check_network_name(name)


@pytest.mark.parametrize(
    "text", ["", "cat", "cat|beagle", "dog | tabby", "tabby|2", "281", "Tabby", "tench, Tinca tinca", "999"]
)
def test_classes_that_the_library_takes_pass(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question_checks, "IMAGENET_NETWORKS", ("embedded",))
    question_checks.check_class(text, "embedded")
    parse_class(Network(nn.Identity(), labels=imagenet_labels()), text)


def test_a_package_that_is_not_installed_has_no_names() -> None:
    assert registered_names("nopackage") == frozenset()
    with pytest.raises(ExtremalValueError, match="there is no module 'nopackage'"):
        check_network_name("nopackage:make")
