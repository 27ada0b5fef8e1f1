"""The simulator turned round: one star as a function of its parameters, with the prior that draws them."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, gammainc, gammaincinv, log_ndtr, logsumexp, ndtr, ndtri, ndtri_exp

from core.data.grid import ARM_JOIN_WIDTH, N_PIXELS, continuum_curve
from core.data.instrument import MARGIN, MAX_VELOCITY, WIDE, extinction, observe
from core.data.population import DOMAIN, FEH_RANGE, LABEL_NAMES, draw_labels
from core.data.reality import Reality, label_features
from core.data.simulator import NUISANCE_NAMES, Simulator
from core.spectrum import ARM_JOIN, Array

N_LABELS = len(LABEL_NAMES) - 1  #: labels without `kind`: the first 27 parameters
RV = N_LABELS  #: index of the velocity [km/s]
#: what follows it, each with a unit normal prior: the simulator's own laws are quantile functions of these
NUISANCES = NUISANCE_NAMES
N_PARAMETERS = RV + 1 + len(NUISANCES)

_INSIDE = slice(MARGIN, -MARGIN)
_LOW = np.r_[-np.inf, -np.inf, FEH_RANGE[0], -0.19, -0.6, -0.2, 0.6, np.full(20, -0.17)]
_HIGH = np.r_[np.inf, np.inf, FEH_RANGE[1], 0.55, 0.35, 0.6, 3.9, np.full(20, 0.17)]
_LOW[8], _HIGH[8] = -0.238, 0.238  # Na
_ELEMENT = np.where(np.arange(20) == 1, 1.4 * 0.08, 0.08)
_FLAT = 0.4 * np.array([0.45, 0.4, 0.15]), 0.6 * np.array([0.55, 0.33, 0.12])  # even part, LAMOST's: by kind
#: share of each kind among drawn stars
KIND_SHARE = _FLAT[0] + _FLAT[1]
_WAVES = 0.05 * np.cos(np.pi * np.arange(1, 9)[:, None] * np.linspace(0, 1, len(WIDE))) / np.arange(1, 9)[:, None]
_STEP = 0.02 / (1 + np.exp(-(WIDE - ARM_JOIN) / ARM_JOIN_WIDTH))


def _normal(x: Array, centre: Array | float, spread: float) -> Array:
    return -0.5 * ((x - centre) / spread) ** 2 - np.log(spread * np.sqrt(2 * np.pi))


def _uniform(x: Array, low: float, high: float) -> Array:
    """Log density of a uniform whose edges are 0.3 % of its width soft, so that a climb is not stopped by a wall."""
    w = 0.003 * (high - low)
    return -np.log(high - low) + np.log(np.maximum(expit((x - low) / w) * expit((high - x) / w), 1e-300))


def _below(x: Array, edge: Array | float, spread: float, soft: float) -> Array:
    """Log density of edge - spread |z|, its edge `soft` wide."""
    over = np.maximum(x - edge, 0.0) / soft
    return _normal(np.minimum(x - edge, 0.0), 0.0, spread) + np.log(2.0 / (1.0 + soft / spread)) - 0.5 * over**2


def population_log_density(kind: int, teff: Array, logg: Array, feh: Array) -> Array:
    """(n,) log p(Teff, logg, [Fe/H] | kind) of core.data.population.draw_labels, before its clipping, edges softened.

    Clipping and the move into the templates' domain belong to the model (`StarModel.labels`): a parameter beyond an
    edge stands for a star on it, which gives the edge the same probability that the simulator gives it.
    """
    (t0, t1), (g0, g1) = DOMAIN[kind]
    span = FEH_RANGE[1] - FEH_RANGE[0]
    u = np.clip((feh - FEH_RANGE[0]) / span, 1e-3, 1.0)  # feh = low + span u'^0.6
    flat = _uniform(teff, t0, t1) + _uniform(logg, g0, g1)
    flat = flat + _uniform(feh, *FEH_RANGE) + (1 / 0.6 - 1) * np.log(u) - np.log(0.6)
    disk = [np.log(w) + _normal(feh, c, s) for w, c, s in ((0.8, -0.1, 0.22), (0.16, -0.55, 0.25), (0.04, -1.5, 0.5))]
    if kind == 0:
        zero_age = 4.68 - 0.35 * np.clip((np.clip(teff, t0, t1) - 4600) / 1500, 0, 1)
        traffic = _normal(teff, 5700.0, 700.0) + _below(logg, zero_age, 0.18, 0.01)
    elif kind == 1:
        cooler = 200 * np.clip(feh, -1.5, 0.3)  # giants cool with metallicity
        x = np.clip((3.4 - logg) / 2.4, 0.003, 1.0)  # logg = 3.4 - 2.4 u^1.5: its pole at 3.4 is cut off
        branch = _uniform(logg, 1.0, 3.4) + np.log(2 / 3) - np.log(x) / 3
        branch = branch + _normal(teff, 3950 + 420 * logg - 20 * logg**2 - cooler, 120.0)
        clump = _normal(logg, 2.45, 0.12) + _normal(teff, 4850 - cooler, 120.0)
        traffic = np.logaddexp(np.log(0.65) + branch, np.log(0.35) + clump)
    else:
        traffic = _below(-teff, -7000.0, 1500.0, 20.0) + _normal(logg, 4.05, 0.2)
    share = _FLAT[0][kind] / (_FLAT[0][kind] + _FLAT[1][kind])
    return np.logaddexp(np.log(share) + flat, np.log1p(-share) + traffic + logsumexp(disk, axis=0))


class StarModel:
    """theta (41) -> clean spectrum as `Simulator.physical` makes it, with the simulator's own prior of theta.

    theta = 27 labels before clipping, velocity [km/s], then 13 unit normal numbers: resolution blue and red, vsini,
    E(B - V), eight cosines and a step of the calibration. `kind` is given, not inferred: it has no effect on the
    spectrum and chooses the domain, so the floor is that of someone told dwarf, giant or hot star, which they are
    nearly always able to see. The templates are the simulator's, not a further emulation.

    Args:
        simulator: with open_fraction 0: a floor for lines that no law describes does not exist.
        kind: 0 dwarf, 1 giant, 2 hot.

    Raises:
        ValueError: another kind, a simulator with open lines or at rest, or with a reality that is not `Reality`.
    """

    def __init__(self, simulator: Simulator, kind: int) -> None:
        if kind not in DOMAIN:
            raise ValueError(f"kind is {kind}; give 0 (dwarf), 1 (giant) or 2 (hot).")
        if simulator.open_fraction > 0 or simulator.velocity_spread <= 0:
            raise ValueError("a simulator with open lines or stars at rest has no prior here; set open_fraction to 0 "
                             "and velocity_spread above 0.")
        if simulator.reality is not None and not isinstance(simulator.reality, Reality):
            raise ValueError("the simulator's reality is not a core.data.reality.Reality, whose mean and factors "
                             "are needed; give that or None.")
        self.simulator, self.kind = simulator, int(kind)
        self.reality: Reality | None = simulator.reality

    def labels(self, theta: Array) -> Array:
        """(n, 28) labels of parameters (n, 41), clipped and inside the templates' domain as the simulator's."""
        out = np.empty((len(theta), len(LABEL_NAMES)))
        out[:, 0] = self.kind
        out[:, 1:] = np.clip(theta[:, :N_LABELS], _LOW, _HIGH)
        for column, edge in zip((1, 2), DOMAIN[self.kind], strict=True):
            out[:, column] = np.clip(out[:, column], *edge)
        return out if self.simulator.inside is None else self.simulator.inside(out)

    def physical(self, theta: Array) -> Array:
        """(n, 3864) clean flux on WIDE in the simulator's unit, without the random part of reality (see `factors`)."""
        return self._observed(theta)[0]

    def nuisances(self, theta: Array, labels: Array) -> tuple[Array, Array, Array, Array]:
        """(n,) each, of parameters (n, 41): resolution at the blue and the red end, v sin i [km/s], E(B - V) [mag]."""
        z = theta[:, RV + 1 :]
        blue = 1400 + 800 * ndtr(z[:, 0])
        red = np.clip(blue + 150 * z[:, 1], 1400, 2200)
        hot = labels[:, 1] > 6300
        vsini = np.minimum(gammaincinv(np.where(hot, 2.0, 1.5), ndtr(z[:, 2])) * np.where(hot, 40.0, 4.0), 300.0)
        return blue, red, vsini, -0.12 * log_ndtr(-z[:, 3])  # the quantile of an exponential of mean 0.12 mag

    def _observed(self, theta: Array) -> tuple[Array, Array]:
        """(n, 3864) clean flux, and what one unit of reality would be in it."""
        labels, z = self.labels(theta), theta[:, RV + 1 :]
        velocity = np.clip(theta[:, RV], -MAX_VELOCITY, MAX_VELOCITY)
        blue, red, vsini, dust = self.nuisances(theta, labels)
        lines, level = self.simulator.templates(labels)
        flux = observe(lines, velocity, vsini, blue, red, self.simulator.native)
        flux *= level / np.median(level, axis=1, keepdims=True)
        unit = np.zeros_like(flux)
        if self.reality is not None:
            curve = continuum_curve(flux[:, _INSIDE], np.full((len(flux), N_PIXELS), 1e4))
            unit = np.pad(curve, ((0, 0), (MARGIN, MARGIN)), mode="edge")
            mean = label_features(labels[:, 1], labels[:, 2], labels[:, 3]) @ self.reality.mean
            still = np.full(len(flux), self.simulator.native)
            moved = observe(mean, velocity, np.zeros(len(flux)), still, still, self.simulator.native)
            flux = np.maximum(flux + unit * moved, 1e-4)
        last = extinction(dust) * np.exp(z[:, 4:12] @ _WAVES + z[:, 12:] * _STEP)
        return flux * last, unit * last

    def factors(self, theta: Array) -> Array | None:
        """(k, 3840) reality's factors in the flux of a star of parameters (41,); None without reality.

        They stand in units of the star's own curve before dust and calibration (`unit`). The one drawn through the data
        is another: noise and gaps move it by 2-19 % (rms, six stars at S/N 10), and to take it instead left up to .003
        of the continuum, half the floor, that no parameter could explain: intervals came out too narrow.
        """
        if self.reality is None:
            return None
        rows, native = self.reality.factors, self.simulator.native
        k, velocity = len(rows), np.clip(theta[RV], -MAX_VELOCITY, MAX_VELOCITY)
        still = np.full(k, native)
        return self.unit(theta) * observe(rows, np.full(k, velocity), np.zeros(k), still, still, native)[:, _INSIDE]

    def unit(self, theta: Array) -> Array:
        """(3840,) what one unit of reality is in the flux of a star of parameters (41,)."""
        return self._observed(theta[None])[1][0, _INSIDE]

    def log_prior(self, theta: Array) -> Array:
        """(n,) log density of parameters (n, 41), normalised up to the softening of edges."""
        teff, logg, feh = theta[:, :3].T
        out = population_log_density(self.kind, teff, logg, feh)
        metal = np.clip(feh, *FEH_RANGE)
        giant = (self.kind == 1) & (logg < 3.3)
        high = -np.logaddexp(0.0, (metal + 0.6) / 0.15)  # ln of the share with high alpha
        low = -np.logaddexp(0.0, -(metal + 0.6) / 0.15)
        thin = 0.03 - 0.1 * np.clip(metal, -1, 0.5)
        out = out + np.logaddexp(high + _normal(theta[:, 3], 0.25, 0.07), low + _normal(theta[:, 3], thin, 0.07))
        out = out + _normal(theta[:, 4], np.where(giant, -0.12, 0.03), 0.1)
        out = out + _normal(theta[:, 5], np.where(giant, 0.2, 0.03), 0.12)
        vmic = (1.2 + (teff - 5500) / 1500, 2.0 - 0.2 * (logg - 1.0), np.full_like(teff, 3.0))[self.kind]
        out = out + _normal(theta[:, 6], vmic, 0.2)
        out = out + (-0.5 * (theta[:, 7:RV] / _ELEMENT) ** 2 - np.log(_ELEMENT * np.sqrt(2 * np.pi))).sum(axis=1)
        spread = self.simulator.velocity_spread
        out = out + np.logaddexp(np.log(0.92) + _normal(theta[:, RV], 0.0, spread),
                                 np.log(0.08) + _normal(theta[:, RV], 0.0, 3.6 * spread))
        return out - 0.5 * (theta[:, RV + 1 :] ** 2 + np.log(2 * np.pi)).sum(axis=1)

    def prior_draws(self, n: int, rng: np.random.Generator) -> Array:
        """(n, 41) parameters of stars of this kind; labels as the simulator clips them."""
        labels = np.empty((0, len(LABEL_NAMES)))
        while len(labels) < n:
            more = draw_labels(8 * n, rng)
            labels = np.concatenate([labels, more[more[:, 0] == self.kind]])
        spread = self.simulator.velocity_spread * np.where(rng.random(n) < 0.08, 3.6, 1.0)
        velocity = spread * rng.standard_normal(n)
        return np.concatenate([labels[:n, 1:], velocity[:, None], rng.standard_normal((n, len(NUISANCES)))], axis=1)

    def start(self, labels: Array, velocity: float, nuisances: Array | None = None) -> Array:
        """(41,) parameters of a star with known labels (28,) and velocity [km/s].

        Args:
            nuisances: (13,) what the simulator drew (`Simulated.nuisances`); without them they are at their medians,
                which is no truth.
        """
        out = np.r_[np.asarray(labels, dtype=np.float64)[1:], float(velocity), np.zeros(len(NUISANCES))]
        if nuisances is not None:
            blue, red, vsini, dust = nuisances[:4]
            shape, scale = (2.0, 40.0) if out[0] > 6300 else (1.5, 4.0)
            unit = [ndtri((blue - 1400) / 800), red, ndtri(gammainc(shape, vsini / scale)), -ndtri_exp(-dust / 0.12)]
            out[RV + 1 :] = np.r_[np.clip(unit, -8.0, 8.0), nuisances[4:]]
        return out
