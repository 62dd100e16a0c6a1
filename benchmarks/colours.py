"""Compute the principal axes of the colours of photographs, as in `explanations/channels/fourier_images.py`.

Use: python benchmarks/colours.py
Uses four of scikit-image's photographs with an equal number of pixels each. Axes are scaled by their deviations
relative to the largest; signs make green (or red, if green is small) positive.
"""

import numpy as np
import skimage.data

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
PIXELS = 100_000  # of each photograph


def main() -> None:
    """Print the axes, one per row."""
    generator = np.random.default_rng(0)
    samples = []
    for name in PHOTOGRAPHS:
        pixels = getattr(skimage.data, name)().reshape(-1, 3) / 255.0
        samples.append(generator.permutation(pixels)[:PIXELS])
    values, axes = np.linalg.eigh(np.cov(np.concatenate(samples).T))
    order = np.argsort(values)[::-1]
    scaled = (axes[:, order] * np.sqrt(values[order] / values.max())).T
    signs = np.sign(np.where(np.abs(scaled[:, :1]) > np.abs(scaled[:, 1:2]), scaled[:, :1], scaled[:, 1:2]))
    print(np.round(scaled * signs, 2).tolist())


if __name__ == "__main__":
    main()
