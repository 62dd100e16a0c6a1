"""Check which networks `explain` accepts unchanged, and its cost: the table of docs/networks.md.

Use: python benchmarks/networks.py [NAME...] [--table]

Weights are random, but for the embedded network: that a network runs is shown here, that the answer is right by the
tests (tests/scores, tests/masking/test_domain.py, tests/networks/test_zoo_families.py). Rows are kept in
results/networks.jsonl; without names, those that are missing are run; with --table nothing is run.
"""

import argparse
import itertools
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import skimage.data
import torch
from torch import Tensor, nn

from extremal import ExtremalError, Network, explain, keep_freed_memory, zoo
from extremal.scores import Box, Segment, Similarity
from extremal.scores.target import Target
from performance import DOCS
from records import FOLDER, append, read, write_table

PAGE, ROWS = DOCS / "networks.md", FOLDER / "networks.jsonl"
AREAS = (0.05, 0.2)
CAT = skimage.data.chelsea()


@dataclass(frozen=True)
class Case:
    """A network with an input and a target."""

    kind: str  # in the table
    make: Callable[[], Network | nn.Module]
    image: Callable[[], Any] = lambda: CAT
    target: Callable[[Any], Target] = lambda network: None
    asked: str = "top class"


class Signal(nn.Module):
    """A small residual network for signals (B, 1, T)."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 32, 9, stride=2, padding=4)
        self.blocks = nn.ModuleList(nn.Conv1d(32, 32, 9, padding=4) for _ in range(6))
        self.last = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        for block in self.blocks:
            x = x + torch.relu(block(x))
        return self.last(x.mean(2))


class Volume(nn.Module):
    """A small network for volumes (B, 1, D, H, W)."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        widths = (1, 16, 32, 64)
        parts = [nn.Conv3d(i, o, 3, stride=2, padding=1) for i, o in itertools.pairwise(widths)]
        self.body = nn.Sequential(
            *(layer for part in parts for layer in (part, nn.BatchNorm3d(part.out_channels), nn.ReLU()))
        )
        self.last = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x).mean((2, 3, 4)))


class Sound(nn.Module):
    """A wav2vec 2.0 classifier for signals (B, 1, T)."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
        self.model = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**sizes, num_labels=4))

    def forward(self, x: Tensor) -> Any:
        return self.model(x[:, 0])


def with_random_weights(name: str) -> Callable[[], Network]:
    """Return a builder of a network by name, with random weights."""
    return lambda: zoo.load(name, "random")


def with_detections(name: str) -> Callable[[], Network]:
    """Return a builder of a detector whose random weights are large enough to give (meaningless) detections."""

    def make() -> Network:
        net = zoo.load(name, "random")
        torch.manual_seed(0)
        for module in net.model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            if hasattr(module, "score_thresh"):
                module.score_thresh = 0.0
        return net

    return make


def with_fitted_norms(name: str) -> Callable[[], Network]:
    """Return a builder of a network whose batch norms are fitted to photographs; otherwise its signal may vanish."""

    def make() -> Network:
        net = zoo.load(name, "random")
        pictures = [skimage_image(photo) for photo in ("chelsea", "coffee", "astronaut", "rocket")]
        batch = torch.cat([net.prepare(picture) for picture in pictures])
        for module in net.model.modules():
            if isinstance(module, nn.Linear) and not module.weight.any():
                nn.init.normal_(module.weight, std=0.02, generator=torch.Generator().manual_seed(0))
        norms = [module for module in net.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.train()
            norm.momentum = None  # the mean over what they see
        with torch.no_grad():
            net.model(batch)
        for norm in norms:
            norm.eval()
        return net

    return make


def from_saved_folder(kind: str, **sizes: Any) -> Callable[[], Network]:
    """Return a builder of a Hugging Face network with random weights, saved to a folder and loaded from it."""

    def make() -> Network:
        import transformers

        torch.manual_seed(0)
        config = getattr(transformers, kind).config_class(**sizes)
        with tempfile.TemporaryDirectory() as folder:
            getattr(transformers, kind)(config).save_pretrained(folder)
            return zoo.load(f"hf:{folder}")

    return make


def from_exported_file() -> Network:
    """Return the embedded network, loaded from a file of torch.export."""
    net = zoo.load("embedded")
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(net.model, (torch.zeros(2, 3, 224, 224),), dynamic_shapes=({0: batch},))
    with tempfile.TemporaryDirectory() as folder:
        torch.export.save(program, f"{folder}/net.pt2")
        return zoo.load(f"file:{folder}/net.pt2")


def video() -> Network:
    """Return R3D-18 for clips (B, 3, T, H, W); the distance between frames counts as ten pixels."""
    from torchvision.models.video import r3d_18

    torch.manual_seed(0)
    return Network(r3d_18(weights=None), name="torchvision r3d_18", spacing=(10, 1, 1))


def noise(*shape: int) -> Callable[[], Tensor]:
    """Return a builder of an input of smooth noise."""
    return lambda: torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))


def twelve_band_image() -> Tensor:
    """Return an image of twelve bands."""
    net = zoo.load("embedded")
    from PIL import Image

    return net.prepare(Image.fromarray(CAT)).repeat(1, 4, 1, 1)


def twelve_band_network() -> Network:
    """Return a ConvNet for images of twelve bands."""
    import timm

    torch.manual_seed(0)
    return Network(timm.create_model("resnet18", in_chans=12, num_classes=10), name="timm resnet18, 12 bands")


def grey_network() -> Network:
    """Return a ViT for grey images."""
    import timm

    torch.manual_seed(0)
    return Network(timm.create_model("vit_tiny_patch16_224", in_chans=1, num_classes=10), name="timm ViT-Ti, grey")


def best_box(network: Network) -> Target:
    """Return the best box of a detector with random weights."""
    return Box(None, None)


CLASSIFIERS = {
    "CNN": "torchvision:resnet18 torchvision:mobilenet_v3_small torchvision:densenet121 torchvision:vgg11 "
    "torchvision:convnext_tiny torchvision:shufflenet_v2_x1_0 torchvision:regnet_y_400mf timm:resnetv2_50 "
    "timm:convnext_atto timm:efficientnet_b0 timm:nfnet_l0",
    "transformer": "torchvision:vit_b_32 torchvision:swin_t timm:vit_tiny_patch16_224 timm:deit_tiny_patch16_224 "
    "timm:swin_tiny_patch4_window7_224 timm:mixer_s32_224 timm:xcit_nano_12_p16_224 timm:beit_base_patch16_224",
    "hybrid": "timm:mobilevit_xs timm:levit_128s timm:coat_lite_tiny timm:efficientformer_l1",
}
SMALL = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "intermediate_size": 768}
CASES: dict[str, Case] = {
    "embedded": Case("CNN, real weights", lambda: zoo.load("embedded")),
    **{name: Case(kind, with_fitted_norms(name)) for kind, names in CLASSIFIERS.items() for name in names.split()},
    "hf:ViTForImageClassification": Case(
        "transformer", from_saved_folder("ViTForImageClassification", **SMALL, num_labels=10)
    ),
    "hf:ConvNextForImageClassification": Case(
        "CNN", from_saved_folder("ConvNextForImageClassification", num_labels=10)
    ),
    "hf:SwinForImageClassification": Case(
        "transformer", from_saved_folder("SwinForImageClassification", num_labels=10)
    ),
    "hf:CLIPVisionModelWithProjection": Case(
        "image encoder",
        from_saved_folder("CLIPVisionModelWithProjection", **SMALL, projection_dim=64),
        target=lambda network: Similarity(network.prepare(skimage_image("coffee")).to(network.anchor)),
        asked="likeness to another picture",
    ),
    "hf:SegformerForSemanticSegmentation": Case(
        "segmenter",
        from_saved_folder("SegformerForSemanticSegmentation", num_labels=4),
        target=lambda network: Segment(1, torch.ones(224, 224, dtype=torch.bool)),
        asked="a class over a region",
    ),
    "torchvision:lraspp_mobilenet_v3_large": Case(
        "segmenter",
        with_random_weights("torchvision:lraspp_mobilenet_v3_large"),
        target=lambda network: Segment("cow"),  # which is what the random weights see
        asked="a class where it is seen",
    ),
    "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn": Case(
        "detector",
        with_detections("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"),
        target=best_box,
        asked="its best box",
    ),
    "torchvision:ssdlite320_mobilenet_v3_large": Case(
        "detector", with_detections("torchvision:ssdlite320_mobilenet_v3_large"), target=best_box, asked="its best box"
    ),
    "file:embedded.pt2": Case("exported, real weights", from_exported_file),
    "grey pictures": Case("1 channel", grey_network, noise(1, 224, 224)),
    "pictures of 12 bands": Case("12 channels", twelve_band_network, twelve_band_image),
    "signal": Case("1-D", Signal, noise(1, 2048)),
    "wav2vec 2.0": Case("1-D", Sound, noise(1, 8000)),
    "volume": Case("3-D", Volume, noise(1, 32, 48, 48)),
    "torchvision r3d_18": Case("video", video, noise(3, 8, 64, 64)),
}


def skimage_image(name: str) -> Any:
    """Return a photograph of scikit-image."""
    from PIL import Image

    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def measure(name: str, case: Case) -> dict[str, Any]:
    """Return one row: the time of `explain`, and the time of its evaluations alone."""
    torch.manual_seed(0)
    made = case.make()
    network = made if isinstance(made, Network) else Network(made)
    network.model.eval()
    before = network.weight_hash()
    image, target = case.image(), case.target(network)
    begin = time.perf_counter()
    found = explain(network, image, target, areas=AREAS)
    seconds = time.perf_counter() - begin
    counts = found.settings["evaluations"]
    backward, forward = time_passes(network, found.inputs, target)
    gradients = counts["gradients"] + counts["evidence_gradients"]
    forwards = counts["forwards"] + counts["evidence_forwards"]
    return {
        "name": name,
        "kind": case.kind,
        "asked": case.asked,
        "input": list(found.inputs.shape[1:]),
        "gradients": gradients,
        "forwards": forwards,
        "seconds": seconds,
        "alone": gradients * backward + forwards * forward,
        "effect": float(found.effects(found.binary_scores)[0, -1]),
        "unchanged": network.weight_hash() == before,
        "threads": torch.get_num_threads(),
    }


def time_passes(network: Network, x: Tensor, target: Target, times: int = 5) -> tuple[float, float]:
    """Return median seconds of a forward-backward and of a forward pass of the network alone."""
    both: list[float] = []
    only: list[float] = []
    with network.frozen() as run:
        run.accelerate(x)
        for _ in range(times):
            leaf = x.detach().clone().requires_grad_()
            begin = time.perf_counter()
            scalar(run.evaluate(leaf)).backward()
            middle = time.perf_counter()
            with torch.no_grad():
                run.evaluate(x)
            both.append(middle - begin)
            only.append(time.perf_counter() - middle)
    return median(both), median(only)


def scalar(output: Any) -> Tensor:
    """Reduce any output to one number with a gradient."""
    if isinstance(output, Tensor):
        return output.float().sum()
    if isinstance(output, dict):
        output = list(output.values())
    parts = [scalar(part) for part in output if isinstance(part, Tensor | dict | list | tuple)]
    return torch.stack([part for part in parts if part.requires_grad]).sum()


def write_docs(rows: list[dict[str, Any]]) -> None:
    """Write the table between its marks in the page."""
    latest = {row["name"]: row for row in rows}
    lines = [
        "| network | kind | input | asked | forward-backward | forward | seconds | besides the network |",
        "|---|---|---|---|---:|---:|---:|---:|",
    ]
    for name in CASES:
        if name in latest:
            row = latest[name]
            shape = " × ".join(map(str, row["input"]))
            beside = max(0.0, 1 - row["alone"] / row["seconds"])
            lines.append(
                f"| {name} | {row['kind']} | {shape} | {row['asked']} | {row['gradients']} | {row['forwards']} | "
                f"{row['seconds']:.1f} | {beside:.0%} |"
            )
    write_table(PAGE, "networks", lines)


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--table", action="store_true", help="only make the table")
    options = parser.parse_args()
    keep_freed_memory()
    warnings.simplefilter("ignore", RuntimeWarning)
    known = {row["name"] for row in read(ROWS)}
    for name in [] if options.table else options.names or [name for name in CASES if name not in known]:
        try:
            row = measure(name, CASES[name])
        except ExtremalError as error:
            print(f"{name}: {error}", flush=True)
            continue
        print(f"{name}: {row['seconds']:.1f} s, effect {row['effect']:.2f}, unchanged {row['unchanged']}", flush=True)
        append(ROWS, row)
    write_docs(read(ROWS))


if __name__ == "__main__":
    main()
