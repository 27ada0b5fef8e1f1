"""Spectral lines with their bands and sources; their width, depth and error for whole stacks of spectra at once."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from core.spectrum import Array


@dataclass(frozen=True)
class Line:
    """A line or index: where it is measured and against which continuum; all in vacuum Angstrom.

    Args:
        name: as it is called.
        centre: of the line, or of the band.
        band: first and last wavelength integrated over; blue, red: side bands that set the local continuum.
        source: of the definition.
    """

    name: str
    centre: float
    band: tuple[float, float]
    blue: tuple[float, float]
    red: tuple[float, float]
    source: str


_LICK = "Lick/IDS, Trager et al. 1998, ApJS 116, 1, table 1, as listed in the MaNGA DAP"
_BALMER = "Worthey & Ottaviani 1997, ApJS 111, 377, table 1, as listed in the MaNGA DAP"
_CAT = "Cenarro et al. 2001, MNRAS 326, 959, table 4 (bands), nearest continua"
#: Published in air, converted by core.data.grid.air_to_vacuum (a test converts them again).
LINES: dict[str, Line] = {line.name: line for line in (
    Line("Ca II K", 3934.77, (3928.81, 3940.82), (3904.11, 3924.11), (4001.13, 4021.14), "Beers et al. 1999"),
    # neither Lick nor Beers has H alone; it cannot be had without H epsilon (3971.20), 1.6 Angstrom off: both are in it
    Line("Ca II H", 3969.59, (3963.12, 3977.12), (3904.11, 3924.11), (4001.13, 4021.14),
         "band: this project, blends H epsilon; side bands of Ca II K: Beers et al. 1999"),
    Line("H delta", 4102.90, (4084.65, 4123.41), (4042.74, 4080.90), (4129.66, 4162.17), _BALMER),
    Line("Ca 4227", 4229.69, (4223.44, 4235.94), (4212.19, 4220.94), (4242.19, 4252.20), _LICK),
    Line("G band", 4300.11, (4282.58, 4317.59), (4267.58, 4283.83), (4320.09, 4336.34), _LICK),
    Line("H gamma", 4341.69, (4320.96, 4364.73), (4284.71, 4320.96), (4368.48, 4420.99), _BALMER),
    Line("Fe 4383", 4395.98, (4370.35, 4421.62), (4360.35, 4371.60), (4444.12, 4456.63), _LICK),
    Line("H beta", 4862.69, (4849.23, 4877.99), (4829.22, 4849.23), (4877.99, 4892.99), _LICK),
    Line("Mg b", 5177.84, (5161.56, 5194.07), (5144.06, 5162.81), (5192.82, 5207.82), _LICK),
    Line("Fe 5270", 5267.17, (5247.11, 5287.12), (5234.61, 5249.61), (5287.12, 5319.63), _LICK),
    Line("Fe 5335", 5333.58, (5313.60, 5353.61), (5306.10, 5317.35), (5354.86, 5364.87), _LICK),
    Line("Fe 5406", 5402.75, (5389.00, 5416.51), (5377.75, 5389.00), (5416.51, 5426.51), _LICK),
    Line("Na D", 5894.73, (5878.50, 5911.01), (5862.25, 5877.25), (5923.77, 5949.77), _LICK),
    Line("H alpha", 6564.61, (6549.81, 6579.82), (6521.80, 6541.81), (6591.82, 6611.83), "this project"),
    # between Fe I 6678 with He I 6678 and beyond Ca I 6718; Fe I 6703.6, 6705.1, 6707.4 and 6710.3 are blended in
    Line("Li 6708", 6709.66, (6704.35, 6714.85), (6687.85, 6701.85), (6724.86, 6736.86), "this project"),
    Line("Ca II 8498", 8500.35, (8486.33, 8515.34), (8476.33, 8486.33), (8565.35, 8579.36), _CAT),
    Line("Ca II 8542", 8544.44, (8524.34, 8564.35), (8476.33, 8486.33), (8565.35, 8579.36), _CAT),
    Line("Ca II 8662", 8664.52, (8644.37, 8684.38), (8621.37, 8644.37), (8702.39, 8727.40), _CAT),
)}  # fmt: skip


#: Share of each of a line's three windows that must be live for the line to be measured at all.
ENOUGH = 0.5


def find_line(name: str) -> Line:
    """The line of LINES called `name`.

    Raises:
        ValueError: no such line; the message names the nearest known one.
    """
    if name in LINES:
        return LINES[name]
    known = {k.lower(): k for k in LINES}
    nearest = known[get_close_matches(str(name).lower(), list(known), n=1, cutoff=0.0)[0]]
    raise ValueError(f"no line is called {name!r}; did you mean {nearest!r}? LINES holds {', '.join(LINES)}.")


def _weights(wave: Array, band: tuple[float, float]) -> Array:
    """(L,) Angstrom of each pixel inside the band, edges by their fraction."""
    log = np.log(wave)
    middle = (log[1:] + log[:-1]) / 2
    edges = np.exp(np.concatenate([[2 * log[0] - middle[0]], middle, [2 * log[-1] - middle[-1]]]))
    return np.clip(np.minimum(edges[1:], band[1]) - np.maximum(edges[:-1], band[0]), 0.0, None)


class _Window:
    """The pixels from a line's first to its last side band, l of them, and what each weighs in each window."""

    def __init__(self, wave: npt.ArrayLike, line: Line) -> None:
        wave = np.asarray(wave, dtype=np.float64)
        ends = (*line.blue, *line.red, *line.band)
        if min(ends) < wave[0] or max(ends) > wave[-1]:
            raise ValueError(f"{line.name} needs {min(ends):.0f}-{max(ends):.0f} Angstrom and the spectrum has "
                             f"{wave[0]:.0f}-{wave[-1]:.0f}; leave this line out.")
        self.line = line
        windows = np.array([_weights(wave, w) for w in (line.blue, line.red, line.band)])
        used = np.flatnonzero(windows.sum(0))
        self.part = slice(int(used[0]), int(used[-1]) + 1)
        self.wave, windows = wave[self.part], windows[:, self.part]
        self.sides, self.band = windows[:2] / windows[:2].sum(1, keepdims=True), windows[2]
        place = self.sides @ self.wave
        # share of the blue and of the red level in the straight line through both, at each pixel
        red = (self.wave - place[0]) / (place[1] - place[0])
        self.shares = np.array([1.0 - red, red])

    def cut(self, flux: npt.ArrayLike) -> Array:
        """(..., l) the flux here, checked."""
        out = np.asarray(flux, dtype=np.float64)[..., self.part]
        if out.shape[-1:] != self.wave.shape or not np.isfinite(out).all():
            raise ValueError(f"the flux around {self.line.name} is not finite or not on the grid of wave; mask with "
                             "ivar = 0 and put any finite flux there, or leave this line out.")
        return out

    def continuum(self, flux: Array) -> Array:
        """(..., l) the straight line through the mean flux of both side bands; NaN where it is not positive."""
        local = (flux @ self.sides.T) @ self.shares
        positive = (local[..., self.band > 0] > 0).all(axis=-1, keepdims=True)
        return np.where(positive, local, np.nan)


def measurable(live: npt.ArrayLike, wave: npt.ArrayLike, line: Line) -> npt.NDArray[np.bool_]:
    """(...) True where a line lies in the spectrum and half (ENOUGH) of its band and of each side band was measured.

    Args:
        live: (..., L) True where a pixel holds data; wave: (L,) vacuum wavelength [Angstrom].
    """
    live = np.asarray(live, dtype=bool)
    try:
        window = _Window(wave, line)
    except ValueError:
        return np.zeros(live.shape[:-1], dtype=bool)
    here = live[..., window.part].astype(float)
    shares = here @ np.array([*window.sides, window.band / window.band.sum()]).T
    return np.asarray((shares >= ENOUGH).all(axis=-1))


def bridged(flux: npt.ArrayLike, live: npt.ArrayLike) -> Array:
    """(..., L) flux with every dead pixel replaced by the straight line (in pixels) between its live neighbours.

    What `photon_error` takes for granted: measure an observed spectrum with gaps on its bridged flux.
    """
    flux, live = np.broadcast_arrays(np.asarray(flux, dtype=np.float64), np.asarray(live, dtype=bool))
    left, right, t = _neighbours(live)
    flux = np.where(live, flux, 0.0)
    return np.asarray((1 - t) * np.take_along_axis(flux, left, -1) + t * np.take_along_axis(flux, right, -1))


def _neighbours(live: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Array]:
    """Index of the nearest live pixel at or before, at or after, each pixel, and where between them it lies; (..., L).

    Beyond the first or last live pixel, that one is both.
    """
    n = live.shape[-1]
    place = np.broadcast_to(np.arange(n), live.shape)
    left = np.maximum.accumulate(np.where(live, place, -1), axis=-1)
    right = np.flip(np.minimum.accumulate(np.flip(np.where(live, place, n), -1), axis=-1), -1)
    left, right = (np.clip(i, 0, n - 1) for i in (np.where(left < 0, right, left), np.where(right == n, left, right)))
    return left, right, (place - left) / np.maximum(right - left, 1)


def equivalent_width(wave: npt.ArrayLike, flux: npt.ArrayLike, line: Line) -> Array:
    """Equivalent width [Angstrom] of absorption (emission is negative), against a straight line between two side bands.

    The local continuum runs through the mean flux of each side band at that band's mean wavelength; EW is the integral
    of 1 - flux / continuum over the band. Linear in neither, so it is taken of every draw and not of their mean.

    Args:
        wave: (L,) vacuum wavelength [Angstrom]; flux: (..., L), any unit; line: what to measure.

    Returns:
        (...), NaN where the local continuum is not positive across the band: such a spectrum has no width.

    Raises:
        ValueError: the line or a side band reaches beyond the spectrum, or the flux there is not finite.
    """
    window = _Window(wave, line)
    flux = window.cut(flux)
    return np.asarray((1.0 - flux / window.continuum(flux)) @ window.band)


def _lowest(flux: npt.ArrayLike, window: _Window) -> tuple[Array, npt.NDArray[np.intp], Array]:
    """Flux over local continuum (..., l), the index (...) of its lowest pixel in the band, the depth (...) there."""
    flux = window.cut(flux)
    ratio, inside = flux / window.continuum(flux), np.flatnonzero(window.band > 0)
    low = inside[0] + np.argmin(ratio[..., inside[0] : inside[-1] + 1], axis=-1)
    a, b, c = (np.take_along_axis(ratio, np.clip(low + k, 0, len(window.band) - 1)[..., None], -1)[..., 0]
               for k in (-1, 0, 1))
    bend = a - 2 * b + c
    # at the band's edge the lowest pixel may be on a slope, where three points have their minimum elsewhere
    peaked = (a >= b) & (c >= b) & (bend > 0)
    return ratio, low, 1.0 - np.where(peaked, b - (a - c) ** 2 / (8 * np.where(peaked, bend, 1.0)), b)


def depth(wave: npt.ArrayLike, flux: npt.ArrayLike, line: Line) -> Array:
    """Depth of absorption, 1 - min(flux / local continuum) in the band: vertex of the parabola about the lowest pixel.

    The lowest of noisy pixels lies below the line: of a noisy spectrum depth is biased upwards, and of emission it
    says nothing (it is then about 0 or negative). Arguments, shape (...), NaN and ValueError: as `equivalent_width`.
    """
    return _lowest(flux, _Window(wave, line))[2]


def fwhm(wave: npt.ArrayLike, flux: npt.ArrayLike, line: Line) -> Array:
    """Full width [Angstrom] at half of `depth`: between the first crossings either side of the lowest pixel, linearly.

    NaN where there is no absorption, no crossing before the side bands' far ends, or no positive local continuum.
    Arguments, shape (...) and ValueError: as `equivalent_width`.
    """
    window = _Window(wave, line)
    ratio, low, deep = _lowest(flux, window)
    half = 1.0 - deep[..., None] / 2
    n, place, above = len(window.wave), np.arange(len(window.wave)), ratio >= half
    left = np.where(above & (place < low[..., None]), place, -1).max(-1)
    right = np.where(above & (place > low[..., None]), place, n).min(-1)

    def crossing(outer: npt.NDArray[np.intp], inward: int) -> Array:
        """Wavelength (...) where ratio = half between the pixel `outer`, above it, and its neighbour, below it."""
        outer, inner = np.clip(outer, 0, n - 1), np.clip(outer + inward, 0, n - 1)
        high, under = (np.take_along_axis(ratio, i[..., None], -1)[..., 0] for i in (outer, inner))
        rise = high - under
        t = np.where(rise > 0, (half[..., 0] - under) / np.where(rise > 0, rise, 1.0), 0.0)
        return np.asarray(window.wave[inner] + t * (window.wave[outer] - window.wave[inner]))

    found = (deep > 0) & (left >= 0) & (right < n)
    return np.where(found, crossing(right, -1) - crossing(left, 1), np.nan)


def _seen(flux: npt.ArrayLike, sigma: npt.ArrayLike, window: _Window) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Flux, sigma (0 where dead) and live pixels of a window, (..., l) each, checked."""
    sigma = np.asarray(sigma, dtype=np.float64)[..., window.part]
    if sigma.shape[-1:] != window.wave.shape or np.isnan(sigma).any() or (sigma <= 0).any():
        raise ValueError(f"sigma around {window.line.name} must be positive and on the grid of wave, infinite where "
                         "nothing was measured.")
    live = np.isfinite(sigma)
    for name, weight in zip(("blue side band", "red side band", "band"), (*window.sides, window.band), strict=True):
        if not (live & (weight > 0)).any(-1).all():
            raise ValueError(f"nothing was measured in the {name} of {window.line.name}; leave this line out "
                             "(core.metrics.lines.measurable tells).")
    return bridged(window.cut(flux), live), np.where(live, sigma, 0.0), np.asarray(live)


def photon_error(wave: npt.ArrayLike, flux: npt.ArrayLike, sigma: npt.ArrayLike, line: Line,
                 taps: tuple[npt.ArrayLike, npt.ArrayLike] | None = None) -> Array:
    """Standard error [Angstrom] that the noise of each pixel alone gives `equivalent_width`: linear propagation.

    With EW = sum_i w_i (1 - f_i / c_i) and c = sum_s share_s level_s of the two side bands s, dEW/df_j = -w_j / c_j +
    sum_s u_sj sum_i w_i f_i share_si / c_i^2, u_s the weights of a side band's mean: the error of the local continuum
    and a band that overlaps its side band are in it. The noise is sigma (K z) as in core.spectrum.Kernel, z white.
    Dead pixels count as bridged (`bridged`), so their neighbours count for more.

    Args:
        wave: (L,) vacuum wavelength [Angstrom]; flux: (..., L), any unit; line: what was measured.
        sigma: (..., L) true standard deviation (quoted times scale) in that unit, infinite where nothing was measured.
        taps: centre and side weight of K, (L,) each, as from Kernel.taps; white by default.

    Returns:
        (...), NaN where the local continuum is not positive across the band.

    Raises:
        ValueError: as `equivalent_width`; sigma not positive or NaN; a band or side band without a live pixel.
    """
    window = _Window(wave, line)
    flux, sigma, live = _seen(flux, sigma, window)
    local = window.continuum(flux)
    pull = (window.band * flux / local**2) @ window.shares.T
    gradient = pull @ window.sides - window.band / local
    # a bridged pixel hands its weight to the two live ones it was made from
    left, right, t = _neighbours(np.broadcast_to(live, gradient.shape))
    moved = np.zeros((gradient.size // gradient.shape[-1], gradient.shape[-1]))
    rows = np.arange(len(moved))[:, None]
    for index, share in ((left, 1 - t), (right, t)):
        np.add.at(moved, (rows, index.reshape(moved.shape)), (gradient * share).reshape(moved.shape))
    weight = moved.reshape(gradient.shape) * sigma
    if taps is None:
        return np.sqrt((weight**2).sum(-1))
    centre, side = (np.broadcast_to(tap, np.shape(wave))[window.part] for tap in taps)
    white = np.zeros((*weight.shape[:-1], weight.shape[-1] + 2))  # z reaches one pixel beyond either end
    white[..., 1:-1] = weight * centre
    white[..., :-2] += weight * side
    white[..., 2:] += weight * side
    return np.sqrt((white**2).sum(-1))


def photon_error_ve06(wave: npt.ArrayLike, flux: npt.ArrayLike, sigma: npt.ArrayLike, line: Line) -> Array:
    """The error [Angstrom] of Vollmann & Eversberg 2006 (AN 327, 862), eq. 7, to compare: `photon_error` is exact.

    sqrt(1 + <continuum> / <flux>) (width of the band - EW) / (S/N), with S/N that of a pixel of the side bands. It
    takes the error of a mean for that of one pixel, so it is larger by about the root of the number of pixels.

    Args, returns and errors: as `photon_error` without taps; also NaN where the mean flux in the band is not positive.
    """
    window = _Window(wave, line)
    flux, sigma, live = _seen(flux, sigma, window)
    local = window.continuum(flux)
    span, width = window.band.sum(), (1.0 - flux / local) @ window.band
    mean, level = flux @ window.band / span, local @ window.band / span
    side = window.sides.sum(0) * live
    snr = (flux * side).sum(-1) / np.sqrt((sigma**2 * side).sum(-1) * side.sum(-1))
    return np.sqrt(1.0 + level / np.where(mean > 0, mean, np.nan)) * (span - width) / snr
