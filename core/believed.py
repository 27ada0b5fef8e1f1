"""What of an answer is data, what is prior, and what it has removed: flags, trust, and is this a star that is known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from core.data import noise
from core.metrics.false_alarms import Calibration
from core.metrics.flags import Flag, flags_of
from core.metrics.matched_filter import Scan
from core.spectrum import LABELS, Array, Samples, Spectra, star_seed

NULLS = Path(__file__).resolve().parents[1] / "results" / "audit_nulls.npz"

#: `ByMixture.misfit` above which a star is of a kind that the prior does not know (core.models.star_posterior)
OUTSIDE = 5.0
_LABEL_DRAWS = 400
_COPIED = 1e-3  # sigma


def read_nulls(path: Path = NULLS) -> dict[tuple[str, float], Calibration]:
    """Nulls by method and S/N_g, measured without draws (`python -m scripts.evaluate audit`).

    Raises:
        ValueError: no such file, or another one.
    """
    by: dict[tuple[str, float], dict[str, Array]] = {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            for name, values in stored.items():
                method, snr, what = name.split("/")
                by.setdefault((method, float(snr)), {})[what] = values
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} holds no nulls ({error}); run `python -m scripts.evaluate audit`.") from error
    return {at: Calibration.from_arrays(arrays) for at, arrays in by.items()}


@lru_cache(maxsize=1)
def _committed() -> Mapping[tuple[str, float], Calibration]:
    return read_nulls() if NULLS.exists() else {}  # without results/ the nominal test is left


def has_null(method: str) -> bool:
    """Was this method's own null measured? Else its flags rest on the noise alone and are fewer than they could be."""
    return any(name == method for name, _ in _committed())


def _null(method: str, snr: float) -> Calibration | None:
    """The method's null at the S/N nearest in the logarithm; the lowest where the S/N is unknown."""
    at = sorted(s for name, s in _committed() if name == method)
    if not at:
        return None
    near = min(at, key=lambda s: abs(np.log(s / snr))) if snr > 0 else at[0]
    return _committed()[method, near]


def flagged(samples: Samples, spectra: Spectra, level: float = 0.01) -> list[list[Flag]]:
    """What an answer has removed or painted, strongest first, of each of B stars (core.metrics.flags).

    Tested with the method's own null at the nearest S/N. Where none was measured (`has_null`), with the nominal one of
    the noise: right for a method that fits nothing, fewer flags than there could be for one that fits.

    Args:
        samples: draws (n, B, L); spectra: the B observed spectra they answer; level: false alarms per star.

    Raises:
        ValueError: samples of other stars or another grid, a level outside (0, 1).
    """
    _check(samples, spectra)
    measured = noise.snr(spectra)
    # what was only rounded on its way to a disk was not removed: the null of a method that copies is narrower still
    copied = np.abs(spectra.flux - samples.mean) * np.sqrt(spectra.ivar) < _COPIED
    mean = np.where(copied, spectra.flux, samples.mean)
    out: list[list[Flag]] = []
    for b in range(len(spectra)):
        scan = _scan(_Asked.of(spectra, b))
        out += flags_of(scan, mean[b : b + 1], None, level, _null(samples.method, float(measured[b])))
    return out


def trust(samples: Samples, spectra: Spectra) -> Array:
    """(B, L) posterior over prior variance in each pixel, 0 where the data decide and 1 where the prior does.

    Prior is what the mixture says of a pixel given the rest of the star, its neighbourhood left out
    (core.models.left_out). Its variance over all stars would not do: what kind of star it is, any twenty pixels tell,
    and against that even a pixel nobody measured looks known: in the gaps of a G dwarf at S/N 20, a few per cent of it
    are left, where this has over 90 % (tests/test_believed.py).

    Args:
        samples: draws (n, B, L) of any method; spectra: the B observed spectra they answer.

    Returns:
        clipped to 0..1; from n draws good to sqrt(2 / (n - 1)) of itself in a single pixel. NaN for a point estimate.

    Raises:
        ValueError: samples of other stars or another grid.
    """
    _check(samples, spectra)
    out = np.full(spectra.flux.shape, np.nan)
    spread = samples.spread
    for b in np.flatnonzero(spread.any(axis=1)):
        out[b] = by_mixture(spectra, int(b)).share(spread[b])
    return out


@dataclass(frozen=True, eq=False)
class ByMixture:
    """What the mixture says of one star.

    Args:
        misfit: standard deviations by which its chi-square is too large; above OUTSIDE the star is of a kind the prior
            does not know. Below, it may be foreign in one place: the verdict is core.domain.score's.
        labels, errors: (5,) posterior mean and standard deviation in the order of LABELS.
        variance: (L,) of the flux of each pixel, had its neighbourhood not been measured.
    """

    misfit: float
    labels: Array
    errors: Array
    variance: Array = field(repr=False)

    def label(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation of a label, by its name in LABELS."""
        at = list(LABELS).index(name)
        return float(self.labels[at]), float(self.errors[at])

    def share(self, spread: Array) -> Array:
        """(L,) posterior over prior variance, 0 to 1, of draws that spread (L,) like this: `trust` of one star."""
        return np.asarray(np.clip(spread**2 / self.variance, 0.0, 1.0))


def by_mixture(spectra: Spectra, b: int = 0) -> ByMixture:
    """What the mixture says of star b; kept, for every method's trust asks again.

    Raises:
        ValueError: another grid than the prior's, or a star with no live pixel.
    """
    return _by_mixture(_Asked.of(spectra, b))


@dataclass(frozen=True)
class _Asked:
    """One star by its content, so that the same question in another object is answered from memory."""

    digest: str
    spectra: Spectra = field(compare=False, repr=False)

    @classmethod
    def of(cls, spectra: Spectra, b: int) -> _Asked:
        one = spectra.select(b)
        digest = hashlib.sha256(f"{one.stars} {one.noise}".encode())
        for array in (one.wave, one.flux, one.ivar, one.patterns):
            digest.update(array.tobytes())
        return cls(digest.hexdigest(), one)


@lru_cache(maxsize=64)
def _scan(asked: _Asked) -> Scan:
    return Scan(asked.spectra)


@lru_cache(maxsize=256)
def _by_mixture(asked: _Asked) -> ByMixture:
    # here: the page's server, which asks for flags alone, does without PyTorch
    from core.models.left_out import left_out_variance
    from core.models.mixture_labels import MixtureLabels
    from core.models.mixture_sampler import MixtureSampler
    from core.models.observation import Observation

    spectra = asked.spectra
    posterior = MixtureSampler().mixture.posterior(Observation.of(spectra))
    rng = np.random.default_rng(star_seed(spectra.stars[0], 0, "domain labels"))
    labels = MixtureLabels.load().draw(posterior, _LABEL_DRAWS, rng)
    errors = labels.std(axis=0, ddof=1)
    middle, width = posterior.velocity_moments()  # known without draws
    labels, errors = np.append(labels.mean(axis=0)[:4], middle), np.append(errors[:4], width)
    return ByMixture(posterior.misfit(), labels, errors, left_out_variance(posterior).numpy())


def _check(samples: Samples, spectra: Spectra) -> None:
    if samples.draws.shape[1:] != spectra.flux.shape:
        raise ValueError(f"draws {samples.draws.shape} do not belong to spectra of {spectra.flux.shape}; ask about the "
                         "stars that were answered.")
