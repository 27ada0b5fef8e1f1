"""Are spectra drawn from a prior stars, and stars of their own: features, energy distance, and a search for copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import ks_2samp

from core.metrics.lines import LINES, Line, equivalent_width
from core.metrics.ranks import finite
from core.spectrum import Array

#: Standardised features are cut here: one diverged spectrum must not hide all others behind its own scale.
FAR = 10.0
_CUT = 3.0  # of ln(distance ratio): an exact copy counts as much as one twenty times nearer


def features(wave: npt.ArrayLike, flux: npt.ArrayLike, lines: Sequence[Line] | None = None, bands: int = 20
             ) -> pd.DataFrame:
    """What samples are judged by: the lines' equivalent widths, mean fluxes of broad bands, noise of single pixels.

    Args:
        wave: (L,) vacuum wavelength [Angstrom]; flux: (n, L) in units of the continuum.
        lines: all of core.metrics.lines.LINES by default; bands: equal parts of the pixels.

    Returns:
        n rows; 'EW:<line>' [Angstrom], NaN where a spectrum has no positive continuum there, and 'band:<middle
        wavelength>' in units of the continuum; 'roughness:blue' and ':red' (halves of the pixels): log10 of the rms of
        second differences, scaled so that white noise has its own deviation. Widths and bands average such noise away.

    Raises:
        ValueError: spectra that are not (n, L) or not finite.
    """
    wave, flux = np.asarray(wave, dtype=np.float64), np.asarray(flux, dtype=np.float64)
    if flux.ndim != 2 or flux.shape[1:] != wave.shape:
        raise ValueError(f"samples have shape {flux.shape}; give (n, {len(wave)}), one row a spectrum.")
    finite("samples", flux, "a sampler that diverges is to be mended before it is judged")
    out = {f"EW:{line.name}": equivalent_width(wave, flux, line) for line in lines or LINES.values()}
    for part in np.array_split(np.arange(len(wave)), bands):
        out[f"band:{wave[part].mean():.0f}"] = flux[:, part].mean(axis=1)
    second = np.diff(flux, 2, axis=1) / np.sqrt(6)
    for name, part in zip(("blue", "red"), np.array_split(second, 2, axis=1), strict=True):
        out[f"roughness:{name}"] = np.log10(np.maximum(np.sqrt((part**2).mean(axis=1)), 1e-9))
    return pd.DataFrame(out)


@dataclass(frozen=True)
class Energy:
    """How far two samples of a distribution are apart.

    Args:
        distance: 2 E|X - Y| - E|X - X'| - E|Y - Y'| of standardised features, 0 for equal distributions.
        coefficient: the same over 2 E|X - Y|: 0 for equal distributions, 1 for two points apart.
        null: mean coefficient when the same spectra are dealt out at random: what two samples so small have anyway.
        p: share of random deals at least as far apart, itself counted; uniform where the distributions agree.
    """

    distance: float
    coefficient: float
    null: float
    p: float


def energy(samples: npt.ArrayLike, reference: npt.ArrayLike, rng: np.random.Generator, deals: int = 999) -> Energy:
    """Energy test that two sets of features come from one distribution (Szekely & Rizzo 2013, JSPI 143, 1249).

    Features are standardised by median and half the 16-84 % span of both sets together, so that p is exact; NaN counts
    as FAR, and beyond FAR nothing counts more.

    Args:
        samples: (n, d); reference: (m, d); rng: of the random deals; deals: how many.

    Raises:
        ValueError: fewer than two rows in either, other columns, or no deals.
    """
    x, y = _pair(samples, reference)
    _check_deals(deals)
    n, m = len(x), len(y)
    pooled = _standard(np.concatenate([x, y]))
    apart = _distances(pooled, pooled)
    inside = np.zeros((deals + 1, n + m))
    inside[0, :n] = 1.0  # the first deal is the true one
    for row in inside[1:]:
        row[rng.permutation(n + m)[:n]] = 1.0
    # with 1 for a member of X: a = x'Dx, c = x'D1, total = 1'D1 give all three sums
    product = inside @ apart
    total, own, any_ = apart.sum(), (product * inside).sum(1), product.sum(1)
    cross, within, without = (any_ - own) / (n * m), own / n**2, (total - 2 * any_ + own) / m**2
    distance = 2 * cross - within - without
    coefficient = distance / np.maximum(2 * cross, 1e-300)
    # rounding must not tell a deal from itself
    as_far = distance[1:] >= distance[0] * (1 - 1e-12)
    return Energy(float(distance[0]), float(coefficient[0]), float(coefficient[1:].mean()),
                  float((1 + as_far.sum()) / (1 + deals)))


def one_by_one(samples: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Each feature alone: where an energy distance comes from.

    Returns:
        feature, samples and reference (medians), width (ratio of the 16-84 % spans), p (Kolmogorov & Smirnov, of each
        alone: with d features the smallest is to be compared with level / d), invalid (share of samples NaN there).
    """
    rows = []
    for name in reference.columns:
        a, b = samples[name].to_numpy(float), reference[name].to_numpy(float)
        spans = [float(np.subtract(*np.nanpercentile(v, [84, 16]))) if np.isfinite(v).any() else np.nan for v in (a, b)]
        # NaN must count as one value, above all others, or spectra without a continuum go unseen
        p = ks_2samp(*(np.where(np.isnan(v), np.inf, v) for v in (a, b))).pvalue
        middle = [float(np.nanmedian(v)) if np.isfinite(v).any() else np.nan for v in (a, b)]
        rows.append({"feature": name, "samples": middle[0], "reference": middle[1],
                     "width": spans[0] / spans[1] if spans[1] > 0 else np.nan, "p": float(p),
                     "invalid": float(np.isnan(a).mean())})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Copying:
    """Whether samples lie nearer to the training set than to as many stars of the same kind that were not in it.

    Args:
        nearest: (n,) distance of each sample to its nearest training spectrum, rms over the pixels [continuum]; row:
            (n,) which one; held: (n,) the same distance to its nearest held-out star.
        nearer: mean of ln(held / nearest), each cut at +-3; null: its mean when training and held-out spectra are dealt
            out at random (0 for as many of either).
        p: share of random deals with `nearer` at least as large, itself counted; uniform where nothing was copied.
    """

    nearest: Array
    row: npt.NDArray[np.intp]
    held: Array
    nearer: float
    null: float
    p: float


def copying(samples: npt.ArrayLike, training: npt.ArrayLike, held_out: npt.ArrayLike, rng: np.random.Generator,
            deals: int = 999, components: int = 30) -> Copying:
    """Search for copies of the training set among samples, by what is nearest to each: a training spectrum or another.

    Whatever the samples are, also noise, or stars that crowd where stars are many, nothing but copying tells training
    spectra from held-out ones of the same distribution: dealing the two out at random makes p exact. (Distances of
    held-out stars to the training set, the usual yardstick, take a crowd for copies.) Distances are taken in the
    leading principal components of both sets, for a copy with noise on every pixel would else be farther off than an
    honest star. A copy moved in velocity is no copy here.

    Args:
        samples: (n, L); training: (N, L); held_out: (M, L) of its distribution but not in it, M about N, for few tell
            little; all in units of the continuum. rng: of the random deals; deals, components: how many.

    Raises:
        ValueError: fewer than two rows, or than components; other pixels; not finite; no deals.
    """
    x, known = _pair(samples, training)
    _, other = _pair(samples, held_out)
    _check_deals(deals)
    both, n = np.concatenate([known, other]), len(known)
    if not 1 <= components <= min(both.shape):
        raise ValueError(f"{components} components asked of {len(both)} spectra of {both.shape[1]} pixels; give 1 to "
                         f"{min(both.shape)}, or more spectra.")
    for name, rows in (("samples", x), ("training and held_out", both)):
        finite(name, rows, "a sampler that diverges is to be mended before it is judged")
    mean = both.mean(axis=0)
    both -= mean
    tall = both.shape[0] >= both.shape[1]
    _, vectors = np.linalg.eigh(both.T @ both if tall else both @ both.T)
    lead = vectors[:, -components:] if tall else np.linalg.qr(both.T @ vectors[:, -components:])[0]
    # some of the nearest are enough: that all forty are of one set happens once in 10^12
    which, apart = _neighbours((x - mean) @ lead, both @ lead, min(40, len(both)))

    def to(member: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], Array]:
        """(n,) place among the neighbours of the first that is a member, and its distance; the last, if none is."""
        mine = member[which]
        mine[:, -1] = True
        first = mine.argmax(axis=1)
        return first, np.take_along_axis(apart, first[:, None], axis=1)[:, 0]

    def nearer(member: npt.NDArray[np.bool_]) -> float:
        near, far = (np.log(np.maximum(to(m)[1], 1e-12)) for m in (member, ~member))
        return float(np.clip(far - near, -_CUT, _CUT).mean())

    own = np.arange(len(both)) < n
    found, dealt = nearer(own), np.array([nearer(rng.permutation(own)) for _ in range(deals)])
    (first, nearest), root = to(own), np.sqrt(both.shape[1])
    row = np.take_along_axis(which, first[:, None], axis=1)[:, 0]
    return Copying(nearest / root, row, to(~own)[1] / root, found, float(dealt.mean()),
                   float((1 + (dealt >= found - 1e-12).sum()) / (1 + deals)))


def _check_deals(deals: int) -> None:
    if deals < 1:
        raise ValueError(f"{deals} deals give no p-value; ask for at least 99.")


def _pair(one: npt.ArrayLike, other: npt.ArrayLike) -> tuple[Array, Array]:
    """Both as (n, d) arrays, checked."""
    x, y = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"sets of shape {x.shape} and {y.shape} cannot be compared; give (n, d) and (m, d), two rows "
                         "or more of each.")
    return x, y


def _standard(rows: Array) -> Array:
    """(N, d) in units of each column's own spread about its median, cut at FAR."""
    low, middle, high = np.nanpercentile(np.where(np.isinf(rows), np.nan, rows), [16, 50, 84], axis=0)
    spread = np.maximum((high - low) / 2, 1e-12)
    return np.asarray(np.clip(np.nan_to_num((rows - middle) / spread, nan=FAR), -FAR, FAR))


def _distances(x: Array, y: Array) -> Array:
    """(n, m) Euclidean."""
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    if x is y:
        np.fill_diagonal(squared, 0.0)
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _neighbours(rows: Array, known: Array, number: int) -> tuple[npt.NDArray[np.intp], Array]:
    """The nearest of `known` to each row, (n, number) in order, and their distances."""
    which, apart = [], []
    for i in range(0, len(rows), 256):  # in blocks, for `known` may be long
        block = _distances(rows[i : i + 256], known)
        some = np.argpartition(block, number - 1, axis=1)[:, :number]
        order = np.argsort(np.take_along_axis(block, some, axis=1), axis=1)
        which.append(np.take_along_axis(some, order, axis=1))
        apart.append(np.take_along_axis(block, which[-1], axis=1))
    return np.concatenate(which), np.concatenate(apart)
