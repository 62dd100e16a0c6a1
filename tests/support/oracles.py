"""Naive references in float64 numpy for comparison with the library: one loop for each sum of the paper."""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def gaussian_blur(x: Array, sigma: float, truncate: float = 4.0) -> Array:
    """Blur one channel (*S) by the full (not separated) kernel over a box of ⌈truncate·σ⌉, with replicated border."""
    if sigma == 0:
        return x.copy()
    radius = math.ceil(truncate * sigma)
    offsets = list(itertools.product(range(-radius, radius + 1), repeat=x.ndim))
    weights = [math.exp(-sum(o * o for o in offset) / (2 * sigma**2)) for offset in offsets]
    total = math.fsum(weights)
    out = np.zeros_like(x, dtype=np.float64)
    for place in np.ndindex(x.shape):
        value = 0.0
        for offset, weight in zip(offsets, weights, strict=True):
            near = tuple(min(max(p + o, 0), size - 1) for p, o, size in zip(place, offset, x.shape, strict=True))
            value += weight * float(x[near])
        out[place] = value / total
    return out


def pyramid_perturbation(x: Array, mask: Array, levels: int, sigma_max: float) -> Array:
    """Interpolate one channel (*S) between the two of y_l = blur(x, σ_max·(1 − l/(L − 1))) around m·(L − 1)."""
    pyramid = [gaussian_blur(x, sigma_max * (1 - i / (levels - 1))) for i in range(levels)]
    return _interpolate(pyramid, mask)


def fade_pyramid(x: Array, mask: Array, levels: int) -> Array:
    """Interpolate one channel (*S) between the two of y_l = x·l/(L − 1) around m·(L − 1)."""
    return _interpolate([x * i / (levels - 1) for i in range(levels)], mask)


def _interpolate(pyramid: list[Array], mask: Array) -> Array:
    last = len(pyramid) - 1
    out = np.zeros_like(pyramid[0])
    for place in np.ndindex(out.shape):
        height = float(mask[place]) * last
        below = min(math.floor(height), last - 1)
        fraction = height - below
        out[place] = (1 - fraction) * pyramid[below][place] + fraction * pyramid[below + 1][place]
    return out


def smooth_max(parameters: Array, places: list[range], step: float, sigma: float, temperature: float = 1 / 20) -> Array:
    """Evaluate the mask at places in pixels, one range per dimension; lattice point i lies at s·i, m̄ is 0 outside.

    m(u) = Σ f·exp(f/T) / Σ exp(f/T) with f = k(‖u − v‖/σ)·m̄(v), over the window of 1 + ⌈σ/s⌉ lattice steps around u.
    """
    radius = 1 + math.ceil(sigma / step - 1e-9)
    out = np.zeros([len(line) for line in places])
    for index in np.ndindex(out.shape):
        u = [line[i] for line, i in zip(places, index, strict=True)]
        centre = [math.floor(p / step + 1e-9) for p in u]
        top = total = 0.0
        for offset in itertools.product(range(-radius, radius + 1), repeat=len(u)):
            v = [c + o for c, o in zip(centre, offset, strict=True)]
            inside = all(0 <= p < size for p, size in zip(v, parameters.shape, strict=True))
            distance = math.sqrt(sum((p - step * q) ** 2 for p, q in zip(u, v, strict=True)))
            kernel = math.exp(-2 * max(0.0, distance / sigma - 0.5) ** 2)
            f = kernel * float(parameters[tuple(v)]) if inside else 0.0
            top += f * math.exp(f / temperature)
            total += math.exp(f / temperature)
        out[index] = min(1.0, max(0.0, top / total))
    return out


def ranking_loss(mask: Array, area: float) -> float:
    """Return the mean over places of (vecsort(m) − r_a)², r_a = 0 for the first ⌊(1 − a)|Ω|⌋ places, then 1."""
    values = sorted(float(v) for v in mask.ravel())
    zeros = math.floor(round((1 - area) * len(values), 9))  # 0.9·10 is 9 although its float is below
    return math.fsum((v - (0.0 if i < zeros else 1.0)) ** 2 for i, v in enumerate(values)) / len(values)


def level_set(field: Array, area: float, temperature: float, weights: Array | None = None) -> Array:
    """Return sigmoid((f − τ)/T) with Σ w·m = a, τ found by halving an interval 200 times in Python floats."""
    values = [float(v) for v in field.ravel()]
    fractions = [1 / len(values)] * len(values) if weights is None else [float(w) for w in weights.ravel()]

    def sigmoid(z: float) -> float:
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))

    low, high = min(values) - 60 * temperature, max(values) + 60 * temperature
    for _ in range(200):
        middle = (low + high) / 2
        mean = math.fsum(w * sigmoid((v - middle) / temperature) for v, w in zip(values, fractions, strict=True))
        low, high = (middle, high) if mean > area else (low, middle)
    return np.array([sigmoid((v - low) / temperature) for v in values]).reshape(field.shape)


def cut_one(mask: Array, area: float) -> Array:
    """Set the round(a·|Ω|) largest values (at least one) to 1, the rest to 0; of equals the first in raster order."""
    values = [float(v) for v in mask.ravel()]
    count = max(1, round(area * len(values)))
    kept = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    return np.array([1.0 if i in set(kept) else 0.0 for i in range(len(values))]).reshape(mask.shape)


def margin(output: Array, target: int) -> float:
    """Return y_c − log Σ_{c' ≠ c} exp y_c' of one row."""
    others = [float(y) for c, y in enumerate(output) if c != target]
    top = max(others)
    return float(output[target]) - top - math.log(math.fsum(math.exp(y - top) for y in others))


def contrastive(output: Array, target: int) -> float:
    """Return y_c − max_{c' ≠ c} y_c' of one row."""
    return float(output[target]) - max(float(y) for c, y in enumerate(output) if c != target)


def probability(output: Array, target: int) -> float:
    """Return exp y_c / Σ exp y_c' of one row."""
    return math.exp(float(output[target])) / math.fsum(math.exp(float(y)) for y in output)


SCORES = {
    "margin": margin,
    "contrastive": contrastive,
    "probability": probability,
    "logit": lambda row, target: float(row[target]),
    "log-probability": lambda row, target: math.log(probability(row, target)),
    "negative": lambda row, target: -margin(row, target),
    "sigmoid": lambda row, target: float(row[target]),
}
