"""A flag finds what the best test finds, seldom cries over nothing, and says where, how wide and how strong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, norm

from core.metrics.false_alarms import Calibration, Nominal, limit
from core.metrics.flags import flags, maxima, significance
from core.metrics.matched_filter import Scan, profile, strength
from core.spectrum import Kernel, Spectra

PIXELS = 900
WAVE = 10.0 ** (3.7475 + 1e-4 * np.arange(PIXELS))  # 5591-6877 Angstrom: both arms
LAMOST = Kernel((0.8, 0.7), (0.3, 0.5))


def stars(rng: np.random.Generator, number: int, noise: Kernel, dead: float = 0.02, wave: np.ndarray = WAVE) -> Spectra:
    """Featureless stars of truth 1 with the noise stated, whose sigma changes along the spectrum."""
    sigma = 0.05 * (1 + 0.5 * np.sin(wave / 90.0))
    n = noise.scales(wave) * sigma * noise.colour(wave, rng.standard_normal((number, len(wave) + 2)))
    live = rng.random(n.shape) >= dead
    ones = np.ones(n.shape)
    return Spectra(wave, np.where(live, 1 + n, 7.0), live / sigma**2, ones, pd.DataFrame(index=range(number)), noise)


def at_most(count: int, of: int, rate: float) -> bool:
    """Is a count of alarms no sign of a rate above `rate` (one in 2000 fails by chance)?"""
    return count <= binom.ppf(1 - 5e-4, of, rate)


@pytest.mark.parametrize("rho", [(0.0, 0.0), (0.3, 0.5), (0.7, 0.65)])
def test_statistic_and_its_variance_are_those_of_dense_matrices(rng: np.random.Generator, rho: tuple) -> None:
    wave = WAVE[150:350]  # over the join of the arms at 5900 Angstrom
    spectra = stars(rng, 2, Kernel((0.8, 0.9), rho), dead=0.1, wave=wave)
    scan, r = Scan(spectra), rng.standard_normal((2, len(wave)))
    got, noise, n = scan.score(r), spectra.noise, len(wave)
    centre, side = noise.taps(wave)
    K = sum(np.eye(n, n + 2, k) * w[:, None] for k, w in enumerate((side, centre, side)))
    for b, live in enumerate(spectra.measured):
        s = np.where(live, spectra.sigma[b], 1.0) * noise.scales(wave)
        on = np.ix_(live, live)
        inverse = np.zeros((n, n))
        inverse[on] = np.linalg.inv((s[:, None] * (K @ K.T) * s)[on])
        for m, (width, offset) in enumerate(zip(scan.width, scan.offset, strict=True)):
            g = profile(width, offset)
            half = len(g) // 2
            T = np.array([np.concatenate([np.zeros(p), g, np.zeros(n - 1 - p)]) for p in range(n)])[:, half:half + n]
            want = np.einsum("pi,ij,pj->p", T, inverse, T)
            np.testing.assert_allclose(scan.norm[b, m], want, rtol=1e-4, atol=1e-9)
            np.testing.assert_allclose(got[b, m], T @ inverse @ r[b], rtol=1e-6, atol=1e-6 * np.abs(got).max())
            assert strength(spectra, np.stack([T[90], T[90]]))[b] == pytest.approx(np.sqrt(want[90]), rel=1e-6)
    if rho != (0.0, 0.0):  # the control: without the correlation the variances differ
        assert np.abs(Scan(spectra.with_noise(Kernel((0.8, 0.9)))).norm / scan.norm - 1).max() > 0.1


@pytest.mark.parametrize("noise", [Kernel((0.8, 0.7)), LAMOST])
def test_nothing_is_flagged_in_at_most_the_stars_promised(rng: np.random.Generator, noise: Kernel) -> None:
    spectra = stars(rng, 500, noise)
    ones = np.ones(spectra.flux.shape)
    top = maxima(spectra, ones)
    p = np.array([null.p_value(u) for null, u in zip(Nominal.of(Scan(spectra)), top, strict=True)])
    for level in (0.3, 0.1, 0.03, 0.01):
        assert at_most(int((p <= level).sum()), 500, level)
    assert (p <= 0.3).mean() > 0.3 / 3, "the bound is not so loose that it costs power"
    some = spectra.select(slice(0, 100))
    assert [bool(f) for f in flags(some, ones[:100])] == (p[:100] <= 0.01).tolist()


def test_ignoring_the_correlation_breaks_the_promise(rng: np.random.Generator) -> None:
    spectra = stars(rng, 400, LAMOST).with_noise(Kernel(LAMOST.scale))
    alarms = sum(bool(f) for f in flags(spectra, np.ones(spectra.flux.shape)))
    assert not at_most(alarms, 400, 0.01)


def test_the_limit_is_that_of_a_normal_test_among_some_thousands(rng: np.random.Generator) -> None:
    assert limit(5.0, 4000) == pytest.approx(0.60, abs=0.03)
    assert limit(6.5, 4000) == pytest.approx(0.95, abs=0.02)
    assert np.allclose(limit([0.0, -5.0], 1.0, 0.05), [0.05, limit(5.0, 1.0, 0.05)])
    trials, n = 200, 4000
    u = norm.isf(-np.expm1(np.log1p(-0.01) / trials) / 2)
    top = np.abs(rng.standard_normal((n, trials))).max(1)
    assert at_most(int((top > u).sum()), n, 0.01)
    assert at_most(n - int((top > u).sum()), n, 0.99)
    power = float(limit(4.0, trials))
    assert abs((rng.standard_normal(20000) + 4.0 > u).mean() - power) < 4 * np.sqrt(power * (1 - power) / 20000)
    for wrong in ((0.5, 0.01), (10.0, 0.0), (10.0, 1.0)):
        with pytest.raises(ValueError, match="trials"):
            limit(5.0, *wrong)


def test_trials_give_back_the_level(rng: np.random.Generator) -> None:
    null = Nominal.of(Scan(stars(rng, 1, LAMOST)))[0]
    n = null.trials(0.01)
    assert 1000 < n < 7 * PIXELS
    assert null.p_value(norm.isf(-np.expm1(np.log1p(-0.01) / n) / 2)) == pytest.approx(0.01, rel=1e-3)


def test_a_flag_says_where_how_wide_and_how_strong(rng: np.random.Generator) -> None:
    spectra = stars(rng, 40, LAMOST, dead=0.0)
    g = profile(2.0, 0.3)
    shapes = np.zeros((2, 40, PIXELS))
    shapes[0, :, 300 - len(g) // 2:301 + len(g) // 2] = g  # absorption at 300.3
    shapes[1, :, 600 - len(g) // 2:601 + len(g) // 2] = g  # emission at 600.3
    size = [20 / strength(spectra, s) for s in shapes]
    y = spectra.flux - size[0][:, None] * shapes[0] + size[1][:, None] * shapes[1]
    found = flags(Spectra(WAVE, y, spectra.ivar, spectra.continuum, spectra.meta, LAMOST), np.ones(y.shape))
    assert all(len(f) >= 2 for f in found)
    pixel = WAVE[300] * np.log(10) * 1e-4
    first = [max(f[:2], key=lambda x: x.strength) for f in found]
    last = [min(f[:2], key=lambda x: x.strength) for f in found]
    # a line of 2 pixels at 20 sigma is placed to sqrt(2) * 2 / 20 of a pixel, beside half of the step of 1
    assert np.abs([np.log10(f.wavelength / WAVE[300]) / 1e-4 - 0.3 for f in first]).max() < 0.5 + 5 * 0.14
    assert np.abs([np.log10(f.wavelength / WAVE[600]) / 1e-4 - 0.3 for f in last]).max() < 0.5 + 5 * 0.14
    ew = size[0][0] * np.sqrt(2 * np.pi) * 2.0 * pixel
    strengths, widths = [f.strength for f in first], [f.equivalent_width for f in first]
    assert abs(np.mean(strengths) - 20) < 0.5 + 4 / np.sqrt(40)
    assert abs(np.mean(widths) / ew - 1) < 0.15
    assert all(f.strength < -15 and f.equivalent_width < 0 for f in last)
    assert all(1.0 < f.width / pixel < 3.5 and f.p_value < 1e-20 for f in first)


def test_draws_of_a_gaussian_posterior_give_the_test_its_full_size(rng: np.random.Generator) -> None:
    """The filtered residual of a posterior mean has variance t' (N + P)^-1 t, and the draws know it."""
    wave, number, n = WAVE[:160], 150, 120
    i = np.arange(160)
    # a prior that varies over 4 pixels, half as much as the noise: much of it looks like a line, and is absorbed
    P = 0.02**2 * np.exp(-0.5 * ((i[:, None] - i) / 4.0) ** 2) + 1e-10 * np.eye(160)
    noise = Kernel((0.8, 0.7), (0.3, 0.3))
    blank = stars(rng, number, noise, dead=0.0, wave=wave)
    s = blank.sigma[0] * noise.scales(wave)
    centre, side = noise.taps(wave)
    K = sum(np.eye(160, 162, k) * w[:, None] for k, w in enumerate((side, centre, side)))
    gain = P @ np.linalg.inv(P + s[:, None] * (K @ K.T) * s)
    root = np.linalg.cholesky(P)
    y = blank.flux + rng.standard_normal((number, 160)) @ root.T
    spectra = Spectra(wave, y, blank.ivar, blank.continuum, blank.meta, noise)
    mean = 1 + (y - 1) @ gain.T
    post = np.linalg.cholesky(P - gain @ P + 1e-9 * np.eye(160))
    draws = mean + rng.standard_normal((n, number, 160)) @ post.T
    scan = Scan(spectra)
    nominal, sharp = significance(scan, mean), significance(scan, mean, draws)
    spread, sharper = (t[:, -1, 40:120].std(0) for t in (nominal, sharp))  # of the widest lines
    assert spread.mean() < 0.75, "the control: where a method fits, the nominal test is too meek"
    # from draws known exactly it would be 1; their variance is lowered to what 120 of them prove, by a third
    assert spread.mean() + 0.1 < sharper.mean() < 1.0
    assert 0.75 < sharper.mean()
    exact = sum(bool(f) for f in flags(spectra, mean, draws))
    assert at_most(exact, number, 0.01)
    assert at_most(sum(bool(f) for f in flags(spectra, mean)), number, 0.01)
    proof = significance(scan, mean, mean + 3.0 * (draws - mean))  # draws too wide claim that more was absorbed
    assert proof[:, -1, 40:120].std(0).mean() > 1.2


def test_a_measured_null_keeps_its_promise_whatever_the_method(rng: np.random.Generator) -> None:
    spectra = stars(rng, 1000, Kernel((1.3, 1.3)), dead=0.0, wave=WAVE[:200]).with_noise(Kernel())
    ones = np.ones(spectra.flux.shape)  # a method whose noise is 1.3 times what it states
    top = maxima(spectra, ones)
    assert not at_most(sum(bool(f) for f in flags(spectra.select(slice(500, None)), ones[500:])), 500, 0.01), "control"
    null = Calibration.fit(top[:500])
    p = null.p_value(top[500:])
    for level in (0.5, 0.1, 0.01):
        # a null from 500 stars is itself uncertain as much as what it is compared with
        assert abs((p <= level).mean() - level) < 4 * np.sqrt(2 * level * (1 - level) / 500)
    found = flags(spectra.select(slice(500, None)), ones[500:], calibration=null)
    assert [bool(f) for f in found] == (p <= 0.01).tolist()
    np.testing.assert_allclose(Calibration.from_arrays(null.to_arrays()).maxima, null.maxima, rtol=1e-6)
    u = np.linspace(0, 12, 200)
    assert (np.diff(null.p_value(u)) <= 0).all()
    assert 0 < null.p_value(12.0) < 1e-6


def test_bad_input_is_refused_with_a_remedy(rng: np.random.Generator) -> None:
    spectra = stars(rng, 2, Kernel())
    ones = np.ones(spectra.flux.shape)
    with pytest.raises(ValueError, match="false-alarm rate"):
        flags(spectra, ones, level=0.0)
    with pytest.raises(ValueError, match="must be"):
        flags(spectra, ones[:1])
    with pytest.raises(ValueError, match="must be"):
        flags(spectra, np.where(ones > 0, np.nan, ones))
    with pytest.raises(ValueError, match="at least two"):
        flags(spectra, ones, ones[None])
    with pytest.raises(ValueError, match="at least 100"):
        Calibration.fit(np.ones(99))
    with pytest.raises(ValueError, match="finite"):
        Calibration.fit(np.full(100, np.nan))
    with pytest.raises(ValueError, match="positive"):
        Scan(spectra, resolution=0.0)
    line = Spectra(np.linspace(5000, 6000, 50), ones[:, :50], ones[:, :50], ones[:, :50], spectra.meta)
    with pytest.raises(ValueError, match="uniform"):
        Scan(line)


def test_a_star_without_live_pixels_is_not_flagged_and_a_perfect_copy_neither(rng: np.random.Generator) -> None:
    spectra = stars(rng, 2, LAMOST)
    assert flags(spectra, spectra.flux) == [[], []]
    dead = Spectra(WAVE, spectra.flux, 0 * spectra.ivar, spectra.continuum, spectra.meta, LAMOST)
    assert flags(dead, np.ones(spectra.flux.shape)) == [[], []]
