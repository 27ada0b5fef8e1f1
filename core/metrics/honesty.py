"""The error bars' own report card: is what a reconstruction leaves of a real observation white with unit variance?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2

from core.metrics.fidelity import residual
from core.spectrum import Array, Kernel, Spectra

ARMS = ("blue", "red")
_LAGS = (0, 1, 2)  # house kernels reach no further
_ABSORBED = 0.9  # where the fit took more of the noise than this, what is left says nothing about it
_ENOUGH = 60  # pixels of an arm below which no figure is given
_MAD, _MAD_EFFICIENCY = 1.4826022185, 0.36751  # of normal values: 1 / 0.67449, and the share of information kept


@dataclass(frozen=True, eq=False)
class Posterior:
    """Mean of a reconstruction and how much of the noise's variance it absorbed, in units of the spectra's continuum.

    Args:
        mean: (B, L).
        covariance: (3, B, L) posterior covariance of pixel i with pixels i, i + 1, i + 2, or (1, B, L) its variance
            alone; None for a model that is not fitted to these pixels.
    """

    mean: Array
    covariance: Array | None = None


def posterior_of(draws: npt.ArrayLike) -> Posterior:
    """`Posterior` of N >= 2 draws (N, B, L); its covariance is times 1 - 1/N, as the mean of N draws still scatters.

    Raises:
        ValueError: no (N, B, L), or fewer than two draws.
    """
    draws = np.asarray(draws, dtype=np.float64)
    if draws.ndim != 3 or draws.shape[0] < 2:
        raise ValueError(f"draws have shape {draws.shape}; a variance needs (N, B, L) with two draws or more.")
    n, mean = draws.shape[0], draws.mean(0)
    gap, covariance = draws - mean, np.zeros((len(_LAGS), *mean.shape))
    for k in _LAGS:
        end = mean.shape[-1] - k
        covariance[k, :, :end] = (gap[..., :end] * gap[..., k:]).sum(0) / (n - 1) * (1 - 1 / n)
    return Posterior(mean, covariance)


def report(spectra: Spectra, posterior: Posterior | npt.ArrayLike) -> pd.DataFrame:
    """Scale and correlation of the residual r = y - mean by star and arm, with errors.

    A posterior mean follows its noise, so r is smaller than the noise. With truths from the prior, noise covariance N
    as assumed and posterior covariance V, E[r r'] = N - V: r = N (N + P)^-1 y for a Gaussian prior P, whose
    V = N - N (N + P)^-1 N; for any other prior from Tweedie's formula twice (Efron 2011, JASA 106, 1602),
    on average over stars. Element by element this is exact, so variances suffice for the scale. With h = V_ii / N_ii,
    chi-square is sum r^2 / N_ii over sum (1 - h), the degrees of freedom left; rho_k gets back <V_i,i+k / sigma sigma>.
    Where the assumed N is not the true one this holds to the extent that the fit is a projection (broad prior).
    With `spectra.noise` = what the reconstruction assumed; given variances alone, rho_k keeps a bias of about minus the
    mean of V_i,i+k / N (some -.1 for a smooth model); given a mean alone, s is too low by sqrt(1 - h) too.

    What the model lacks of the star (sky residuals, wrong lines) is in r too: s of one real star is an upper bound.

    Args:
        spectra: B observed spectra; `noise` says what is claimed of them.
        posterior: `Posterior`, or its mean (B, L) alone.

    Returns:
        2 B rows: star, arm (parted at `noise.join`, `core.spectrum.ARM_JOIN`), pixels, dof, s and s_robust (true over
        quoted sigma; the latter from the median of |r|), rho1, rho2, chi_square (per degree of freedom, against the
        claimed noise), each with _err. Errors are those of correlated normal noise: var(sum z_i z_i+j) and their
        covariances from Isserlis' theorem over the very pixels used (for no holes, Bartlett's formula), divided by the
        mean of 1 - h. NaN where an arm has fewer than 60 pixels of use.

    Raises:
        ValueError: shapes that disagree, values that are not finite, a negative variance.
    """
    rows = []
    for arm, m in _moments(spectra, posterior):
        rho = [m.rho[0], *np.nan_to_num(m.rho[1:])]
        c = _covariance(m.use, rho[1], rho[2]) / np.maximum(m.left, 1e-9)
        variance = {0: c[0, 0]}
        for k in (1, 2):  # of the ratio c_k / c_0, to first order
            variance[k] = c[k, k] + rho[k] ** 2 * c[0, 0] - 2 * rho[k] * c[0, k]
        err = {k: np.where(m.enough, np.sqrt(np.maximum(v, 0)), np.nan) for k, v in variance.items()}
        claim = spectra.noise.scale[ARMS.index(arm)]
        s = claim * np.sqrt(m.chi_square)
        # the share of correlated pixels' information that a median loses: second Hermite term of |z| < .67
        mad = np.sqrt((1 + 2 * _MAD_EFFICIENCY * (rho[1] ** 2 + rho[2] ** 2)) / (2 * _MAD_EFFICIENCY * m.dof))
        rows.append(pd.DataFrame({
            "star": spectra.stars, "arm": arm, "pixels": m.use.sum(1), "dof": m.dof, "s": s, "s_err": s * err[0] / 2,
            "s_robust": claim * m.robust, "s_robust_err": claim * m.robust * mad, "rho1": m.rho[1], "rho1_err": err[1],
            "rho2": m.rho[2], "rho2_err": err[2], "chi_square": m.chi_square,
            "chi_square_err": m.chi_square * err[0]}))
    return pd.concat(rows).sort_index(kind="stable").reset_index(drop=True)


def white(spectra: Spectra, posterior: Posterior | npt.ArrayLike) -> pd.DataFrame:
    """p-value by star and arm of what `spectra.noise` claims: unit variance and no correlation, for the default.

    The three moments <z_i z_i+k>, k = 0, 1, 2, of z = r / (claimed sigma), with what the fit absorbed given back as in
    `report`, against those claimed, with their covariance under the claim: chi-square of three degrees of freedom.
    The claim has to be what the reconstruction assumed, too.

    Returns:
        2 B rows: star, arm, distance (the chi-square), p_value; NaN where an arm has fewer than 60 pixels of use.

    Raises:
        ValueError: as `report`.
    """
    rows = []
    for arm, m in _moments(spectra, posterior):
        claim = claimed(spectra.noise, arm)
        gap = np.stack([m.chi_square * m.rho[k] for k in _LAGS], axis=-1) - np.array([1.0, *claim])
        c = np.moveaxis(_covariance(m.use, *claim), -1, 0) / np.maximum(m.left, 1e-9)[:, None, None]
        c = np.where(m.enough[:, None, None], c, np.eye(3))
        distance = np.einsum("bi,bi->b", gap, np.linalg.solve(c, gap[..., None])[..., 0])
        rows.append(pd.DataFrame({"star": spectra.stars, "arm": arm, "distance": distance,
                                  "p_value": chi2.sf(distance, 3)}))
    return pd.concat(rows).sort_index(kind="stable").reset_index(drop=True)


def claimed(noise: Kernel, arm: str) -> tuple[float, float]:
    """(rho_1, rho_2) that a `Kernel` claims of an arm, 'blue' or 'red'."""
    rho = noise.rho[ARMS.index(arm)]
    _, side = noise.taps(np.array([-np.inf, np.inf]))
    return rho, float(side[ARMS.index(arm)] ** 2)


@dataclass(frozen=True, eq=False)
class _Moments:
    """Of one arm: use (B, L) pixels counted, left (B,) mean of 1 - h, dof, chi_square, robust scale, rho (3 x (B,))."""

    use: npt.NDArray[np.bool_]
    left: Array
    dof: Array
    chi_square: Array
    robust: Array
    rho: list[Array]

    @property
    def enough(self) -> npt.NDArray[np.bool_]:
        return self.use.sum(1) >= _ENOUGH


def _moments(spectra: Spectra, posterior: Posterior | npt.ArrayLike) -> list[tuple[str, _Moments]]:
    if not isinstance(posterior, Posterior):
        posterior = Posterior(np.asarray(posterior, dtype=np.float64))
    shape = spectra.flux.shape
    mean = np.asarray(posterior.mean, dtype=np.float64)
    if mean.shape != shape:
        raise ValueError(f"mean has shape {mean.shape}; it must be {shape}, that of the spectra.")
    given = np.zeros((1, *shape)) if posterior.covariance is None else np.asarray(posterior.covariance, np.float64)
    if given.ndim != 3 or given.shape[0] not in (1, 3) or given.shape[1:] != shape:
        raise ValueError(f"covariance has shape {given.shape}; it must be {(1, *shape)} or {(3, *shape)}: the "
                         "variance, then those with the next pixel and the next but one.")
    if not (np.isfinite(mean).all() and np.isfinite(given).all()) or (given[0] < 0).any():
        raise ValueError("the posterior's mean and covariance must be finite and its variance not negative; leave out "
                         "the stars where the reconstruction failed.")
    z = residual(mean, spectra)
    with np.errstate(divide="ignore"):
        weight = 1 / (spectra.noise.scales(spectra.wave) * np.where(spectra.measured, spectra.sigma, np.inf))
    h = given[0] * weight**2
    keep = spectra.measured & (h < _ABSORBED)
    blue = spectra.wave < spectra.noise.join
    out = []
    for arm, inside in zip(ARMS, (blue, ~blue), strict=True):
        use = keep & inside
        enough = use.sum(1) >= _ENOUGH
        v = np.where(use, z, 0.0)
        dof = np.where(enough, np.where(use, 1 - h, 0.0).sum(1), np.nan)
        chi_square = (v**2).sum(1) / dof
        rho = [np.where(enough, 1.0, np.nan)]
        for k in (1, 2):
            pair = use[:, k:] & use[:, :-k]
            count = np.where(pair.sum(1) >= _ENOUGH / 2, pair.sum(1), np.nan)
            absorbed = np.zeros(len(v))
            if len(given) == 3:
                absorbed = np.where(pair, given[k, :, :-k] * weight[:, :-k] * weight[:, k:], 0.0).sum(1)
            rho.append(np.where(enough, ((v[:, k:] * v[:, :-k]).sum(1) / chi_square + absorbed) / count, np.nan))
        size = np.abs(np.where(use, z, 0.0) / np.sqrt(np.where(use, 1 - h, 1.0)))
        each = zip(size, use, enough, strict=True)
        robust = np.array([_MAD * np.median(a[u]) if ok else np.nan for a, u, ok in each])
        out.append((arm, _Moments(use, dof / np.maximum(use.sum(1), 1), dof, chi_square, robust, rho)))
    return out


def _covariance(use: npt.NDArray[np.bool_], rho1: npt.ArrayLike, rho2: npt.ArrayLike) -> Array:
    """(3, 3, B) covariance of the means of z_i z_i+k, k = 0, 1, 2, over the pixels used, for normal z of unit variance.

    cov(z_i z_i+j, z_l z_l+k) = g(l - i) g(l + k - i - j) + g(l + k - i) g(l - i - j), g the autocorrelation.
    """
    stars, length = use.shape
    g = [np.ones(stars), np.broadcast_to(rho1, stars), np.broadcast_to(rho2, stars)]

    def at(lag: int) -> Array:
        return g[abs(lag)] if abs(lag) < len(g) else np.zeros(stars)

    pairs = []
    for k in _LAGS:
        pair = np.zeros((stars, length))
        pair[:, : length - k] = use[:, k:] & use[:, : length - k]
        pairs.append(pair)
    out = np.zeros((3, 3, stars))
    for j in _LAGS:
        for k in _LAGS[j:]:
            for d in range(-4, 5):
                factor = at(d) * at(d + k - j) + at(d + k) * at(d - j)
                if factor.any():
                    back, on = max(0, -d), max(0, d)
                    one, other = pairs[j][:, back : length - on], pairs[k][:, on : length - back]
                    out[j, k] += factor * np.einsum("bl,bl->b", one, other)
            out[j, k] /= np.maximum(pairs[j].sum(1) * pairs[k].sum(1), 1)
            out[k, j] = out[j, k]
    return out
