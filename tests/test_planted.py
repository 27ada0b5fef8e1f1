"""A line put in by hand is as strong as it says, is judged as the audit's are, and refused in a plain sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from core.data.grid import WAVE
from core.metrics.flags import Flag
from core.metrics.injection import put_in
from core.metrics.matched_filter import strength
from core.metrics.planted import UNITS, ByHand, angstrom, plant, verdict
from core.spectrum import Array, Kernel, Spectra


@pytest.fixture
def star(rng: np.random.Generator) -> Spectra:
    ivar = np.full((1, len(WAVE)), 400.0)
    ivar[0, 1000:1100] = 0.0
    flux = 1.0 + 0.05 * rng.standard_normal((1, len(WAVE)))
    return Spectra(WAVE, flux, ivar, np.ones_like(flux), pd.DataFrame({"star": ["a"]}),
                   Kernel((0.9, 0.8), (0.3, 0.4)))


@pytest.mark.parametrize("unit", list(UNITS))
@pytest.mark.parametrize("size", [4.0, -3.0])
def test_a_line_is_as_strong_as_it_says_in_each_unit(star: Spectra, unit: str, size: float) -> None:
    put = plant(star, ByHand(6300.3, size, unit, 6.0))
    change = put.spectra.flux - star.flux
    assert np.isclose({"sigma": put.sigma, "ew": put.ew, "depth": put.depth}[unit], size)
    assert np.isclose(np.sign(size) * strength(star, change)[0], put.sigma)
    assert np.isclose(-(change[0] @ angstrom(WAVE)), put.ew)
    assert np.isclose(put.ew, put.depth * 6.0 / np.sqrt(8 * np.log(2)) * np.sqrt(2 * np.pi), rtol=2e-3)
    assert np.array_equal(put.spectra.ivar, star.ivar)
    centre = float((change[0] @ WAVE) / change[0].sum())
    assert abs(centre - 6300.3) < 0.1, "the line lies where it was put, not in the middle of a pixel"


def test_nothing_put_in_changes_nothing_and_has_no_share(star: Spectra) -> None:
    put = plant(star, ByHand(6300, 0, "ew", 6.0))
    assert np.array_equal(put.spectra.flux, star.flux)
    draws = np.ones((4, len(WAVE)))
    found = verdict(put, "mixture", draws, draws, [Flag(6300, 2.5, 9.0, 1e-6, 1.0)], [])
    assert found.kept == 0
    assert np.isnan(found.share)
    assert found.flag is None, "no line has no flag of its own"


def test_what_is_kept_is_the_share_that_was_kept_and_its_error_that_of_its_draws(
        star: Spectra, rng: np.random.Generator) -> None:
    put = plant(star, ByHand(6300, 10, "sigma", 6.0))
    without = 1.0 + 0.01 * rng.standard_normal((64, len(WAVE)))
    shares = 0.4 + 0.1 * rng.standard_normal((64, 1))
    found = verdict(put, "mixture", without + shares * put.change, without, [], [])
    assert found.error is not None
    assert found.share_error is not None
    assert np.isclose(found.share, shares.mean())
    assert np.isclose(found.share_error, 0.1 / 8, rtol=0.25)
    wrong = verdict(put, "mixture", without + 0.8 * put.change, without, [], [])
    assert abs(wrong.share - 0.4) > 5 * found.share_error, "another share is told apart"


def test_a_flag_is_the_lines_own_by_sign_and_place(star: Spectra) -> None:
    put = plant(star, ByHand(6300, 10, "sigma", 6.0))
    near, far = Flag(6303, 2.5, 6.0, 1e-3, 1.0), Flag(6360, 2.5, 6.0, 1e-3, 1.0)
    assert put.own([far, near]) is near
    assert put.own([far]) is None
    assert put.own([replace(near, strength=-6.0)]) is None, "emission removed is not the absorption put in"


def test_the_audit_puts_its_lines_in_as_a_hand_does(star: Spectra) -> None:
    asked: list[Array] = []

    def copies(spectra: Spectra, n: int, seed: int) -> Array:
        asked.append(spectra.flux)
        return np.repeat(spectra.flux[None], n, axis=0)

    row = put_in(star, copies, n=2, strengths=(9, 9)).iloc[0]
    by_hand = plant(star, ByHand(row["wavelength"], row["strength"], "sigma", row["width"] * np.sqrt(8 * np.log(2))))
    assert np.allclose(by_hand.spectra.flux[0], asked[0][1], atol=1e-9)
    assert np.isclose(by_hand.ew, row["ew_in"])


def test_a_link_gives_the_line_back() -> None:
    line = ByHand(6300.25, -8.5, "sigma", 4.25)
    assert ByHand.parse(line.text) == line


@pytest.mark.parametrize(("text", "said"), [
    ("", "WAVELENGTH,STRENGTH,UNIT,WIDTH"), ("6300,8,sigma", "WAVELENGTH"), ("6300,8,sigma,4,1", "WAVELENGTH"),
    ("6300,8,magnitude,4", "given in sigma, ew, depth"), ("6300,nan,sigma,4", "must be numbers"),
    ("6300,1e9,ew,4", "give at most 50"), ("6300,8,sigma,0", "give 0.5 to 60"), ("inf,8,sigma,4", "must be numbers"),
])
def test_nonsense_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ByHand.parse(text)


def test_a_line_where_nothing_was_measured_is_refused_with_a_place_that_can_have_it(star: Spectra) -> None:
    with pytest.raises(ValueError, match="lies outside the spectrum"):
        plant(star, ByHand(2000, 8, "sigma", 4))
    with pytest.raises(ValueError, match="nearest place that can have it is ") as refused:
        plant(star, ByHand(float(WAVE[1050]), 8, "sigma", 4))
    place = float(str(refused.value).split("have it is ")[1].split()[0])
    plant(star, ByHand(place, 8, "sigma", 4))
    with pytest.raises(ValueError, match="goes into one star"):
        plant(star.select([0, 0]), ByHand(6300, 8, "sigma", 4))
