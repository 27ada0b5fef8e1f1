"""What one look at a star holds: the star, what is shown of it, each method's answer (data only, no Streamlit)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from core.data.grid import vacuum_to_air
from core.spectrum import Array, Spectra


@dataclass(frozen=True)
class Star:
    """One row of a set of spectra, picked by its key.

    Args:
        key: what the URL calls it, `source:star`.
        source: where it came from: Simulated, Folder or Upload.
        among: the spectra it is a row of.
        row: which one.
        own: its own S/N_g, NaN where unknown.
        truth: (L,) clean flux in units of the star's continuum, None where nobody knows.
    """

    key: str
    source: str
    among: Spectra = field(repr=False)
    row: int
    own: float
    truth: Array | None = field(default=None, repr=False)

    @property
    def spectra(self) -> Spectra:
        """The star alone, one row."""
        return self.among.select([self.row])

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is known about the star, by the column names of `Spectra.meta`."""
        return dict(self.among.meta.iloc[self.row])

    @property
    def name(self) -> str:
        """The designation of an observed star, else the id."""
        facts = self.facts
        return str((not self.simulated and facts.get("designation")) or facts.get("star") or self.key)

    @property
    def simulated(self) -> bool:
        """True unless the star was observed by a telescope."""
        return bool(self.facts.get("origin", "observed") != "observed")

    @property
    def label(self) -> str:
        """One line for the picker; a simulated star says so wherever it came from."""
        source = self.source if self.source == "Simulated" or not self.simulated else f"{self.source}, simulated"
        kind = str(self.facts.get("subclass") or "").strip()
        return " · ".join([source, self.name, *([kind] if kind else []), f"S/N {self.own:.0f}"])


@dataclass(frozen=True)
class Answer:
    """One method's clean spectrum of one star.

    Args:
        method: name in core.pipeline.METHODS.
        flux: (L,) median of the draws in units of the continuum.
        low, high: (L,) 16 % and 84 % quantiles; None for a method without an uncertainty.
        residual: (L,) (y - flux) / (s sigma), NaN in dead pixels.
        chi2: chi-square per live pixel.
        rms: rms difference from the truth over live pixels [continuum]; None where truth is unknown.
    """

    method: str
    flux: Array
    low: Array | None
    high: Array | None
    residual: Array
    chi2: float
    rms: float | None


@dataclass(frozen=True)
class Look:
    """All that one view of a star is made from.

    Args:
        star: whose spectrum it is.
        spectra: one row, as shown: at the S/N asked for.
        error: (L,) standard deviation of each pixel, infinite where dead.
        snr: S/N_g shown.
        seed: of the added noise and of the draws.
        answers: one per method, in the order of METHODS.
        problems: sentences about what could not be shown.
    """

    star: Star
    spectra: Spectra
    error: Array
    snr: float
    seed: int
    answers: tuple[Answer, ...]
    problems: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """One row per pixel: wavelengths, what was measured, the truth, each method."""
        live = self.spectra.measured[0]
        columns: dict[str, Any] = {
            "wavelength_vacuum": self.spectra.wave, "wavelength_air": vacuum_to_air(self.spectra.wave),
            "flux": pd.Series(self.spectra.flux[0]).where(live), "sigma": pd.Series(self.error).where(live),
            "continuum": self.spectra.continuum[0],
        }
        if self.star.truth is not None:
            columns["truth"] = self.star.truth
        for answer in self.answers:
            columns[answer.method] = answer.flux
            if answer.low is not None:
                columns |= {f"{answer.method}_q16": answer.low, f"{answer.method}_q84": answer.high}
        return pd.DataFrame(columns)

    def csv(self) -> str:
        """`table` with a header of comments that says what it is."""
        blue, red = self.spectra.noise.scale
        bare = ", ".join(a.method for a in self.answers if a.low is None)
        head = [
            "Trueline: one star as shown",
            f"star: {self.star.name}",
            "origin: SIMULATED, truth known" if self.star.simulated else "origin: OBSERVED, truth unknown",
            f"S/N_g: {self.snr:.4g} shown, {self.star.own:.4g} its own; seed: {self.seed}",
            "wavelengths [Angstrom]; flux, sigma, truth and methods in units of the continuum;",
            "continuum: in the file's flux unit, multiply by it to come back; empty flux = not measured",
            f"sigma: quoted sigma times {blue:.3f} (blue arm), {red:.3f} (red arm)",
            *([f"without an uncertainty of their own: {bare}"] if bare else []),
        ]
        lines = [re.sub(r"\s+", " ", line) for line in head]  # a header card must not break out of its comment
        return "".join(f"# {line}\n" for line in lines) + self.table().to_csv(index=False, float_format="%.6g")

    @property
    def file(self) -> str:
        """A file name for `csv`: the star's name and the S/N, letters and digits only."""
        return re.sub(r"[^A-Za-z0-9.+-]+", "_", f"trueline_{self.star.name}_snr{self.snr:.3g}") + ".csv"
