"""A linear model of rewards over masks, fitted to evaluations without any gradient.

The reward of a mask m near an area a is c₀ + c₁·log(|m|/a) + Σ_c f_c·m_c + noise over coarse cells c, with a Gaussian
prior of the weights f that is smooth over neighbouring cells. Masks whose area is far from a count less. The strength
of the prior against the noise maximises the evidence (MacKay, 1992), so the scale of the rewards makes no difference.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.masking.domain import Domain, ExactAreaFamily
from extremal.masking.grid import lattice_shape, resize, scale_lengths
from extremal.masking.units import Units

CELL = 14.0  # px at a short side of 224 px, of a cell along each dimension
MAX_CELLS = 1024  # larger lattices have larger cells
LENGTHS = (
    12.0,
    36.0,
)  # px at a short side of 224 px, over which the weights of cells are similar; half of the prior each
MIN_SHARE = 1e-4  # of the largest variance, below which a direction of the prior is left out
STRENGTHS = torch.linspace(
    -4.0, 8.0, 25, dtype=torch.float64
)  # log of the prior's share of the variance, against noise
FLOOR = 1e-12  # of variances, relative to that of the rewards


class Cells:
    """The cells of a domain: the means of masks in them, and fields over them as parameters of masks.

    Cells are squares of places, or the units or channels themselves.

    Args:
        domain: of the masks.
        family: masks of exactly a given area.
        like: for dtype and device.
    """

    def __init__(self, domain: Domain, family: ExactAreaFamily, like: Tensor) -> None:
        self._family, self._is_smooth = family, domain.is_smooth
        self.shape = tuple(family.parameter_shape)
        if not domain.is_smooth:
            self.count = math.prod(self.shape)
            self.basis = torch.eye(self.count, dtype=like.dtype, device=like.device)
            return
        step = CELL
        while math.prod(self._lattice(domain, step)) > MAX_CELLS:
            step *= 1.25
        self.shape = self._lattice(domain, step)
        self.count = math.prod(self.shape)
        self.basis = _smooth_basis(self.shape, domain).to(like)

    @staticmethod
    def _lattice(domain: Domain, step: float) -> tuple[int, ...]:
        return lattice_shape(domain.shape, scale_lengths(step, domain.shape, domain.spacing))

    def average(self, masks: Tensor) -> Tensor:
        """Return the mean of masks in each cell, (B, 1, *S) -> (B, cells); units count by their share of places."""
        if self._is_smooth:
            return F.interpolate(masks, size=self.shape, mode="area").flatten(1)
        if isinstance(self._family, Units):
            return (self._family.fit(masks) * self._family.shares).flatten(1) * self.count
        return masks.flatten(1)

    def to_parameters(self, fields: Tensor) -> Tensor:
        """Return the parameters of masks for fields over the cells: (B, cells) -> (B, 1, *lattice)."""
        fields = fields.view(-1, 1, *self.shape)
        return resize(fields, tuple(self._family.parameter_shape)) if self._is_smooth else fields


def _smooth_basis(shape: tuple[int, ...], domain: Domain) -> Tensor:
    """Return a square root of the prior's covariance, without directions of small variance: (cells, R)."""
    scales = [places / cells for places, cells in zip(domain.shape, shape, strict=True)]
    covariance = torch.zeros(1, 1, dtype=torch.float64)
    for length in LENGTHS:
        lengths = scale_lengths(length, domain.shape, domain.spacing)
        product = torch.ones(1, 1, dtype=torch.float64)
        for cells, scale, reach in zip(shape, scales, lengths, strict=True):
            places = torch.arange(cells, dtype=torch.float64) * scale
            product = torch.kron(product, torch.exp(-((places[:, None] - places) ** 2) / (2 * reach**2)))
        covariance = covariance + product / len(LENGTHS)
    values, vectors = torch.linalg.eigh(covariance)
    large = values > MIN_SHARE * values.max()
    basis: Tensor = vectors[:, large] * values[large].sqrt()
    return basis


@dataclass(frozen=True, eq=False)
class Posterior:
    """The distribution of the weights of cells for N inputs, given the evaluations."""

    basis: Tensor  # (cells, R) square root of the prior's covariance
    directions: Tensor  # (N, D, R), orthonormal rows: directions that the evaluations are about
    mean: Tensor  # (N, R), in units of the basis
    shrinkage: Tensor  # (N, D) in (0, 1]: remaining share of the prior's deviation along each direction
    deviation: Tensor  # (N,) of the prior

    def best_field(self) -> Tensor:
        """Return the mean of the weights: (N, cells)."""
        return self.mean @ self.basis.T

    def draw_fields(self, noise: Tensor, temperature: float) -> Tensor:
        """Return weights drawn from the posterior: noise (K, R) -> (N, K, cells).

        Args:
            noise: standard normal.
            temperature: of the draws, relative to the posterior's own deviation; 0: all are the mean.
        """
        along = torch.einsum("ndr,kr->nkd", self.directions, noise) * (1 - self.shrinkage).unsqueeze(1)
        change = noise - torch.einsum("nkd,ndr->nkr", along, self.directions)
        scale = (temperature * self.deviation).view(-1, 1, 1)
        return (self.mean.unsqueeze(1) + scale * change) @ self.basis.T


class RewardModel:
    """Rewards of masks of N inputs, as evidence for the weights of cells.

    Args:
        cells: of the masks.
        count: N.
        reach: of the area's log, beyond which masks of other areas count much less.
    """

    def __init__(self, cells: Cells, count: int, reach: float) -> None:
        self.cells, self._reach = cells, reach
        self._features = cells.basis.new_zeros(count, 0, cells.basis.shape[1])
        self._rewards = cells.basis.new_zeros(count, 0)
        self._log_areas = cells.basis.new_zeros(0)

    def add(self, masks: Tensor, areas: Tensor, rewards: Tensor) -> None:
        """Add masks (N, K, 1, *S) of areas (K,) with their rewards (N, K); rewards that are not finite count as 0."""
        features = self.cells.average(masks.flatten(0, 1)) @ self.cells.basis / math.sqrt(self.cells.count)
        self._features = torch.cat([self._features, features.view(*rewards.shape, -1)], 1)
        self._rewards = torch.cat([self._rewards, rewards.nan_to_num(0.0, 0.0, 0.0)], 1)
        self._log_areas = torch.cat([self._log_areas, areas.log()])

    def fit(self, area: float, reach: float = 1.0) -> Posterior:
        """Return the posterior of the weights near an area.

        Args:
            area: in (0, 1).
            reach: factor of the model's own.
        """
        distances = self._log_areas - math.log(area)
        weights = (1 + (distances / (self._reach * reach)).square()) ** -0.75  # square roots of those of the squares
        fixed, _ = torch.linalg.qr(torch.stack([weights, weights * distances], 1))  # (n, 2)
        features = self._features * weights.view(1, -1, 1)
        rewards = self._rewards * weights
        features = features - fixed @ (fixed.T @ features)
        rewards = rewards - (rewards @ fixed) @ fixed.T
        left, values, directions = torch.linalg.svd(features, full_matrices=False)
        spectrum, parts = values.square(), torch.einsum("nkd,nk->nd", left, rewards)
        strength, noise = _fit_strength(spectrum, parts, rewards, float(weights.square().sum()))
        shrunk = strength.unsqueeze(1) * values / (1 + strength.unsqueeze(1) * spectrum)
        return Posterior(
            basis=self.cells.basis,
            directions=directions,
            mean=torch.einsum("nd,ndr->nr", shrunk * parts, directions),
            shrinkage=(1 + strength.unsqueeze(1) * spectrum).rsqrt(),
            deviation=(strength * noise).sqrt(),
        )


def _fit_strength(spectrum: Tensor, parts: Tensor, rewards: Tensor, count: float) -> tuple[Tensor, Tensor]:
    """Return the ratio of the prior's variance to the noise's (N,) of the largest evidence, and the noise's variance.

    Args:
        spectrum: (N, D) squares of the features' singular values.
        parts: (N, D) of the rewards along the features' directions.
        rewards: (N, n), weighted.
        count: of evaluations, weighted.
    """
    spectrum, parts, total = spectrum.double(), parts.double(), rewards.double().square().sum(1)
    ratios = STRENGTHS.to(spectrum.device).exp() / (spectrum.sum(1, keepdim=True) / count + FLOOR)  # (N, 25)
    scaled = ratios.unsqueeze(2) * spectrum.unsqueeze(1)  # (N, 25, D)
    explained = (scaled / (1 + scaled) * parts.square().unsqueeze(1)).sum(2)
    noise = (total.unsqueeze(1) - explained) / count + FLOOR * total.unsqueeze(1) + torch.finfo(torch.float64).tiny
    evidence = -0.5 * count * noise.log() - 0.5 * torch.log1p(scaled).sum(2)
    best = evidence.argmax(1, keepdim=True)
    return ratios.gather(1, best)[:, 0].to(rewards.dtype), noise.gather(1, best)[:, 0].to(rewards.dtype)
