"""Take the screenshot of a clip's report in the guide.

    python examples/viewer_figure.py docs/figures/viewer.png

The network reads the contrast inside one cuboid of the clip, so that the right answer is known. Needs chromium on the
PATH, scikit-image and PyAV.
"""

import io
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import skimage.data
import torch
from PIL import Image
from playwright.sync_api import sync_playwright
from torch import Tensor

import extremal

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CUBOID = (slice(5, 11), slice(20, 52), slice(60, 100))  # frames, rows, columns of 16 × 72 × 128


class Edges(torch.nn.Module):
    """Scores the contrast inside the cuboid."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, 2)."""
        contrast = x[(..., *CUBOID)].diff(dim=-1).square().mean((1, 2, 3, 4))
        score = 8 * torch.tanh(80 * contrast)
        return torch.stack([score, torch.zeros_like(score)], 1)


def write_clip(path: Path) -> None:
    """Write a photograph that moves to the left, 32 frames at 8 per second."""
    photograph = np.asarray(Image.fromarray(skimage.data.coffee()).resize((192, 128)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 128, 72, "yuv420p"
        for k in range(32):
            part = np.ascontiguousarray(photograph[28:100, 2 * k : 2 * k + 128])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        container.mux(stream.encode())


def take_screenshot(report: Path) -> bytes:
    """Return the top of a report, as PNG."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.goto(report.as_uri())
        page.locator("#controls").wait_for()
        screenshot = page.screenshot()
        browser.close()
    return screenshot


def main(out: Path) -> None:
    """Explain the clip, take the screenshot of its report and write it."""
    net = extremal.Network(Edges(), labels=("edges", "none"), name="planted", reader=extremal.ClipReader(16))
    with TemporaryDirectory() as folder:
        write_clip(Path(folder, "cup.mp4"))
        result = extremal.explain(net, Path(folder, "cup.mp4"), "edges", areas=(0.025, 0.05, 0.1, 0.2))
        expected = torch.zeros(16, 72, 128, dtype=torch.bool)
        expected[CUBOID] = True
        found = result.binary(0.05)[0, 0].bool()
        iou = float((found & expected).sum() / (found | expected).sum())
        print(f"cuboid {float(expected.float().mean()):.1%} of the clip, IoU at 5 % {iou:.2f}, {result.verdict[0]}")
        extremal.report.write(result, Path(folder, "report.html"), source="cup.mp4")
        screenshot = take_screenshot(Path(folder, "report.html"))
    with Image.open(io.BytesIO(screenshot)) as picture:
        picture.convert("RGB").quantize(128).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
