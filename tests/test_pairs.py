"""Pairs of a noisy and a clean spectrum are of one star, at one velocity, in one unit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.data import grid
from core.data.lamost_write import LAMOST_WAVE
from core.data.noise import add_noise
from core.data.pairs import Pairs, align, from_clean, from_repeats
from core.spectrum import Kernel, Spectra

LINES = np.random.default_rng(3).uniform(3800, 8900, 150)
WAVE = LAMOST_WAVE


def truth(rv: float = 0.0, level: float = 100.0, tilt: float = 0.0) -> np.ndarray:
    """A made-up star's flux, with lines as wide as LAMOST's resolution, seen at a velocity through a calibration."""
    rest = WAVE / (1 + rv / grid.C_KMS)
    lines = 0.4 * np.exp(-0.5 * ((rest[:, None] - LINES) / 2.0) ** 2).sum(1)
    return level * (WAVE / 6000) ** tilt * np.exp(-lines)


def observed(rng, snr, rv=0.0, level=100.0, tilt=0.0, **meta) -> Spectra:
    flux = truth(np.nan_to_num(rv), level, tilt)
    sigma = flux.mean() / snr * np.ones(flux.size)
    about = {"star": f"s{snr}", "ra": 10.0, "dec": 20.0, "rv": rv, "designation": "J1"} | meta
    return grid.prepare(WAVE, flux + sigma * rng.standard_normal(flux.size), sigma**-2, pd.DataFrame([about]))


def together(*spectra: Spectra) -> Spectra:
    arrays = (np.concatenate([getattr(s, n) for s in spectra]) for n in ("flux", "ivar", "continuum"))
    return Spectra(grid.WAVE, *arrays, meta=pd.concat([s.meta for s in spectra]))


def chi2(pairs: Pairs) -> float:
    """Mean squared difference of the members in units of both errors: 1 when they agree."""
    both = pairs.noisy.measured & pairs.clean.measured
    difference = (pairs.noisy.flux - pairs.clean.flux)[both]
    return float(np.mean(difference**2 / (1 / pairs.noisy.ivar[both] + 1 / pairs.clean.ivar[both])))


TOLERANCE = 5 * np.sqrt(2 / grid.N_PIXELS)  # five standard errors of a mean chi-square over all pixels


def test_repeats_agree_within_their_errors_whatever_their_velocity_level_and_calibration(rng):
    low = observed(rng, 10, rv=60.0, level=40.0, tilt=0.8, star="low")
    high = observed(rng, 80, rv=-80.0, level=300.0, tilt=-0.4, star="high")
    pairs = from_repeats(together(high, low))
    assert list(pairs.table.star) == ["low"]
    assert list(pairs.table.clean_star) == ["high"]
    assert pairs.table["shift"][0] == pytest.approx(140, rel=1e-3)
    assert abs(chi2(pairs) - 1) < TOLERANCE
    # the controls: unshifted, and with the calibration of the high member left as it was
    still = together(high, low)
    still = Spectra(still.wave, still.flux, still.ivar, still.continuum, still.meta.assign(rv=0.0))
    assert chi2(from_repeats(still)) - 1 > TOLERANCE
    raw = Spectra(high.wave, high.flux * high.continuum / low.continuum, high.ivar, low.continuum, high.meta)
    assert chi2(Pairs(low, raw, pairs.table)) - 1 > TOLERANCE


def test_the_low_member_is_never_touched_and_gives_the_unit(rng):
    low, high = observed(rng, 10, rv=35.0), observed(rng, 90)
    pairs = from_repeats(together(low, high))
    for name in ("flux", "ivar", "continuum"):
        np.testing.assert_array_equal(getattr(pairs.noisy, name), getattr(low, name))
    np.testing.assert_array_equal(pairs.clean.continuum, low.continuum)


def test_equal_velocities_leave_the_high_member_uninterpolated(rng):
    low, high = observed(rng, 10, rv=35.0), observed(rng, 90, rv=35.0)
    pairs = from_repeats(together(low, high))
    ratio = pairs.clean.flux[0] / high.flux[0]
    assert np.abs(np.diff(ratio)).max() < 1e-3  # a smooth ratio and nothing else
    np.testing.assert_allclose(pairs.clean.ivar[0], high.ivar[0] / ratio**2, rtol=1e-9)


def test_the_clean_member_keeps_its_errors(rng):
    pairs = from_repeats(together(observed(rng, 10), observed(rng, 50)))
    expected = pairs.clean.flux[0] - pairs.noisy.flux[0]
    assert (pairs.clean.ivar > 0).all()
    assert np.isfinite(expected).all()
    assert pairs.table.snr_clean[0] == pytest.approx(5 * pairs.table.snr_noisy[0], rel=0.1)


def test_each_low_observation_is_paired_with_the_best_of_its_own_star(rng):
    near = {"ra": 10.0 + 2 / 3600 / np.cos(np.radians(20.0)), "designation": ""}
    spectra = together(observed(rng, 8, star="a1"), observed(rng, 30, star="a2", **near), observed(rng, 60, star="a3"),
                       observed(rng, 200, star="b", ra=10.002), observed(rng, 300, star="c", designation="J2"),
                       observed(rng, 500, star="d", rv=np.nan))
    pairs = from_repeats(spectra)
    assert dict(zip(pairs.table.star, pairs.table.clean_star, strict=True)) == {"a1": "a3", "a2": "c"}
    assert pairs.table.separation.max() == pytest.approx(2, abs=0.01)


def test_from_repeats_says_when_there_is_no_pair(rng):
    with pytest.raises(ValueError, match="no star has two observations"):
        from_repeats(together(observed(rng, 10), observed(rng, 15)))
    with pytest.raises(ValueError, match="no star has two observations"):
        from_repeats(together(observed(rng, 10, ra=np.nan), observed(rng, 50)))
    one = observed(rng, 10)
    nameless = Spectra(one.wave, one.flux, one.ivar, one.continuum, one.meta[["star"]])
    with pytest.raises(ValueError, match="no column"):
        from_repeats(nameless)
    with pytest.raises(ValueError, match="min_ratio is 0.5"):
        from_repeats(observed(rng, 10), min_ratio=0.5)


def test_pairs_of_two_stars_are_refused(rng):
    low = observed(rng, 10)
    for other in ({"ra": 10.01}, {"designation": "J2"}, {"dec": np.nan}):
        with pytest.raises(ValueError, match="join two stars"):
            align(low, observed(rng, 50, **other))
    assert len(align(low, observed(rng, 50))) == 1  # the control


def test_a_pair_with_the_better_member_first_is_refused(rng):
    low, high = observed(rng, 10), observed(rng, 50)
    with pytest.raises(ValueError, match="swap the members"):
        align(high, low)


def test_two_grids_and_two_lengths_are_refused(rng):
    low, high = observed(rng, 10), observed(rng, 50)
    short = Spectra(high.wave[:3000], *(getattr(high, n)[:, :3000] for n in ("flux", "ivar", "continuum")), high.meta)
    with pytest.raises(ValueError, match="two wavelength grids"):
        align(low, short)
    with pytest.raises(ValueError, match="1 noisy spectra stand against 2"):
        align(low, together(high, high))
    with pytest.raises(ValueError, match="units of two continua"):
        Pairs(low, high, pd.DataFrame({"star": ["a"]}))


def test_an_unknown_velocity_cannot_be_aligned(rng):
    with pytest.raises(ValueError, match="rv is unknown"):
        align(observed(rng, 10, rv=np.nan), observed(rng, 50))


def test_pairs_with_little_in_common_are_refused(rng):
    low, high = observed(rng, 10), observed(rng, 50)
    mostly_dead = Spectra(high.wave, high.flux, np.where(np.arange(3840) % 60 == 0, high.ivar, 0.0), high.continuum,
                          high.meta)
    with pytest.raises(ValueError, match="too few"):
        align(low, mostly_dead)


def white(clean: Spectra, seed: int) -> Spectra:
    """S/N 20 of the continuum, and a gap."""
    ivar = np.full(clean.flux.shape, 400.0)
    ivar[:, 100:110] = 0
    return add_noise(clean, ivar, seed)


def test_noise_on_clean_flux_gives_pairs_that_agree_within_their_errors():
    clean = np.stack([truth(v, 50.0, 0.5)[18:18 + grid.N_PIXELS] for v in (0.0, 100.0, -50.0)])
    pairs = from_clean(clean, white, seed=1)
    assert abs(chi2(pairs) - 1) < TOLERANCE / np.sqrt(3)
    # the control: the clean flux in units of its own continuum is not the target, the noisy one's curve differs
    own = grid.prepare(grid.WAVE, clean, np.full(clean.shape, 1e12))
    assert np.abs(own.flux - pairs.clean.flux).max() > 1e-3
    np.testing.assert_allclose(pairs.clean.flux * pairs.clean.continuum, clean, rtol=1e-9)
    assert not pairs.noisy.measured[:, 100:110].any()
    assert pairs.clean.measured.all()


def test_a_clean_member_with_errors_of_its_own_has_them_in_the_noisy_one_s_unit(rng):
    clean = observed(rng, 200, tilt=0.5)
    pairs = from_clean(clean, white, seed=1)
    unit = clean.continuum / pairs.clean.continuum
    assert np.abs(unit - 1).max() > 1e-3  # the control: two units, so dividing or multiplying by their square tells
    np.testing.assert_allclose(pairs.clean.flux, clean.flux * unit, rtol=1e-12)
    np.testing.assert_allclose(pairs.clean.ivar * unit**2, clean.ivar, rtol=1e-12)
    ratio = pairs.clean.flux * np.sqrt(pairs.clean.ivar)
    np.testing.assert_allclose(ratio, clean.flux * np.sqrt(clean.ivar), rtol=1e-12)  # S/N knows no unit
    assert np.abs(clean.ivar * unit**4 / clean.ivar - 1).max() > 1e-3


def test_a_resampled_member_s_noise_is_correlated_as_the_docstring_warns(rng):
    still = add_noise(Spectra(grid.WAVE, *(np.ones((40, grid.N_PIXELS)),) * 3, pd.DataFrame(index=range(40))), 1.0, 1,
                      Kernel((1.0, 1.0), (0.10, 0.10)))
    for part, variance, rho in ((0.25, 1.06, 0.38), (0.5, 1.10, 0.56)):
        flux, ivar = grid.resample(grid.WAVE * 10 ** (part * 1e-4), still.flux, still.ivar)
        z = ((flux - 1) * np.sqrt(ivar))[:, 5:-5]
        error = 5 * np.sqrt(3 / z.size)
        assert abs(np.mean(z**2) - variance) < error + 0.005
        assert abs(np.mean(z[:, 1:] * z[:, :-1]) / np.mean(z**2) - rho) < error + 0.01


def test_both_ways_yield_the_same_thing(rng):
    repeats = from_repeats(together(observed(rng, 10), observed(rng, 50)))
    made = from_clean(observed(rng, 200), white, seed=0)
    assert list(repeats.table.columns) == list(made.table.columns)
    for pairs in (repeats, made):
        assert len(pairs) == 1
        np.testing.assert_array_equal(pairs.noisy.continuum, pairs.clean.continuum)
        np.testing.assert_array_equal(pairs.noisy.wave, grid.WAVE)


def test_a_star_s_noise_does_not_know_its_neighbours(rng):
    a, b = observed(rng, 200, star="a"), observed(rng, 200, star="b")
    both, alone = from_clean(together(a, b), white, seed=4), from_clean(b, white, seed=4)
    np.testing.assert_allclose(both.noisy.flux[1], alone.noisy.flux[0], rtol=1e-9)
    assert np.abs(from_clean(b, white, seed=5).noisy.flux - alone.noisy.flux).max() > 0.01


def test_what_the_clean_spectrum_does_not_know_is_not_asked(rng):
    clean = observed(rng, 200)
    ivar = np.array(clean.ivar)
    ivar[0, 500:600] = 0
    holed = Spectra(clean.wave, clean.flux, ivar, clean.continuum, clean.meta)
    assert not from_clean(holed, white, seed=0).noisy.measured[0, 500:600].any()


def test_clean_spectra_that_cannot_be_used_are_refused(rng):
    with pytest.raises(ValueError, match="shape"):
        from_clean(np.ones((2, 100)), white, seed=0)
    with pytest.raises(ValueError, match="swap the members"):
        from_clean(observed(rng, 5), white, seed=0)  # noisier than what is put on it
    with pytest.raises(ValueError, match="two continua"):
        from_clean(observed(rng, 50), lambda clean, seed: observed(rng, 10, level=3.0), seed=0)
