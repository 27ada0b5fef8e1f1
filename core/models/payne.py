"""Labels by chi-square: the emulator fitted to a noisy spectrum with its sigma map, mask and correlated noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.data.grid import CURVE_BASIS, N_PIXELS, WAVE, continuum_curve
from core.data.instrument import MARGIN, MAX_VELOCITY, RESOLUTION, observe
from core.data.population import LABEL_NAMES, draw_labels
from core.metrics.whiten import Whiten, whitener
from core.models.templates import NATIVE, Templates
from core.models.velocity_search import pixels_of
from core.spectrum import Array, Kernel, Spectra

_INSIDE = slice(MARGIN, -MARGIN)
_STEPS = np.array([20.0, 0.05, 0.03, 0.03, 2.0, 60.0])  # of differences: five labels, resolution
_MIDDLE, _WIDTH = 1800.0, 230.0  # the resolution's Gaussian prior: LAMOST's fibres
_SHIFTS = np.arange(-7, 8)  # pixels of the first look: 69 km/s each, half a line's width


@dataclass(frozen=True, eq=False)
class Fit:
    """Labels of B stars.

    Args:
        labels: (B, 5) in the order and units of core.spectrum.LABELS.
        covariance: (B, 5, 5) inverse Hessian, the smooth curve and the resolution marginalised. It holds noise alone:
            what the model lacks (other elements, rotation) is in no Hessian.
        chi_square: (B,) per live pixel less fitted parameters.
        converged: (B,).
    """

    labels: Array
    covariance: Array
    chi_square: Array
    converged: Array

    @property
    def error(self) -> Array:
        """(B, 5) standard deviations."""
        return np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))


def typical(main: Array, kind: Array) -> Array:
    """(n, 28) labels whose Teff, logg, [Fe/H], [alpha/Fe] are `main` (n, 4) and whose others are the population's
    means (core.data.population)."""
    teff, logg = main[:, 0], main[:, 1]
    out = np.zeros((len(main), len(LABEL_NAMES)))
    out[:, 0], out[:, 1:5] = kind, main
    giant = (kind == 1) & (logg < 3.3)
    out[:, 5], out[:, 6] = np.where(giant, -0.12, 0.03), np.where(giant, 0.2, 0.03)
    vmic = np.where(kind == 2, 3.0, np.where(kind == 1, 2.0 - 0.2 * (logg - 1.0), 1.2 + (teff - 5500) / 1500))
    out[:, 7] = np.clip(vmic, 0.6, 3.9)
    return out


class PayneFit:
    """min over labels, velocity, resolution and c of |N^-1/2 (y - m(labels, rv, R) (B c))|^2 (after Ting et al. 2019,
    arXiv:1804.01530), B twelve B-splines: Levenberg-Marquardt from the best of a coarse look.

    Args:
        templates: the committed ones by default.
        correlated: False takes the noise for white.
        looks: stars of the population in the coarse look, times 15 shifts.
        starts: of the best ones, climbed from.
    """

    def __init__(self, templates: Templates | None = None, correlated: bool = True, looks: int = 250,
                 starts: int = 3) -> None:
        self.templates = Templates() if templates is None else templates
        self.correlated, self.starts = correlated, starts
        drawn = draw_labels(looks, np.random.default_rng(0))
        self._seen = self.templates.emulator.nearest(typical(drawn[:, 1:5], drawn[:, 0]))
        wide = np.pad(self.model(self._seen, np.zeros(looks), np.full(looks, _MIDDLE)),
                      ((0, 0), (MARGIN, MARGIN)), mode="edge")
        self._look = np.stack([wide[:, MARGIN - s : MARGIN - s + N_PIXELS] for s in _SHIFTS]).astype(np.float32)

    def model(self, labels: Array, velocity: Array, resolution: Array) -> Array:
        """(n, 3840) spectra in units of their own curve, of labels (n, 28), velocities [km/s] and lambda/FWHM (n,)."""
        lines, level = self.templates(labels)
        seen = observe(lines, velocity, np.zeros(len(labels)), resolution, resolution, NATIVE)
        flux = (level / np.median(level, axis=1, keepdims=True) * seen)[:, _INSIDE]
        return flux / continuum_curve(flux, np.full(flux.shape, 1e6))

    def predict(self, spectra: Spectra) -> Fit:
        """Labels of B stars (a second for two).

        Raises:
            ValueError: another grid.
        """
        if spectra.flux.shape[1] != N_PIXELS or not np.allclose(spectra.wave, WAVE):
            raise ValueError(f"spectra have {spectra.flux.shape[1]} pixels; put them on the working grid with prepare.")
        every = [self._one(spectra.select(b)) for b in range(len(spectra))]
        labels, covariance, chi, done = (np.array(a) for a in zip(*every, strict=True))
        return Fit(labels, covariance, chi, done)

    def _one(self, star: Spectra) -> tuple[Array, Array, float, bool]:
        y, ivar = star.flux[0], star.ivar[0]
        kernel = star.noise if self.correlated else Kernel(star.noise.scale)
        half = whitener(star.sigma[0], WAVE, kernel)
        weight = ivar.astype(np.float32)
        chi = self._look**2 @ weight - 2 * self._look @ (weight * y.astype(np.float32))
        chi = np.moveaxis(chi, 0, 1)  # looks, shifts
        best = chi.min(axis=1).argsort()
        kinds, chosen = self._seen[best, 0], list[int]()
        for row, kind in zip(best, kinds, strict=True):  # at least one of each of the two likeliest kinds
            seen = [self._seen[r, 0] for r in chosen]
            if len(chosen) < self.starts and (seen.count(kind) < max(self.starts - 1, 1)):
                chosen.append(int(row))
        pixel = 1 / float(pixels_of(1.0))
        tries = [self._climb(y, half, int(self._seen[r, 0]), np.r_[
            self._seen[r, 1:5], np.clip(_SHIFTS[chi[r].argmin()] * pixel, -450, 450), _MIDDLE]) for r in chosen]
        value, theta, covariance, done = min(tries, key=lambda t: t[0])
        live = int((ivar > 0).sum())
        return theta[:5], covariance, value / max(live - CURVE_BASIS.shape[1] - 6, 1), done

    def _inside(self, kind: int, theta: Array) -> Array:
        """Parameters (n, 6) moved to where the templates speak."""
        out = theta.copy()
        labels = self.templates.emulator.nearest(typical(theta[:, :4], np.full(len(theta), float(kind))))
        out[:, :4] = labels[:, 1:5]
        out[:, 4] = np.clip(out[:, 4], 10 - MAX_VELOCITY, MAX_VELOCITY - 10)
        out[:, 5] = np.clip(out[:, 5], *RESOLUTION)
        return out

    def _spectra(self, kind: int, theta: Array) -> Array:
        labels = self.templates.emulator.nearest(typical(theta[:, :4], np.full(len(theta), float(kind))))
        return self.model(labels, theta[:, 4], theta[:, 5])

    def _climb(self, y: Array, half: Whiten, kind: int, theta: Array) -> tuple[float, Array, Array, bool]:
        """Chi-square with the resolution's prior, parameters (6,), covariance (5, 5), whether the last step was small.

        The curve's coefficients are solved at every step; their part of the Jacobian is projected out, which is
        Kaufman's (1975) form of variable projection (Golub & Pereyra 1973).
        """
        prior = np.diag([0.0] * 5 + [(_STEPS[5] / _WIDTH) ** 2])

        def solved(m: Array) -> tuple[float, Array, Array, Array]:
            design = half(m * CURVE_BASIS.T)
            q, r = np.linalg.qr(design.T)
            white = half(y[None])[0]
            rest = white - q @ (q.T @ white)
            return float(rest @ rest), rest, q, np.linalg.solve(r, q.T @ white)

        theta = self._inside(kind, theta[None])[0]
        value, rest, q, c = solved(self._spectra(kind, theta[None])[0])
        value += ((theta[5] - _MIDDLE) / _WIDTH) ** 2
        damping, done = 1e-2, False
        for _ in range(25):
            # one-sided where the domain ends: the model stands still beyond it
            points = self._inside(kind, np.concatenate([theta + np.diag(_STEPS), theta - np.diag(_STEPS)]))
            span = (np.diagonal(points[:6]) - np.diagonal(points[6:])) / _STEPS
            rows = self._spectra(kind, points)
            slopes = half((rows[:6] - rows[6:]) / np.maximum(span, 0.1)[:, None] * (CURVE_BASIS @ c))
            slopes = slopes - (slopes @ q) @ q.T
            hessian = slopes @ slopes.T + prior
            push = slopes @ rest - prior[:, 5] * (theta[5] - _MIDDLE) / _STEPS[5]
            moved = False
            for _ in range(6):
                step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)) + 1e-9 * np.eye(6), push)
                there = self._inside(kind, (theta + step * _STEPS)[None])[0]
                new, *parts = solved(self._spectra(kind, there[None])[0])
                new += ((there[5] - _MIDDLE) / _WIDTH) ** 2
                if new < value:
                    moved, gain = True, value - new
                    theta, value, (rest, q, c) = there, new, parts
                    damping = max(damping / 8, 1e-7)
                    break
                damping *= 8
            if not moved or gain < 1e-2:
                done = True
                break
        inverse = np.linalg.inv(hessian + 1e-9 * np.eye(6))
        return value, theta, (inverse * np.outer(_STEPS, _STEPS))[:5, :5], done
