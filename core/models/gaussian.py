"""One Gaussian for all stars: PCA (projection without a prior) and Wiener (the full posterior, mean and draws)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.data.grid import CURVE_BASIS, N_PIXELS, check_grid
from core.data.hashes import record, verified
from core.models.observation import Observation, PointEstimate, Reconstructor, check_draws, normals
from core.models.whitening import Whitener
from core.spectrum import star_seed

MODEL_FILE = Path(__file__).resolve().parents[2] / "checkpoints" / "gaussian.safetensors"


@dataclass(frozen=True, eq=False)
class GaussianPrior:
    """x ~ N(mean, factors' factors + diag(residual)): the simulator's mean and covariance, velocities included.

    Args:
        mean: (L,); factors: (k, L), principal directions times their standard deviation; residual: (L,) variance.
    """

    mean: Tensor
    factors: Tensor
    residual: Tensor

    @classmethod
    @lru_cache(maxsize=2)
    def load(cls, path: Path = MODEL_FILE) -> GaussianPrior:
        """The committed prior.

        Raises:
            ValueError: the file is missing, changed or something else.
        """
        verified(path)
        try:
            a = {name: value.float() for name, value in load_file(path).items()}
            return cls(a["mean"], a["factors"], a["residual"].exp())
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise ValueError(f"{path} holds no Gaussian ({error}); run `python -m scripts.prepare prior`.") from error

    @classmethod
    def fit(cls, spectra: Tensor, factors: int) -> GaussianPrior:
        """From clean spectra (N, L), float32."""
        mean = spectra.mean(0)
        gap = spectra - mean
        values, vectors = torch.linalg.eigh((gap.T @ gap).double() / len(gap))
        lead = vectors[:, -factors:].T.flip(0).float()
        rest = gap - (gap @ lead.T) @ lead
        return cls(mean, lead * values[-factors:].flip(0).clamp_min(0).sqrt().float()[:, None], (rest**2).mean(0))

    def save(self, path: Path = MODEL_FILE) -> None:
        """Write as float16."""
        save_file({"mean": self.mean, "factors": self.factors.half().contiguous(),
                   "residual": self.residual.clamp_min(1e-9).log().half()}, path)
        record(path)


class PCA(PointEstimate):
    """ivar-weighted least squares on the leading principal components, no prior on their coefficients.

    The usual way to clean survey spectra by components (Bailer-Jones et al. 1998, MNRAS 298, 361; with weights as
    in Budavari et al. 2009, MNRAS 394, 1496). Correlation of the noise is ignored, as it is in practice.

    Args:
        components: how many.

    Raises:
        ValueError: fewer than one, or more than the prior has.
    """

    def __init__(self, components: int = 30, prior: GaussianPrior | None = None) -> None:
        self.prior = GaussianPrior.load() if prior is None else prior
        if not 1 <= components <= len(self.prior.factors):
            raise ValueError(f"{components} components asked for; give 1 to {len(self.prior.factors)}.")
        self.basis = self.prior.factors[:components]

    def estimate(self, observation: Observation) -> Tensor:
        check_grid(observation.wave.cpu())
        out = []
        for y, ivar in zip(observation.y.float(), observation.ivar.float(), strict=True):
            weighted = self.basis * ivar
            normal = (weighted @ self.basis.T).double()
            normal += 1e-9 * normal.diagonal().mean() * torch.eye(len(normal), dtype=torch.float64)
            right = (weighted @ (y - self.prior.mean)).double()
            out.append(self.prior.mean + torch.linalg.solve(normal, right).float() @ self.basis)
        return torch.stack(out).double()


class Wiener(Reconstructor):
    """Posterior of a Gaussian prior under Gaussian noise (Wiener 1949; Zaroubi et al. 1995, ApJ 449, 446): mean
    and draws.

    Exact for stars that are draws of that prior, whatever the noise map, mask and correlation. Twelve smooth
    factors answer for the unit (see core.models.mixture.Mixture).

    Args:
        unit_spread: deviation of the smooth factors.
    """

    exact = True
    draws_differ = True

    def __init__(self, unit_spread: float = 0.3, prior: GaussianPrior | None = None) -> None:
        self.prior = GaussianPrior.load() if prior is None else prior
        unit = unit_spread * torch.as_tensor(CURVE_BASIS.T, dtype=torch.float32)
        self.factors = torch.cat([self.prior.factors, self.prior.mean * unit])

    def posterior(self, observation: Observation) -> tuple[Tensor, Tensor, Whitener]:
        """Mean (k,) and Cholesky factor of the precision (k, k) of one star's factors, and its noise. After the star's
        own factors come the observation's nuisances.

        Raises:
            ValueError: another grid, or more than one star.
        """
        check_grid(observation.wave.cpu())
        if observation.y.shape != (1, N_PIXELS):
            raise ValueError(f"observation of shape {tuple(observation.y.shape)}; give one star: (1, {N_PIXELS}).")
        noise = Whitener(observation, self.prior.residual)
        gap = (observation.y[0].float() - self.prior.mean)[None]
        white = noise.half(torch.cat([gap, self.factors, observation.nuisance]).T)
        g = white[:, 1:].double()  # at S/N 1000 the unit's factors reach 1e8: single precision loses the prior's 1
        chol = torch.linalg.cholesky(g.T @ g + torch.eye(g.shape[1], dtype=torch.float64))
        centre = torch.cholesky_solve(g.T @ white[:, :1].double(), chol)[:, 0]
        return centre.float(), chol.float(), noise

    def sample(self, observation: Observation, n: int, seed: int) -> Tensor:
        check_draws(n)
        out = []
        for b, key in enumerate(observation.keys):
            star = observation.star(b)
            centre, chol, noise = self.posterior(star)
            generator = torch.Generator().manual_seed(star_seed(key, seed, "wiener"))
            z, e, white = normals(generator, n, len(centre), N_PIXELS, N_PIXELS + 2)
            c = centre + torch.linalg.solve_triangular(chol.T, z.T, upper=True).T
            own = len(self.factors)
            smooth = self.prior.mean + c[:, :own] @ self.factors
            out.append(noise.complete(star.y[0].float() - c[:, own:] @ star.nuisance, smooth, e, white))
        return torch.stack(out, 1).double()
