"""Labels to spectrum, differentiable: a Gaussian process on the principal components of the library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import cKDTree
from torch import Tensor, nn

from core.data import synthetic
from core.data.hashes import digest
from core.data.synthetic import Library
from core.spectrum import Array

FILE = Path(__file__).resolve().parents[2] / "checkpoints" / "emulator.safetensors"
HELD_OUT = 1792  #: stars from this Sobol index on are held out: an aligned block of 256, which covers the domain evenly
Rows = npt.NDArray[np.intp]
_FITTED = 100  # principal components that decide the kernel
_SOLAR_C_O = 0.55  # number ratio C/O of the Sun (Grevesse et al. 2007)


def features(labels: Tensor) -> Tensor:
    """(..., 28) labels to (..., 29) kernel inputs: ln Teff, the other labels without `kind`, free oxygen, free carbon.

    CO takes all of the rarer of the two; what is left makes OH, or C2 and CN, so spectra turn sharply at C/O = 1.
    """
    teff, rest = labels[..., 1:2].log(), labels[..., 2:]
    excess = 1.0 - _SOLAR_C_O * 10.0 ** (labels[..., 5:6] - labels[..., 4:5] - labels[..., 8:9])
    turn = [torch.log10(0.5 * (sign * excess + torch.sqrt(excess**2 + 0.02))) for sign in (1.0, -1.0)]
    return torch.cat([teff, rest, *turn], dim=-1)


def _matern(a: Tensor, b: Tensor) -> Tensor:
    """Matern kernel of order 7/2 (Rasmussen & Williams 2006, eq. 4.14), (n, D) and (m, D) to (n, m)."""
    d2 = (a * a).sum(-1)[:, None] + (b * b).sum(-1) - 2.0 * a @ b.T
    r = torch.sqrt(7.0 * d2.clamp_min(0.0) + 1e-10)
    return (1.0 + r + 0.4 * r**2 + r**3 / 15.0) * torch.exp(-r)


def _start(dim: int) -> dict[str, Tensor]:
    """Logarithms of the kernel's parameters to begin with; lengths are in standard deviations of each input."""
    length = torch.full((dim,), 3.5, dtype=torch.float64)
    length[:3], length[3:7] = 0.7, 2.2
    scalar = {name: torch.tensor(value, dtype=torch.float64) for name, value in
              (("weight_wide", 0.0), ("weight_line", -1.0), ("noise", -9.0))}
    return {"length": length, "length_wide": length + 1.0, "slope": torch.full((dim,), -3.0, dtype=torch.float64),
            "mixing": torch.zeros(dim, dim, dtype=torch.float64), **scalar}


def _maps(p: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Matrices that turn standardised inputs into those of the two Matern kernels."""
    mixing = torch.eye(len(p["length"]), dtype=torch.float64) + torch.tril(p["mixing"], -1)
    return mixing * torch.exp(-p["length"]), torch.diag(torch.exp(-p["length_wide"]))


def _gram(p: dict[str, Tensor], z: Tensor) -> Tensor:
    """(n, n) covariance of standardised inputs: two Materns, a constant, a line, and noise."""
    narrow, wide = _maps(p)
    line = z * torch.exp(p["slope"])
    k = _matern(z @ narrow, z @ narrow) + torch.exp(p["weight_wide"]) * _matern(z @ wide, z @ wide)
    k = k + torch.exp(p["weight_line"]) * (1.0 + line @ line.T)
    return k + torch.exp(p["noise"]) * torch.eye(len(z), dtype=z.dtype)


def split(library: Library) -> tuple[Rows, Rows]:
    """Row numbers of the stars that fit and of the stars held out (Sobol index >= 1792)."""
    held = library.index >= HELD_OUT
    return np.flatnonzero(~held), np.flatnonzero(held)


def fit(library: Library, subset: int = 1024, steps: int = 90, seed: int = 0,
        progress: Callable[[int, float], None] | None = None) -> dict[str, Tensor]:
    """The kernel's parameters, from leave-one-out errors of stars that are not held out (one to two minutes).

    Minimised is the mean of ln rms_i, rms_i the error of star i as the others predict it (Rasmussen & Williams 2006,
    eq. 5.12: (K^-1 y)_i / (K^-1)_ii), so that a few odd stars do not decide.

    Args:
        subset: how many of those stars, drawn by `seed`.
        steps: of Adam.
        progress: called with step and loss.

    Returns:
        Logarithms of lengths and weights, the mixing matrix, and centre and scale of the inputs; float64.
    """
    rows, _ = split(library)
    rows = np.random.default_rng(seed).permutation(rows)[:subset]
    x = features(torch.as_tensor(library.labels[rows], dtype=torch.float64))
    centre, scale = x.mean(0), x.std(0)
    z = (x - centre) / scale
    y = torch.as_tensor(library.coefficients[rows, :_FITTED], dtype=torch.float64)
    y = y - y.mean(0)
    p = {name: value.requires_grad_() for name, value in _start(z.shape[1]).items()}
    optimiser = torch.optim.Adam(p.values(), lr=0.15)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.15, total_steps=steps)
    for step in range(steps):
        optimiser.zero_grad()
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(_gram(p, z)))
        loss = 0.5 * ((inverse @ y) / inverse.diagonal()[:, None]).square().mean(1).log().mean()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step, loss.item())
    return {name: value.detach() for name, value in p.items()} | {"centre": centre, "scale": scale}


def save(parameters: dict[str, Tensor], library: Library, path: Path = FILE) -> None:
    """Write a fit and its card, which names the library the fit belongs to."""
    save_file({name: value.contiguous() for name, value in parameters.items()}, path)
    card = {"what": "the emulator's kernel: ln of lengths and weights, mixing matrix, centre and scale of its inputs",
            "fitted_on": f"Sobol index < {HELD_OUT}",
            "library_sha256": library.sha256, "sha256": digest(path)}
    Path(path).with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")


class Emulator(nn.Module):
    """y(labels) = m + [k(z, Z) K^-1 (C - m_C)] B: Gaussian-process means of all principal components with one kernel.

    k = Matern_7/2(|M (z - z')|) + a Matern_7/2(|D (z - z')|) + b (1 + z' S^2 z), z the standardised `features`; K^-1 is
    solved once when the emulator is made, so nothing but the library and the kernel's parameters is stored (Rasmussen &
    Williams 2006, eq. 2.25; emulation of spectra by components: Czekala et al. 2015, arXiv:1412.5177).

    Args:
        library: the synthetic stars.
        parameters: from `fit`.
        rows: stars to learn from; all of them by default.

    `loglam` (P,), `loglam_continuum` (Q,): log10 vacuum wavelength [Angstrom]; `label_names`: 28 names, units as in the
    library. `kind` has no effect on a spectrum, it says which of three domains of (Teff, logg) the star belongs to.
    """

    loglam: Tensor
    loglam_continuum: Tensor
    inputs: Tensor
    maps: Tensor
    nodes: Tensor
    weight_wide: Tensor
    solved: Tensor
    constant: Tensor
    slope: Tensor
    mean: Tensor
    basis: Tensor
    continuum_mean: Tensor
    continuum_basis: Tensor

    def __init__(self, library: Library, parameters: dict[str, Tensor], rows: npt.ArrayLike | None = None) -> None:
        super().__init__()
        rows = np.arange(len(library.labels)) if rows is None else np.asarray(rows)
        self.label_names = library.label_names
        self.n_flux = library.coefficients.shape[1]
        p = parameters
        with torch.no_grad():
            x = features(torch.as_tensor(library.labels[rows], dtype=torch.float64))
            z = (x - p["centre"]) / p["scale"]
            y = np.concatenate([library.coefficients[rows], library.continuum_coefficients[rows]], axis=1)
            target = torch.as_tensor(y, dtype=torch.float64)
            mean = target.mean(0)
            solved = torch.cholesky_solve(target - mean, torch.linalg.cholesky(_gram(p, z)))
            line = torch.exp(p["weight_line"])
            maps = torch.stack(_maps(p))
            numbers = {
                "inputs": torch.stack([p["centre"], p["scale"]]), "maps": maps, "nodes": z @ maps,
                "weight_wide": torch.exp(p["weight_wide"]), "solved": solved,
                "constant": mean + line * solved.sum(0),
                "slope": line * torch.exp(2.0 * p["slope"])[:, None] * (z.T @ solved),
            }
        for name, value in numbers.items():
            self.register_buffer(name, value.double())  # neighbours' weights cancel: float32 would err by 1e-4
        for name in ("mean", "basis", "continuum_mean", "continuum_basis"):
            self.register_buffer(name, torch.as_tensor(getattr(library, name), dtype=torch.float32))
        self.register_buffer("loglam", torch.as_tensor(library.loglam, dtype=torch.float64))
        self.register_buffer("loglam_continuum", torch.as_tensor(library.loglam_continuum, dtype=torch.float64))
        self.domain = synthetic.Domain(library)

    @classmethod
    def load(cls, path: Path | None = None, library: Path | None = None) -> Emulator:
        """The committed emulator (about a second).

        Raises:
            ValueError: a file that is missing or changed, or a fit that belongs to another library.
        """
        path = FILE if path is None else Path(path)
        stars = synthetic.load(synthetic.FILE if library is None else library)
        if not path.is_file() or not path.with_suffix(".json").is_file():
            raise ValueError(f"{path} or its card is missing; run `python -m scripts.prepare`.")
        card = json.loads(path.with_suffix(".json").read_text())
        if card.get("library_sha256") != stars.sha256 or card.get("sha256") != digest(path):
            raise ValueError(f"{path} does not match its card or the library of SHA-256 {stars.sha256[:12]}...; "
                             "take both from the repository again or run `python -m scripts.prepare`.")
        return cls(stars, load_file(path))

    def coefficients(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Components (..., q) of flux / continuum on `basis` about `mean`, and (..., k) on `continuum_basis`."""
        z = (features(labels.reshape(-1, labels.shape[-1]).double()) - self.inputs[0]) / self.inputs[1]
        narrow, wide = (_matern(z @ m, n) for m, n in zip(self.maps, self.nodes, strict=True))
        k = narrow + self.weight_wide * wide
        out = (self.constant + z @ self.slope + k @ self.solved).reshape(*labels.shape[:-1], -1)
        out = out.to(self.basis.dtype)
        return out[..., : self.n_flux], out[..., self.n_flux :]

    def spectra(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Flux / continuum (..., P) and ln continuum (..., Q) at once, for labels (..., 28); nothing is checked."""
        flux, continuum = self.coefficients(labels)
        return (self.mean + flux @ self.basis).clamp_min(0.0), self.continuum_mean + continuum @ self.continuum_basis

    def forward(self, labels: Tensor) -> Tensor:
        """Flux / true continuum (..., P) on `loglam` at R = 3000, for labels (..., 28); nothing is checked."""
        return (self.mean + self.coefficients(labels)[0] @ self.basis).clamp_min(0.0)

    def log_continuum(self, labels: Tensor) -> Tensor:
        """ln true continuum (..., Q) on `loglam_continuum`, about its mean over the grid; interpolate linearly."""
        return self.continuum_mean + self.coefficients(labels)[1] @ self.continuum_basis

    def check(self, labels: npt.ArrayLike | Tensor) -> None:
        """ValueError for labels that are not 28, not finite or outside the domain, with the nearest ones inside."""
        self.domain.check(labels.detach().cpu().numpy() if isinstance(labels, Tensor) else labels)

    def nearest(self, labels: npt.ArrayLike) -> Array:
        """Labels (..., 28) moved to the nearest ones inside the domain (`core.data.synthetic.Domain`)."""
        return self.domain.nearest(labels)


REGIONS: dict[str, str] = {  # a star belongs to the first that fits
    "hot": "teff >= 7500",
    "metal-poor": "feh < -1.5",
    "cool giants": "logg < 3.5 and teff < 4500",
    "warm giants": "logg < 3.5",
    "cool dwarfs": "teff < 4500",
    "FGK dwarfs": "teff >= 4500",
}


def rivals(library: Library, parameters: dict[str, Tensor]) -> dict[str, Array]:
    """What an emulator must beat: (n, P) held-out spectra by nearest neighbour and two linear interpolations.

    They see the same stars as the emulator, and neighbours are nearest in the metric it learned, which helps them.
    """
    rows, held = split(library)
    x = features(torch.as_tensor(library.labels, dtype=torch.float64))
    z = ((x - parameters["centre"]) / parameters["scale"]).numpy()
    metric = z @ _maps(parameters)[0].numpy()
    tree, known = cKDTree(metric[rows]), library.coefficients[rows]
    near = known[tree.query(metric[held])[1]]
    inside = LinearNDInterpolator(z[rows, :3], known)(z[held, :3])
    local = np.empty_like(near)
    for i, among in enumerate(tree.query(metric[held], k=120)[1]):
        step = np.c_[np.ones(len(among)), z[rows[among]] - z[held[i]]]
        penalty = np.diag(np.r_[0.0, np.full(z.shape[1], 0.1)])
        local[i] = np.linalg.solve(step.T @ step + penalty, step.T @ known[among])[0]
    found = {"nearest neighbour": near, "linear in teff, logg, feh": np.where(np.isnan(inside), near, inside),
             "local linear in all labels": local}
    return {name: library.mean + c @ library.basis for name, c in found.items()}


def evaluate_split(library: Library, parameters: dict[str, Tensor], source: Path | None = None) -> pd.DataFrame:
    """Errors on the 256 held-out stars, which neither fit saw, by region, method and resolution.

    Args:
        parameters: from `fit`.
        source: SYNSPEC's archive, so that the truth is uncompressed; without it, the library's spectra stand for it.

    Returns:
        One row per region, method and R: n stars; of each star's mean |emulated - true| over wavelength, in units of
        the continuum: `median_abs`, `p95_star` and `worst_star` over stars; `p999_pixel` over all pixels; and for the
        emulator `ln_continuum`, the median over stars of the mean error of ln continuum.
    """
    rows, held = split(library)
    emulator = Emulator(library, parameters, rows)
    with torch.no_grad():
        flux, curve = emulator.spectra(torch.as_tensor(library.labels[held]))
    raw = None if source is None else synthetic.read_source(source)
    true = library.flux(held) if raw is None else raw["flux"][held]
    true_curve = library.log_continuum(held) if raw is None else raw["log_continuum"][held]
    curve_error = np.abs(curve.numpy() - true_curve).mean(1)
    table, out = pd.DataFrame(library.labels[held], columns=list(library.label_names)), []
    where = np.select([table.eval(rule).to_numpy() for rule in REGIONS.values()], list(REGIONS), default="")
    step = float(library.loglam[1] - library.loglam[0])
    for method, spectra in ({"emulator": flux.numpy()} | rivals(library, parameters)).items():
        for resolution in (synthetic.R_LIBRARY, 1800.0):
            error = np.abs(synthetic.broaden(spectra - true, step, resolution))
            for region in ("all", *REGIONS):
                chosen = (where == region) | (region == "all")
                star = error[chosen].mean(1)
                out.append({
                    "region": region, "n": int(chosen.sum()), "method": method, "R": resolution,
                    "median_abs": np.median(star), "p95_star": np.quantile(star, 0.95), "worst_star": star.max(),
                    "p999_pixel": np.quantile(error[chosen], 0.999),
                    "ln_continuum": np.median(curve_error[chosen]) if method == "emulator" else np.nan,
                })
    return pd.DataFrame(out).round(6)
