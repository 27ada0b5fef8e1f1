"""Drawn noise maps reach their S/N and look like the plate's, and what was planted is fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from core.data.grid import N_PIXELS, WAVE
from core.data.noise import LAMOST_NOISE, MODEL_FILE, NoiseModel, snr
from core.data.noise_fit import fit_model
from core.data.noise_measure import ARM, adopted_kernel
from core.spectrum import ARM_JOIN, Kernel, Spectra

RESULTS = MODEL_FILE.parents[1] / "results"

# ------------------------------------------------------------------------------------------------ drawn maps


@pytest.fixture(scope="module")
def model() -> NoiseModel:
    return NoiseModel.load()


def as_spectra(sigma: np.ndarray) -> Spectra:
    ivar = np.where(np.isfinite(sigma), 1 / sigma**2, 0.0)
    return Spectra(WAVE, np.ones_like(ivar), ivar, np.ones_like(ivar), pd.DataFrame(index=range(len(ivar))))


@pytest.mark.parametrize("dead", [True, False])
@pytest.mark.parametrize("target", [1.5, 5.0, 20.0, 100.0, 500.0])
def test_a_drawn_map_reaches_the_wanted_s_n_exactly(model, rng, target, dead):
    sigma = model.draw(np.full(30, target), rng, dead=dead)
    np.testing.assert_allclose(snr(as_spectra(sigma)), target, rtol=1e-5)
    assert (sigma > 0).all()
    assert np.isfinite(sigma).all() == (not dead)
    assert sigma[:, np.isfinite(sigma).all(axis=0)].std(axis=0).min() > 0  # two draws are two maps


def test_a_drawn_map_for_given_curves_reaches_the_wanted_s_n_exactly(model, rng):
    curves = np.stack([(WAVE / 5000) ** p for p in (-3.0, 0.0, 3.0)])
    sigma = model.draw([3.0, 30.0, 300.0], rng, curve=1e5 * curves)
    np.testing.assert_allclose(snr(as_spectra(sigma)), [3.0, 30.0, 300.0], rtol=1e-5)
    blue = np.nanmedian(np.where(np.isfinite(sigma), sigma, np.nan)[:, 300:500], axis=1) * [3, 30, 300]
    assert blue[0] < blue[1] < blue[2]  # a blue star is well measured in the blue


def test_drawn_maps_show_the_sky_the_arm_join_and_the_blue_end_and_a_flat_map_does_not(model, rng):
    def shape(sigma: np.ndarray) -> np.ndarray:
        m = np.median(sigma, axis=0)
        part = {name: m[(low < WAVE) & (high > WAVE)] for name, low, high in (
            ("sky", 5575, 5583), ("beside", 5540, 5620), ("join", 5700, 5900), ("green", 5300, 5500),
            ("blue", 3715, 3800))}
        return np.array([part["sky"].max() / np.median(part["beside"]), part["join"].max() / np.median(part["green"]),
                         np.median(part["blue"]) / np.median(part["green"])])

    faint, bright = (shape(model.draw(np.full(40, s), rng, dead=False)) for s in (5.0, 300.0))
    assert (faint > [5.0, 1.5, 8.0]).all()
    assert (bright > [1.1, 1.3, 3.0]).all()
    assert faint[0] > 3 * bright[0]  # a bright star drowns the sky
    assert (shape(np.ones((2, N_PIXELS))) == 1).all()  # the control


def test_gaps_are_as_frequent_as_measured(model, shared, rng):
    from core.data import lamost

    real, _ = lamost.read_folder(shared / "lamost", progress=False)
    real = real.select((real.meta["release"] == "pilot").to_numpy())
    band = (WAVE > 7575) & (WAVE < 7700)  # dead in half of the draws by choice, in all pilot spectra
    third = np.searchsorted(model.thirds, snr(real))

    def agree(real_: np.ndarray, drawn: np.ndarray) -> bool:
        error = np.hypot(real_.std() / np.sqrt(len(real_)), drawn.std() / np.sqrt(len(drawn)))
        return bool(abs(drawn.mean() - real_.mean()) < 4 * error)

    dead, starts = [], []
    for t, target in enumerate((5.0, 20.0, 60.0)):  # blue end and gaps are drawn by third of S/N
        drawn = model.dead(np.full(200, target), rng)
        dead.append(drawn[:, ~band].mean(axis=1))
        starts.append((~drawn).argmax(axis=1))
        assert agree(real.measured[third == t].argmax(axis=1), starts[-1])
    measured, dead_ = (~real.measured)[:, ~band].mean(axis=1), np.concatenate(dead)
    assert agree(measured, dead_)
    assert not agree(2 * measured, dead_)  # the controls
    assert not agree(real.measured[third == 0].argmax(axis=1), starts[2])
    chance = model.dead(np.full(400, 20.0), rng)[:, band].all(axis=1).mean()
    assert abs(chance - model.telluric_gap[0]) < 5 * 0.5 / np.sqrt(400)


def gap_rates(runs: np.ndarray, spectra: float, longer: int) -> np.ndarray:
    """(2, 3) gaps per spectrum longer than so many pixels, and dead pixels in them, by wavelength range."""
    where, long = WAVE[np.minimum(runs[:, 0], N_PIXELS - 1).astype(int)], runs[runs[:, 1] > longer]
    where = where[runs[:, 1] > longer]
    borders = (3700, 4500, 5700, 9000)
    return np.array([np.histogram(where, borders, weights=w)[0] for w in (np.ones(len(long)), long[:, 1])]) / spectra


def dead_runs(dead: np.ndarray) -> np.ndarray:
    """(g, 2) first pixel and length of each run of dead pixels past the first live one."""
    dead = dead & (np.arange(N_PIXELS) > (~dead).argmax(axis=1)[:, None])
    step = np.diff(np.pad(dead, ((0, 0), (1, 1))).astype(int), axis=1)
    first, stop = np.nonzero(step == 1)[1], np.nonzero(step == -1)[1]
    return np.stack([first, stop - first], axis=1)


@pytest.mark.parametrize("longer", [20, 50])
@pytest.mark.parametrize(("third", "target"), [(0, 5.0), (1, 20.0), (2, 60.0)])
def test_long_gaps_are_drawn_as_often_and_as_long_as_the_stored_ones(model, rng, third, target, longer):
    draws = 1000
    bare = replace(model, telluric_gap=np.zeros(3))
    stored = model.gaps[model.gaps[:, 2] == third, :2]
    expected = gap_rates(stored, model.gap_spectra[third], longer)
    lengths2 = np.array([((stored[:, 1] > longer) & (WAVE[stored[:, 0].astype(int)] > a)
                          & (WAVE[stored[:, 0].astype(int)] < b)) @ stored[:, 1] ** 2
                         for a, b in ((3700, 4500), (4500, 5700), (5700, 9000))]) / model.gap_spectra[third]
    poisson = np.sqrt(np.array([expected[0], lengths2]) / draws)
    # short gaps that touch make a long one in the crowded blue: their share
    touch = np.array([0.02, 2.0])[:, None] + 0.3 * expected * np.array([1.0, 0.0, 0.0])

    def agree(runs: np.ndarray) -> bool:
        return bool((np.abs(gap_rates(runs, draws, longer) - expected) < 5 * poisson + touch).all())

    drawn = dead_runs(bare.dead(np.full(draws, target), rng))
    assert agree(drawn)
    many = dead_runs(replace(bare, gap_spectra=model.gap_spectra / 2).dead(np.full(draws, target), rng))
    short = replace(bare, gaps=np.minimum(model.gaps, [N_PIXELS, longer, 3])).dead(np.full(draws, target), rng)
    assert not agree(many)  # the controls: twice as many gaps; none that is long
    assert not agree(dead_runs(short)) or (stored[:, 1] > longer).sum() < 5  # two gaps seen cannot tell


# ------------------------------------------------------------------------------------------------ the fit


JITTER, FIBRES = 0.06, 80


@pytest.fixture(scope="module")
def planted() -> tuple[NoiseModel, np.ndarray, np.ndarray, np.ndarray]:
    """A model fitted to maps drawn from P, S, one mode, a jitter and gaps; and P, S and the mode times its spread."""
    rng = np.random.default_rng(8)
    photon = 2.0 + np.sin(WAVE / 500)
    sky = 60.0 * (1 + 5 * np.exp(-0.5 * ((WAVE - 5580) / 30) ** 2))
    mode = 0.12 * np.sin(2 * np.pi * np.linspace(0, 1, N_PIXELS))
    curve = 10 ** rng.uniform(0, 3.5, (FIBRES, 1)) * (WAVE / 5000) ** rng.uniform(-1, 1, (FIBRES, 1))
    weights = rng.standard_normal((FIBRES, 1))
    weights = (weights - weights.mean()) / weights.std()
    factor = np.exp(0.1 * rng.standard_normal((FIBRES, 1)))
    factor /= np.exp(np.log(factor).mean())
    variance = factor * (photon * curve + sky) * np.exp(weights * mode + JITTER * rng.standard_normal(curve.shape))
    ivar = curve**2 / variance
    ivar[:, :30], ivar[::4, 2000:2040], ivar[1::4, 3000:3003] = 0, 0, 0
    spectra = Spectra(WAVE, np.ones_like(ivar), ivar, curve, pd.DataFrame(index=range(FIBRES)))
    return fit_model(spectra, (0.7, 0.6, 0.1, 0.05), modes=1), photon, sky, mode


def test_photons_sky_and_a_mode_that_were_planted_are_fitted(planted):
    model, photon, sky, mode = planted
    live = slice(40, None)
    scale = np.median(np.concatenate([model.photon[live] / photon[live], model.sky[live] / sky[live]]))
    # relative least squares sits 1.5 variances (of log variance: .011) low, and each of the four rounds adds that, for
    # fit_model does not hold the fibres' mean factor at 1: 6 % here
    assert 0.90 < scale < 1.03
    for got, put in ((model.photon, photon), (model.sky, sky)):
        ratio = got[live] / put[live] / scale
        assert abs(np.median(ratio) - 1) < 0.03
        assert np.std(ratio) < 0.10  # some forty fibres tell each, to .15 / sqrt(40), in each pixel
    fitted = model.mode_std[0] * model.modes[0]
    fitted = fitted * np.sign(fitted @ mode)
    assert np.linalg.norm(fitted) == pytest.approx(np.linalg.norm(mode), rel=0.05)
    assert np.corrcoef(fitted[live], mode[live])[0, 1] > 0.98
    assert np.median(model.jitter[live]) == pytest.approx(JITTER, rel=0.05)
    assert model.noise == Kernel((0.7, 0.6), (0.1, 0.05))


def test_gaps_that_were_planted_are_stored_with_their_third(planted):
    model = planted[0]
    assert (model.start == 30).all()
    assert model.gap_spectra.sum() == FIBRES
    assert model.telluric_gap[0] == 0
    for first, length in ((2000, 40), (3000, 3)):
        assert (model.gaps[:, :2] == (first, length)).all(axis=1).sum() == FIBRES / 4
    assert len(model.gaps) == FIBRES / 2


def test_what_was_planted_is_drawn(planted, rng):
    model, photon, _, mode = planted
    sigma = model.draw(np.full(400, 500.0), rng, curve=np.ones((400, N_PIXELS)), dead=False)
    log = np.log(sigma**2)[:, 40:]
    shape = mode[40:] - mode[40:].mean()
    along = (log - log.mean(axis=0)) @ shape / (shape @ shape)
    assert along.std() == pytest.approx(1, abs=5 / np.sqrt(2 * 400))  # in units of the spread that was planted
    assert np.diff(log, 2, axis=1).std() / np.sqrt(6) == pytest.approx(JITTER, rel=0.1)  # mode and P are smooth
    bright = np.median(log, axis=0) - np.log(photon[40:])
    assert np.ptp(bright[::200]) < 0.25  # a bright star's map is the photons'


def test_the_arms_meet_where_the_survey_says():
    assert ARM_JOIN == 5900.0  # Zhao et al. 2012: the arms overlap at 5700-5900
    assert LAMOST_NOISE.join == ARM_JOIN


# ------------------------------------------------------------------------------------------------ refused, and kept


@pytest.mark.parametrize(("target", "curve", "message"), [
    (0.0, None, "give positive numbers"), (np.nan, None, "give positive numbers"),
    (5.0, np.ones((2, N_PIXELS)), r"give \(1, 3840\)"), (5.0, np.zeros((1, N_PIXELS)), "positive numbers")])
def test_a_map_that_cannot_be_drawn_is_refused(model, rng, target, curve, message):
    with pytest.raises(ValueError, match=message):
        model.draw(target, rng, curve)


def test_the_same_generator_draws_the_same_maps(model):
    a, b = (model.draw([5.0, 50.0], np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_a_missing_or_foreign_model_file_is_refused_with_the_command_that_makes_it(tmp_path):
    for content in (None, b"nothing of this kind", {"photon": np.ones(3, np.float32)}):
        file = tmp_path / "model.safetensors"
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif content is not None:
            save_file(content, file)
        with pytest.raises(ValueError, match="scripts.prepare noise") as caught:
            NoiseModel.load(file)
        assert caught.match("model.safetensors")


def test_a_saved_model_is_the_same_model(model, tmp_path):
    model.save(tmp_path / "again.safetensors")
    again = load_file(tmp_path / "again.safetensors")
    for name, value in load_file(MODEL_FILE).items():
        np.testing.assert_array_equal(again[name], value)


def test_the_constant_the_model_file_and_the_committed_table_state_the_same_noise(model):
    own = np.array(adopted_kernel(pd.read_csv(RESULTS / "noise_extrapolated.csv")))
    np.testing.assert_allclose([*model.noise.scale, *model.noise.rho], own, atol=1e-4)
    np.testing.assert_allclose([*LAMOST_NOISE.scale, *LAMOST_NOISE.rho], own, atol=0.005)
    table = pd.read_csv(RESULTS / "noise.csv")
    bins = table[(table["pixels"] == "clean") & (table["snr_high"] == 60)].assign(arm=lambda t: t["region"].map(ARM))
    for residual, off in (("own", 0.1), ("all", 0.3)):  # the controls: with misfits, with what the plate shares
        part = bins[bins["residual"] == residual]
        assert np.abs(np.array(adopted_kernel(part.assign(s=np.sqrt(part["s2"])))) - own).max() > off
