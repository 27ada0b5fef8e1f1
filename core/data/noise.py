"""Noise maps of LAMOST as a model: photon + sky + throughput + gaps, scaled to an S/N; and noise put on spectra."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from core.data.grid import N_PIXELS, WAVE
from core.data.hashes import record, verified
from core.spectrum import Array, Kernel, Spectra, star_seed

#: g-band window [Angstrom] whose median flux / sigma is LAMOST's SN_G, to 1.1 % for 90 % of plate B6212
#: (docs/noise.md).
SNR_WINDOW = (4100.0, 5300.0)

MODEL_FILE = Path(__file__).resolve().parents[2] / "checkpoints" / "noise.safetensors"

#: LAMOST's own noise in units of its quoted sigma, of one plate, B6212 (results/noise_extrapolated.csv; a test
#: compares).
#: What a plate's stars share on top of it (sky residuals, tellurics) is no noise and is not in here: docs/noise.md.
LAMOST_NOISE = Kernel(scale=(0.74, 0.60), rho=(0.10, 0.05))

_IN_WINDOW = (WAVE > SNR_WINDOW[0]) & (WAVE < SNR_WINDOW[1])


def snr(spectra: Spectra) -> Array:
    """(B,) median flux over quoted sigma of live pixels in 4100-5300 Angstrom, LAMOST's S/N_g; NaN where none lives."""
    inside = (spectra.wave > SNR_WINDOW[0]) & (spectra.wave < SNR_WINDOW[1])
    ratio = np.where(spectra.measured, spectra.flux * np.sqrt(spectra.ivar), np.nan)[:, inside]
    return np.array([np.nanmedian(row) if np.isfinite(row).any() else np.nan for row in ratio])


def white_noise(stars: list[str], seed: int, purpose: str, pixels: int) -> Array:
    """(B, pixels) standard normal numbers, each row from its star's own generator."""
    rows = [np.random.default_rng(star_seed(s, seed, purpose)).standard_normal(pixels) for s in stars]
    return np.array(rows).reshape(len(stars), pixels)  # also for no stars


def add_noise(clean: Spectra, ivar: npt.ArrayLike, seed: int, noise: Kernel | None = None) -> Spectra:
    """Clean spectra observed: clean + s sigma (K z) where ivar > 0, and 1 (the curve) where nothing is measured.

    Args:
        clean: B spectra whose `flux` is the truth.
        ivar: (B, L) or (L,) quoted inverse variance in units of the continuum, 0 = dead pixel.
        seed: with the star's id, decides the noise.
        noise: scale and correlation of the true noise; those of `clean` by default.

    Raises:
        ValueError: ivar of another shape or negative (from Spectra).
    """
    kernel = clean.noise if noise is None else noise
    ivar = np.broadcast_to(np.asarray(ivar, dtype=np.float64), clean.flux.shape)
    z = white_noise(clean.stars, seed, "noise", clean.flux.shape[1] + 2)
    sigma = np.where(ivar > 0, 1.0 / np.sqrt(np.where(ivar > 0, ivar, 1.0)), 0.0)
    flux = clean.flux + kernel.scales(clean.wave) * sigma * kernel.colour(clean.wave, z)
    return replace(clean, flux=np.where(ivar > 0, flux, 1.0), ivar=ivar, noise=kernel)


def degrade(spectra: Spectra, target: float | npt.ArrayLike, seed: int = 0) -> Spectra:
    """The same stars as they would look at a lower S/N: the noise map grows by one factor, the missing noise is added.

    The quoted sigma becomes f sigma with f = S/N over target; the noise already there has variance s^2 sigma^2, so
    s sigma sqrt(f^2 - 1) (K z) is added, with the spectra's own scale s and correlation K.
    One seed gives one z at every S/N, so a star seen at several S/N keeps its noise's pattern; to degrade what was
    already degraded, take another seed, for the same z twice does not add in quadrature.

    Args:
        target: S/N_g wanted, one number or (B,).

    Raises:
        ValueError: target not positive, or above the spectrum's own S/N (noise cannot be taken away).
    """
    own = snr(spectra)
    want = np.broadcast_to(np.asarray(target, dtype=np.float64), own.shape)
    if not (np.isfinite(want).all() and (want > 0).all()):
        raise ValueError(f"S/N asked for is {want}; give a positive number.")
    if not np.isfinite(own).all():
        raise ValueError("a spectrum has no live pixel in 4100-5300 Angstrom, so its S/N_g is unknown; leave it out.")
    if (want > own * 1.0001).any():
        worst = int(np.argmax(want - own))
        raise ValueError(f"star {spectra.stars[worst]} has S/N {own[worst]:.1f}; ask for at most that, "
                         f"not {want[worst]:.1f}.")
    factor2 = (np.maximum(own / want, 1.0) ** 2)[:, None]
    z = white_noise(spectra.stars, seed, "degrade", len(spectra.wave) + 2)
    live = spectra.measured
    sigma = np.where(live, 1.0 / np.sqrt(np.where(live, spectra.ivar, 1.0)), 0.0)
    extra = spectra.noise.scales(spectra.wave) * sigma * np.sqrt(factor2 - 1.0) * spectra.noise.colour(spectra.wave, z)
    # the sky is as strong as before, in units of a sigma that has grown (by the median factor: patterns are shared)
    return replace(spectra, flux=spectra.flux + extra, ivar=spectra.ivar / factor2,
                   patterns=spectra.patterns / np.sqrt(np.median(factor2)))


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """LAMOST's quoted sigma maps as numbers, fitted by `core.data.noise_fit` to plate B6212 and three later spectra.

    Variance of a star of flux F (in units where the plate was measured) is k (P F + S) exp(modes): P is photon noise
    over throughput, S sky and read-out, both per pixel with arm overlap and sky lines in them; the modes are what else
    differs from fibre to fibre. In units of the continuum curve C = b g: var = P / (b g) + S / (b g)^2, and b follows
    from the S/N.

    Args (arrays, float32 on disk):
        photon, sky: (L,) P and S.
        modes: (k, L) principal shapes of what is left of log variance, and mode_std: (k,) their standard deviations.
        jitter: (L,) standard deviation of log variance from pixel to pixel.
        log_curve: (m, L) mean log curve shape, then its principal shapes times their standard deviation.
        start: (3, 21) quantiles 0, .05 .. 1 of the first live pixel, by thirds of S/N_g; thirds: (2,) their borders.
        gaps: (g, 3) every gap that was seen past the first live pixel: first pixel, length, third of S/N_g of its star;
            gap_spectra: (3,) how many spectra of each third they were seen in.
        telluric_gap: (3,) chance, first pixel and length of the dead A band (all pilot spectra, none later: half).
        kernel: (4,) scale blue, red and rho blue, red.
    """

    photon: Array
    sky: Array
    modes: Array
    mode_std: Array
    jitter: Array
    log_curve: Array
    start: Array
    thirds: Array
    gaps: Array
    gap_spectra: Array
    telluric_gap: Array
    kernel: Array

    @classmethod
    def load(cls, path: Path = MODEL_FILE) -> NoiseModel:
        """The committed model.

        Raises:
            ValueError: the file is missing, changed or not a noise model.
        """
        verified(path)
        try:
            arrays = load_file(path)
        except Exception as error:
            raise ValueError(f"{path} holds no noise model ({error}); "
                             "run `python -m scripts.prepare noise`.") from error
        if set(arrays) != set(cls.__dataclass_fields__):
            raise ValueError(f"{path} holds {sorted(arrays)}, not a noise model; "
                             "run `python -m scripts.prepare noise`.")
        return cls(**{name: value.astype(np.float64) for name, value in arrays.items()})

    def save(self, path: Path = MODEL_FILE) -> None:
        """Write the numbers as float32 safetensors."""
        names = self.__dataclass_fields__
        save_file({name: np.ascontiguousarray(getattr(self, name), dtype=np.float32) for name in names}, path)
        record(path)

    @property
    def noise(self) -> Kernel:
        """Scale and correlation of the true noise, measured."""
        blue, red, rho_blue, rho_red = (float(v) for v in self.kernel)
        return Kernel((blue, red), (rho_blue, rho_red))

    def draw(self, target: float | npt.ArrayLike, rng: np.random.Generator, curve: npt.ArrayLike | None = None,
             dead: bool = True) -> Array:
        """(B, L) quoted sigma in units of the curve, infinite in dead pixels, at the wanted S/N_g.

        Args:
            target: (B,) S/N_g of each map (the star's flux taken as the curve: 1 in these units).
            rng: where the randomness comes from.
            curve: (B, L) continuum curves of the stars, any scale; drawn from the plate's when None.
            dead: False for maps without gaps.

        Raises:
            ValueError: an S/N that is not positive, or curves of another shape.
        """
        want = np.atleast_1d(np.asarray(target, dtype=np.float64))
        if not (np.isfinite(want).all() and (want > 0).all()):
            raise ValueError(f"S/N asked for is {want}; give positive numbers.")
        n = len(want)
        if curve is None:
            shapes = self.log_curve[0] + rng.standard_normal((n, len(self.log_curve) - 1)) @ self.log_curve[1:]
            shape = np.exp(shapes)
        else:
            shape = np.asarray(curve, dtype=np.float64)
            if shape.shape != (n, N_PIXELS) or not (shape > 0).all():
                raise ValueError(f"curves have shape {shape.shape}; give ({n}, {N_PIXELS}) positive numbers.")
        shape = shape / np.median(shape[:, _IN_WINDOW], axis=1, keepdims=True)
        ripple = np.exp(rng.standard_normal((n, len(self.mode_std))) * self.mode_std @ self.modes
                        + rng.standard_normal((n, N_PIXELS)) * self.jitter)

        # S/N rises with brightness b; var = P/(b g) + S/(b g)^2 at the median pixel is a quadratic in 1/b, but the
        # median moves with b, so bisect in log b
        gone = self.dead(want, rng) if dead else np.zeros((n, N_PIXELS), dtype=bool)
        few = np.flatnonzero(_IN_WINDOW)
        # S/N_g is the median of live pixels, and the dead ones are the noisy ones; where all are dead, count them all
        skip = gone[:, few] & ~gone[:, few].all(axis=1, keepdims=True)
        low, high = np.full(n, -14.0), np.full(n, 25.0)
        for _ in range(28):  # to 1e-7 of b
            middle = (low + high) / 2
            flux = np.exp(middle)[:, None] * shape[:, few]
            ratio = flux / np.sqrt((self.photon[few] * flux + self.sky[few]) * ripple[:, few])
            got = np.nanmedian(np.where(skip, np.nan, ratio), axis=1)
            low, high = np.where(got < want, middle, low), np.where(got < want, high, middle)
        flux = np.exp((low + high) / 2)[:, None] * shape
        sigma = np.sqrt((self.photon * flux + self.sky) * ripple) / flux
        return np.where(gone, np.inf, sigma)

    def dead(self, target: Array, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        """(B, L) True in dead pixels: the blue end (sooner at low S/N), gaps as they were seen, the A band.

        Gaps are drawn from those seen in spectra of the same third of S/N, as many as there, up to ten pixels
        elsewhere.
        """
        levels = np.linspace(0, 1, self.start.shape[1])
        out = np.zeros((len(target), N_PIXELS), dtype=bool)
        for row, third in zip(out, np.searchsorted(self.thirds, target), strict=True):
            row[: int(np.interp(rng.random(), levels, self.start[third]))] = True
            seen = self.gaps[self.gaps[:, 2] == third]
            for first, length, _ in seen[rng.integers(0, len(seen), rng.poisson(len(seen) / self.gap_spectra[third]))]:
                begin = max(int(first) + int(rng.integers(-10, 11)), 0)
                row[begin : begin + int(length)] = True
            chance, first, length = self.telluric_gap
            if rng.random() < chance:
                row[int(first) : int(first + length)] = True
        return out
