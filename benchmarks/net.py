"""Regression check for refactorings: ask fixed questions, save all numbers, compare two saved folders bit for bit.

Use: python benchmarks/net.py save FOLDER [--only NAME,...]
     python benchmarks/net.py compare BEFORE AFTER [--only NAME,...]

Everything runs on one thread with fixed seeds. Each question becomes FOLDER/NAME.safetensors (tensors) and
FOLDER/NAME.json (targets, statuses, verdict labels, effects, counts of evaluations). Times, versions, paths and prose
are not saved. `compare` exits with 1 if anything differs.

The same script runs on trees with different names: everything whose name may change is accessed through the adapters
in the first section. To save the results of another tree, put its `src` first on PYTHONPATH; `save` prints the path of
the package it runs.
"""

import argparse
import io
import json
import math
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import extremal

AREAS = (0.1, 0.3)
ABOUT = "about.json"  # in a saved folder: package, versions and times; never compared
MAX_LISTED = 8  # differences listed for one question

# Tensors that a run's table stores rounded to half of 2**-20; a table that stores them exactly differs by that much.
ROUNDED_TENSORS = re.compile(r"rebuilt\..*trace_(area|grey)")
ROUNDING = 1e-6

# ---------------------------------------------------------------------------------------------------------------------
# Adapters: the new name first, then the old one.

# names of tensor fields in newer trees -> the name under which they are saved
SAVED_NAMES = {"parameters": "fields", "images": "pictures"}
# names of checks of `examine` in older trees -> the name under which they are saved
CHECK_NAMES = {
    "destroyed": "destruction lowers score",
    "repeatable": "deterministic",
    "input kept": "input unchanged",
    "mode": "evaluation mode",
    "rows by themselves": "rows independent",
}
# columns of a table that are not compared: paths, times, prose, and encoded bytes, which are read back instead
SKIPPED_COLUMNS = {
    *("path", "seconds", "error", "reasons", "thumbnail", "fields", "fields_shape", "parameters", "parameters_shape"),
    *("trace_step", "trace_area", "trace_reward", "trace_grey", "within", "units"),
}


def read(value: Any, *names: str) -> Any:
    """Return the first of these attributes that exists."""
    for name in names:
        if hasattr(value, name):
            return getattr(value, name)
    raise AttributeError(f"{type(value).__name__} has none of {', '.join(names)}")


def get_part(name: str) -> Any:
    """Return a public part of the package, e.g. `scores`, as an attribute or as a module."""
    try:
        return getattr(extremal, name)
    except AttributeError:
        return import_module(f"extremal.{name}")


def set_acceleration(network: Any, *, on: bool = True) -> Any:
    """Return the network with every acceleration, including oneDNN's convolutions, or with none."""
    if "accelerate" in {field.name for field in fields(network)}:
        return replace(network, accelerate="onednn" if on else "off")
    return replace(network, fuse=on)


def read_target(target: int | None) -> int:
    """Return a class index, or -1 for a question that is not about a class."""
    return -1 if target is None else int(target)


def read_evaluations(result: Any) -> dict[str, int]:
    """Return the number of evaluations of each kind."""
    settings = result.settings
    counts = settings["evaluations"] if isinstance(settings, Mapping) else settings.evaluations
    return dict(counts) if isinstance(counts, Mapping) else asdict(counts)


def read_check_name(name: str) -> str:
    """Return the present name of a check, in words."""
    name = name.replace("_", " ")
    return CHECK_NAMES.get(name, name)


def run_data_set(images: Sequence[str], folder: Path, *, network: Any, **options: Any) -> Any:
    """Run `jobs.run` in at most one worker of one thread."""
    jobs, options = get_part("jobs"), {"threads": 1} | options
    try:
        return jobs.run(images, folder, network=network, **options)
    except TypeError:
        if not hasattr(extremal, "Settings"):
            raise
    own = {name: options.pop(name) for name in ("alternatives", "areas", "seed") if name in options}
    return jobs.run(images, folder, network=network, settings=extremal.Settings(**own), **options)


# ---------------------------------------------------------------------------------------------------------------------
# What is saved


class Record:
    """The tensors and values of one question."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[str, Any] = {}

    def add_tensors(self, prefix: str, result: Any) -> None:
        """Add every tensor field of a dataclass."""
        for field in fields(result):
            value = getattr(result, field.name)
            if isinstance(value, Tensor):
                self.tensors[prefix + SAVED_NAMES.get(field.name, field.name)] = value

    def add_explanation(self, result: Any, prefix: str = "") -> None:
        """Add an `Explanation`: its tensors, effects, verdicts, regions, and those of its alternatives."""
        self.add_tensors(prefix, result)
        self._add_verdicts(prefix, result)
        self.tensors |= {
            f"{prefix}effects": result.effects(result.scores),
            f"{prefix}binary_effects": result.effects(result.binary_scores),
            f"{prefix}unseen_effects": result.unseen_effects(),
            f"{prefix}control_effects": result.effects(result.control_scores),
            f"{prefix}saliency": result.saliency(),
            f"{prefix}saliency_blurred": result.saliency(0.05),
            f"{prefix}mean_mask": read(result, "mean_mask")(0.09),
            f"{prefix}order": read(result, "order")(),
            **{f"{prefix}binary_{area:g}": result.binary(area) for area in result.areas},
        }
        self.values |= {
            f"{prefix}areas": result.areas,
            f"{prefix}unseen_names": result.unseen_names,
            f"{prefix}keeps": result.keeps,
            f"{prefix}curve": [asdict(result.curve(image)) for image in range(len(result.masks))],
        }
        for image in range(len(result.masks)):
            enough = [result.smallest(share, image) for share in (0.5, 0.9)]
            for name, found in (("smallest", enough), ("regions", result.regions(image=image))):
                for index, region in enumerate(found):
                    self._add_region(f"{prefix}{name}.{image}.{index}", region)
        for index, alternative in enumerate(result.alternatives):
            self.add_explanation(alternative, f"{prefix}alternatives.{index}.")

    def add_channels(self, result: Any) -> None:
        """Add a `ChannelExplanation`."""
        self.add_tensors("", result)
        self._add_verdicts("", result)
        for name in ("scores", "binary_scores", "random_scores", "ranked_scores"):
            self.tensors[f"{name}_effects"] = result.effects(getattr(result, name))
        self.values |= {name: getattr(result, name) for name in ("layer", "axis", "bypassed", "counts", "keeps")}
        self.values["ranking_names"] = result.ranking_names
        self.values["channels"] = {str(count): result.channels(count) for count in result.counts}
        self.values["smallest"] = [asdict(result.smallest(image)) for image in range(len(result.masks))]

    def add_certificates(self, certificates: Iterable[Any]) -> None:
        """Add the results of `smallest_area`."""
        for index, certificate in enumerate(certificates):
            self._add_region(f"certificates.{index}", certificate)

    def add_plan(self, plan: Any) -> None:
        """Add what a `Plan` counts, without seconds."""
        refinement = read(plan, "refinement", "refining")
        self.values |= {
            "shape": plan.shape,
            "areas": plan.areas,
            "inputs": [asdict(one) for one in plan.inputs],
            "evaluations": asdict(plan.evaluations),
            "answers": [asdict(one) for one in plan.answers],
            "refinement": None if refinement is None else asdict(refinement),
            "rows": read(plan, "batch_size", "rows"),
            "row_bytes": read(plan, "bytes_per_row", "row_bytes"),
        }

    def _add_verdicts(self, prefix: str, result: Any) -> None:
        labels = [[str(read(verdict, "label", "word")) for verdict in row] for row in result.verdict]
        self.values |= {
            f"{prefix}target": [read_target(target) for target in result.target],
            f"{prefix}target_names": result.target_names,
            f"{prefix}status": [[str(status) for status in row] for row in result.status],
            f"{prefix}verdict": labels,
            f"{prefix}evaluations": read_evaluations(result),
        }

    def _add_region(self, name: str, region: Any) -> None:
        """Add a dataclass of numbers and a mask; None is a region that was not found."""
        if region is None:
            self.values[name] = None
            return
        self.add_tensors(f"{name}.", region)
        values = {field.name: getattr(region, field.name) for field in fields(region)}
        self.values[name] = {key: value for key, value in values.items() if not isinstance(value, Tensor)}

    def write(self, folder: Path, name: str) -> None:
        """Write both files."""
        own = {key: value.detach().cpu().clone().contiguous() for key, value in self.tensors.items()}
        save_file(own, folder / f"{name}.safetensors")
        text = json.dumps(self.values, indent=1, sort_keys=True, ensure_ascii=False, default=to_plain)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


def to_plain(value: Any) -> Any:
    """Return what JSON has no form for as plain values."""
    if isinstance(value, Tensor):
        return value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


# ---------------------------------------------------------------------------------------------------------------------
# Inputs and networks


def load_photograph(name: str) -> Image.Image:
    """Return a photograph of scikit-image."""
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def compose_scene(size: int = 224) -> Image.Image:
    """Return a cat's head and a cup of coffee, cut out of photographs, side by side on gravel."""
    canvas = Image.fromarray(skimage.data.gravel()[:size, :size]).convert("RGB")
    cuts = (("chelsea", (90, 20, 290, 220), (6, 8)), ("coffee", (150, 40, 450, 340), (118, 112)))
    for name, box, corner in cuts:
        cut = load_photograph(name).crop(box).resize((100, 100), Image.Resampling.LANCZOS)
        shape = Image.new("L", cut.size, 0)
        ImageDraw.Draw(shape).ellipse((2, 2, 97, 97), fill=255)
        canvas.paste(cut, corner, shape)
    return canvas


def make_texture(*shape: int, seed: int = 0) -> Tensor:
    """Return signs, drawn for each place, of which blur leaves next to nothing."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(0, 2, shape, generator=generator) * 2 - 1).float()


def make_smooth_input(*shape: int, seed: int = 0) -> Tensor:
    """Return coarse random values in [0, 1], enlarged linearly: (N, C, *S)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(*shape[:2], *(max(2, size // 6) for size in shape[2:]), generator=generator)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(shape) - 2]
    return F.interpolate(coarse, shape[2:], mode=mode, align_corners=True)


def label_squares(size: int, side: int) -> Tensor:
    """Return the labels of square units, of which the first is excluded: (size, size) int64."""
    lines = torch.arange(size) // side
    return lines[:, None] * -(-size // side) + lines[None] - 1


class RegionNetwork(nn.Module):
    """A network that compares boxes of its input with a template, all of them or the best, and ignores the rest."""

    template: Tensor

    def __init__(self, template: Tensor, boxes: Sequence[tuple[slice, ...]], *, any_box: bool = False) -> None:
        super().__init__()
        self.register_buffer("template", template[:1].clone())
        self.boxes, self.any_box = boxes, any_box

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2): the likeness of the boxes, and zero."""
        likeness = x * self.template
        parts = torch.stack([torch.tanh(2 * likeness[(..., *box)].flatten(1).mean(1)) for box in self.boxes])
        score = 5 * (parts.amax(0) if self.any_box else parts.mean(0))
        return torch.stack([score, torch.zeros_like(score)], 1)


class ConvolutionNetwork(nn.Module):
    """A small convolutional classifier with batch norms and in-place rectifiers, in one to three dimensions."""

    def __init__(self, dimensions: int = 2, channels: int = 3, classes: int = 5, width: int = 12) -> None:
        super().__init__()
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 1]
        self.features = nn.Sequential(
            *(convolution(channels, width, 3, padding=1), norm(width), nn.ReLU6(inplace=True)),
            *(convolution(width, width, 3, stride=2, padding=1, groups=width), norm(width), nn.ReLU6(inplace=True)),
            *(convolution(width, width, 1), norm(width), nn.ReLU(inplace=True)),
        )
        self.classifier = nn.Linear(width, classes)
        generator = torch.Generator().manual_seed(7)
        for parameter in self.parameters():
            parameter.data.normal_(0.1, 0.5, generator=generator)
        for name, buffer in self.named_buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.1, 1.0 if name.endswith("var") else 0.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, classes)."""
        return self.classifier(self.features(x).flatten(2).mean(2))


class SegmentationNetwork(nn.Module):
    """A classifier of each place: (B, classes, H/2, W/2)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = ConvolutionNetwork()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return a mapping, as torchvision's segmentation networks do."""
        features = self.body.features(x)
        return {"out": torch.einsum("bkhw,ck->bchw", features, self.body.classifier.weight)}


class Detector(nn.Module):
    """A detector that finds two boxes, each as certain as its input is bright there."""

    BOXES = ((4, 4, 16, 16), (18, 14, 30, 28))

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        """Return boxes, labels and scores of each input."""
        boxes, labels = x.new_tensor(self.BOXES), torch.tensor([1, 2])
        scores = [x[:, :, y1:y2, x1:x2].flatten(1).mean(1).clamp(0, 1) for x1, y1, x2, y2 in self.BOXES]
        return [{"boxes": boxes, "labels": labels, "scores": row} for row in torch.stack(scores, 1)]


class Contrast:
    """A question of a user's own: the difference of two outputs. It has the names of the protocol, new and old."""

    name, layer, layers = "class 0 against class 1", "", ()
    placed = depends_on_position = False

    def bind(self, run: Any, x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the function of inputs and the indices of what they were made of."""
        evaluate = read(run, "evaluate", "output", "raw")
        return lambda inputs, index: evaluate(inputs, index)[:, :2].diff(dim=1)[:, 0]

    bound = bind


_embedded: dict[bool, Any] = {}


def load_embedded(*, accelerated: bool = True) -> Any:
    """Return the embedded network, loaded once."""
    if accelerated not in _embedded:
        _embedded[accelerated] = set_acceleration(extremal.zoo.load("embedded"), on=accelerated)
    return _embedded[accelerated]


def shrink(picture: Image.Image) -> Tensor:
    """Return a picture of 48 x 48 places with values in [0, 1]: (3, 48, 48)."""
    small = np.array(picture.convert("RGB").resize((48, 48), Image.Resampling.BILINEAR))
    return torch.from_numpy(small).movedim(-1, 0).float() / 255


def make_small_network(**options: Any) -> Any:
    """Return a small classifier of pictures; also loaded by name, in worker processes."""
    labels = ("first", "second", "third", "fourth", "fifth")
    return set_acceleration(extremal.Network(ConvolutionNetwork(), shrink, labels, name="small", **options))


def make_quick_path(**options: Any) -> Any:
    """Return `path` with few steps."""
    return get_part("solvers").Path(**({"steps": 8, "polish": 4, "search": 4} | options))


def write_pictures(folder: Path, count: int) -> list[str]:
    """Write crops of photographs as PNG files, and return their paths."""
    sources = [load_photograph(name) for name in ("chelsea", "coffee")]
    paths = []
    for index in range(count):
        picture, left = sources[index % 2], 40 * (index // 2)
        path = folder / f"{index}.png"
        picture.crop((left, 20, left + 200, 220)).save(path)
        paths.append(str(path))
    return paths


# ---------------------------------------------------------------------------------------------------------------------
# Questions

QUESTIONS: dict[str, Callable[[Record], None]] = {}


def question(ask: Callable[[Record], None]) -> Callable[[Record], None]:
    """Register a question under the name of its function, without `ask_`."""
    QUESTIONS[ask.__name__.removeprefix("ask_")] = ask
    return ask


def explain(record: Record, network: Any, image: Any, target: Any = None, prefix: str = "", **options: Any) -> Any:
    """Explain with two areas and, unless a solver is given, few steps; add the result, and return it."""
    options = {"areas": AREAS, "solver": make_quick_path()} | options
    found = extremal.explain(network, image, target, **options)
    record.add_explanation(found, prefix)
    return found


@question
def ask_photograph(record: Record) -> None:
    """Explain a photograph with the embedded network and all defaults but the areas."""
    explain(record, load_embedded(), load_photograph("chelsea"), solver="path")


@question
def ask_unaccelerated(record: Record) -> None:
    """Explain a photograph with the network's layers as they are."""
    explain(record, load_embedded(accelerated=False), load_photograph("chelsea"), "Egyptian cat")


@question
def ask_batch(record: Record) -> None:
    """Explain two photographs at once."""
    explain(record, load_embedded(), [load_photograph("chelsea"), load_photograph("coffee")], ["tabby", "espresso"])


@question
def ask_scene(record: Record) -> None:
    """Ask about both objects of a planted scene: several targets on one image."""
    explain(record, load_embedded(), compose_scene(), ["tiger cat", "espresso"])


@question
def ask_dual(record: Record) -> None:
    """Play the dual game on a photograph."""
    explain(record, load_embedded(), load_photograph("coffee"), "cup", game="dual", seed=3)


@question
def ask_noise(record: Record) -> None:
    """Fade a photograph to noise, and ask for the logarithm of a probability."""
    image = load_photograph("coffee")
    explain(record, load_embedded(), image, perturbation="noise", score="log-probability", seed=5)


@question
def ask_within(record: Record) -> None:
    """Keep the masks of a photograph within a region."""
    region = torch.zeros(224, 224, dtype=torch.bool)
    region[30:190, 20:200] = True
    explain(record, load_embedded(), load_photograph("chelsea"), within=region)


@question
def ask_units(record: Record) -> None:
    """Make the masks of a photograph of whole squares."""
    solver = make_quick_path(steps=6, search=2)
    explain(record, load_embedded(), load_photograph("chelsea"), units=label_squares(224, 28), solver=solver)


@question
def ask_smallest_area(record: Record) -> None:
    """Bisect for the smallest sufficient areas of both objects of a planted scene."""
    found = explain(record, load_embedded(), compose_scene(), ["tiger cat", "espresso"], areas=(0.05, 0.3), seed=4)
    record.add_certificates(extremal.smallest_area(load_embedded(), found, tolerance=0.1))


@question
def ask_judge(record: Record) -> None:
    """Gather the evidence for given masks of a photograph."""
    lines = torch.linspace(-1, 1, 224)
    distance = (lines[:, None].square() + lines[None].square()).sqrt()
    masks = torch.stack([(1 - distance).clamp(0, 1), (distance < 0.6).float()]).view(1, 2, 1, 224, 224)
    record.add_explanation(extremal.judge(load_embedded(), load_photograph("chelsea"), masks, areas=AREAS, seed=2))


@question
def ask_plan(record: Record) -> None:
    """Count the evaluations of a run with alternatives and a refinement."""
    options: dict[str, Any] = {"areas": AREAS, "alternatives": 2, "game": "dual", "refine": True}
    record.add_plan(extremal.plan(load_embedded(), load_photograph("chelsea"), **options))


@question
def ask_plan_penalty(record: Record) -> None:
    """Count the evaluations of the paper's solver on units."""
    network, x = make_small_network(), make_smooth_input(2, 3, 48, 48)
    options: dict[str, Any] = {"areas": AREAS, "units": label_squares(48, 8), "solver": "penalty", "refine": True}
    record.add_plan(extremal.plan(network, x, [0, 1], **options))


@question
def ask_examine(record: Record) -> None:
    """Examine a sound network with a photograph, and a network that ignores its input."""
    blind = ConvolutionNetwork()
    nn.init.zeros_(blind.classifier.weight)
    pairs = {
        "embedded": (load_embedded(), load_photograph("chelsea")),
        "blind": (blind, make_smooth_input(1, 3, 32, 32)),
    }
    for name, (network, image) in pairs.items():
        found = extremal.examine(network, image)
        record.values[name] = {
            "findings": [[read_check_name(finding.name), str(finding.level)] for finding in found.findings],
            "skipped": [read_check_name(check) for check in read(found, "skipped", "unchecked")],
            "issues": [read_check_name(finding.name) for finding in read(found, "issues", "illnesses")],
            "target": found.target,
        }


@question
def ask_channels(record: Record) -> None:
    """Explain a photograph by the channels of a hidden layer."""
    options: dict[str, Any] = {"counts": (8, 32), "solver": make_quick_path()}
    record.add_channels(extremal.explain_channels(load_embedded(), load_photograph("chelsea"), "blocks.5", **options))


@question
def ask_channels_small(record: Record) -> None:
    """Explain two inputs by the channels of a small network, with the delete game and by shares."""
    network, x = make_small_network(), make_smooth_input(2, 3, 48, 48)
    options: dict[str, Any] = {"areas": (0.25, 0.5), "game": "delete", "seed": 1}
    record.add_channels(extremal.explain_channels(network, x, "features.5", [0, 2], **options))


@question
def ask_class_channels(record: Record) -> None:
    """Rank the channels of a layer for a class over three inputs."""
    images = [make_smooth_input(1, 3, 48, 48, seed=seed) for seed in range(3)]
    found = extremal.class_channels(make_small_network(), images, "features.8", "second", solver=make_quick_path())
    record.add_tensors("", found)
    record.values |= {
        "ranked": read(found, "ranking", "ranked")(),
        "table": found.table().to_pylist(),
        "target": found.target,
    }


@question
def ask_invert(record: Record) -> None:
    """Invert the activations of a layer: of all channels, of a third, and of the others."""
    mask = (torch.arange(192) % 3 == 0).float()
    found = extremal.invert(load_embedded(), "blocks.5", load_photograph("chelsea"), mask, steps=3)
    record.add_tensors("", found)
    record.values["parts"] = found.parts


@question
def ask_visualise(record: Record) -> None:
    """Make pictures that excite two channels of a small network."""
    images = [make_smooth_input(1, 3, 48, 48, seed=seed) for seed in range(2)]
    options: dict[str, Any] = {"images": images, "size": (3, 48, 48), "steps": 4}
    record.add_tensors("", extremal.visualise(make_small_network(), "features.5", (0, 3), **options))


@question
def ask_layers(record: Record) -> None:
    """List the layers of two networks."""
    for network in (load_embedded(), make_small_network()):
        record.values[network.name] = [layer.name for layer in extremal.layers(network)]


@question
def ask_unit(record: Record) -> None:
    """Ask about a channel, and about one place of another one, on one photograph."""
    scores = get_part("scores")
    targets = [scores.Unit("blocks.3", 5), scores.Unit("blocks.3", 7, (6, 6))]
    explain(record, load_embedded(), load_photograph("chelsea"), targets)


@question
def ask_similarity(record: Record) -> None:
    """Ask how alike an input is to another one at a hidden layer."""
    target = get_part("scores").Similarity(make_smooth_input(1, 3, 48, 48, seed=4), "features.5")
    explain(record, make_small_network(mirror=True), make_smooth_input(1, 3, 48, 48), target, solver="path")


@question
def ask_segment(record: Record) -> None:
    """Ask a segmentation network about a class over a region."""
    region = torch.zeros(32, 32, dtype=torch.bool)
    region[4:16, 8:24] = True
    target = get_part("scores").Segment(1, region, score="logit")
    explain(record, SegmentationNetwork(), make_smooth_input(1, 3, 32, 32), target)


@question
def ask_box(record: Record) -> None:
    """Ask a detector about one of its boxes."""
    target = get_part("scores").Box((18, 14, 30, 28))
    explain(record, Detector(), make_smooth_input(1, 3, 32, 32), target, perturbation="fade")


@question
def ask_queries(record: Record) -> None:
    """Ask for a sum of classes, an output, and a question of a user's own on one input."""
    scores = get_part("scores")
    targets = [scores.Classes({0: 1.0, 2: -0.5}), scores.Output(3), Contrast()]
    explain(record, make_small_network(), make_smooth_input(1, 3, 48, 48), targets)


@question
def ask_callable_target(record: Record) -> None:
    """Ask for a function of the output, and bisect for its smallest area."""
    x = make_texture(1, 3, 32, 32)
    network = RegionNetwork(x, [(slice(6, 16), slice(10, 22))])

    def subtract(output: Tensor) -> Tensor:
        return output[:, 0] - output[:, 1]

    found = explain(record, network, x, subtract, solver="path")
    record.add_certificates(extremal.smallest_area(network, found, subtract))


@question
def ask_callables(record: Record) -> None:
    """Play a game of a user's own, with a perturbation and a score of a user's own."""

    def play(evaluate: Callable[[Tensor], Tensor], mask: Tensor) -> Tensor:
        return evaluate(mask) - 0.25 * evaluate(1 - mask)

    def darken(x: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda mask: x.unsqueeze(1) * mask

    def score(output: Tensor, target: Tensor) -> Tensor:
        return output.gather(1, target[:, None])[:, 0].tanh()

    options: dict[str, Any] = {"game": play, "perturbation": darken, "score": score, "seed": 9}
    explain(record, make_small_network(), make_smooth_input(2, 3, 48, 48), [0, 3], **options)


@question
def ask_blocks(record: Record) -> None:
    """Explain five inputs in blocks, with memory for a few rows only."""
    network, x = make_small_network(memory=0.0004), make_smooth_input(5, 3, 48, 48)
    record.values["rows"] = read(extremal.plan(network, x, areas=AREAS), "batch_size", "rows")
    explain(record, network, x)


@question
def ask_alternatives(record: Record) -> None:
    """Look for a second answer where either of two boxes is enough, by both games."""
    x = make_texture(1, 3, 32, 32)
    network = RegionNetwork(x, [(slice(4, 12), slice(4, 12)), (slice(18, 28), slice(16, 26))], any_box=True)
    for game in ("preserve", "delete"):
        explain(record, network, x, 0, f"{game}.", alternatives=2, game=game, solver="path")


@question
def ask_delete(record: Record) -> None:
    """Play the delete game on a picture of a small network with mirrored inputs, faded."""
    options: dict[str, Any] = {"game": "delete", "perturbation": "fade", "solver": "path"}
    explain(record, make_small_network(mirror=True), load_photograph("coffee"), "first", **options)


@question
def ask_penalty(record: Record) -> None:
    """Use the paper's solver, on places and on units."""
    x, solver = make_smooth_input(1, 3, 48, 48), get_part("solvers").Penalty(steps=40)
    explain(record, make_small_network(mirror=True), x, prefix="places.", solver=solver)
    explain(record, make_small_network(), x, prefix="units.", solver=solver, units=label_squares(48, 12))


@question
def ask_volume(record: Record) -> None:
    """Explain a volume whose slices are further apart than its places, and bisect for its smallest area."""
    x = make_texture(1, 1, 12, 20, 16)
    model = RegionNetwork(x, [(slice(3, 8), slice(5, 14), slice(4, 11))])
    network = extremal.Network(model, name="volume", spacing=(2.0, 1.0, 1.0))
    found = explain(record, network, x, 0, solver="path")
    record.add_certificates(extremal.smallest_area(network, found))


@question
def ask_volume_convolved(record: Record) -> None:
    """Explain a volume to a convolutional network, with a constant as perturbation."""
    explain(record, ConvolutionNetwork(3, 1), make_smooth_input(1, 1, 10, 14, 12), perturbation="constant")


@question
def ask_signal(record: Record) -> None:
    """Explain two signals in double precision."""
    x = make_smooth_input(2, 2, 96).double()
    explain(record, ConvolutionNetwork(1, 2).double(), x, score="logit", solver="path")


@question
def ask_not_finite(record: Record) -> None:
    """Meet a score that is not finite."""

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).mean(1, keepdim=True).sub(0.2).sqrt()

    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) + 0.3
    x[1] = 0.21
    x[1, :, :4], x[1, :, 4:8] = 0.0, 0.5

    def dim(inputs: Tensor) -> Callable[[Tensor], Tensor]:
        bright = inputs.mean((1, 2, 3), keepdim=True).unsqueeze(1) > 0.4
        return lambda mask: inputs[:, None] * mask + (1 - mask) * torch.where(bright, 0.5, 0.21)

    explain(record, Root(), x, 0, game="delete", perturbation=dim, solver=make_quick_path(draws=2))


@question
def ask_saved(record: Record) -> None:
    """Save explanations, of places and of channels, and load them again."""
    x = make_smooth_input(2, 3, 48, 48)
    region = torch.ones(48, 48, dtype=torch.bool)
    region[:10] = False
    options: dict[str, Any] = {"solver": make_quick_path(), "seed": 1}
    found = extremal.explain(make_small_network(), x, areas=AREAS, within=region, alternatives=2, **options)
    channels = extremal.explain_channels(make_small_network(), x, "features.2", counts=(2, 6), **options)
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "places.safetensors", Path(folder) / "channels.safetensors"
        found.save(paths[0])
        channels.save(paths[1])
        loaded = extremal.Explanation.load(paths[0]), extremal.ChannelExplanation.load(paths[1])
    record.add_explanation(loaded[0])
    record.values["equal"] = [loaded[0] == found, loaded[1] == channels]


@question
def ask_baselines(record: Record) -> None:
    """Attribute two classes of a photograph to its places by other methods."""
    parts, network = get_part("baselines"), load_embedded()
    x = network.prepare(load_photograph("chelsea")).expand(2, -1, -1, -1)
    methods = {
        "gradient": parts.Gradient(),
        "grad-cam": parts.GradCam(),
        "excitation": parts.ExcitationBackprop(),
        "contrastive": parts.ExcitationBackprop(contrastive=True),
        "rise": parts.Rise(masks=50),
        "path": parts.PathMap(areas=AREAS, solver=make_quick_path()),
    }
    for name, method in methods.items():
        maps = method(network, x, ["tiger cat", "Egyptian cat"])
        record.tensors[name] = maps.values
        record.values[name] = maps.evaluations


@question
def ask_captum(record: Record) -> None:
    """Attribute as a method of captum, and as a function for Quantus."""
    model, x = ConvolutionNetwork(), make_smooth_input(2, 3, 32, 32)
    options: dict[str, Any] = {"areas": AREAS, "solver": make_quick_path(), "seed": 2}
    method = get_part("captum").ExtremalPerturbation(model)
    record.tensors["captum"] = method.attribute(x, torch.tensor([0, 3]), **options)
    record.add_explanation(method.explain(x, torch.tensor([0, 3]), **options))
    record.tensors["quantus"] = torch.from_numpy(
        get_part("quantus").explain(model, x.numpy(), np.array([1, 2]), **options)
    )


@question
def ask_data_set(record: Record) -> None:
    """Run over eight pictures and a broken file in this process, with alternatives and certificates."""
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), 8)
        (Path(folder) / "broken.png").write_bytes(b"no picture")
        options: dict[str, Any] = {"alternatives": 2, "areas": (0.3, 0.7), "seed": 1, "refine": True, "batch": 4}
        add_run(record, Path(folder), make_small_network(), workers=0, **options)


@question
def ask_data_set_worker(record: Record) -> None:
    """Run over four pictures in one worker process, which loads its network by name."""
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), 4)
        add_run(record, Path(folder), "net:make_small_network", areas=AREAS, workers=1, batch=2)


@question
def ask_data_set_embedded(record: Record) -> None:
    """Run over two photographs with the embedded network in this process."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("chelsea", "coffee"):
            load_photograph(name).save(Path(folder) / f"{name}.png")
        add_run(record, Path(folder), load_embedded(), areas=(0.1,), workers=0, batch=2)


def add_run(record: Record, pictures: Path, network: Any, **options: Any) -> None:
    """Run over a folder, and add its rows, what is read back from their encoded columns, and the run's summary."""
    jobs, folder = get_part("jobs"), pictures / "run"
    status = run_data_set([str(pictures)], folder, network=network, **options)
    record.values["status"] = {name: getattr(status, name) for name in ("state", "items", "done", "failed")}
    own = make_small_network() if isinstance(network, str) else network
    for index, row in enumerate(read(jobs, "table", "read_table")(folder).to_pylist()):
        row["answer"] = number = row.pop("alternative") if "alternative" in row else row["answer"]
        row["target"] = -1 if row["target"] is None and row["status"] == "done" else row["target"]  # as it was stored
        name = f"{row['key']}.{number}" if row["status"] == "done" else row["key"]
        record.values[f"rows.{index}"] = {key: value for key, value in row.items() if key not in SKIPPED_COLUMNS}
        if row["status"] == "done":
            record.tensors[f"thumbnail.{name}"] = torch.from_numpy(np.array(Image.open(io.BytesIO(row["thumbnail"]))))
            found = read(jobs, "explanation", "load_explanation")(folder, row["key"], own, number)
            record.add_explanation(found, f"rebuilt.{name}.")
    summary = read(jobs, "summary", "summarise")(folder)
    record.values["summary"] = {name: getattr(summary, name) for name in ("images", "verdicts", "evaluations")}


# ---------------------------------------------------------------------------------------------------------------------
# Saving and comparing


def save(folder: Path, names: Sequence[str]) -> int:
    """Ask questions and save their results; return how many failed."""
    torch.set_num_threads(1)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))  # of processes that are started
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    print(f"extremal of {extremal.__file__}, torch {torch.__version__}", flush=True)
    seconds, failed = {}, 0
    for name in names:
        for suffix in (".json", ".safetensors"):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
        torch.manual_seed(0)
        record, start, result = Record(), time.perf_counter(), "saved"
        try:
            QUESTIONS[name](record)
            record.write(folder, name)
        except Exception as error:
            failed += 1
            result = f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            (folder / f"{name}.json").write_text(json.dumps({"error": result}), encoding="utf-8")
        seconds[name] = round(time.perf_counter() - start, 2)
        print(f"{name}: {result} ({seconds[name]:.1f} s)", flush=True)
    about = {"package": extremal.__file__, "torch": torch.__version__, "failed": failed, "seconds": seconds}
    (folder / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
    print(f"{len(names)} questions, {failed} failed, {sum(seconds.values()):.0f} s")
    return failed


def compare(before: Path, after: Path, names: Sequence[str] | None) -> int:
    """Compare two folders question by question; return how many differ."""
    saved_in = [{path.stem for path in folder.glob("*.json")} - {Path(ABOUT).stem} for folder in (before, after)]
    wanted = names or [name for name in QUESTIONS if name in saved_in[0] | saved_in[1]]
    wanted = [*wanted, *([] if names else sorted((saved_in[0] | saved_in[1]) - set(wanted)))]
    if not wanted:
        print(f"nothing is saved in {before} or {after}")
        return 1
    differences: dict[str, list[str]] = {}
    for name in wanted:
        found = compare_question(before, after, name)
        print(
            f"{name}: differs: {found[0]}{f' and {len(found) - 1} more' if found[1:] else ''}"
            if found
            else f"{name}: same"
        )
        if found:
            differences[name] = found
    for name, found in differences.items():
        if len(found) == 1:  # its line says it all
            continue
        print(f"\n{name}: {len(found)} differences")
        for line in found[:MAX_LISTED]:
            print(f"  {line}")
        if len(found) > MAX_LISTED:
            print(f"  ... and {len(found) - MAX_LISTED} more")
    print(f"\n{len(wanted)} questions, {len(differences)} differ")
    return len(differences)


def compare_question(before: Path, after: Path, name: str) -> list[str]:
    """Return what differs in one question, in words."""
    missing = [str(folder) for folder in (before, after) if not (folder / f"{name}.json").exists()]
    if missing:
        return [f"not saved in {' and '.join(missing)}"]
    first, second = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for folder in (before, after))
    failures = [values["error"] for values in (first, second) if "error" in values]
    if failures:
        return failures
    found = compare_mappings(flatten(first), flatten(second), compare_values)
    tensors = [read_tensors(folder / f"{name}.safetensors") for folder in (before, after)]
    return [*compare_mappings(*tensors, compare_tensors), *found]


def compare_mappings(
    first: Mapping[str, Any], second: Mapping[str, Any], compare_two: Callable[[str, Any, Any], str]
) -> list[str]:
    """Return a line for each name that differs or is in one mapping only."""
    lines = []
    for name in sorted(first.keys() | second.keys()):
        if name not in second:
            lines.append(f"{name}: only before")
        elif name not in first:
            lines.append(f"{name}: only after")
        elif line := compare_two(name, first[name], second[name]):
            lines.append(f"{name}: {line}")
    return lines


def compare_values(_: str, first: Any, second: Any) -> str:
    """Return how two plain values differ; empty if they are equal, NaN to NaN."""
    told = [json.dumps(value, ensure_ascii=False) for value in (first, second)]
    return "" if told[0] == told[1] else f"{told[0]} before, {told[1]} after"


def compare_tensors(name: str, first: Tensor, second: Tensor) -> str:
    """Return how two tensors differ; empty if they have the same bits."""
    forms = [f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}" for tensor in (first, second)]
    if forms[0] != forms[1]:
        return f"{forms[0]} before, {forms[1]} after"
    bits = [tensor.contiguous().view(-1).view(torch.uint8) for tensor in (first, second)]
    if torch.equal(*bits):
        return ""
    wide = [tensor.double() for tensor in (first, second)]
    unequal = (wide[0] != wide[1]) & ~(wide[0].isnan() & wide[1].isnan())
    gap = float((wide[0] - wide[1])[unequal].abs().max()) if unequal.any() else 0.0
    if ROUNDED_TENSORS.fullmatch(name) and not math.isnan(gap) and gap <= ROUNDING:
        return ""
    return f"{int(unequal.sum())} of {first.numel()} values differ, by at most {gap:.3g}"


def flatten(values: Any, name: str = "") -> dict[str, Any]:
    """Return nested mappings and lists of mappings as one mapping; lists of plain values stay whole."""
    if isinstance(values, dict) and values:
        parts = values.items()
    elif isinstance(values, list) and any(isinstance(value, dict) for value in values):
        parts = ((str(index), value) for index, value in enumerate(values))
    else:
        return {name: values}
    flat: dict[str, Any] = {}
    for key, value in parts:
        flat |= flatten(value, f"{name}.{key}" if name else key)
    return flat


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; none if there is no file."""
    if not path.exists():
        return {}
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def parse_names(text: str) -> list[str]:
    """Return the names of questions, checked."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in QUESTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no question {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    return names


def main() -> int:
    """Save or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    saving = commands.add_parser("save", help="ask the questions and save the results")
    saving.add_argument("folder", type=Path)
    comparing = commands.add_parser("compare", help="compare two saved folders")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    for command in (saving, comparing):
        command.add_argument("--only", type=parse_names, metavar="NAME,...", help="these questions only")
    options = parser.parse_args()
    if options.command == "save":
        return int(save(options.folder, options.only or list(QUESTIONS)) > 0)
    return int(compare(options.before, options.after, options.only) > 0)


if __name__ == "__main__":
    sys.exit(main())
