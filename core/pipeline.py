"""The one path that app, scripts and notebooks walk: METHODS and reconstruct."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from core.models.baselines import Noisy, SavitzkyGolay, Wavelet
from core.models.gaussian import PCA, Wiener
from core.models.mixture_sampler import MixtureSampler
from core.models.observation import Observation, Reconstructor, check_draws
from core.spectrum import Samples, Spectra

#: Every method by name, and what builds it from its settings. A new method is one class and one line here.
METHODS: dict[str, Callable[..., Reconstructor]] = {
    "noisy": Noisy,
    "savgol": SavitzkyGolay,
    "wavelet": Wavelet,
    "pca": PCA,
    "wiener": Wiener,
    "mixture": MixtureSampler,
}


def build(method: str, **settings: Any) -> Reconstructor:
    """The named method with its settings.

    Raises:
        ValueError: unknown name (the nearest known one is given) or a setting the method does not have.
    """
    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, n=1, cutoff=0.0)[0]
        raise ValueError(f"method {method!r} is unknown; did you mean {near!r}? Known: {', '.join(METHODS)}.")
    try:
        return METHODS[method](**settings)
    except TypeError as error:
        raise ValueError(f"method {method!r} does not take {', '.join(settings)} so: {error}.") from error


def reconstruct(spectra: Spectra, method: str, draws: int = 1, seed: int = 0, **settings: Any) -> Samples:
    """Draws of the clean spectra behind some observed ones.

    Args:
        spectra: what was observed.
        method: a name in METHODS.
        draws: how many draws of each star; a point estimate repeats itself.
        seed: with each star's id, decides its draws.
        settings: of the method.

    Returns:
        Samples with draws (draws, B, L) in units of the spectra's continuum.

    Raises:
        ValueError: unknown method or setting, draws < 1, a star with no live pixel, an answer that is not finite.
    """
    check_draws(draws)
    with torch.inference_mode():
        answer = build(method, **settings).sample(Observation.of(spectra), draws, seed)
    origin = {"method": method, "settings": settings, "seed": seed, "draws": draws}
    return Samples(spectra.wave, np.asarray(answer.double().numpy()), method, origin)
