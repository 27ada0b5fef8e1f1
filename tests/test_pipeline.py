"""The one path: names and settings are checked with a helpful word, and samples say where they come from."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from test_contract import QUICK

from core.data.grid import WAVE
from core.models.observation import Observation, Reconstructor
from core.models.samplers import Diverged
from core.networks import ddpm, denoiser
from core.pipeline import METHODS, build, reconstruct
from core.spectrum import Kernel, Spectra


@pytest.fixture
def spectra(rng) -> Spectra:
    flux = 1 + 0.05 * rng.standard_normal((2, WAVE.size))
    return Spectra(WAVE, flux, np.full(flux.shape, 400.0), np.ones(flux.shape), pd.DataFrame({"star": ["a", "b"]}),
                   Kernel((0.8, 0.7), (0.1, 0.2)))


@pytest.mark.parametrize(("typed", "meant"), [("savgool", "savgol"), ("wavlet", "wavelet"), ("Noisy", "noisy"),
                                              ("wavelets", "wavelet")])
def test_an_unknown_method_names_the_nearest_and_all_known_ones(spectra, typed, meant):
    with pytest.raises(ValueError, match=f"did you mean '{meant}'") as caught:
        reconstruct(spectra, typed)
    assert all(name in str(caught.value) for name in METHODS)


@pytest.mark.parametrize("typed", ["", "zzzz", "🌟"])
def test_even_a_name_like_nothing_gets_an_answer(spectra, typed):
    with pytest.raises(ValueError, match="is unknown; did you mean"):
        reconstruct(spectra, typed)


@pytest.mark.parametrize("method", METHODS)
def test_a_setting_the_method_does_not_have_is_refused_with_its_name(method):
    with pytest.raises(ValueError, match="no_such_setting") as caught:
        build(method, no_such_setting=1)
    assert caught.match(f"method {method!r} does not take")


def test_a_setting_of_a_wrong_value_keeps_its_own_message(spectra):
    with pytest.raises(ValueError, match="give an odd window"):
        reconstruct(spectra, "savgol", window=10)


def test_every_method_builds_without_settings_and_is_a_reconstructor():
    for method in METHODS:
        assert isinstance(build(method), Reconstructor)


def test_samples_say_how_they_were_made_in_plain_json(spectra):
    samples = reconstruct(spectra, "savgol", draws=2, seed=7, window=21)
    assert samples.method == "savgol"
    assert samples.draws.shape == (2, *spectra.flux.shape)
    assert samples.draws.dtype == np.float64
    np.testing.assert_array_equal(samples.wave, spectra.wave)
    assert json.loads(json.dumps(samples.origin)) == {
        "method": "savgol", "settings": {"window": 21}, "seed": 7, "draws": 2}


@pytest.mark.parametrize(("method", "settings", "message"), [
    ("exact", {"calls": 7}, "no levels are balanced for 7 calls"), ("dps", {"strength": -0.1}, "guidance strength is"),
    ("dps", {"strength": float("nan")}, "guidance strength is"), ("dps", {"steps": 1}, "2")])
def test_a_setting_a_network_cannot_work_with_keeps_its_own_message(spectra, method, settings, message):
    with pytest.raises(ValueError, match=message):
        reconstruct(spectra, method, **settings)


def test_a_strong_guidance_that_diverges_is_reported_and_never_shown(spectra):
    with pytest.raises(Diverged, match="smaller strength"):
        reconstruct(spectra, "dps", strength=1e4, steps=6)


def test_networks_are_loaded_once_and_not_to_be_trained():
    assert build("exact").denoiser is build("mmps").prior is denoiser()
    assert not any(p.requires_grad for p in denoiser().parameters())
    assert not denoiser().training
    assert build("dps").prior is ddpm()


def test_settings_reach_the_method(spectra):
    narrow, wide = (reconstruct(spectra, "savgol", window=w).draws for w in (5, 51))
    assert narrow.std() > 1.5 * wide.std()


@pytest.mark.usefixtures("unchecked")  # in so few calls they run away
def test_no_gradient_is_kept_and_spectra_are_not_changed(spectra):
    before = np.array(spectra.flux), np.array(spectra.ivar)
    for method in METHODS:
        reconstruct(spectra, method, **QUICK.get(method, {}))
    np.testing.assert_array_equal(spectra.flux, before[0])
    np.testing.assert_array_equal(spectra.ivar, before[1])
    assert torch.is_grad_enabled()


def test_the_question_holds_what_the_spectra_hold(spectra):
    question = Observation.of(spectra)
    np.testing.assert_array_equal(question.y.numpy(), spectra.flux)
    np.testing.assert_array_equal(question.sigma.numpy(), spectra.sigma)
    assert question.keys == ("a", "b")
    assert question.noise == spectra.noise
    one = question.star(1)
    assert (one.keys, one.y.shape) == (("b",), (1, WAVE.size))
    assert torch.equal(one.y[0], question.y[1])


ONES = torch.ones(2, 5)


@pytest.mark.parametrize(("change", "message"), [
    ({"y": ONES[0]}, "disagree; give"), ({"ivar": ONES[:, :3]}, "disagree; give"), ({"wave": ONES[0, :3]}, "disagree"),
    ({"keys": ("a",)}, "give one id per star"), ({"y": ONES * torch.nan}, "not finite; set ivar to 0"),
    ({"ivar": ONES * torch.inf}, "not finite"), ({"ivar": -ONES}, "0 marks what was not measured"),
    ({"ivar": torch.tensor([[1.0] * 5, [0.0] * 5])}, "star b has ivar = 0 in every pixel; leave it out"),
])
def test_a_question_that_cannot_be_asked_is_refused(change, message):
    good = {"wave": torch.linspace(4000, 5000, 5), "y": ONES, "ivar": ONES, "keys": ("a", "b")}
    Observation(**good)
    with pytest.raises(ValueError, match=message):
        Observation(**(good | change))
