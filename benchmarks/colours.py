"""The principal axes of the colours of natural photographs, which `extremal.channels.imaging.COLOURS` holds.

Use: python benchmarks/colours.py
Over four of scikit-image's photographs, as many pixels of each; axes scaled by their deviations and these by the
largest, signs such that green (or red, where green is small) is positive.
"""

import numpy as np
import skimage.data

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
PIXELS = 100_000  # of each photograph


def main() -> None:
    """Print the axes, a row each."""
    generator = np.random.default_rng(0)
    drawn = []
    for name in PHOTOGRAPHS:
        pixels = getattr(skimage.data, name)().reshape(-1, 3) / 255.0
        drawn.append(generator.permutation(pixels)[:PIXELS])
    values, axes = np.linalg.eigh(np.cov(np.concatenate(drawn).T))
    order = np.argsort(values)[::-1]
    scaled = (axes[:, order] * np.sqrt(values[order] / values.max())).T
    signs = np.sign(np.where(np.abs(scaled[:, :1]) > np.abs(scaled[:, 1:2]), scaled[:, :1], scaled[:, 1:2]))
    print(np.round(scaled * signs, 2).tolist())


if __name__ == "__main__":
    main()
