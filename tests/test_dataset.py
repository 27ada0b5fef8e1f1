"""Training spectra: seeded, clean, in their own unit, under noise maps of any S/N, within what float16 holds."""

from __future__ import annotations

import numpy as np
import pytest

from core.data.dataset import SNR, Batch, batch
from core.data.grid import N_PIXELS, WAVE, continuum_curve
from core.data.instrument import MARGIN
from core.data.noise import SNR_WINDOW, NoiseModel
from core.data.simulator import Simulator
from core.models.templates import NATIVE, Templates

STARS = 150


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    templates = Templates()
    return Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest)


@pytest.fixture(scope="module")
def made(simulator) -> Batch:
    return batch(simulator, STARS, np.random.default_rng(4))


def test_a_batch_has_clean_stars_and_noise_maps_of_half_precision(made):
    assert made.excess.shape == made.sigma.shape == (STARS, N_PIXELS)
    assert made.excess.dtype == made.sigma.dtype == np.float16
    assert np.isfinite(made.excess).all()
    assert made.excess.min() > -1.01  # no negative flux
    assert (made.sigma > 0).all()
    assert not np.isnan(made.sigma).any()


def test_it_is_decided_by_its_generator(simulator, made):
    again, other = (batch(simulator, 5, np.random.default_rng(s)) for s in (9, 10))
    np.testing.assert_array_equal(batch(simulator, 5, np.random.default_rng(9)).excess, again.excess)
    np.testing.assert_array_equal(batch(simulator, 5, np.random.default_rng(9)).sigma, again.sigma)
    assert not np.array_equal(again.excess, other.excess)
    assert len(np.unique(made.excess[:, 1000])) > 0.8 * STARS  # no star twice


def test_judged_and_training_stars_are_of_one_population_and_the_seed_of_a_judged_star_stays_its_own(simulator):
    n = 4
    drawn = simulator.draw(n, np.random.default_rng(6))
    rng = np.random.default_rng(6)  # labels, S/N, velocities, in this order: another one is another judge
    np.testing.assert_array_equal(drawn.labels, simulator.population(n, rng))
    snr = np.exp(rng.uniform(np.log(3), np.log(300), n))
    np.testing.assert_array_equal(drawn.spectra.meta["snr_g"], snr)
    np.testing.assert_array_equal(drawn.spectra.meta["rv"], simulator.velocities(n, rng))
    rng = np.random.default_rng(6)
    labels, velocity = simulator.population(n, rng), simulator.velocities(n, rng)
    flux = simulator.physical(labels, velocity, rng)[:, MARGIN:-MARGIN]
    curve = continuum_curve(flux, np.full_like(flux, 1e6))
    made = batch(simulator, n, np.random.default_rng(6))
    np.testing.assert_array_equal(made.excess, (flux / curve - 1).astype(np.float16))
    assert not np.array_equal(velocity, drawn.spectra.meta["rv"])  # control: S/N drawn in between moves them


def test_velocities_are_a_disk_and_a_halo(simulator):
    v = simulator.velocities(40_000, np.random.default_rng(1))
    assert np.abs(v).max() <= 490
    assert v.std() == pytest.approx(50 * np.sqrt(0.92 + 0.08 * 3.6**2), rel=0.03)
    assert (np.abs(v) > 200).mean() == pytest.approx(0.08 * 0.2665, rel=0.15)  # 200 km/s is 1.11 of the halo's


def test_a_clean_star_is_in_the_unit_of_its_own_curve(made):
    flux = 1 + made.excess[:20].astype(float)
    curve = continuum_curve(flux, np.full_like(flux, 1e6))
    assert np.abs(curve - 1).mean() < 0.01
    assert np.abs(continuum_curve(1.3 * flux, np.full_like(flux, 1e6)) - 1).mean() > 0.2  # control


def test_half_precision_costs_less_than_a_hundredth_of_the_smallest_noise(made):
    excess = np.abs(made.excess).astype(float)
    assert np.quantile(np.spacing(made.excess.astype(np.float16)).astype(float), 0.999) < 0.001
    assert np.median(excess * 2.0**-11) < 0.01 / SNR[1]
    assert np.median((1 + excess) * 2.0**-11) > 0.01 / SNR[1]  # control: the flux itself would cost more


def test_noise_levels_span_the_whole_range_evenly_in_their_logarithm(made):
    inside = (WAVE > SNR_WINDOW[0]) & (WAVE < SNR_WINDOW[1])
    ratio = (1 + made.excess.astype(float)) / made.sigma  # of the true noise: a little above the quoted one's
    at = np.log(np.median(ratio[:, inside], axis=1))
    low, high = np.log(SNR)
    assert at.min() < low + 0.8
    assert at.max() > high - 0.8
    middle = (low + high) / 2
    error = (high - low) / np.sqrt(12 * STARS)
    assert abs(np.median(at) - middle) < 4 * 1.25 * error + 0.4  # .4: the scale of quoted sigma


def test_dead_pixels_are_among_them_and_the_blue_is_the_noisier_end(made):
    dead = ~np.isfinite(made.sigma)
    assert 0 < dead.mean() < 0.2
    assert 0.05 < dead.any(1).mean()
    live = np.where(dead, np.nan, made.sigma.astype(float))
    blue, red = (np.nanmedian(live[:, (WAVE > a) & (WAVE < b)]) for a, b in ((3750, 3850), (6500, 6800)))
    assert blue > 2 * red
