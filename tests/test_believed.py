"""What is data and what is prior: trust is low where much was measured and high in gaps; flags name what is gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_mixture import CORRELATED, small_mixture, stars_of

from core import believed
from core.data import library
from core.data.grid import N_PIXELS, WAVE
from core.data.instrument import MARGIN
from core.metrics.matched_filter import profile, strength
from core.models.left_out import HALF, left_out_variance
from core.models.mixture_sampler import MixtureSampler
from core.models.observation import Observation
from core.spectrum import WHITE, Kernel, Samples, Spectra

STAR = 10  # of the bundled ones: a G dwarf
LINES = ((4849, 4878), (5161, 5194), (6550, 6580), (8524, 8564))


@pytest.fixture(scope="module")
def known() -> tuple[Spectra, np.ndarray]:
    """A bundled star and its truth."""
    stars, truths = library.bundled()
    truth = truths[STAR]
    assert truth is not None
    return stars.select(STAR), truth


def at(known: tuple[Spectra, np.ndarray], snr: float, line: np.ndarray | None = None, seed: int = 1) -> Spectra:
    """The star observed anew at an S/N_g, with a line added in units of the continuum."""
    star, truth = known
    ivar = star.ivar * (snr / star.meta["snr_g"][0]) ** 2
    sigma = np.where(ivar > 0, 1 / np.sqrt(np.maximum(ivar, 1e-30)), 0.0) * star.noise.scales(star.wave)
    z = star.noise.colour(star.wave, np.random.default_rng(seed).standard_normal((1, N_PIXELS + 2)))
    flux = truth + sigma * z + (0.0 if line is None else line)
    return replace(star, flux=np.where(ivar > 0, flux, 0.0), ivar=ivar)


def draws(spectra: Spectra, n: int = 32) -> Samples:
    answer = MixtureSampler().sample(Observation.of(spectra), n, 3)
    return Samples(spectra.wave, answer.numpy(), "mixture")


def shares(known: tuple[Spectra, np.ndarray], snr: float) -> tuple[float, float, float]:
    """Median trust in the lines, in all that was measured, and in stretches that were not."""
    spectra = at(known, snr)
    trust = believed.trust(draws(spectra), spectra)[0]
    live = spectra.measured[0]
    lines = np.any([(spectra.wave > a) & (spectra.wave < b) for a, b in LINES], axis=0)
    return tuple(float(np.median(trust[part])) for part in (lines & live, live, ~live))


# ------------------------------------------------------------------------------------------------ what is left out


@pytest.mark.parametrize(("kernel", "taps"), [(WHITE, None), (CORRELATED, torch.ones(3) / 3**0.5)])
def test_the_variance_without_a_neighbourhood_is_that_of_a_star_whose_neighbourhood_was_never_measured(
    kernel: Kernel, taps: torch.Tensor | None
) -> None:
    mixture = small_mixture(0.0, taps)
    _, _, seen = stars_of(mixture, 1, 1000.0, kernel, np.random.default_rng(5))
    left_out = left_out_variance(mixture.over(seen, [0], [0.0]))
    inside = mixture.over(seen, [0], [0.0]).moments()[1].double() ** 2
    for pixel in (40, 700, 930, 2600, 3800):
        ivar = seen.ivar.clone()
        ivar[:, max(pixel - HALF, 0) : pixel + HALF + 1] = 0.0
        masked = mixture.over(replace(seen, ivar=ivar), [0], [0.0]).moments()[1][pixel].double() ** 2
        assert torch.isclose(left_out[pixel], masked, rtol=1e-3)
    assert (inside / left_out)[seen.ivar[0] > 0].median() < 0.9, "the control: what was measured there counts"


def test_a_negative_window_is_refused() -> None:
    mixture = small_mixture()
    _, _, seen = stars_of(mixture, 1, 30.0, WHITE, np.random.default_rng(5))
    with pytest.raises(ValueError, match="at least 0"):
        left_out_variance(mixture.over(seen, [0], [0.0]), -1)


# ------------------------------------------------------------------------------------------------------------ trust


def test_lines_are_data_at_high_snr_and_prior_at_low_and_gaps_are_prior_always(
    known: tuple[Spectra, np.ndarray],
) -> None:
    bright, middle, faint = (shares(known, snr) for snr in (200.0, 20.0, 3.0))
    assert bright[0] < 0.3
    assert bright[0] < middle[0] < faint[0]
    assert bright[1] < middle[1] < faint[1]
    assert faint[1] > 0.8
    for lines, _, gaps in (bright, middle, faint):
        assert gaps > 0.75, "few draws tell a variance to a quarter"
        assert gaps > lines


def test_the_variance_over_all_stars_would_call_a_gap_data(known: tuple[Spectra, np.ndarray]) -> None:
    """The control: the mixture's marginal variance as the yardstick fails what the one of `trust` meets."""
    mixture = MixtureSampler().mixture
    share, mean = mixture.log_weight.double().softmax(0)[:, None], mixture.mean.double()
    within = (mixture.factors.double() ** 2).sum(1) + float(np.mean(mixture.scales)) * mixture.residual.double()
    first = (share * mean).sum(0)
    marginal = (share * (within + (mean - first) ** 2)).sum(0)[MARGIN : MARGIN + N_PIXELS].numpy()
    spectra = at(known, 20.0)
    answer, gap = draws(spectra), ~spectra.measured[0]
    assert np.median(answer.spread[0, gap] ** 2 / marginal[gap]) < 0.3
    assert np.median(believed.trust(answer, spectra)[0, gap]) > 0.7


def test_trust_is_a_star_s_own_and_none_of_a_point_estimate(known: tuple[Spectra, np.ndarray]) -> None:
    one, other = at(known, 20.0), at(known, 5.0)
    both = replace(one, flux=np.concatenate([one.flux, other.flux]), ivar=np.concatenate([one.ivar, other.ivar]),
                   continuum=np.repeat(one.continuum, 2, axis=0),
                   meta=one.meta.iloc[[0, 0]].assign(star=["a", "b"]))
    answer = draws(both, 8)
    together = believed.trust(answer, both)
    alone = believed.trust(Samples(both.wave, answer.draws[:, 1:], "mixture"), both.select(1))
    assert np.array_equal(together[1], alone[0])
    assert ((together >= 0) & (together <= 1)).all()
    point = Samples(both.wave, np.repeat(answer.draws[:1], 4, axis=0), "wavelet")
    assert np.isnan(believed.trust(point, both)).all()


def test_a_star_that_no_prior_knows_is_outside_and_a_common_one_inside(known: tuple[Spectra, np.ndarray]) -> None:
    usual = believed.by_mixture(at(known, 60.0))
    assert usual.misfit <= believed.OUTSIDE
    teff, error = usual.label("teff")
    assert abs(teff - known[0].meta["teff"][0]) < 4 * max(error, 60.0)
    velocity, width = usual.label("rv")
    assert abs(velocity - known[0].meta["rv"][0]) < 5 * max(width, 1.0)
    waves = 0.2 * np.sin(np.arange(N_PIXELS) / 3.0)[None]
    assert believed.by_mixture(at(known, 60.0, waves)).misfit > believed.OUTSIDE


# ------------------------------------------------------------------------------------------------------------ flags


def line_of(spectra: Spectra, sigmas: float, wavelength: float) -> np.ndarray:
    """An absorption line of the instrument's width, so many standard deviations strong."""
    row, shape = np.zeros((1, N_PIXELS)), profile(1.2)
    middle = int(np.argmin(np.abs(WAVE - wavelength)))
    row[0, middle - len(shape) // 2 : middle + len(shape) // 2 + 1] = shape
    return -row * sigmas / strength(spectra, row)


@pytest.mark.parametrize("method", ["mixture", "nobody"])
def test_a_line_that_the_answer_lacks_is_flagged_where_it_is_and_nothing_else(
    known: tuple[Spectra, np.ndarray], method: str
) -> None:
    line = line_of(at(known, 9.0), 9.0, 6301.0)
    with_line, without = at(known, 9.0, line), at(known, 9.0)

    def answer(spectra: Spectra) -> Samples:
        """The mixture, whose null was measured; or the truth without the line, as of a method without one."""
        return draws(spectra, 16) if method == "mixture" else Samples(WAVE, known[1][None, None], method)

    assert believed.has_null(method) == (method == "mixture")
    (found,) = believed.flagged(answer(with_line), with_line)
    assert abs(found[0].wavelength - 6301.0) < 3.0
    assert found[0].strength > 4
    assert found[0].p_value <= 0.01
    assert believed.flagged(answer(without), without) == [[]], "the control: nothing was removed"
    kept = Samples(WAVE, answer(without).draws + line, method)
    assert believed.flagged(kept, with_line) == [[]], "the control: an answer that keeps the line"


def test_an_answer_that_copies_is_not_flagged_for_its_rounding(known: tuple[Spectra, np.ndarray]) -> None:
    spectra = at(known, 9.0)
    rounded = spectra.flux.astype(np.float32).astype(np.float64)
    assert (rounded != spectra.flux).any()
    assert believed.flagged(Samples(WAVE, rounded[None], "noisy"), spectra) == [[]]


def test_the_null_is_the_one_measured_nearest_in_signal_to_noise() -> None:
    nulls = believed.read_nulls()
    for snr, near in ((4.0, 5.0), (6.9, 5.0), (7.2, 10.0), (1000.0, 100.0), (float("nan"), 5.0)):
        assert believed._null("mixture", snr) is not None
        assert believed._null("mixture", snr).maxima == nulls["mixture", near].maxima
    assert believed._null("nobody", 10.0) is None


def test_what_does_not_belong_together_is_refused(known: tuple[Spectra, np.ndarray], tmp_path: Path) -> None:
    spectra = at(known, 20.0)
    two = Samples(WAVE, np.ones((2, 2, N_PIXELS)), "mixture")
    for question in (believed.trust, believed.flagged):
        with pytest.raises(ValueError, match="do not belong"):
            question(two, spectra)
    with pytest.raises(ValueError, match="false-alarm rate"):
        believed.flagged(Samples(WAVE, np.ones((1, 1, N_PIXELS)), "mixture"), spectra, level=0.0)
    with pytest.raises(ValueError, match="scripts.evaluate audit"):
        believed.read_nulls(tmp_path / "none.npz")


def test_the_same_question_is_answered_once(known: tuple[Spectra, np.ndarray]) -> None:
    assert believed.by_mixture(at(known, 20.0)) is believed.by_mixture(at(known, 20.0))
    assert believed.by_mixture(at(known, 20.0)) is not believed.by_mixture(at(known, 20.0, seed=2))
