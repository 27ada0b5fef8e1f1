"""A null that knows where a method misfits keeps its promise, and gives back the power that misfits cost elsewhere."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from core.metrics.audit import Test, calibrate
from core.metrics.false_alarms import Calibration
from core.metrics.flags import flags, significance
from core.metrics.injection import nothing, put_in
from core.metrics.matched_filter import Scan
from core.metrics.misfit import Misfit
from core.spectrum import Kernel, Spectra, star_seed

PIXELS = 600
WAVE = 10.0 ** (3.79 + 1e-4 * np.arange(PIXELS))  # 6166-7079 Angstrom
BAD = slice(200, 260)  # pixels where the method below misfits


def stars(rng: np.random.Generator, number: int, name: str = "s") -> Spectra:
    """Featureless stars of truth 1; their S/N from 10 to 40, star by star."""
    sigma = 0.05 * np.exp(rng.uniform(-0.7, 0.7, (number, 1))) * np.ones(PIXELS)
    flux = 1 + sigma * rng.standard_normal(sigma.shape)
    meta = pd.DataFrame({"star": [f"{name}{i}" for i in range(number)]})
    return Spectra(WAVE, flux, 1 / sigma**2, np.ones(sigma.shape), meta, Kernel())


def misfitting(spectra: Spectra, n: int, seed: int) -> np.ndarray:
    """The truth, but for errors of .06 in one region: lost in the noise of the faint, twice that of the bright."""
    out = np.ones((n, *spectra.flux.shape))
    for b, star in enumerate(spectra.stars):
        rng = np.random.default_rng(star_seed(star, seed, "misfit"))
        out[:, b, BAD] += 0.06 * np.repeat(rng.standard_normal(20), 3)
    return out


def test_a_null_by_place_gives_back_the_power_that_misfits_elsewhere_cost(rng: np.random.Generator) -> None:
    null, fresh = stars(rng, 400, "null"), stars(rng, 400)
    by_place = Test(calibration=calibrate(null, misfitting, 1, places=True), with_draws=False)
    one_for_all = Test(calibration=calibrate(null, misfitting, 1, places=False), with_draws=False)
    power = {}
    for name, test in (("place", by_place), ("all", one_for_all)):
        alarms = int(nothing(fresh, misfitting, 1, test=test)["flagged"].sum())
        assert alarms <= binom.ppf(1 - 5e-4, 400, 0.02), "the null of 400 stars is uncertain too"
        table = put_in(fresh.select(slice(0, 150)), misfitting, 1, strengths=(7.0, 7.0), widths=(0.5, 2.0), test=test)
        here = np.log10(table["wavelength"] / WAVE[0]) / 1e-4
        away = (here < BAD.start - 30) | (here > BAD.stop + 30)
        power[name] = table["flagged"][away].mean()
    assert power["place"] > 0.9
    assert power["all"] < 0.3, "the control: one threshold for all places is the worst one's"


def test_the_misfit_is_the_spread_of_the_statistic_at_every_place_and_signal_to_noise(rng: np.random.Generator) -> None:
    null, fresh = stars(rng, 400, "null"), stars(rng, 300)
    t, sigma = [], None
    for spectra in (null, fresh):
        scan = Scan(spectra)
        t.append(significance(scan, misfitting(spectra, 1, 0)[0]))
        sigma = Misfit.fit(t[0], Scan(null).norm).sigma(scan.norm, scan.seen) if len(t) == 2 else None
    assert sigma is not None
    bright = fresh.ivar[:, 0] > np.median(fresh.ivar[:, 0])
    for part in (bright, ~bright):
        middle = (t[1][part] / sigma[part])[:, :, 215:245]
        assert 0.75 < np.sqrt((middle**2).mean()) < 1.25
        outside = (t[1][part] / sigma[part])[:, :, 400:]
        assert 0.9 < np.sqrt((outside**2).mean()) < 1.1
    raw = t[1][:, :, 215:245] / sigma[:, :, 215:245].mean(axis=0)  # the control: one spread for bright and faint
    assert np.sqrt((raw[bright] ** 2).mean()) > 1.4 * np.sqrt((raw[~bright] ** 2).mean())


def test_it_is_stored_and_read_back_without_pickle(rng: np.random.Generator) -> None:
    null, fresh = stars(rng, 120, "null"), stars(rng, 10)
    calibration = calibrate(null, misfitting, 1, test=Test(with_draws=False))
    file = io.BytesIO()
    np.savez(file, **calibration.to_arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        again = Calibration.from_arrays(dict(stored))
    scan, answer = Scan(fresh), misfitting(fresh, 1, 0)[0]
    np.testing.assert_allclose(significance(scan, answer, None, again), significance(scan, answer, None, calibration),
                               rtol=1e-5)
    np.testing.assert_allclose(again.p_value(5.0), calibration.p_value(5.0), rtol=1e-4)


def test_a_star_s_maximum_is_measured_with_the_misfit_of_the_others(rng: np.random.Generator) -> None:
    t = rng.standard_normal((100, 2, 60)).astype(np.float32)
    t[7] *= 30.0  # one odd star
    norm = np.ones_like(t)
    inside = np.abs(t / Misfit.fit(t, norm).sigma(norm, t != 0)).max(axis=(1, 2))
    assert max(Calibration.of(t, norm).maxima) > 2 * inside.max()


def test_places_never_seen_take_their_neighbours_spread_and_dead_stars_have_none(rng: np.random.Generator) -> None:
    t, norm = 3 * rng.standard_normal((150, 2, 300)), np.ones((150, 2, 300))
    t[:, :, 100:160] = 0.0
    sigma = Misfit.fit(t, norm).sigma(norm, np.ones(norm.shape, dtype=bool))
    assert np.abs(sigma - 3).max() < 0.5
    dead = Misfit.fit(t, norm).sigma(0 * norm, np.zeros(norm.shape, dtype=bool))
    assert np.isfinite(dead).all()
    assert (dead > 0).all()


def test_bad_input_is_refused_with_a_remedy(rng: np.random.Generator) -> None:
    spectra = stars(rng, 120)
    calibration = calibrate(spectra, misfitting, 1)
    few = spectra.select(slice(0, 2))
    with pytest.raises(ValueError, match="widths, resolution and grid"):
        flags(few, few.flux, calibration=calibration, widths=(1.0,))
    with pytest.raises(ValueError, match=r"\(B, M, L\)"):
        Misfit.fit(np.ones((5, 2, 30)), np.ones((5, 2, 31)))
    with pytest.raises(ValueError, match="seen in at least one"):
        Misfit.fit(np.zeros((5, 2, 30)), np.ones((5, 2, 30)))
    with pytest.raises(ValueError, match="do not belong"):
        Misfit(np.ones((2, 3)), np.zeros(1), np.zeros(1), 600)
    with pytest.raises(ValueError, match="positive"):
        Misfit(np.zeros((2, 30)), np.zeros(6), np.zeros(6), 600)
    with pytest.raises(ValueError, match="folds"):
        Calibration.of(np.ones((100, 2, 60)), np.ones((100, 2, 60)), folds=1)
    with pytest.raises(ValueError, match="at least 100"):
        calibrate(spectra.select(slice(0, 50)), misfitting, 1)
