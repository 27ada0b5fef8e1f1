"""The library of synthetic stars: packed from SYNSPEC's output into one small tracked file, and read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from scipy.ndimage import correlate1d
from scipy.spatial import ConvexHull

from core.data.hashes import digest
from core.spectrum import Array

FILE = Path(__file__).resolve().parents[2] / "checkpoints" / "library.safetensors"
R_SOURCE = 4000.0  #: lambda/FWHM of the source
R_LIBRARY = 3000.0  #: lambda/FWHM of the tracked file, above LAMOST's 1400-2200, so that a simulator can still broaden
#: log10 vacuum wavelength [Angstrom] kept: the working grid and 50 pixels of 69 km/s about it, for shifts and kernels
RANGE = (3.5650, 3.9590)
N_FLUX, N_CONTINUUM = 256, 32  #: principal components kept
KINDS = ("dwarf", "giant", "hot")
_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass(frozen=True)
class Library:
    """Synthetic stars as a mean and principal components: flux / continuum and log continuum.

    Args:
        loglam: (P,) log10 vacuum wavelength [Angstrom], step 5e-5 (34.5 km/s).
        mean, basis, coefficients: (P,), (q, P), (N, q): flux / true continuum = mean + coefficients @ basis, R = 3000.
        loglam_continuum: (Q,) log10 vacuum wavelength [Angstrom], step 5e-4.
        continuum_mean, continuum_basis, continuum_coefficients: (Q,), (k, Q), (N, k): ln of the true continuum (per
            Angstrom) less its mean over the grid; interpolate linearly. Mg I makes an edge at 3757 A in cool stars.
        labels: (N, 28) in the units of `../shared/library/README.md`.
        label_names: their 28 names.
        index: (N,) position in the Sobol sequence of labels.
        sha256: of the file it came from.
    """

    loglam: Array
    mean: Array
    basis: Array
    coefficients: Array
    loglam_continuum: Array
    continuum_mean: Array
    continuum_basis: Array
    continuum_coefficients: Array
    labels: Array
    label_names: tuple[str, ...]
    index: Array
    sha256: str

    def flux(self, rows: Any = slice(None)) -> Array:
        """(n, P) flux / continuum of the chosen stars."""
        return self.mean + self.coefficients[rows] @ self.basis

    def log_continuum(self, rows: Any = slice(None)) -> Array:
        """(n, Q) ln continuum of the chosen stars, mean 0."""
        return self.continuum_mean + self.continuum_coefficients[rows] @ self.continuum_basis


def broaden(flux: npt.ArrayLike, step: float, resolution: float, from_resolution: float = R_LIBRARY) -> Array:
    """Spectra (..., L) on a log10 grid of `step`, convolved by a Gaussian to a lower, constant R = lambda/FWHM.

    Raises:
        ValueError: a resolution above the one they have.
    """
    if resolution > from_resolution:
        raise ValueError(f"R = {resolution:g} asked for, the spectra have {from_resolution:g}; ask for at most that.")
    sigma = np.sqrt(resolution**-2 - from_resolution**-2) / _FWHM / np.log(10.0) / step
    half = int(np.ceil(5 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / max(sigma, 1e-9)) ** 2)
    return np.asarray(correlate1d(np.asarray(flux), kernel / kernel.sum(), axis=-1, mode="nearest"))


def read_source(source: Path) -> dict[str, Array]:
    """SYNSPEC's archive on the library's range and resolution, nothing compressed: what errors are measured against.

    Returns:
        loglam (P,), flux (N, P) float32 in units of the true continuum, loglam_continuum (Q,), log_continuum (N, Q) of
        mean 0, labels (N, 28), label_names, index (N,).

    Raises:
        ValueError: no such file, or not such an archive.
    """
    try:
        with np.load(source, allow_pickle=False) as archive:
            raw = {name: archive[name] for name in archive.files}
        names = ("loglam", "flux_u16", "flux_scale", "continuum", "loglam_continuum", "labels", "label_names", "index")
        loglam, flux, scale, continuum, coarse, labels, label_names, index = (raw[name] for name in names)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{source} is no archive of synthetic stars ({error}); "
                         "give ../shared/library/synspec.npz.") from error
    step = (loglam[-1] - loglam[0]) / (len(loglam) - 1)
    inside = (loglam > RANGE[0] - step / 2) & (loglam < RANGE[1] + step / 2)
    # one grid point beyond either end, so that interpolation covers all of loglam
    reach = (coarse > RANGE[0] - 5e-4) & (coarse < RANGE[1] + 5e-4)
    flux = broaden(flux.astype(np.float32) * scale, step, R_LIBRARY, R_SOURCE)[:, inside]
    log_continuum = np.log(continuum[:, reach].astype(np.float64))
    return {
        "loglam": loglam[inside], "flux": flux, "loglam_continuum": coarse[reach],
        "log_continuum": log_continuum - log_continuum.mean(1, keepdims=True),
        "labels": labels, "label_names": label_names, "index": index,
    }


def _components(spectra: Array, n: int) -> tuple[Array, Array, Array]:
    """Mean (L,), principal components (n, L), each with its largest element positive, and coefficients (N, n)."""
    mean = spectra.mean(0, dtype=np.float64)
    centred = spectra - mean
    power, vectors = np.linalg.eigh(centred @ centred.T)
    left = vectors[:, power > 1e-12 * power[-1]][:, ::-1][:, :n]
    basis = left.T @ centred
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    basis *= np.sign(np.take_along_axis(basis, np.abs(basis).argmax(1)[:, None], 1))
    return mean, basis, centred @ basis.T


def _quantised(name: str, matrix: Array, axis: int) -> dict[str, npt.NDArray[Any]]:
    """A matrix as int16 with one scale a component."""
    scale = np.abs(matrix).max(axis=axis, keepdims=True) / 32767
    whole = np.ascontiguousarray(np.rint(matrix / scale), dtype=np.int16)
    return {f"{name}_i16": whole, f"{name}_scale": scale.ravel()}


def pack(source: Path, out: Path = FILE) -> dict[str, Any]:
    """Write the library's tracked file and its JSON card from SYNSPEC's archive (half a minute, 1 GB of memory).

    Args:
        source: `../shared/library/synspec.npz`.
        out: the .safetensors file; the card stands beside it with the suffix .json.

    Returns:
        The card: source and file hash, what was done, and what the compression costs in units of the continuum.

    Raises:
        ValueError: a source that is no such archive.
    """
    raw = read_source(source)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for prefix, spectra, n in (("flux", raw["flux"], N_FLUX), ("continuum", raw["log_continuum"], N_CONTINUUM)):
        mean, basis, coefficients = _components(spectra, n)
        arrays |= {f"{prefix}_mean": mean.astype(np.float32)}
        arrays |= _quantised(f"{prefix}_basis", basis, 1) | _quantised(f"{prefix}_coefficients", coefficients, 0)
    arrays = {name: a if a.dtype == np.int16 else a.astype(np.float32) for name, a in arrays.items()}
    arrays |= {"labels": raw["labels"].astype(np.float32), "index": raw["index"].astype(np.int32)}
    arrays |= {name: raw[name].astype(np.float64) for name in ("loglam", "loglam_continuum")}
    out = Path(out)
    save_file(arrays, out)
    card: dict[str, Any] = {
        "what": "synthetic stars: flux / true continuum and ln continuum as principal components, int16",
        "source": {"file": Path(source).name, "sha256": digest(source), "made_with": "SYNSPEC 54, LTE, ATLAS9-type"},
        "done": f"Gaussian from R = {R_SOURCE:g} to {R_LIBRARY:g}; log10 lambda {RANGE[0]}-{RANGE[1]} in vacuum; "
        f"{N_FLUX} components of flux / continuum, {N_CONTINUUM} of ln continuum (mean over wavelength taken off)",
        "label_names": [str(name) for name in raw["label_names"]],
        "sha256": digest(out),
    }
    out.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    library = load(out)
    flux, log_continuum = np.abs(library.flux() - raw["flux"]), np.abs(library.log_continuum() - raw["log_continuum"])
    card["truncation"] = {
        "flux_median_star": float(np.median(flux.mean(1))), "flux_p95_star": float(np.quantile(flux.mean(1), 0.95)),
        "flux_p999_pixel": float(np.quantile(flux[::4], 0.999)), "flux_worst": float(flux.max()),
        "ln_continuum_p95_star": float(np.quantile(log_continuum.mean(1), 0.95)),
        "ln_continuum_worst": float(log_continuum.max()),
    }
    out.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    return card


def load(path: Path = FILE) -> Library:
    """The tracked library.

    Raises:
        ValueError: file or card missing, or a file whose SHA-256 is not the card's.
    """
    path = Path(path)
    if not path.is_file() or not path.with_suffix(".json").is_file():
        raise ValueError(f"{path} or its card (.json) is missing; run `python -m scripts.prepare`.")
    card, found = json.loads(path.with_suffix(".json").read_text()), digest(path)
    if found != card.get("sha256"):
        raise ValueError(f"{path} has SHA-256 {found[:12]}..., its card says {str(card.get('sha256'))[:12]}...; "
                         "take both from the repository again or run `python -m scripts.prepare`.")
    stored = load_file(path)

    def matrix(name: str, rows: bool) -> Array:
        scale = stored[f"{name}_scale"]
        return stored[f"{name}_i16"] * (scale[:, None] if rows else scale)

    return Library(
        stored["loglam"], stored["flux_mean"], matrix("flux_basis", True), matrix("flux_coefficients", False),
        stored["loglam_continuum"], stored["continuum_mean"], matrix("continuum_basis", True),
        matrix("continuum_coefficients", False), stored["labels"], tuple(card["label_names"]), stored["index"], found,
    )


_CARBON_RICH = 0.4  # [C/Fe] above this occurs in the library below [Fe/H] = -1 only (CEMP stars, 1 % of it)
_DEPEND = {"alpha_fe": "feh", "c_fe": "feh", "d_Mn": "feh", "n_fe": "logg", "vmic": "teff"}


def _lower(x: Array, y: Array) -> Array:
    """Lower chain (v, 2) of the convex hull of points, rising in x (Andrew 1979)."""
    chain: list[tuple[float, float]] = []
    for px, py in sorted(zip(x.tolist(), y.tolist(), strict=True)):
        if chain and px == chain[-1][0]:
            continue
        while len(chain) > 1:
            (ax, ay), (bx, by) = chain[-2:]
            if (bx - ax) * (py - ay) > (by - ay) * (px - ax):
                break
            chain.pop()
        chain.append((px, py))
    return np.array(chain)


class Domain:
    """Where the library speaks: each label in its range, and, among the stars of its kind, (Teff, logg) in their convex
    hull, then alpha_fe, c_fe and d_Mn within the hull's width at this feh, n_fe at this logg, vmic at this Teff.

    Labels that are each in range but never occur together (a carbon-rich star of solar feh) make spectra below zero.
    """

    def __init__(self, library: Library) -> None:
        self.label_names = library.label_names
        self._low, self._high = library.labels.min(0).astype(float), library.labels.max(0).astype(float)
        self._hulls: list[Array] = []
        self._envelopes: list[dict[str, tuple[Array, Array]]] = []
        for kind in range(len(KINDS)):
            stars = library.labels[library.labels[:, 0] == kind].astype(float)
            points = stars[:, 1:3] / (1000.0, 1.0)
            self._hulls.append(points[ConvexHull(points).vertices])  # counter-clockwise
            envelope = {}
            for y, x in _DEPEND.items():
                known = stars[stars[:, self._column("c_fe")] < _CARBON_RICH] if y == "c_fe" else stars
                known = known[:, [self._column(x), self._column(y)]].T
                envelope[y] = _lower(known[0], known[1]), _lower(known[0], -known[1]) * (1.0, -1.0)
            self._envelopes.append(envelope)
        rich = library.labels[library.labels[:, self._column("c_fe")] >= _CARBON_RICH]
        self._rich_feh = float(rich[:, self._column("feh")].max(initial=-np.inf))

    def _column(self, name: str) -> int:
        return self.label_names.index(name)

    def nearest(self, labels: npt.ArrayLike) -> Array:
        """Labels (..., 28), finite, moved to the nearest ones inside; 1000 K weigh as much as 1 dex of logg."""
        labels = np.asarray(labels, dtype=np.float64)
        out = np.clip(labels, self._low, self._high).reshape(-1, len(self._low))
        out[:, 0] = np.rint(out[:, 0])
        for kind, hull in enumerate(self._hulls):
            rows = np.flatnonzero(out[:, 0] == kind)
            point, edge = out[rows][:, None, 1:3] / (1000.0, 1.0), np.roll(hull, -1, axis=0) - hull
            arm = point - hull
            outside = (edge[:, 0] * arm[..., 1] - edge[:, 1] * arm[..., 0] < 0).any(1)
            along = np.clip((arm * edge).sum(-1) / (edge**2).sum(-1), 0.0, 1.0)
            foot = hull + along[..., None] * edge
            best = ((point - foot) ** 2).sum(-1).argmin(1)
            out[rows[outside], 1:3] = foot[np.arange(len(rows)), best][outside] * (1000.0, 1.0)
            for name, (low, high) in self._envelopes[kind].items():
                x, y = out[rows, self._column(_DEPEND[name])], out[rows, self._column(name)]
                top = np.interp(x, high[:, 0], high[:, 1])
                if name == "c_fe":
                    top = np.where(x <= self._rich_feh, np.maximum(top, self._high[self._column(name)]), top)
                out[rows, self._column(name)] = np.clip(y, np.interp(x, low[:, 0], low[:, 1]), top)
        return out.reshape(labels.shape)

    def check(self, labels: npt.ArrayLike) -> None:
        """Refuse labels for which nothing is claimed.

        Raises:
            ValueError: not 28 labels, NaN or infinite ones, or labels outside the domain; says the nearest inside.
        """
        values, names = np.asarray(labels, dtype=np.float64), self.label_names
        if values.shape[-1:] != (len(names),):
            raise ValueError(f"labels have shape {values.shape}; give (..., 28): {', '.join(names)}.")
        values = values.reshape(-1, len(names))
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(f"{names[column]} of star {row} is {values[row, column]}; give a finite number.")
        inside = self.nearest(values)
        wrong = np.abs(values - inside) > 1e-4 * (1.0 + np.abs(inside))
        if wrong.any():
            row = int(np.argmax(wrong.any(1)))
            told = ", ".join(f"{names[c]} = {values[row, c]:.6g} (nearest inside: {inside[row, c]:.6g})"
                             for c in np.flatnonzero(wrong[row]))
            raise ValueError(f"star {row}, {KINDS[int(inside[row, 0])]}, is outside the library's domain: {told}; "
                             "move it there with `nearest`, or leave it to components learned from real stars.")
