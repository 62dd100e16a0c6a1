"""Readers of files, each with intact files, a mutation of these, and a call that reads one and uses what it read.

A new reader is one entry of `READERS`.
"""

import json
import random
import shutil
import warnings
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from extremal import (
    AnswerTokens,
    ChannelExplanation,
    Contrast,
    Explanation,
    RegionSets,
    SoundReader,
    explain_channels,
    zoo,
)
from extremal.benchmark import bench
from extremal.benchmark.data import Coco, Scenes, Voc
from extremal.cli.parse import parse_areas, parse_counts, parse_perturbation
from extremal.errors import Notice
from extremal.explanations.settings import Settings
from extremal.networks.image_files import read_image_file
from extremal.networks.network import Network
from extremal.networks.zoo.weights import load_state, read_state
from extremal.scores.parse import parse_query
from support import made_explanations, run_readers, stack_readers
from support.archives import export, small_network
from support.mutations import Mutation, mutate_bytes, mutate_json, mutate_safetensors, mutate_text, mutate_zip
from support.onnx_files import mutate_onnx, write_graph
from support.sounds import RATE, planted_tone, write_planted_tone
from support.toys import Carriers


@dataclass(frozen=True)
class Reader:
    """A reader of one kind of files.

    Attributes:
        write: writes what a reader needs to an empty folder, and returns the file to change; several for several forms.
        mutate: the change of its content.
        read: takes the changed file, reads it and uses the result.
    """

    write: Callable[[Path], list[Path]]
    mutate: Mutation
    read: Callable[[Path], object]


class Trial:
    """One reader at work in a folder.

    Args:
        reader: to try.
        folder: empty; of its own.
    """

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.reader, self.folder = reader, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.contents = {file: file.read_bytes() for file in reader.write(folder)}

    def read_intact(self) -> None:
        """Read all files as they were written."""
        for file in self.contents:
            self.reader.read(file)

    def read_changed(self, seed: int) -> None:
        """Change one file by a seed, and read it; the file is restored afterwards.

        Raises:
            ExtremalError: it is refused.
        """
        rng = random.Random(seed)
        file = rng.choice(list(self.contents))
        file.write_bytes(self.reader.mutate(rng, self.contents[file]))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.reader.read(file)
        finally:
            file.write_bytes(self.contents[file])


def _write_images(folder: Path) -> list[Path]:
    picture = Image.effect_noise((40, 30), 60).convert("RGB")
    files = [
        folder / f"a.{suffix}" for suffix in ("png", "jpg", "gif", "webp", "bmp", "tif", "ppm", "ico", "jp2", "tga")
    ]
    for file in files:
        picture.save(file)
    return files


def _write_sounds(folder: Path) -> list[Path]:
    samples = np.asarray(planted_tone(seconds=0.2))
    files = [write_planted_tone(folder / "a.wav")]
    for bits in (1, 3, 4):  # bytes
        with wave.open(str(folder / f"{bits}.wav"), "wb") as file:
            file.setparams((2, bits, RATE, 0, "NONE", ""))
            file.writeframes(bytes(2 * bits * samples.size))
        files.append(folder / f"{bits}.wav")
    return files


def _read_sound(path: Path) -> object:
    return SoundReader(RATE).read(path)


def _write_archive(folder: Path) -> list[Path]:
    batch = {"sizes": {0: torch.export.Dim("B")}}
    return [export(small_network(), folder / "a.pt2"), export(small_network(), folder / "b.pt2", **batch)]


def _run_archive(path: Path) -> object:
    with zoo.load(f"file:{path}").frozen() as run:
        return run(torch.zeros(1, 3, 16, 16))


def _write_onnx(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    kernel, weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    nodes = [
        ("Conv", ["x", "kernel"], ["a"], {"pads": [1, 1, 1, 1]}),
        ("Relu", ["a"], ["b"]),
        ("GlobalAveragePool", ["b"], ["c"]),
        ("Reshape", ["c", "shape"], ["d"]),
        ("Gemm", ["d", "weight"], ["y"]),
    ]
    weights = {"kernel": kernel, "weight": weight, "shape": np.array([-1, 4], np.int64)}
    return [write_graph(folder / "a.onnx", nodes, weights=weights)]


def _run_onnx(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # about its preprocessing
        net = zoo.load(f"onnx:{path}")
    with net.frozen() as run:
        return run(net.example_input())


def _write_folder(name: str) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
        config = transformers.ViTConfig(hidden_size=8, image_size=16, patch_size=8, **sizes)
        transformers.ViTForImageClassification(config).save_pretrained(folder)
        transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
        return [folder / name]

    return write


def _run_folder(path: Path) -> object:
    return zoo.load(f"hf:{path.parent}").prepare(Image.new("RGB", (20, 24)))


def _write_state(folder: Path) -> list[Path]:
    state = _make_linear().state_dict()
    torch.save(state, folder / "a.pt")
    torch.save({"state_dict": state, "epoch": 3}, folder / "b.pt")
    torch.save(state, folder / "c.pt", _use_new_zipfile_serialization=False)
    save_file(state, folder / "a.safetensors")
    return sorted(folder.iterdir())


def _make_linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def _mutate_state(rng: random.Random, content: bytes) -> bytes:
    if content[:2] == b"PK":
        return mutate_zip(rng, content)
    return mutate_safetensors(rng, content) if b'"F32"' in content[:2000] else mutate_bytes(rng, content)


def _read_weights(path: Path) -> None:
    load_state(_make_linear(), read_state(path), str(path))


def _write_explanation(folder: Path) -> list[Path]:
    inside = made_explanations.explanation()
    made_explanations.explanation(alternatives=(inside,)).save(folder / "a.safetensors")
    made_explanations.explanation(images=2, fields=torch.rand(2, 2, 1, 3, 3)).save(folder / "b.safetensors")
    return sorted(folder.iterdir())


def _use_explanation(path: Path) -> None:
    from extremal.report import explanation_page
    from extremal.report.result_files import result_record

    explanation = Explanation.load(path)
    for one in (explanation, *explanation.alternatives):
        assert len(one.verdict) == len(one.masks)
        one.saliency()
        one.order()
    json.dumps(result_record("a.png", explanation, {}), allow_nan=False)
    explanation_page.write(explanation, path.with_name("report.html"), title="a")


def _write_sets(folder: Path) -> list[Path]:
    kept, lost = made_explanations.explanation(), made_explanations.explanation(keeps=False)
    RegionSets(kept, lost, kept, lost).save(folder / "sets.safetensors")
    answers = (("cat", "cat"), ("dog", "cat"))
    Contrast(lost, kept, kept, ("cat", "dog"), ("fade", "noise"), 1, answers).save(folder / "contrast.safetensors")
    AnswerTokens(kept, kept, "a bus", "what?", ("a", "bus"), (1,)).save(folder / "tokens.safetensors")
    return sorted(folder.iterdir())


def _use_sets(path: Path) -> None:
    from extremal.report import sets_page, tokens_page

    if path.name.startswith("tokens"):
        tokens = AnswerTokens.load(path)
        json.dumps(tokens_page.tokens_record("a.png", tokens, {}), allow_nan=False)
        tokens_page.render(tokens)
        return
    kind = Contrast if path.name.startswith("contrast") else RegionSets
    result = kind.load(path)  # type: ignore[attr-defined]
    json.dumps(sets_page.sets_record("a.png", result, {}), allow_nan=False)
    sets_page.render(result)


def _write_channels(folder: Path) -> list[Path]:
    torch.manual_seed(0)
    explain_channels(Carriers([3], seed=1), torch.rand(1, 3, 8, 8), "features", 0, counts=(3, 5)).save(folder / "a")
    return [folder / "a"]


def _use_channels(path: Path) -> None:
    from extremal.report import channel_page
    from extremal.report.channel_files import channel_record

    explanation = ChannelExplanation.load(path)
    assert len(explanation.verdict) == len(explanation.masks)
    json.dumps(channel_record("a.png", explanation, {}), allow_nan=False)
    channel_page.write(explanation, path.with_name("report.html"), title="a")


def _write_classes(folder: Path) -> list[Path]:
    (folder / "a.json").write_text(json.dumps({"cat": "tabby", "dog": 3}))
    return [folder / "a.json"]


def _write_scenes(folder: Path) -> list[Path]:
    for name in ("a", "b"):
        cutout = Image.new("RGBA", (12, 10), (200, 30, 30, 0))
        cutout.paste((20, 200, 30, 255), (2, 2, 9, 8))
        cutout.save(folder / f"{name}.png")
    (folder / "cutouts.json").write_text(json.dumps({"a.png": "cat", "b.png": "dog"}))
    return sorted(folder.iterdir())


def _mutate_by_kind(rng: random.Random, content: bytes) -> bytes:
    return mutate_json(rng, content) if content[:1] == b"{" else mutate_bytes(rng, content)


def _read_scene(path: Path) -> object:
    from extremal.benchmark.data import scenes

    scenes._load_cutout.cache_clear()
    data = Scenes(path.parent, count=1, size=32)
    return data.sample(data.keys()[0])


def _write_voc(folder: Path) -> list[Path]:
    root = folder / "VOC2007"
    for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / name).mkdir(parents=True)
    (root / "ImageSets" / "Main" / "test.txt").write_text("000001\n")
    box = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
    objects = "".join(f"<object><name>{name}</name><difficult>0</difficult>{box}</object>" for name in ("cat", "dog"))
    (root / "Annotations" / "000001.xml").write_text(f"<annotation>{objects}</annotation>")
    Image.new("RGB", (16, 12)).save(root / "JPEGImages" / "000001.jpg")
    return [root / "Annotations" / "000001.xml", root / "ImageSets" / "Main" / "test.txt"]


def _read_voc(path: Path) -> None:
    root = next(parent for parent in path.parents if parent.name == "VOC2007")
    data = Voc(root.parent)
    for key in data.keys()[:2]:
        data.sample(key)


def _write_coco(folder: Path) -> list[Path]:
    (folder / "annotations").mkdir()
    (folder / "val2014").mkdir()
    Image.new("RGB", (16, 12)).save(folder / "val2014" / "a.jpg")
    polygon = [1.0, 1.0, 8.0, 1.0, 8.0, 7.0]
    one = {
        "id": 1,
        "image_id": 5,
        "category_id": 2,
        "iscrowd": 0,
        "segmentation": [polygon],
        "area": 20,
        "bbox": [1, 1, 7, 6],
    }
    runs = {**one, "id": 2, "segmentation": {"counts": [100, 20, 72], "size": [12, 16]}}
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": 12, "width": 16}],
        "annotations": [one, runs],
        "categories": [{"id": 2, "name": "cat"}],
    }
    file = folder / "annotations" / "instances_val2014.json"
    file.write_text(json.dumps(content))
    return [file]


def _read_coco(path: Path) -> None:
    data = Coco(path.parents[1])
    for key in data.keys()[:2]:
        data.sample(key)


_LABELLED = Network(nn.Conv2d(3, 3, 1), labels=("tabby, cat", "dog", "car"))
_TEXTS = {
    "target": ("1", "-1", "dog", "cat|car", "0|1"),
    "ask": ("box", "box:1,2,30,40", "segment", "unit:layer.3:5", "unit:a:0"),
    "areas": ("0.05,0.1,0.2",),
    "counts": ("1,4,16",),
    "perturbation": ("mixed", "blur,fade"),
}


def _write_texts(folder: Path) -> list[Path]:
    files = []
    for kind, texts in _TEXTS.items():
        for index, text in enumerate(texts):
            files.append(folder / f"{kind}-{index}")
            files[-1].write_text(text)
    return files


def _parse_text(path: Path) -> object:
    text, kind = path.read_bytes().decode("utf-8", "surrogateescape"), path.name.partition("-")[0]
    match kind:
        case "target":
            query: Any = parse_query(_LABELLED, text, "")
            return query
        case "ask":
            return parse_query(_LABELLED, "" if text.startswith(("unit", "like")) else "dog", text)
        case "areas":
            return Settings(areas=parse_areas(text))
        case "counts":
            return parse_counts(text)
    return Settings(perturbation=parse_perturbation(text))


READERS: dict[str, Reader] = {
    "images": Reader(_write_images, mutate_bytes, read_image_file),
    "sounds": Reader(_write_sounds, mutate_bytes, _read_sound),
    "exported networks": Reader(_write_archive, mutate_zip, _run_archive),
    "ONNX": Reader(_write_onnx, mutate_onnx, _run_onnx),
    "config.json": Reader(_write_folder("config.json"), mutate_json, _run_folder),
    "preprocessor_config.json": Reader(_write_folder("preprocessor_config.json"), mutate_json, _run_folder),
    "model.safetensors": Reader(_write_folder("model.safetensors"), mutate_safetensors, _run_folder),
    "weights": Reader(_write_state, _mutate_state, _read_weights),
    "explanations": Reader(_write_explanation, mutate_safetensors, _use_explanation),
    "sets of regions": Reader(_write_sets, mutate_safetensors, _use_sets),
    "channel explanations": Reader(_write_channels, mutate_safetensors, _use_channels),
    "classes": Reader(_write_classes, mutate_json, bench._read_classes),
    "clips": Reader(stack_readers.write_clips, mutate_bytes, stack_readers.read_clip),
    "NIfTI": Reader(stack_readers.write_niftis, stack_readers.mutate_nifti, stack_readers.read_nifti),
    "DICOM": Reader(stack_readers.write_slices, mutate_bytes, stack_readers.read_slices),
    "DICOM frames": Reader(stack_readers.write_frame_files, mutate_bytes, stack_readers.read_frame_file),
    "cut-outs": Reader(_write_scenes, _mutate_by_kind, _read_scene),
    "VOC": Reader(_write_voc, mutate_text, _read_voc),
    "COCO": Reader(_write_coco, mutate_json, _read_coco),
    "run folders": Reader(run_readers.write_run_folder, run_readers.mutate_run_file, run_readers.use_run),
    "manifests": Reader(run_readers.write_manifest, mutate_text, run_readers.read_manifest),
    "option texts": Reader(_write_texts, mutate_text, _parse_text),
}


def start_trial(name: str, folder: Path) -> Trial:
    """Return a trial of a reader in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    return Trial(READERS[name], folder)
