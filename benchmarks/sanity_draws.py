"""Rank correlation of maps with those of re-initialised networks, over several draws of the weights.

Use: python benchmarks/sanity_draws.py FOLDER [--methods consensus,grad-cam,...] [--draws 3]

`extremal bench sanity` takes one draw of weights for each stage, the same for all images. Smooth maps correlate by
chance over large parts of an image, so this compares, for each draw with all layers re-initialised, the map of the
trained network with the new map of the same image and with those of the other images, in which it has no part.
FOLDER holds PNG images. The embedded network's most likely classes are the targets.
"""

import argparse
from itertools import product
from pathlib import Path
from statistics import fmean

import torch
from PIL import Image
from torch import Tensor

from extremal import Network, zoo
from extremal.benchmark import metrics
from extremal.benchmark.baselines import get_method

ALL_STAGES = 12  # of the embedded network


def main() -> None:
    """Print a line for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", default="consensus,path,contrastive-excitation,grad-cam")
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    net = zoo.load("embedded")
    inputs = [net.prepare(Image.open(path).convert("RGB")) for path in sorted(options.folder.rglob("*.png"))]
    with net.frozen() as run, torch.no_grad():
        targets = [int(run(x).argmax()) for x in inputs]
    drawn = [metrics.reinitialise(net, ALL_STAGES, seed=seed) for seed in range(options.draws)]
    for method in options.methods.split(","):
        own, *others = (draw_maps(method, network, inputs, targets) for network in (net, *drawn))
        same = [correlate(own, maps, same=True) for maps in others]
        other = [correlate(own, maps, same=False) for maps in others]
        print(
            f"{method}: same image {join(same)} (mean {fmean(same):.2f}), other images {join(other)} (mean "
            f"{fmean(other):.2f}); other images on the trained network {correlate(own, own, same=False):.2f}",
            flush=True,
        )


def draw_maps(method: str, network: Network, inputs: list[Tensor], targets: list[int]) -> list[Tensor]:
    """Return the map of each input."""
    compute = get_method(method)
    return [compute(network, x, target).values for x, target in zip(inputs, targets, strict=True)]


def correlate(own: list[Tensor], maps: list[Tensor], *, same: bool) -> float:
    """Return the mean rank correlation of maps of the same image, or of all pairs of different ones."""
    pairs = ((i, k) for i, k in product(range(len(own)), repeat=2) if (i == k) == same)
    return fmean(float(metrics.rank_correlation(own[i], maps[k])) for i, k in pairs)


def join(values: list[float]) -> str:
    """Return numbers for a line."""
    return " / ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    main()
