"""The question every method is asked, and the shape of its answer: Observation and Reconstructor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from core.spectrum import WHITE, Kernel, Spectra


@dataclass(frozen=True, eq=False)
class Observation:
    """What was measured of B stars: y = x + s sigma (K z) + sum_q t_q u_q where ivar > 0, nothing elsewhere.

    Args:
        wave: (L,) vacuum wavelength [Angstrom].
        y: (B, L) flux in units of the continuum; its value where ivar = 0 means nothing.
        ivar: (B, L) quoted inverse variance, 0 = not measured.
        keys: B star ids; with the seed they decide each star's draws.
        noise: scale and correlation of the true noise given the quoted one.
        patterns: (Q, L) of the sky and the air, in units of the quoted sigma, each with a strength t ~ N(0, 1) of its
            own in every star (core.data.sky); none by default. Methods that cannot use them take them for noise or
            for the star.

    Raises:
        ValueError: shapes that disagree, y or ivar not finite, negative ivar, a star with no live pixel.
    """

    wave: Tensor
    y: Tensor
    ivar: Tensor
    keys: tuple[str, ...]
    noise: Kernel = WHITE
    patterns: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def __post_init__(self) -> None:
        if self.y.ndim != 2 or self.ivar.shape != self.y.shape or self.wave.shape != self.y.shape[1:]:
            raise ValueError(f"wave {tuple(self.wave.shape)}, y {tuple(self.y.shape)} and ivar "
                             f"{tuple(self.ivar.shape)} disagree; give (L,), (B, L), (B, L).")
        if len(self.patterns) and self.patterns.shape[1:] != self.wave.shape:
            raise ValueError(f"patterns {tuple(self.patterns.shape)} are not on the {len(self.wave)} pixels of the "
                             "spectra; give (Q, L).")
        if len(self.keys) != self.y.shape[0]:
            raise ValueError(f"{len(self.keys)} keys for {self.y.shape[0]} stars; give one id per star.")
        if not (torch.isfinite(self.y).all() and torch.isfinite(self.ivar).all()):
            raise ValueError("y or ivar is not finite; set ivar to 0 and y to any number where nothing was measured.")
        if (self.ivar < 0).any():
            raise ValueError("ivar is negative; 0 marks what was not measured.")
        dead = (self.ivar > 0).sum(-1) == 0
        if dead.any():
            raise ValueError(f"star {self.keys[int(dead.nonzero()[0])]} has ivar = 0 in every pixel; leave it out.")

    @classmethod
    def of(cls, spectra: Spectra, dtype: torch.dtype = torch.float64) -> Observation:
        """The one door from NumPy: spectra as a question."""
        flux, ivar = torch.tensor(spectra.flux, dtype=dtype), torch.tensor(spectra.ivar, dtype=dtype)
        patterns = torch.tensor(spectra.patterns, dtype=dtype)
        return cls(torch.tensor(spectra.wave), flux, ivar, tuple(spectra.stars), spectra.noise, patterns)

    @property
    def live(self) -> Tensor:
        """(B, L) True where a pixel was measured."""
        return self.ivar > 0

    @property
    def sigma(self) -> Tensor:
        """(B, L) quoted standard deviation, infinite where nothing was measured."""
        return self.ivar.rsqrt()

    def star(self, b: int) -> Observation:
        """The question about star b alone, still with a batch dimension."""
        return self.some(b, b + 1)

    def some(self, first: int, last: int) -> Observation:
        """The question about stars first to last - 1."""
        return replace(self, y=self.y[first:last], ivar=self.ivar[first:last], keys=self.keys[first:last])

    def with_y(self, y: Tensor) -> Observation:
        """The same question had y (B, L) been measured, without patterns."""
        return replace(self, y=y, patterns=torch.zeros(0, 0))

    def to(self, device: torch.device) -> Observation:
        """The same on a device."""
        return replace(self, y=self.y.to(device), ivar=self.ivar.to(device))

    @property
    def nuisance(self) -> Tensor:
        """(Q, L) the patterns in units of the flux of the first star, float32; zero where nothing was measured."""
        if not len(self.patterns):
            return torch.zeros(0, self.y.shape[1])
        sigma = torch.where(self.live[0], self.ivar[0].clamp_min(1e-30).rsqrt(), 0.0)
        return (self.patterns * sigma).float()


class Reconstructor(ABC):
    """A method: draws of the clean spectrum given an observation.

    Attributes:
        needs_identity: True when the method cannot use a blur or a mask other than ivar = 0.
        exact: True when the draws are from the posterior under a stated prior; False for filters and approximations.
        draws_differ: False for point estimates, whose draws are one spectrum repeated.
    """

    needs_identity: bool = True
    exact: bool = False
    draws_differ: bool = False

    @abstractmethod
    def sample(self, observation: Observation, n: int, seed: int) -> Tensor:
        """n draws, (n, B, L), in units of the continuum; each star's depend on its key and the seed alone.

        Raises:
            ValueError: n < 1.
        """

    def warnings(self, observation: Observation) -> list[str]:
        """Why the answer to this question may be worth less than it looks, a sentence each; none by default."""
        return []


def check_draws(n: int) -> None:
    """Refuse to make no draws."""
    if n < 1:
        raise ValueError(f"{n} draws asked for; ask for at least 1.")


def normals(generator: torch.Generator, n: int, *sizes: int) -> list[Tensor]:
    """Standard normal numbers (n, size) for each size; the first rows stay the same when more are asked for.

    All of a draw's numbers lie in one row whose length is a multiple of 16, the block in which PyTorch fills arrays.
    """
    width = sum(sizes)
    rows = torch.randn(n, width + (-width) % 16, generator=generator)
    return list(torch.split(rows[:, :width], list(sizes), dim=1))


class PointEstimate(Reconstructor):
    """A method with one answer per star: n draws are that answer n times, so that every method walks the same path."""

    @abstractmethod
    def estimate(self, observation: Observation) -> Tensor:
        """(B, L) the method's answer."""

    def sample(self, observation: Observation, n: int, seed: int) -> Tensor:
        check_draws(n)
        return self.estimate(observation).expand(n, -1, -1)
