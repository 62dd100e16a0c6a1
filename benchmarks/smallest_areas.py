"""Smallest sufficient areas of planted objects and of copies with one grey level of noise.

Use: python benchmarks/smallest_areas.py --cutouts STAMPS [--scenes 30]

For each object the smallest of the computed areas with the verdict `sufficient`, and the smallest area that a search
finds (`extremal.smallest_area`), of the scene and of its copy; the latter of those whose mask has the verdict
`sufficient` in both, and of all objects that have one. Prints how often they agree; docs/evaluation.md has the result.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

import extremal
from extremal import zoo
from extremal.benchmark.data.scenes import Scenes
from extremal.networks.network import Network
from extremal.networks.noise import add_grey_noise

FACTORS = (1.25, 1.5, 2.0)


def find_areas(network: Network, image: Image.Image, label: str) -> tuple[float | None, ...]:
    """Return the smallest area with the verdict `sufficient` of the computed ones and by a search, and by a search."""
    result = extremal.explain(network, image, label)
    verdicts = zip(result.areas, result.verdict[0], strict=True)
    computed = next((area for area, verdict in verdicts if verdict.label == "sufficient"), None)
    (certificate,) = extremal.smallest_area(network, result)
    if certificate is None:
        return computed, None, None
    return computed, certificate.area if certificate.verdict.label == "sufficient" else None, certificate.area


def main() -> None:
    """Measure all objects."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=30)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    extremal.keep_freed_memory()
    network, data = zoo.load("embedded"), Scenes(options.cutouts, count=options.scenes)
    pairs = []
    for key in data.keys():  # noqa: SIM118  # no mapping
        sample = data.sample(key)
        for region in sample.regions:
            images = sample.image, add_grey_noise(sample.image, 0)
            pairs.append([find_areas(network, image, region.label) for image in images])
            print(key, region.label, *pairs[-1], flush=True)
    for index, name in enumerate(("computed areas", "found, sufficient", "found")):
        found = [(first[index], second[index]) for first, second in pairs]
        both = np.array([pair for pair in found if None not in pair], float)
        ratios = both.max(1) / both.min(1)
        shares = ", ".join(f"{np.mean(ratios <= factor + 1e-9):.0%} within {factor:g}" for factor in FACTORS)
        alone = sum((first is None) != (second is None) for first, second in found)
        mean = np.exp(np.log(both).mean())
        print(f"{name}: geometric mean {mean:.1%}; of {len(both)} objects {shares}; {alone} in one only")


if __name__ == "__main__":
    main()
