"""Radial velocities of whole stacks of spectra, by cross-correlation and by chi-square, with their errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from core.spectrum import Array

C_KMS = 299792.458  #: speed of light [km/s]
REACH = 500.0  #: km/s searched either side of rest

_TAPS = 12  # of the Lagrange interpolation; at sigma = 1 pixel it moves a line by less than 0.01 km/s
_ALIGNED = 0.02  # pixels a wavelength may sit off the log grid: single precision alone moves LAMOST's by 0.002
_COARSE = 0.5  # pixels between nodes of the first look; a line of the instrument is at least two wide
_KEEP = 3  # templates worth a second look: a parabola through coarse nodes can mistake the order of near equals
_TURNS = 4  # parabolas, each about the vertex of the one before
_NARROWEST, _WIDEST = 1.0, 15.0  # km/s between a parabola's nodes: above round-off, below the width of a line
_CHUNK = 32  # spectra at once, for the memory


class Velocity(NamedTuple):
    """rv and error [km/s], chi2 at the best velocity, and which template (index) it was; (...) each.

    rv and error are NaN where the best velocity is at the edge of the range searched, or is no minimum.
    """

    rv: Array
    error: Array
    chi2: Array
    which: npt.NDArray[np.intp]


def pixels_of(velocity: npt.ArrayLike, step: float) -> Array:
    """Shift [pixels of `step` in log10] of a radial velocity [km/s], relativistic (b = v / c)."""
    beta = np.asarray(velocity, dtype=np.float64) / C_KMS
    return np.asarray(np.log10((1 + beta) / (1 - beta)) / 2 / step)


def velocity_of(pixels: npt.ArrayLike, step: float) -> Array:
    """Radial velocity [km/s] of a shift [pixels of `step` in log10]: the inverse of `pixels_of`."""
    return np.asarray(C_KMS * np.tanh(np.log(10) * step * np.asarray(pixels, dtype=np.float64)))


def _log_grid(wave: npt.ArrayLike, name: str) -> tuple[float, float]:
    """log10 of the first wavelength and the step, of a grid that is constant in log wavelength."""
    wave = np.asarray(wave, dtype=np.float64)
    if wave.ndim != 1 or len(wave) < 2 * _TAPS or not np.isfinite(wave).all() or wave[0] <= 0 or wave[-1] <= wave[0]:
        raise ValueError(f"{name} must be one rising list of at least {2 * _TAPS} vacuum wavelengths [Angstrom].")
    log = np.log10(wave)
    step = float(log[-1] - log[0]) / (len(wave) - 1)
    if np.abs((log - log[0]) / step - np.arange(len(wave))).max() > _ALIGNED:
        raise ValueError(f"{name} is not constant in log wavelength; resample it (core.data.grid.resample).")
    return float(log[0]), step


def _moved(templates: Array, pixels: Array, first: int, length: int) -> Array:
    """(n, length) templates (n, l) moved to the red by `pixels` (n,), seen from pixel `first` on.

    Lagrange interpolation of _TAPS points: local, so that the ends of a template spoil nothing but themselves.
    """
    whole = np.floor(-pixels).astype(int)
    t = -pixels - whole
    nodes = np.arange(_TAPS) - _TAPS // 2 + 1
    views, rows = sliding_window_view(templates, length, axis=1), np.arange(len(templates))
    out = np.zeros((len(templates), length))
    for node in nodes:
        others = nodes[nodes != node]
        weight = np.prod((t[:, None] - others) / (node - others), axis=1)
        out += weight[:, None] * views[rows, first + whole + node]
    return out


def _fit(design: Array, flux: Array, ivar: Array) -> tuple[Array, Array]:
    """chi2 (n,) and coefficients (n, K) of the least-squares fit of flux (n, l) by the rows of design (n, K, l)."""
    weighted = design * ivar[:, None]
    normal, right = weighted @ design.swapaxes(1, 2), (weighted @ flux[..., None])[..., 0]
    coefficient = np.linalg.solve(normal, right[..., None])[..., 0]
    residual = flux - (coefficient[:, None] @ design)[:, 0]
    return np.asarray((ivar * residual**2).sum(-1)), np.asarray(coefficient)


class _Task:
    """Checked spectra (B, l) and templates (T, m), cut to the pixels that every velocity of the range can reach."""

    def __init__(self, wave: npt.ArrayLike, flux: npt.ArrayLike, ivar: npt.ArrayLike, templates: npt.ArrayLike,
                 template_wave: npt.ArrayLike | None, basis: int | npt.ArrayLike, reach: float) -> None:
        start, self.step = _log_grid(wave, "wave")
        self.length = length = len(np.asarray(wave))
        flux, ivar = np.asarray(flux, dtype=np.float64), np.asarray(ivar, dtype=np.float64)
        if flux.shape != ivar.shape or flux.shape[-1:] != (length,):
            raise ValueError(f"flux {flux.shape} and ivar {ivar.shape} must have one shape that ends in ({length},).")
        if not np.isfinite(ivar).all() or (ivar < 0).any() or not np.isfinite(flux[ivar > 0]).all():
            raise ValueError("flux of a live pixel or ivar is not finite, or ivar is negative; 0 marks what is dead.")
        if not 0 < reach <= 2000.0:
            raise ValueError(f"reach is {reach} km/s; give a number above 0 and up to 2000.")
        self.reach = float(reach)
        self.templates = np.atleast_2d(np.asarray(templates, dtype=np.float64))
        first, step = (start, self.step) if template_wave is None else _log_grid(template_wave, "template_wave")
        wide = length if template_wave is None else len(np.asarray(template_wave))
        offset = (start - first) / self.step
        drift = abs(step / self.step - 1) * wide + abs(offset - np.rint(offset))
        if self.templates.shape[1:] != (wide,) or not np.isfinite(self.templates).all() or drift > 2 * _ALIGNED:
            raise ValueError(f"templates of shape {self.templates.shape} are not finite or lie on another grid than "
                             "the spectra; resample them to its pixels and give their wavelengths as template_wave.")
        # pixels that see the template at every velocity, so that chi2 always counts the same ones
        margin = int(np.ceil(pixels_of(self.reach, self.step))) + _TAPS // 2 + 2
        low = max(0, margin - int(np.rint(offset)))
        high = min(length, wide - margin - int(np.rint(offset)))
        if high - low < 2 * _TAPS:
            raise ValueError("templates cover none of the spectra with room for the velocities; give wider ones.")
        self.first, self.part = low + int(np.rint(offset)), slice(low, high)
        if isinstance(basis, int):
            self.basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, high - low), basis).T
        else:
            self.basis = np.atleast_2d(np.asarray(basis, dtype=np.float64))
            if self.basis.shape[1:] != (length,) or not np.isfinite(self.basis).all():
                raise ValueError(f"basis has shape {self.basis.shape}; give finite (K, {length}), or a degree.")
            self.basis = self.basis[:, self.part]
        self.shape = flux.shape[:-1]
        self.ivar = ivar.reshape(-1, length)[:, self.part]
        self.flux = np.where(self.ivar > 0, flux.reshape(-1, length)[:, self.part], 0.0)
        few = np.flatnonzero((self.ivar > 0).sum(-1) < len(self.basis) + 3)
        if len(few):
            raise ValueError(f"spectra {few[:5].tolist()} have (almost) no live pixel where the templates reach; "
                             "leave them out.")
        edge = pixels_of(self.reach, self.step)
        self.nodes = np.linspace(-edge, edge, 2 * int(np.ceil(edge / _COARSE)) + 1)  # pixels

    def moved(self, which: npt.NDArray[np.intp], velocity: Array) -> Array:
        """(n, l) the templates named, moved to `velocity` (n,) [km/s]."""
        return _moved(self.templates[which], pixels_of(velocity, self.step), self.first, self.flux.shape[1])

    def vertex(self, cost: Callable[[Array], Array], start: Array) -> tuple[Array, Array, Array]:
        """Velocity, 1-sigma error (cost rises by 1) and cost (n,) at the minimum near `start`; NaN where there is none.

        Parabolas through three nodes, each about the vertex of the one before, as far apart as half an error.
        """
        velocity, half, pixel = start, np.full(start.shape, _WIDEST), float(velocity_of(1.0, self.step))
        for _ in range(_TURNS):
            low, mid, high = (cost(np.clip(velocity + k * half, -self.reach, self.reach)) for k in (-1, 0, 1))
            bend = low - 2 * mid + high
            convex = bend > 0
            safe = np.where(convex, bend, 1.0)
            jump = np.where(convex, half * (low - high) / (2 * safe), half * np.sign(low - high))
            error, best = half * np.sqrt(2 / safe), mid - np.where(convex, (low - high) ** 2 / (8 * safe), 0.0)
            moved = np.clip(jump, -pixel / 2, pixel / 2)
            velocity, half = velocity + moved, np.clip(error / 2, _NARROWEST, _WIDEST)
        # a last step that still runs has found no minimum; one beyond the range no honest velocity
        good = convex & (np.abs(moved) < np.maximum(error, _NARROWEST)) & (np.abs(velocity) < self.reach - _WIDEST)
        return np.where(good, velocity, np.nan), np.where(good, error, np.nan), best


def cross_correlation(wave: npt.ArrayLike, flux: npt.ArrayLike, ivar: npt.ArrayLike, template: npt.ArrayLike,
                      template_wave: npt.ArrayLike | None = None, degree: int = 5,
                      reach: float = REACH) -> tuple[Array, Array]:
    """Radial velocity where a spectrum correlates best with a template (Tonry & Davis 1979, AJ 84, 1511).

    C(v) is the correlation, weighted by ivar, of flux and shifted template, both less their best polynomial (instead of
    Tonry & Davis's Fourier filter). The error is that of the likelihood -N/2 ln(1 - C^2), sigma_v^2 = -[N C''/C
    C^2/(1 - C^2)]^-1 (Zucker 2003, MNRAS 342, 1291): the scatter about the template sets the noise level, so ivar
    counts only relative to itself, and a wrong template or a wrong ivar widens the error. Noise is taken as white.

    Args:
        wave: (L,) vacuum wavelength [Angstrom], constant in log; the velocity is in its frame (heliocentric if it is).
        flux: (..., L) in units of a smooth curve; ivar: (..., L) inverse variance, 0 = dead.
        template: (L,) or (l,) clean spectrum at rest; shifted, never the data.
        template_wave: (l,) where the template's grid is another stretch of the same pixels; wider loses no edges.
        degree: of the polynomial. reach: km/s searched either side of 0.

    Returns:
        rv, error [km/s], (...) each: NaN where the best correlation is at the edge of the range or not positive.

    Raises:
        ValueError: shapes that disagree, NaN in live pixels, no live pixel, a grid not constant in log wavelength, a
            template on another grid.
    """
    task = _Task(wave, flux, ivar, np.atleast_2d(np.asarray(template))[:1], template_wave, degree, reach)
    out = np.full((2, len(task.flux)), np.nan)
    for low in range(0, len(task.flux), _CHUNK):
        y, w = task.flux[low : low + _CHUNK], task.ivar[low : low + _CHUNK]
        n = (w > 0).sum(-1) - len(task.basis) - 1  # pixels less what the polynomial and the strength take
        plain: Array = np.broadcast_to(task.basis, (len(y), *task.basis.shape))

        nothing = _fit(plain, y, w)[0]

        def cost(velocity: Array, y: Array = y, w: Array = w, plain: Array = plain, nothing: Array = nothing) -> Array:
            """(1 - C^2) chi2(no template), which is the chi2 of the best sum of template and polynomial."""
            shifted = task.moved(np.zeros(len(y), dtype=np.intp), velocity)
            chi2, coefficient = _fit(np.concatenate([shifted[:, None], plain], axis=1), y, w)
            return np.where(coefficient[:, 0] > 0, chi2, nothing)  # a negative correlation is none

        at = velocity_of(task.nodes, task.step)
        curve = np.array([cost(np.full(len(y), v)) for v in at])
        best = curve.argmin(0)
        inside = (best > 0) & (best < len(at) - 1)
        rv, error, least = task.vertex(cost, at[best])
        # N ln(1 - C^2) curves at its minimum like N chi2(v) / chi2, but is no parabola where noise is small
        error = error * np.sqrt(np.maximum(least, 0.0) / n)
        out[:, low : low + _CHUNK] = np.where(inside, [rv, error], np.nan)
    return out[0].reshape(task.shape), out[1].reshape(task.shape)


def chi_square_velocity(wave: npt.ArrayLike, flux: npt.ArrayLike, ivar: npt.ArrayLike, templates: npt.ArrayLike,
                        template_wave: npt.ArrayLike | None = None, basis: int | npt.ArrayLike = 3,
                        reach: float = REACH,
                        taps: tuple[npt.ArrayLike, npt.ArrayLike] | None = None) -> Velocity:
    """Radial velocity of least chi2 over velocities and a stack of templates, each times a free smooth curve.

    chi2(v, t) = min_a sum_i ivar_i (y_i - sum_k a_k P_ki t(lambda_i / Doppler(v)))^2. The minimum is the vertex of a
    parabola; the error is where chi2 rises by 1 with a free (Lampton, Margon & Bowyer 1976, ApJ 208, 177; Avni 1976).
    It takes ivar at its word (divide by the squared scale first) and is too small where no template fits (chi2 far
    above the pixels). With `taps` it is that of correlated noise sigma (K z), propagated linearly to this estimator.

    Args:
        wave: (L,) vacuum wavelength [Angstrom], constant in log; the velocity is in its frame (heliocentric if it is).
        flux: (..., L), any unit; ivar: (..., L) inverse variance, 0 = dead.
        templates: (T, L) or (T, l) clean spectra at rest; shifted, never the data.
        template_wave: (l,) where the templates' grid is another stretch of the same pixels; wider loses no edges.
        basis: (K, L) rows P of the smooth curve, or the degree of Legendre polynomials. reach: km/s either side of 0.
        taps: centre and side weight of K, (L,) each, as from core.spectrum.Kernel.taps; white by default.

    Returns:
        Velocity(rv, error, chi2, which), (...) each; NaN rv and error where the minimum is at the edge of the range.

    Raises:
        ValueError: as `cross_correlation`; a basis of another length.
    """
    task = _Task(wave, flux, ivar, templates, template_wave, basis, reach)
    B, T, K = len(task.flux), len(task.templates), len(task.basis)
    at, every = velocity_of(task.nodes, task.step), np.arange(T)
    rv, error, chi2 = np.full((3, B), np.nan)
    which = np.zeros(B, dtype=np.intp)
    pairs = (task.basis[:, None] * task.basis).reshape(K * K, -1)
    for low in range(0, B, _CHUNK):
        part = slice(low, low + _CHUNK)
        y, w = task.flux[part], task.ivar[part]
        n = len(y)
        # the first look: normal equations of all templates at once, as products of matrices
        of_pairs, of_basis = (w[:, None] * pairs).reshape(n * K * K, -1).T, ((w * y)[:, None] * task.basis)
        curve = np.empty((len(at), n, T))
        for i, v in enumerate(at):
            shifted = task.moved(every, np.full(T, v))
            normal = ((shifted**2) @ of_pairs).reshape(T, n, K, K).swapaxes(0, 1)
            right = (shifted @ of_basis.reshape(n * K, -1).T).reshape(T, n, K).swapaxes(0, 1)
            curve[i] = (w * y**2).sum(-1)[:, None] - (right * np.linalg.solve(normal, right[..., None])[..., 0]).sum(-1)
        best = curve.argmin(0)
        a, b, c = (np.take_along_axis(curve, np.clip(best + k, 0, len(at) - 1)[None], 0)[0] for k in (-1, 0, 1))
        bend = a - 2 * b + c
        lowest = b - np.where(bend > 0, (a - c) ** 2 / (8 * np.where(bend > 0, bend, 1.0)), 0.0)
        chi2[part] = np.inf
        for t in np.argsort(lowest, axis=1)[:, :_KEEP].T:
            node = best[np.arange(n), t]

            def cost(velocity: Array, t: npt.NDArray[np.intp] = t, y: Array = y, w: Array = w) -> Array:
                return _fit(task.moved(t, velocity)[:, None] * task.basis, y, w)[0]

            found, sigma, value = task.vertex(cost, at[node])
            bad = (node == 0) | (node == len(at) - 1)
            better = value < chi2[part]
            for all_, new in ((rv, np.where(bad, np.nan, found)), (error, np.where(bad, np.nan, sigma)), (chi2, value),
                              (which, t)):
                all_[part] = np.where(better, new, all_[part])
        if taps is not None:
            error[part] *= _widening(task, which[part], np.nan_to_num(rv[part]), y, w, taps)
    shape = task.shape
    return Velocity(rv.reshape(shape), error.reshape(shape), chi2.reshape(shape), which.reshape(shape))


def _widening(task: _Task, which: npt.NDArray[np.intp], velocity: Array, flux: Array, ivar: Array,
              taps: tuple[npt.ArrayLike, npt.ArrayLike]) -> Array:
    """(n,) error of a velocity under noise sigma (K z) over that under white noise of the same sigma.

    To first order dv = sum_i ivar_i m'_i dy_i / sum_i ivar_i m'_i^2, m' what of the model's slope in velocity the
    smooth curve cannot take up; so the factor is |K^T h| / |h| with h = m' / sigma.
    """
    design, low, high = (task.moved(which, velocity + k)[:, None] * task.basis for k in (0.0, -1.0, 1.0))
    slope = (_fit(design, flux, ivar)[1][:, None] @ (high - low))[:, 0]
    h = np.sqrt(ivar) * (slope - (_fit(design, slope, ivar)[1][:, None] @ design)[:, 0])
    centre, side = (np.broadcast_to(np.asarray(tap, dtype=np.float64), task.length)[task.part] for tap in taps)
    white = np.zeros((len(h), h.shape[1] + 2))  # z reaches one pixel beyond either end
    white[:, 1:-1] = h * centre
    white[:, :-2] += h * side
    white[:, 2:] += h * side
    return np.asarray(np.sqrt((white**2).sum(-1) / (h**2).sum(-1)))
