"""Stellar labels from spectra: ridge and perceptron learned on simulated stars, a fit of the emulator, propagation."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from core.data.grid import WAVE
from core.data.hashes import record, verified
from core.models import label_errors
from core.spectrum import LABELS, Array

VERSION = 2  #: of the files; another one is refused
_ERROR = "error_"  # begins the names of the arrays that say how far off it is


class LabelEstimator(ABC):
    """Spectra (n, L) to labels (n, 5) in the order and units of core.spectrum.LABELS, scikit-learn's fit and predict.

    Inside, Teff is log10 Teff, so that a per cent is a per cent for hot stars and cool. The estimator's own error,
    which no spread of its input shows, is measured on stars held out of the fit and follows the star
    (core.models.label_errors); `covariance_` (5, 5) is its mean over all of them, in these inner labels.

    Args:
        wave: (L,) grid of the spectra [Angstrom, vacuum].
        rebin: pixels averaged into one feature.

    Raises:
        ValueError: a rebin that is not positive.
    """

    kind: ClassVar[str]

    def __init__(self, wave: npt.ArrayLike = WAVE, rebin: int = 4) -> None:
        if rebin < 1:
            raise ValueError(f"rebin is {rebin}; average at least 1 pixel.")
        self.wave, self.rebin = np.asarray(wave, dtype=np.float64), int(rebin)
        self.arrays_: dict[str, Array] = {}

    @abstractmethod
    def _learn(self, x: Array, y: Array) -> dict[str, Array]:
        """Arrays that predict standardised labels (n, 5) from features (n, p)."""

    @abstractmethod
    def _apply(self, x: Array) -> Array:
        """Standardised labels (n, 5) from features (n, p)."""

    def features(self, spectra: npt.ArrayLike) -> Array:
        """(n, L // rebin) means of neighbouring pixels.

        Raises:
            ValueError: another number of pixels, or a value that is not finite.
        """
        x = np.atleast_2d(np.asarray(spectra, dtype=np.float64))
        if x.shape[1] != len(self.wave):
            raise ValueError(f"spectra have {x.shape[1]} pixels, the estimator {len(self.wave)}; put them on its grid.")
        if not np.isfinite(x).all():
            raise ValueError("a spectrum is not finite; an estimator takes clean ones, so fill its gaps first.")
        whole = x.shape[1] // self.rebin
        return np.asarray(x[:, : whole * self.rebin].reshape(len(x), whole, self.rebin).mean(axis=2))

    def fit(self, spectra: npt.ArrayLike, labels: npt.ArrayLike, held_out: float = 0.2) -> LabelEstimator:
        """Learn from all but the last share `held_out` of the stars; that share measures its error.

        Give stars in random order, and all versions of one star (clean, draws) next to each other or in one share.

        Args:
            spectra: (n, L); labels: (n, 5).

        Raises:
            ValueError: shapes that disagree, labels not finite or Teff not positive, fewer than 40 stars.
        """
        x, y = self.features(spectra), np.asarray(labels, dtype=np.float64)
        if y.shape != (len(x), len(LABELS)) or len(x) < 40:
            raise ValueError(f"labels have shape {y.shape} for {len(x)} spectra; give (n, 5) of at least 40 stars.")
        y = _inner(y)
        learn = len(x) - max(int(held_out * len(x)), 8)
        scale = StandardScaler().fit(y[:learn])
        self.arrays_ = {"y_mean": scale.mean_, "y_scale": scale.scale_}
        self.arrays_ |= self._learn(x[:learn], scale.transform(y[:learn]))
        # one order in memory, here and after loading: sums then round alike
        self.arrays_ = {name: np.ascontiguousarray(a) for name, a in self.arrays_.items()}
        predicted = self._inner_labels(x[learn:])
        errors = label_errors.fit_errors(x[:learn], x[learn:], predicted, y[learn:])
        self.arrays_ |= {_ERROR + name: np.ascontiguousarray(a) for name, a in errors.items()}
        gap = predicted - y[learn:]
        self.arrays_["covariance"] = gap.T @ gap / len(gap)  # about zero: a bias that nobody takes off is an error too
        return self

    @property
    def covariance_(self) -> Array:
        """(5, 5) predictive covariance of the inner labels (log10 Teff, the others as they are), mean of all stars."""
        return self._fitted()["covariance"]

    def predict(self, spectra: npt.ArrayLike) -> Array:
        """(n, 5) labels of spectra (n, L)."""
        return _outer(self._inner_labels(self.features(spectra)))

    def scatter(self, spectra: npt.ArrayLike) -> Array:
        """(n, 5) half widths of the central 68.27 % of predictions about the truth, in the labels' units, at spectra
        (n, L).
        """
        x = self.features(spectra)
        inner = self._inner_labels(x)
        low, high = np.quantile(self._errors()["shape"], (0.15865, 0.84135), axis=0)
        out = label_errors.scale(self._errors(), x, inner) * (high - low) / 2
        out[:, 0] *= np.log(10) * _outer(inner)[:, 0]
        return np.asarray(out)

    def draw(self, spectra: npt.ArrayLike, rng: np.random.Generator | None) -> Array:
        """(n, 5) one draw of the labels of each of the spectra (n, L) given that it is known exactly.

        Args:
            rng: None gives the prediction itself.
        """
        x = self.features(spectra)
        inner = self._inner_labels(x)
        return _outer(inner if rng is None else inner + label_errors.draw(self._errors(), x, inner, rng))

    def save(self, path: Path) -> None:
        """Write `path` (.safetensors): arrays, and in its header version, kind, settings; no pickle."""
        card = {"version": VERSION, "kind": self.kind, "rebin": self.rebin, "labels": list(LABELS)}
        arrays = {name: np.ascontiguousarray(a) for name, a in (self._fitted() | {"wave": self.wave}).items()}
        save_file(arrays, path, metadata={"card": json.dumps(card)})
        record(path)

    @classmethod
    def load(cls, path: Path, wave: npt.ArrayLike = WAVE) -> LabelEstimator:
        """An estimator from its file; predictions are identical.

        Args:
            wave: grid it will be asked on.

        Raises:
            ValueError: no such file, a changed one, another version, kind or labels, or another grid.
        """
        path = verified(path)
        try:
            with safe_open(path, framework="numpy") as file:
                card: dict[str, Any] = json.loads((file.metadata() or {})["card"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no dict
            known = arrays.pop("wave")
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise ValueError(f"{path} holds no estimator ({error}); fit one and save it there.") from error
        kind = {e.kind: e for e in (RidgeLabels, MLPLabels)}.get(card.get("kind", ""))
        if card.get("version") != VERSION or card.get("labels") != list(LABELS) or kind is None:
            raise ValueError(f"{path} is {card.get('kind')} version {card.get('version')} for {card.get('labels')}; "
                             f"this is version {VERSION} for {list(LABELS)}: fit it again.")
        if not issubclass(kind, cls):
            raise ValueError(f"{path} holds {card['kind']}, not {cls.__name__}; load it with {kind.__name__}.load.")
        wave = np.asarray(wave, dtype=np.float64)
        if wave.shape != known.shape or not np.allclose(wave, known, rtol=1e-7):
            raise ValueError(f"{path} was fitted on {len(known)} pixels from {known[0]:.2f} to {known[-1]:.2f} "
                             f"Angstrom, not on this grid of {len(wave)}; resample the spectra or fit it again.")
        out = kind(known, int(card["rebin"]))
        out.arrays_ = arrays
        return out

    def _fitted(self) -> dict[str, Array]:
        if "covariance" not in self.arrays_:
            raise ValueError(f"this {type(self).__name__} is not fitted; call fit or load first.")
        return self.arrays_

    def _errors(self) -> dict[str, Array]:
        return {name.removeprefix(_ERROR): a for name, a in self._fitted().items() if name.startswith(_ERROR)}

    def _inner_labels(self, x: Array) -> Array:
        if not self.arrays_:
            raise ValueError(f"this {type(self).__name__} is not fitted; call fit or load first.")
        return self._apply(x) * self.arrays_["y_scale"] + self.arrays_["y_mean"]


class RidgeLabels(LabelEstimator):
    """y = a + (x - m) / s @ W, |W|^2 penalised, the strength by leave-one-out (Hoerl & Kennard 1970; RidgeCV)."""

    kind = "ridge"

    def _learn(self, x: Array, y: Array) -> dict[str, Array]:
        scale = StandardScaler().fit(x)
        fit = RidgeCV(alphas=np.geomspace(1e-1, 1e6, 15), alpha_per_target=True).fit(scale.transform(x), y)
        # scaler and ridge are one affine map
        weight = fit.coef_.T / scale.scale_[:, None]
        return {"weight": weight, "constant": fit.intercept_ - scale.mean_ @ weight}

    def _apply(self, x: Array) -> Array:
        return np.asarray(self.arrays_["constant"] + x @ self.arrays_["weight"])


class MLPLabels(LabelEstimator):
    """Perceptrons on whitened principal-component scores, averaged over a few starts (Hansen & Salamon 1990).

    Args:
        components: scores; hidden: widths of the hidden layers; members: perceptrons averaged; seed: of their starts.
    """

    kind = "mlp"

    def __init__(self, wave: npt.ArrayLike = WAVE, rebin: int = 4, components: int = 40,
                 hidden: tuple[int, ...] = (64, 64), members: int = 3, seed: int = 0, epochs: int = 200) -> None:
        super().__init__(wave, rebin)
        self.components, self.hidden, self.members, self.seed, self.epochs = components, hidden, members, seed, epochs

    def _learn(self, x: Array, y: Array) -> dict[str, Array]:
        mean = x.mean(axis=0)
        _, s, v = np.linalg.svd(x - mean, full_matrices=False)
        k = min(self.components, int((s > 1e-9 * s[0]).sum()))
        out = {"mean": mean, "basis": v[:k].T * (np.sqrt(len(x)) / s[:k])}
        z = (x - mean) @ out["basis"]
        for m in range(self.members):
            net = MLPRegressor(hidden_layer_sizes=self.hidden, alpha=1e-2, max_iter=self.epochs, early_stopping=True,
                               n_iter_no_change=25, learning_rate_init=2e-3, batch_size=min(64, len(x)),
                               random_state=self.seed + m)
            net.fit(z, y)
            for i, (w, b) in enumerate(zip(net.coefs_, net.intercepts_, strict=True)):
                out |= {f"w{m}_{i}": w, f"b{m}_{i}": b}
        return out

    def _apply(self, x: Array) -> Array:
        a = self.arrays_
        start, members = (x - a["mean"]) @ a["basis"], sum(name.endswith("_0") and name[0] == "w" for name in a)
        out = np.zeros((len(x), len(LABELS)))
        for m in range(members):
            z, i = start, 0
            while f"w{m}_{i}" in a:
                z = (np.maximum(z, 0.0) if i else z) @ a[f"w{m}_{i}"] + a[f"b{m}_{i}"]
                i += 1
            out += z / members
        return out


def propagate(estimator: LabelEstimator, draws: npt.ArrayLike, rng: np.random.Generator | None) -> Array:
    """Draws of clean spectra (n, B, L) to draws of labels (n, B, 5): sample propagation.

    p(labels | y) = integral of p(labels | x) p(x | y): the spread of the draws through the estimator, plus its own
    error at each draw, which follows the star. Without the second part the interval says only how well the spectrum is
    known, and is too narrow. Draws of an exact posterior are, over all stars, distributed as clean stars are (the tower
    rule), so the estimator and its errors need no training on draws; those of another method may lie off the stars.

    Args:
        rng: None leaves the scatter out, to show what that does.

    Raises:
        ValueError: draws that are not (n, B, L) or not on the estimator's grid.
    """
    x = np.asarray(draws, dtype=np.float64)
    if x.ndim != 3:
        raise ValueError(f"draws have shape {x.shape}; give (draws, spectra, pixels).")
    return estimator.draw(x.reshape(-1, x.shape[2]), rng).reshape(*x.shape[:2], len(LABELS))


def _inner(labels: Array) -> Array:
    """Labels with log10 Teff."""
    if not np.isfinite(labels).all() or (labels[:, 0] <= 0).any():
        raise ValueError("labels must be finite and Teff positive; leave out stars whose labels are not known.")
    return np.concatenate([np.log10(labels[:, :1]), labels[:, 1:]], axis=1)


def _outer(inner: Array) -> Array:
    """Back from log10 Teff, kept within a range (1000-100000 K) in which it is finite."""
    return np.concatenate([10.0 ** np.clip(inner[:, :1], 3.0, 5.0), inner[:, 1:]], axis=1)
